"""One call against real servers: what is sent, what comes back, and what is never sent."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from http_kit import CERTIFICATE, OTHER, PUBLIC, Internet, Site, answer, call, never

from holdfast import HostStoppedError, InvalidInputError, NotRegisteredError
from holdfast.durable_http.body import read_body
from holdfast.durable_http.caller import HttpCaller
from holdfast.durable_http.policy import HttpCallPolicy
from holdfast.errors import DurableHttpError, DurableHttpTimeoutError, ForbiddenAddressError
from holdfast.model.http_call import DurableHttpRequest, DurableHttpResponse, poll_request

NAMES = {"api.example": [[PUBLIC]], "other.example": [[OTHER]]}


async def never_asked(origin: str) -> str:
    raise AssertionError(f"a token was asked for, for {origin}")


async def token(origin: str) -> str:
    return f"token-for-{origin.partition('//')[2]}"


def test_a_request_arrives_as_it_was_given() -> None:
    async def scenario() -> None:
        given = {"X_A": "1", "x_a": "2", "Retry_After": "5", "retry_after": "6", "Content_Type": "application/json"}
        site = Site({"/orders": answer(201, "é{}".encode(), **given)})
        async with site.running():
            internet = Internet(NAMES, {PUBLIC: site})
            request = DurableHttpRequest(
                method="POST", uri="http://api.example:8080/orders?q=a b", headers={"X-Trace": " 7 "}, content="é"
            )
            response = await call(request, internet=internet)
        assert response == DurableHttpResponse(
            status_code=201,
            headers={
                "content-length": "4",
                "connection": "close",
                "x-a": "1, 2",
                "retry-after": "5",
                "content-type": "application/json",
            },
            content="é{}",
        )
        (received,) = site.received
        assert (received.method, received.target, received.content) == ("POST", "/orders?q=a%20b", "é".encode())
        assert received.headers.pop("user-agent").startswith("holdfast")
        assert received.headers == {
            "host": "api.example:8080",
            "accept": "*/*",
            "accept-encoding": "identity",
            "content-type": "text/plain; charset=utf-8",
            "x-trace": "7",
            "content-length": "2",
        }

    asyncio.run(scenario())


def test_what_the_caller_gives_replaces_the_defaults() -> None:
    async def scenario() -> None:
        given = {"User-Agent": "me", "ACCEPT": "text/css", "content-type": "text/plain; charset=latin-1"}
        async with Site().running() as site:
            uri = f"http://127.0.0.1:{site.port}/"
            request = DurableHttpRequest(method="PUT", uri=uri, headers=given, content="é")
            response = await call(request, allowed_hosts=("127.0.0.1",))
            await call(DurableHttpRequest(method="POST", uri=uri), allow_internal=True)
        assert (response.status_code, response.content) == (404, None)
        first, second = site.received
        assert first.headers.items() >= {name.lower(): value for name, value in given.items()}.items()
        assert first.content == b"\xe9"
        assert (second.headers["content-length"], "content-type" in second.headers) == ("0", False)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("content", "headers", "text"),
    [
        (b"\xe9", {"Content-Type": "text/plain; charset=ISO-8859-1"}, "é"),
        (b"\xef\xbb\xbf{}", {"Content-Type": "application/json"}, "{}"),
        (b"a\xff\x00", {"Content-Type": "image/png"}, "a\ufffd\x00"),
        (b"a\xff", {"Content-Type": "text/plain; charset=punycode"}, "a\ufffd"),
        (b"a", {"Content-Type": "text/plain; charset=iso-8859-12"}, "a"),
        (gzip.compress(b"zip", mtime=0), {"Content-Encoding": "GZIP"}, "zip"),
        (b"", {"Content-Encoding": "gzip"}, None),
    ],
)
def test_a_body_is_read_as_text(content: bytes, headers: dict[str, str], text: str | None) -> None:
    async def scenario() -> None:
        async with Site({"/": answer(200, content, **headers)}).running() as site:
            response = await call(f"http://127.0.0.1:{site.port}", allow_internal=True)
        assert response.content == text
        assert text is None or "content-encoding" not in response.headers

    asyncio.run(scenario())


ENDLESS = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000


@pytest.mark.parametrize(
    ("page", "complaint"),
    [
        (ENDLESS, "over 100,000 bytes"),
        (answer(200, b"x" * 100_001), "over 100,000 bytes"),
        (answer(200, gzip.compress(b"x" * 50_000_000, mtime=0), Content_Encoding="gzip"), "over 100,000 bytes"),
        (answer(200, gzip.compress(b"x" * 9_000, mtime=0)[:-4], Content_Encoding="gzip"), "damaged"),
        (answer(200, gzip.compress(b"x", mtime=0) * 2, Content_Encoding="gzip"), "damaged"),
        (answer(200, b"x", Content_Encoding="gzip"), "damaged"),
        (answer(200, b"x", Content_Encoding="br"), "encoding 'br'"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx", "was not answered: .*complete message body"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "was not answered: "),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000, "was not answered: "),
        (b"", "was not answered: Server disconnected"),
    ],
    ids=[
        "endless",
        "large",
        "large when decompressed",
        "compressed and cut off",
        "compressed twice",
        "not compressed",
        "brotli",
        "cut off",
        "not HTTP",
        "large headers",
        "nothing",
    ],
)
def test_an_answer_that_cannot_be_taken_is_an_error(page: bytes, complaint: str) -> None:
    async def scenario() -> None:
        async with Site({"/": page}).running() as site:
            with pytest.raises(DurableHttpError, match=complaint):
                await call(f"http://127.0.0.1:{site.port}", allow_internal=True, response_bytes_max=100_000)

    asyncio.run(scenario())


def test_a_body_is_not_decompressed_beyond_the_limit() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield compressed

    compressed = gzip.compress(bytes(50_000_000), mtime=0)
    tracemalloc.start()
    try:
        with pytest.raises(DurableHttpError, match="over 100,000 bytes"):
            asyncio.run(read_body(chunks(), "gzip", 100_000))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_server_that_does_not_answer_is_given_up() -> None:
    async def scenario() -> None:
        async with Site({"/": never}).running() as site:
            with pytest.raises(
                DurableHttpTimeoutError, match=r"GET http://127\.0\.0\.1:\d+ .* within 0\.05 s"
            ) as error:
                await call(f"http://127.0.0.1:{site.port}/?code=secret", timeout_s=0.05, allow_internal=True)
            assert isinstance(error.value, TimeoutError)
            for nonsense in (0, -1, float("nan"), float("inf")):
                with pytest.raises(InvalidInputError, match="timeout"):
                    await call(f"http://127.0.0.1:{site.port}/", timeout_s=nonsense, allow_internal=True)

    asyncio.run(scenario())


def test_where_nobody_listens_the_error_says_so() -> None:
    async def scenario() -> None:
        async with Site().running() as site:
            closed = site.port
        with pytest.raises(
            DurableHttpError, match=rf"GET http://127\.0\.0\.1:{closed} was not answered: .*(111|refused|61)"
        ):
            await call(f"http://127.0.0.1:{closed}/?code=secret", allow_internal=True)
        with pytest.raises(DurableHttpError, match=r"'nowhere\.example' cannot be resolved"):
            await call("http://nowhere.example", internet=Internet(NAMES, {}))

    asyncio.run(scenario())


# What is never sent


@pytest.mark.parametrize(
    "uri",
    [
        "http://localhost",
        "http://127.0.0.1",
        "http://127.1",
        "http://2130706433",
        "http://0x7f000001",
        "http://0",
        "http://[::1]",
        "http://[::ffff:127.0.0.1]",
        "http://[64:ff9b::7f00:1]",
    ],
)
def test_an_internal_host_is_refused_however_it_is_written(uri: str) -> None:
    async def scenario() -> None:
        async with Site().running() as site:
            with pytest.raises(ForbiddenAddressError, match=r"Nothing was sent"):
                await call(f"{uri}:{site.port}/")
        assert site.received == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["169.254.169.254"], [PUBLIC, "10.0.0.1"], ["::ffff:10.0.0.1"], ["fd00:ec2::254"]]
)
def test_a_name_with_an_internal_address_is_refused_unless_it_is_named(addresses: list[str]) -> None:
    async def scenario() -> None:
        async with Site().running() as site:
            normal = [str(ip_address(each)) for each in addresses]
            internet = Internet({"inside.example": [addresses]}, dict.fromkeys([PUBLIC, *normal], site))
            with pytest.raises(ForbiddenAddressError, match="is internal"):
                await call("http://inside.example", internet=internet)
            with pytest.raises(ForbiddenAddressError, match="is internal"):
                await call("http://inside.example", internet=internet, allowed_hosts=("*.example",))
            with pytest.raises(ForbiddenAddressError, match="not among allowed_hosts"):
                await call("http://inside.example", internet=internet, allowed_hosts=("inside.example:81",))
            tokens = {"identity": never_asked}
            request = DurableHttpRequest(method="GET", uri="http://inside.example", token_source="identity")
            with pytest.raises(ForbiddenAddressError, match="not among allowed_hosts"):
                await call(request, internet=internet, tokens=tokens, allowed_hosts=("api.example",))
            assert internet.connected == []
            assert site.received == []
            assert (await call("http://inside.example", internet=internet, allowed_hosts=("inside.example",))).headers

    asyncio.run(scenario())


def test_the_address_that_was_checked_is_the_one_connected_to() -> None:
    """A name that means a public host when it is checked, and an internal one when it is looked up again."""

    async def scenario() -> None:
        async with Site({"/": answer(200)}).running() as public, Site().running() as inside:
            internet = Internet({"rebinding.example": [[PUBLIC], ["127.0.0.1"]]}, {PUBLIC: public, "127.0.0.1": inside})
            assert (await call("http://rebinding.example", internet=internet)).status_code == 200
            assert (internet.resolved, internet.connected) == (["rebinding.example"], [PUBLIC])
            assert public.received[0].headers["host"] == "rebinding.example"
            with pytest.raises(ForbiddenAddressError):
                await call("http://rebinding.example", internet=internet)
        assert inside.received == []

    asyncio.run(scenario())


def test_the_next_address_is_tried_where_nobody_listens() -> None:
    async def scenario() -> None:
        async with Site({"/": answer(200)}).running() as site:
            internet = Internet({"api.example": [[OTHER, PUBLIC]]}, {PUBLIC: site})
            assert (await call("http://api.example", internet=internet)).status_code == 200
        assert internet.connected == [OTHER, PUBLIC]

    asyncio.run(scenario())


# Redirects


def test_a_redirect_to_an_internal_host_is_refused() -> None:
    async def scenario() -> None:
        async with Site().running() as public, Site().running() as inside:
            internet = Internet(
                {**NAMES, "inside.example": [["10.0.0.1"]]}, {PUBLIC: public, "10.0.0.1": inside, "127.0.0.1": inside}
            )
            for location in ("http://inside.example/", f"http://127.0.0.1:{inside.port}/", "//[::1]/", "ftp://x/"):
                public.pages["/"] = answer(302, Location=location)
                with pytest.raises(DurableHttpError) as error:
                    await call("http://api.example/", internet=internet)
                assert isinstance(error.value, ForbiddenAddressError) is not location.startswith("ftp")
        assert set(internet.connected) == {PUBLIC}
        assert inside.received == []

    asyncio.run(scenario())


def test_credentials_stay_with_their_origin() -> None:
    """And they do not come back with a redirect that does."""

    async def scenario() -> None:
        async with Site().running() as first, Site().running() as second:
            internet = Internet(NAMES, {PUBLIC: first, OTHER: second})
            first.pages = {"/": answer(307, Location="/next"), "/next": answer(308, Location="http://other.example/")}
            second.pages = {"/": answer(307, Location="http://api.example/end")}
            headers = {"Authorization": "Basic x", "cookie": "a=b", "x-functions-key": "k", "X-Trace": "7"}
            request = DurableHttpRequest(method="POST", uri="http://api.example", headers=headers, content="c")
            assert (await call(request, internet=internet)).status_code == 404
            bare = DurableHttpRequest(method="POST", uri="http://api.example", content="c", token_source="identity")
            assert (await call(bare, internet=internet, tokens={"identity": token})).status_code == 404
        for start in (0, 3):
            assert [each.target for each in first.received[start : start + 3]] == ["/", "/next", "/end"]
            with_credentials = [
                {"authorization", "cookie", "x-functions-key"} & each.headers.keys() for each in first.received
            ]
            expected = {"authorization", "cookie", "x-functions-key"} if start == 0 else {"authorization"}
            assert with_credentials[start : start + 3] == [expected, expected, set()]
        assert first.received[3].headers["authorization"] == "Bearer token-for-api.example"
        for received in second.received:
            assert (received.method, received.content) == ("POST", b"c")
            assert {"authorization", "cookie", "x-functions-key"}.isdisjoint(received.headers)
        assert second.received[0].headers["x-trace"] == "7"

    asyncio.run(scenario())


@pytest.mark.parametrize(("most", "sent"), [(0, 1), (1, 2), (5, 6)])
def test_a_redirect_loop_ends(most: int, sent: int) -> None:
    async def scenario() -> None:
        async with Site({"/": answer(302, Location="/")}).running() as site:
            uri = f"http://127.0.0.1:{site.port}"
            if most == 0:
                assert (await call(uri, allow_internal=True, redirects_max=0)).status_code == 302
            else:
                with pytest.raises(DurableHttpError, match=f"more than {most} times"):
                    await call(uri, allow_internal=True, redirects_max=most)
        assert len(site.received) == sent

    asyncio.run(scenario())


def test_a_location_means_the_same_after_a_redirect() -> None:
    async def scenario() -> None:
        async with Site().running() as first, Site().running() as second:
            first.pages = {"/": answer(307, Location="http://other.example/jobs/new")}
            second.pages = {"/jobs/new": answer(202, Location="1")}
            request = DurableHttpRequest(method="POST", uri="http://api.example", headers={"authorization": "x"})
            response = await call(request, internet=Internet(NAMES, {PUBLIC: first, OTHER: second}))
        assert poll_request(request, response) == DurableHttpRequest(method="GET", uri="http://other.example/jobs/1")

    asyncio.run(scenario())


# Tokens, TLS, and the life of a caller


def test_without_a_token_nothing_is_sent() -> None:
    async def broken(origin: str) -> str:
        raise RuntimeError("no network")

    async def split(origin: str) -> str:
        return "a\r\nX-Evil: 1"

    async def scenario() -> None:
        async with Site().running() as site:
            tokens = {"broken": broken, "split": split, "identity": token}
            for name, error, complaint in (
                ("unknown", NotRegisteredError, "'unknown'.*Known: broken, identity, split"),
                ("broken", DurableHttpError, "RuntimeError: no network"),
                ("split", DurableHttpError, "no token"),
            ):
                request = DurableHttpRequest(method="GET", uri=f"http://127.0.0.1:{site.port}", token_source=name)
                with pytest.raises(error, match=complaint):
                    await call(request, tokens=tokens, allow_internal=True)
        assert site.received == []

    asyncio.run(scenario())


def test_the_certificate_is_verified_for_the_name_and_not_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        site = Site({"/": answer(200)})
        async with site.running(tls=True):
            internet = Internet(NAMES, {PUBLIC: site, OTHER: site})
            with pytest.raises(DurableHttpError, match="CERTIFICATE_VERIFY_FAILED"):
                await call("https://api.example", internet=internet)
            monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
            assert (await call("https://api.example", internet=internet)).status_code == 200
            with pytest.raises(DurableHttpError, match=r"not valid for 'other\.example'"):
                await call("https://other.example", internet=internet)
        assert internet.connected == [PUBLIC, PUBLIC, OTHER]
        assert site.names_asked_for == ["api.example", "api.example", "other.example"]
        assert len(site.received) == 1

    asyncio.run(scenario())


def test_many_calls_share_a_caller_until_it_is_closed() -> None:
    async def scenario() -> None:
        async with Site({"/": answer(200, b"x", Set_Cookie="a=b; Path=/")}).running() as site:
            caller = HttpCaller(HttpCallPolicy(allow_internal=True, connections_max=2), {})
            request = DurableHttpRequest(method="GET", uri=f"http://127.0.0.1:{site.port}")
            responses = await asyncio.gather(*(caller.call(request, 30) for _ in range(20)))
            assert {each.content for each in responses} == {"x"}
            assert not any("cookie" in each.headers for each in site.received)
            await caller.close()
            await caller.close()
            with pytest.raises(HostStoppedError):
                await caller.call(request, None)

    asyncio.run(scenario())


def test_a_program_that_makes_no_calls_does_not_load_an_http_library() -> None:
    code = "import sys, holdfast.durable_http.caller; sys.exit('httpcore' in sys.modules or 'anyio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[2])
