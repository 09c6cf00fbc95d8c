"""Request bodies: bounded while they arrive, then read as JSON or as text."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast.errors import PayloadTooLargeError
from holdfast.http.errors import BadRequestError, error_response


class NoBody:
    """The absence of a body, which differs from the JSON `null`."""


NO_BODY = NoBody()


class BoundedBodies:
    """Stops reading a request body that is over the limit, whatever its Content-Length said."""

    def __init__(self, app: ASGIApp, bytes_max: int) -> None:
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isdecimal() and int(announced) > self._bytes_max:
            error = self._too_large()
            await error_response(413, str(error), error)(scope, receive, send)
            return
        arrived = 0

        async def bounded() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > self._bytes_max:
                raise self._too_large()
            return message

        await self._app(scope, bounded, send)

    def _too_large(self) -> PayloadTooLargeError:
        return PayloadTooLargeError(
            f"The request body is over {self._bytes_max:,} bytes. Store it elsewhere and pass a reference, "
            "or raise limits.payload_bytes_max."
        )


def media_type(request: Request) -> str:
    """Return the content type in lower case, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_json(request: Request, complaint: str) -> Any:
    """Return the body as plain JSON values, or NO_BODY if there is none.

    Raises:
        BadRequestError: with the complaint, if it is no JSON; `{error}` in it becomes the reason.
        PayloadTooLargeError: if it is over the limit.
    """
    body = await request.body()
    if not body.strip():
        return NO_BODY
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(
            complaint.replace("{error}", str(error)), f"The request body is no JSON: {error}"
        ) from error


async def read_text(request: Request) -> str | NoBody:
    """Return the body as text, or NO_BODY if there is none.

    Raises:
        BadRequestError: if it is not UTF-8.
        PayloadTooLargeError: if it is over the limit.
    """
    body = await request.body()
    if not body:
        return NO_BODY
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise BadRequestError("The request body is not UTF-8 text", str(error)) from error
