"""Each request has an id, which its answer carries and the logs name."""

from __future__ import annotations

import re
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast.client.origins import random_id

HEADER: Final = "x-request-id"
_SAFE = re.compile(r"[A-Za-z0-9._\-]{1,64}")
_IN_SCOPE: Final = "holdfast.request_id"


class RequestIds:
    """Takes over the id that a request has, if it can stand in a log as it is, and makes one otherwise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _SAFE.fullmatch(given) else random_id()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        await self._app({**scope, _IN_SCOPE: request_id}, receive, send_with_id)


def request_id_of(scope: Scope) -> str:
    """Return the id of a request, or a stroke if it came past the ASGI app of a host."""
    return scope.get(_IN_SCOPE, "-")
