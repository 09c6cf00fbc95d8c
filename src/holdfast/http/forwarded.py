"""The name under which a proxy is known that passes requests on: the URLs in answers must lead there."""

from __future__ import annotations

import re
from typing import Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

_SCHEMES: Final = ("http", "https")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")


class ForwardedHost:
    """Lets an app see the scheme and the host that a proxy was asked for; whoever is asked directly must not use it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(_as_asked_for(scope) if scope["type"] == "http" else scope, receive, send)


def _as_asked_for(scope: Scope) -> Scope:
    headers = Headers(scope=scope)
    # Of several proxies the first one is what the client knows.
    scheme, host = (headers.get(f"x-forwarded-{name}", "").split(",")[0].strip() for name in ("proto", "host"))
    seen = dict(scope)
    if scheme.lower() in _SCHEMES:
        seen["scheme"] = scheme.lower()
    if _HOST.fullmatch(host):
        others = [(name, value) for name, value in scope["headers"] if name.lower() != b"host"]
        seen["headers"] = [(b"host", host.encode("ascii")), *others]
    return seen
