"""The ASGI app of a host: health, management API, HTTP functions, behind one guard."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, Router

from holdfast.client.client import Client
from holdfast.http.body import BoundedBodies
from holdfast.http.errors import json_response, not_found_response
from holdfast.http.forwarded import ForwardedHost
from holdfast.http.functions import function_routes
from holdfast.http.hub import hub_mount
from holdfast.http.management import HostView
from holdfast.http.payload import Links
from holdfast.http.routing import management_routes
from holdfast.http.security import Guard
from holdfast.registry import routes as registered


def make_http_app(
    host: HostView,
    client: Client,
    routes: tuple[registered.Route, ...],
    *,
    key: str | None,
    loopback_only: bool = False,
) -> Starlette:
    """Return the ASGI app of a host, which somebody else starts and stops.

    Args:
        key: what each request must carry, but for `/healthz`.
        loopback_only: refuse what browsers send on behalf of pages of other hosts; for a server without a key.
    """

    async def health(_: Request) -> Response:
        return json_response({"ready": host.is_ready}, 200 if host.is_ready else 503)

    links = Links(key)
    # The app's own functions come first: they may replace the built-in start below /api.
    inside = Router(
        [
            *function_routes(host, client, routes),
            *management_routes(host, client, links),
        ],
        redirect_slashes=False,
    )
    named = ForwardedHost(inside) if host.config.http_forwarded_host == "trust" else inside
    bounded = BoundedBodies(named, host.config.limits.payload_bytes_max)
    everything = Router([hub_mount(host, client), Mount("", bounded)], redirect_slashes=False)
    guarded = Guard(everything, key=key, loopback_only=loopback_only)
    app = Starlette(
        routes=[Route("/healthz", health), Mount("", guarded)],
        exception_handlers={HTTPException: not_found_response},
    )
    app.state.holdfast_links = links
    return app
