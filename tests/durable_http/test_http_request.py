"""What is refused before it is sent, and which request an answer asks for next."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import InvalidInputError, PayloadError
from holdfast.errors import DurableHttpError
from holdfast.model.http_call import (
    DurableHttpRequest,
    DurableHttpResponse,
    check_request,
    poll_delay,
    poll_request,
    redirect_request,
)
from holdfast.model.http_uri import parse_uri

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULT = timedelta(seconds=30)
DAY = timedelta(days=1)
FAST = settings(max_examples=100, deadline=None, derandomize=True)
GIVEN = {
    "Authorization": "Bearer x",
    "Cookie": "a=b",
    "Proxy-Authorization": "Basic x",
    "X-Functions-Key": "k",
    "Content-Type": "application/json",
    "X-Trace": "7",
}
ORDER = DurableHttpRequest(method="POST", uri="https://api.example/orders/new?a=1", headers=GIVEN, content="{}")
WITH_TOKEN = DurableHttpRequest(method="POST", uri=ORDER.uri, content="{}", token_source="identity")


@pytest.mark.parametrize("method", ["get", "", "GE T", "GET\r\n", "CONNECT", "G" * 33])
def test_a_method_that_cannot_be_sent_is_refused(method: str) -> None:
    with pytest.raises(InvalidInputError, match="capitals"):
        check_request(DurableHttpRequest(method=method, uri="http://api.example"))


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("ftp://api.example/", "absolute"),
        ("/orders", "absolute"),
        ("//api.example/", "absolute"),
        ("http:///orders", "absolute"),
        ("http:\\\\api.example", "absolute"),
        ("file:///etc/passwd", "absolute"),
        ("http://ada:secret@api.example/", "credentials"),
        ("http://ada@api.example/", "credentials"),
        ("http://good.example\\@evil.example/", "credentials"),
        ("http://api.example:port/", "host"),
        ("http://api.example:0/", "port"),
        ("http://api.example:65536/", "port"),
        ("http://[::1/", "read"),
        ("http://[fe80::1%eth0]/", "host"),
        ("http://a..b/", "host"),
        ("http://good.example\\.evil.example/", "host"),
        ("http://münchen.example/", "ASCII"),
        ("http://api.example/\r\nX: y", "control"),
        ("http://api\t.example/", "control"),
        (" http://api.example/", "blanks"),
        ("http://api.example/" + "a" * 8192, "characters"),
    ],
)
def test_a_uri_that_cannot_be_called_is_refused_without_showing_its_secrets(uri: str, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint) as refusal:
        check_request(DurableHttpRequest(method="GET", uri=uri))
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("uri", "normal"),
    [
        ("HTTP://API.Example.:80", "http://api.example/"),
        ("https://api.example:443/a/../b?q=1&r=%20#part", "https://api.example/a/../b?q=1&r=%20"),
        ("http://[0:0::1]:8080?x", "http://[::1]:8080/?x"),
        ("http://api.example/a b/é?q=ü|<x>&r=[1]", "http://api.example/a%20b/%C3%A9?q=%C3%BC%7C%3Cx%3E&r=[1]"),
    ],
)
def test_a_uri_has_one_normal_form(uri: str, normal: str) -> None:
    assert str(parse_uri(uri)) == normal
    assert str(parse_uri(normal)) == normal


@pytest.mark.parametrize(
    ("headers", "complaint"),
    [
        ({"X-A": "1\r\nX-B: 2"}, "line break"),
        ({"X-A": "1\n2"}, "line break"),
        ({"X-A": "\x00"}, "line break"),
        ({"X-A": "\x85"}, "line break"),
        ({"X-A": "\ud800"}, "line break"),
        ({"X-A: 1\r\nX-B": "2"}, "no name"),
        ({"X A": "1"}, "no name"),
        ({"": "1"}, "no name"),
        ({"Ünsinn": "1"}, "no name"),
        ({"X-A": "1", "x-a": "2"}, "twice"),
        ({"Host": "internal.example"}, "'host'"),
        ({"Content-Length": "0"}, "'content-length'"),
        ({"Transfer-Encoding": "chunked"}, "'transfer-encoding'"),
        ({"X-A": "1" * 65_537}, "characters"),
        ({f"X-{number}": "" for number in range(101)}, "101 headers"),
    ],
)
def test_a_header_that_would_break_the_request_is_refused(headers: dict[str, str], complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint):
        check_request(DurableHttpRequest(method="GET", uri="http://api.example", headers=headers))


@pytest.mark.parametrize(
    ("headers", "content", "token_source"),
    [
        ({}, "\ud800", None),
        ({"Content-Type": "text/plain; charset=us-ascii"}, "é", None),
        ({"Content-Type": "text/plain; charset=nonsense"}, "e", None),
        ({"authorization": "Bearer x"}, None, "identity"),
    ],
)
def test_other_contradictions_are_refused(
    headers: dict[str, str], content: str | None, token_source: str | None
) -> None:
    request = DurableHttpRequest(
        method="POST", uri="http://api.example", headers=headers, content=content, token_source=token_source
    )
    with pytest.raises(InvalidInputError):
        check_request(request)


@pytest.mark.parametrize(
    ("location", "uri", "headers"),
    [
        ("/jobs/1?code=x#y", "https://api.example/jobs/1?code=x", {"Authorization", "Cookie", "Proxy-Authorization"}),
        ("status", "https://api.example/orders/status", {"Authorization", "Cookie", "Proxy-Authorization"}),
        ("https://API.example:443/j", "https://api.example/j", {"Authorization", "Cookie", "Proxy-Authorization"}),
        ("//jobs.example/1", "https://jobs.example/1", set[str]()),
        ("http://api.example/j", "http://api.example/j", set[str]()),
        ("https://api.example:8443/j", "https://api.example:8443/j", set[str]()),
        ("/\\jobs.example", "https://api.example/%5Cjobs.example", {"Authorization", "Cookie", "Proxy-Authorization"}),
    ],
)
def test_accepted_work_is_asked_for_with_the_credentials_of_its_origin_only(
    location: str, uri: str, headers: set[str]
) -> None:
    response = DurableHttpResponse(status_code=202, headers={"Location": location})
    polled = poll_request(ORDER, response)
    assert polled == DurableHttpRequest(
        method="GET", uri=uri, headers={name: GIVEN[name] for name in GIVEN if name in headers | {"X-Trace"}}
    )
    with_token = poll_request(WITH_TOKEN, response)
    assert with_token is not None
    assert with_token.token_source == ("identity" if headers else None)


@pytest.mark.parametrize(
    "location", ["ftp://api.example/", "javascript:alert(1)", "https://a:b@c/", "http://[", "/\x00"]
)
def test_a_location_that_cannot_be_called_is_an_error(location: str) -> None:
    for status, following in ((202, poll_request), (307, redirect_request)):
        with pytest.raises(DurableHttpError, match="cannot be followed"):
            following(ORDER, DurableHttpResponse(status_code=status, headers={"location": location}))


def test_what_is_no_redirect_and_no_accepted_work_asks_for_nothing() -> None:
    for status in (200, 201, 202, 300, 304, 307, 404, 503):
        response = DurableHttpResponse(status_code=status)
        assert poll_request(ORDER, response) is None
        assert redirect_request(ORDER, response) is None
    elsewhere = {"location": "/x"}
    assert poll_request(ORDER, DurableHttpResponse(status_code=307, headers=elsewhere)) is None
    assert redirect_request(ORDER, DurableHttpResponse(status_code=202, headers=elsewhere)) is None


@pytest.mark.parametrize(
    ("status", "method", "expected"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (302, "PUT", "PUT"),
        (303, "PUT", "GET"),
        (303, "HEAD", "HEAD"),
        (307, "POST", "POST"),
        (308, "DELETE", "DELETE"),
    ],
)
def test_a_redirect_keeps_or_drops_method_and_content(status: int, method: str, expected: str) -> None:
    request = DurableHttpRequest(method=method, uri=ORDER.uri, headers={"content-type": "text/css"}, content="x")
    following = redirect_request(request, DurableHttpResponse(status_code=status, headers={"location": "/y"}))
    assert following is not None
    kept = expected == method
    assert (following.method, following.content) == (expected, "x" if kept else None)
    assert following.headers == ({"content-type": "text/css"} if kept else {})


@pytest.mark.parametrize(
    ("value", "delay"),
    [
        ("0", timedelta(0)),
        (" 5 ", timedelta(seconds=5)),
        ("86401", DAY),
        ("9" * 5000, DAY),
        ("Thu, 01 Jan 2026 00:01:00 GMT", timedelta(minutes=1)),
        ("Thursday, 01-Jan-26 00:01:00 GMT", timedelta(minutes=1)),
        ("Thu Jan  1 00:01:00 2026", timedelta(minutes=1)),
        ("Wed, 31 Dec 2025 00:00:00 GMT", timedelta(0)),
        ("Fri, 01 Jan 2027 00:00:00 GMT", DAY),
        ("", DEFAULT),
        ("-5", DEFAULT),
        ("1.5", DEFAULT),
        ("٣", DEFAULT),
        ("soon", DEFAULT),
        ("Thu, 99 Jan 2026 00:00:00 GMT", DEFAULT),
    ],
)
def test_retry_after_says_how_long_to_wait(value: str, delay: timedelta) -> None:
    response = DurableHttpResponse(status_code=202, headers={"Retry-After": value})
    assert poll_delay(response, NOW, DEFAULT) == delay


@FAST
@given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d{1,4} [A-Z][a-z]{2} \d{1,6} \d+:\d+:\d+ [+-]\d+"))
def test_whatever_retry_after_says_the_delay_is_bounded(value: str) -> None:
    delay = poll_delay(DurableHttpResponse(status_code=202, headers={"retry-after": value}), NOW, DEFAULT)
    assert timedelta(0) <= delay <= DAY


@FAST
@given(st.datetimes(datetime(1000, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_a_date_is_waited_for_to_the_second(instant: datetime) -> None:
    headers = {"retry-after": format_datetime(instant, usegmt=True)}
    delay = poll_delay(DurableHttpResponse(status_code=202, headers=headers), NOW, DEFAULT)
    assert delay == max(timedelta(0), min(instant.replace(microsecond=0) - NOW, DAY))


def test_a_response_is_read_by_header_and_as_json() -> None:
    response = DurableHttpResponse(status_code=200, headers={"ETag": "x"}, content='{"a": [1]}')
    assert response.headers == {"etag": "x"}
    assert (response.header("Etag"), response.header("age")) == ("x", None)
    assert response.json() == {"a": [1]}
    for content in (None, "", "{"):
        with pytest.raises(PayloadError, match="200"):
            DurableHttpResponse(status_code=200, content=content).json()
