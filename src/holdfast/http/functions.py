"""The app's own HTTP functions, below `/api`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.client.client import Client
from holdfast.codec.converter import JsonConverter
from holdfast.errors import HoldfastError, OverloadedError, PayloadError
from holdfast.http.errors import Answering, Readiness, holdfast_response
from holdfast.http.management import HostView
from holdfast.http.waits import Places
from holdfast.model.converter import DataConverter
from holdfast.registry.routes import Handler, Route

_TOO_MANY: Final = (
    "requests to the app's own routes are served already; its handler has not seen this one. "
    "Try again later, or raise http_routes_max."
)


def function_routes(host: HostView, client: Client, routes: Iterable[Route]) -> list[StarletteRoute]:
    """Return the routes of the app's handlers, which share the places for requests at the same time.

    What a handler returns that is no response is sent as JSON.
    """
    # A response is not stored, so the bound on payloads does not concern it.
    converter = JsonConverter(payload_bytes_max=sys.maxsize)
    places = Places(host.config.http_routes_max, _TOO_MANY)
    found = [_function_route(host, client, route, converter) for route in routes]
    for route in found:
        route.app = _bounded(route.app, places, host)
    return found


def _bounded(app: ASGIApp, places: Places, host: Readiness) -> ASGIApp:
    """Return an app that holds a place until its answer is sent, which may be a stream."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(places.place())
            except OverloadedError as error:
                await holdfast_response(error, host)(scope, receive, send)
            else:
                await app(scope, receive, send)

    return answer


def _function_route(host: Readiness, client: Client, route: Route, converter: DataConverter) -> StarletteRoute:
    handler: Handler = route.handler

    async def endpoint(request: Request) -> Response:
        result: object = await handler(request, client)
        if isinstance(result, Response):
            return result
        try:
            return Response(converter.encode(result), media_type="application/json")
        except PayloadError as error:
            # The fault of the handler, not of whoever sent the request.
            raise HoldfastError(f"The handler of {route.path!r} returned what cannot be sent: {error}") from error

    return StarletteRoute(f"/api{route.path}", Answering(host, endpoint), methods=list(route.methods))
