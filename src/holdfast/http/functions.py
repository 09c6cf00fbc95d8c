"""The app's own HTTP functions, below `/api`."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute

from holdfast.client.client import Client
from holdfast.codec.converter import JsonConverter
from holdfast.errors import HoldfastError, PayloadError
from holdfast.http.errors import Readiness, answering
from holdfast.model.converter import DataConverter
from holdfast.registry.routes import Handler, Route


def function_routes(host: Readiness, client: Client, routes: Iterable[Route]) -> list[StarletteRoute]:
    """Return the routes of the app's handlers; what a handler returns that is no response is sent as JSON."""
    # A response is not stored, so the bound on payloads does not concern it.
    converter = JsonConverter(payload_bytes_max=sys.maxsize)
    return [_function_route(host, client, route, converter) for route in routes]


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

    return StarletteRoute(f"/api{route.path}", answering(host, endpoint), methods=list(route.methods))
