"""Who may send requests: whoever has the key, or, without one, programs of this machine."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.client.address import is_loopback
from holdfast.http.errors import error_response


class Guard:
    """Lets a request through to an app, or refuses it.

    With `loopback_only`, a web page elsewhere must not reach the app through the browser of someone on this machine:
    its requests carry its own name, as `Host` if that name was rebound to 127.0.0.1, as `Origin` if it posts here.
    """

    def __init__(self, app: ASGIApp, *, key: str | None, loopback_only: bool) -> None:
        self._app = app
        self._key = None if key is None else key.encode()
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await error_response(*refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        if self._loopback_only and not _is_local(headers):
            return 403, "Without a key, only requests to localhost from pages of localhost are answered"
        if self._key is not None and not _has_key(self._key, scope, headers):
            return 401, "The request has no valid key; pass it as ?code= or in the header x-functions-key"
        return None


def _is_local(headers: Headers) -> bool:
    if not is_loopback(_hostname(f"//{headers.get('host', '')}")):
        return False
    origin = headers.get("origin")
    return origin is None or is_loopback(_hostname(origin))


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # brackets that do not match
        return ""


def _has_key(key: bytes, scope: Scope, headers: Headers) -> bool:
    in_query = QueryParams(scope["query_string"]).get("code", "").encode("utf-8", "replace")
    in_header = headers.get("x-functions-key", "").encode("latin-1")  # as it came over the wire
    # Both are compared, always and in constant time, so that the time tells nothing.
    matches = hmac.compare_digest(in_query, key), hmac.compare_digest(in_header, key)
    return any(matches)
