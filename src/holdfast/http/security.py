"""Who may send requests: whoever has the key, or, without one, programs of this machine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.client.address import is_loopback
from holdfast.client.origins import utc_now
from holdfast.http.audit import Audit
from holdfast.http.errors import error_response
from holdfast.http.keys import KeySource
from holdfast.http.scopes import with_caller

_NAMES_MAX: Final = 128
"""Of how many hosts and origins it is remembered whether they are this machine."""


class LoopbackOnly:
    """Answers this machine only.

    A web page elsewhere must not reach the app through the browser of someone here: its requests carry its own name,
    as `Host` if that name was rebound to 127.0.0.1, as `Origin` if it posts here. Origins that CORS allows may.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str] = ()) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._is_local = functools.lru_cache(_NAMES_MAX)(_is_local)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._comes_from_here(Headers(scope=scope)):
            await self._app(scope, receive, send)
        else:
            refusal = "Without a key, only requests to localhost from pages of localhost are answered"
            await error_response(403, refusal)(scope, receive, send)

    def _comes_from_here(self, headers: Headers) -> bool:
        if not self._is_local(f"//{headers.get('host', '')}"):
            return False
        origin = headers.get("origin")
        return origin is None or origin in self._origins or self._is_local(origin)


class Guard:
    """Lets requests through to an app whose key is valid, and tells it whose they are."""

    def __init__(self, app: ASGIApp, keys: KeySource, audit: Audit, now: Callable[[], datetime] = utc_now) -> None:
        self._app = app
        self._keys = keys
        self._audit = audit
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller = self._keys.current().find(_presented(scope), self._now())
        if caller is None:
            self._audit.refused(scope, 401)
            refusal = "The request has no valid key; pass it as ?code= or in the header x-functions-key"
            await error_response(401, refusal)(scope, receive, send)
        elif caller.elsewhere:
            self._audit.refused(scope, 403, caller=caller.name)
            refusal = (
                f"The key {caller.name!r} is for other task hubs than that of this host: {', '.join(caller.elsewhere)}"
            )
            await error_response(403, refusal)(scope, receive, send)
        else:
            await self._app(with_caller(scope, caller), receive, send)


def _presented(scope: Scope) -> tuple[bytes, bytes]:
    """Return the keys of a request, from its query and from its header: each as it came over the wire."""
    in_query = QueryParams(scope["query_string"]).get("code", "")
    in_header = Headers(scope=scope).get("x-functions-key", "")
    return in_query.encode("utf-8", "replace"), in_header.encode("latin-1")


def _is_local(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:  # brackets that do not match
        return False
