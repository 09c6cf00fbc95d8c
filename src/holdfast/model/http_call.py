"""One outgoing HTTP request, its answer, and which request an answer asks for next."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import msgspec

from holdfast.errors import InvalidInputError, PayloadError
from holdfast.model.http_uri import parse_uri, resolve_location

HEADERS_MAX = 100
HEADER_CHARACTERS_MAX = 64 * 1024
POLL_DELAY_MAX = timedelta(days=1)

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")
_METHOD = re.compile(r"[A-Z][A-Z0-9_-]{0,31}")
_NOT_IN_VALUES = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([A-Za-z0-9_.:+-]{1,40})", re.IGNORECASE)

_FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""They say where a message ends and whom it is for. Two opinions about that are how requests are smuggled."""
_CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization", "x-functions-key"})
"""They were meant for one origin, and are not shown to another."""
_KEY_OF_FUNCTIONS = frozenset({"x-functions-key"})


class DurableHttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as an orchestrator asks for it; `check_request` says what is wrong with it.

    `token_source` names one of the host's token sources, which gives the bearer token when the request is sent; so
    no token is stored.
    """

    method: str
    uri: str
    headers: dict[str, str] = {}
    content: str | None = None
    token_source: str | None = None


class DurableHttpResponse(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of any status. The names of headers are in lower case; `content` is None when there is no body."""

    status_code: int
    headers: dict[str, str] = {}
    content: str | None = None

    def __post_init__(self) -> None:
        if any(name != name.lower() for name in self.headers):
            msgspec.structs.force_setattr(
                self, "headers", {name.lower(): value for name, value in self.headers.items()}
            )

    def header(self, name: str) -> str | None:
        """Return the value of a header, whose name may be in any case."""
        return self.headers.get(name.lower())

    def json(self) -> object:
        """Return the content, read as JSON.

        Raises:
            PayloadError: if it is none.
        """
        try:
            return msgspec.json.decode(self.content or "")
        except (msgspec.DecodeError, RecursionError) as error:
            raise PayloadError(f"The content of the HTTP response ({self.status_code}) is no JSON: {error}") from error


def check_request(request: DurableHttpRequest) -> None:
    """Refuse what cannot be sent, or would be read differently by different servers.

    Raises:
        InvalidInputError: saying what to change; it repeats neither the URI nor the value of a header.
    """
    if not _METHOD.fullmatch(request.method) or request.method == "CONNECT":
        raise InvalidInputError(
            f"{request.method[:40]!r} is no method that can be called; write it in capitals, such as 'GET' or 'POST'."
        )
    parse_uri(request.uri)
    _check_headers(request.headers)
    if request.token_source is not None and _given(request.headers, "authorization") is not None:
        raise InvalidInputError("The request has both a token source and a header Authorization; leave one out.")
    encoded_content(request)


def _check_headers(headers: dict[str, str]) -> None:
    if len(headers) > HEADERS_MAX:
        raise InvalidInputError(f"The request has {len(headers)} headers; at most {HEADERS_MAX} are sent.")
    characters = sum(len(name) + len(value) for name, value in headers.items())
    if characters > HEADER_CHARACTERS_MAX:
        raise InvalidInputError(
            f"The headers have {characters:,} characters; at most {HEADER_CHARACTERS_MAX:,} are sent."
        )
    seen: set[str] = set()
    for name, value in headers.items():
        lower = name.lower()
        if not _TOKEN.fullmatch(name):
            raise InvalidInputError(f"{name[:100]!r} is no name for a header: it may have letters, digits and -.")
        if lower in seen:
            raise InvalidInputError(f"The header {lower!r} is given twice, in different case; give it once.")
        if lower in _FRAMING:
            raise InvalidInputError(f"The header {lower!r} follows from the request and cannot be given; leave it out.")
        if _NOT_IN_VALUES.search(value):
            raise InvalidInputError(f"The header {lower!r} has a line break or a control character in it; remove it.")
        seen.add(lower)


def _given(headers: dict[str, str], name: str) -> str | None:
    return next((value for each, value in headers.items() if each.lower() == name), None)


def charset_of(content_type: str) -> str | None:
    """Return the charset that a Content-Type names, as it is written there."""
    found = _CHARSET.search(content_type)
    return found[1] if found else None


def encoded_content(request: DurableHttpRequest) -> bytes | None:
    """Return the body, in the charset of the request's Content-Type, or else UTF-8.

    Raises:
        InvalidInputError: if the charset is unknown, or lacks a character of the content.
    """
    if request.content is None:
        return None
    charset = charset_of(_given(request.headers, "content-type") or "") or "utf-8"
    try:
        return request.content.encode(charset)
    except (LookupError, UnicodeError) as error:
        raise InvalidInputError(
            f"The content cannot be encoded as {charset}: {error}. Name another charset in Content-Type."
        ) from None


def redirect_request(request: DurableHttpRequest, response: DurableHttpResponse) -> DurableHttpRequest | None:
    """Return the request that a redirect asks for, or None if the response is none (RFC 9110, 15.4).

    Another origin gets no credentials.

    Raises:
        DurableHttpError: if the Location cannot be called.
    """
    location = response.header("location")
    if location is None or response.status_code not in (301, 302, 303, 307, 308):
        return None
    to_get = (response.status_code == 303 and request.method != "HEAD") or (
        response.status_code in (301, 302) and request.method == "POST"
    )
    return _sent_on(request, location, to_get=to_get, without=frozenset())


def poll_request(request: DurableHttpRequest, response: DurableHttpResponse) -> DurableHttpRequest | None:
    """Return the request that asks whether accepted work is done, or None unless the response is 202 with a Location.

    The key of a functions host is left out, since such a host puts one into the Location; another origin gets no
    credentials at all.

    Raises:
        DurableHttpError: if the Location cannot be called.
    """
    location = response.header("location")
    if location is None or response.status_code != 202:
        return None
    return _sent_on(request, location, to_get=True, without=_KEY_OF_FUNCTIONS)


def _sent_on(
    request: DurableHttpRequest, location: str, *, to_get: bool, without: frozenset[str]
) -> DurableHttpRequest:
    uri = resolve_location(request.uri, location)
    same_origin = parse_uri(uri).origin == parse_uri(request.uri).origin
    dropped = without if same_origin else without | _CREDENTIALS
    return DurableHttpRequest(
        method="GET" if to_get else request.method,
        uri=uri,
        headers={
            name: value
            for name, value in request.headers.items()
            if name.lower() not in dropped and not (to_get and name.lower().startswith("content-"))
        },
        content=None if to_get else request.content,
        token_source=request.token_source if same_origin else None,
    )


def poll_delay(response: DurableHttpResponse, now: datetime, default: timedelta) -> timedelta:
    """Return how long to wait before asking again: what `Retry-After` says, at most a day, or else the default.

    Args:
        now: aware; what a date in the header is compared with.
    """
    value = (response.header("retry-after") or "").strip()
    if re.fullmatch(r"[0-9]+", value):
        # So many digits are more than a day, and perhaps more than an int may have.
        return min(timedelta(seconds=int(value)), POLL_DELAY_MAX) if len(value) < 10 else POLL_DELAY_MAX
    from email.utils import parsedate_to_datetime  # here, since it takes longer to import than all of this room

    try:
        instant = parsedate_to_datetime(value)
        aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)
        return max(timedelta(0), min(aware - now, POLL_DELAY_MAX))
    except (ValueError, TypeError, OverflowError):  # no date, or none of a calendar
        return default
