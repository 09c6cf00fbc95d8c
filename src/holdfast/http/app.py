"""The ASGI app of a host: health, management API, HTTP functions, behind one guard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.client.client import Client
from holdfast.http.audit import Audit
from holdfast.http.body import BoundedBodies
from holdfast.http.cors import cors_middleware
from holdfast.http.dispatch import FirstFit
from holdfast.http.errors import json_response, not_found_response
from holdfast.http.forwarded import ForwardedHost
from holdfast.http.functions import function_routes
from holdfast.http.hub import hub_mount
from holdfast.http.keys import Caller, FixedKeys, KeyFile, KeyRing, KeySource
from holdfast.http.links import LinkEndpoints
from holdfast.http.management import HostView
from holdfast.http.payload import Links
from holdfast.http.request_ids import RequestIds
from holdfast.http.routing import management_routes
from holdfast.http.scopes import governed, with_caller
from holdfast.http.security import Guard, LoopbackOnly
from holdfast.model.access import AccessKey
from holdfast.registry import routes as registered

_NOBODY: Final = Caller(name=None, scope="operate")
"""Who uses what needs no key."""


@dataclass(frozen=True, kw_only=True)
class Protection:
    """Who may send requests to an app, and how.

    Args:
        key: what each request may carry, but for `/healthz`, to do everything.
        keys: more keys, or the file that has them; without any key, everybody may do everything.
        link_secrets: what signed links are signed with, besides those in the file; without any, it takes none in.
        cors_origins: where pages of browsers may come from.
        loopback_only: refuse what browsers send on behalf of pages of other hosts; for a server without a key.
    """

    key: str | None = field(default=None, repr=False)
    keys: Sequence[AccessKey] | Path | None = None
    link_secrets: Sequence[str] = field(default=(), repr=False)
    cors_origins: Sequence[str] = ()
    loopback_only: bool = False

    def key_source(self, hub: str | None) -> KeySource | None:
        if isinstance(self.keys, Path):
            return KeyFile(self.keys, self.key, hub=hub)
        if self.key is None and self.keys is None:
            return None
        return FixedKeys(KeyRing(self.keys or (), self.key, hub=hub))


def make_http_app(
    host: HostView, client: Client, routes: tuple[registered.Route, ...], protection: Protection
) -> Starlette:
    """Return the ASGI app of a host, which somebody else starts and stops.

    Raises:
        ConfigurationError: for a key, a secret or an origin that cannot be.
    """

    async def health(_: Request) -> Response:
        return json_response({"ready": host.is_ready}, 200 if host.is_ready else 503)

    links, audit, keys = Links(), Audit(), protection.key_source(host.config.task_hub)
    # The app's own functions come first: they may replace the built-in start below /api.
    with_key = [
        *function_routes(host, client, [each for each in routes if not each.is_anonymous]),
        *governed(management_routes(host, client, links), audit),
    ]
    without_key = [
        *function_routes(host, client, [each for each in routes if each.is_anonymous]),
        *governed(LinkEndpoints(host, client, protection.link_secrets, keys=keys).routes(), audit),
    ]
    bytes_max = host.config.limits.payload_bytes_max
    named: ASGIApp = FirstFit(with_key, not_found_response)
    if host.config.http_forwarded_host == "trust":
        named = ForwardedHost(named)
    guarded: ASGIApp = BoundedBodies(named, bytes_max)
    # It has a bound of its own for bodies.
    guarded = FirstFit(governed([hub_mount(host, client)], audit), guarded)
    if keys is not None:
        guarded = Guard(guarded, keys, audit)
    everything: ASGIApp = FirstFit(_open(without_key, bytes_max), guarded)
    if protection.loopback_only:
        everything = LoopbackOnly(everything, protection.cors_origins)
    app = _App(
        FirstFit([Route("/healthz", health)], everything),
        middleware=[
            Middleware(RequestIds),
            *cors_middleware(protection.cors_origins, loopback_only=protection.loopback_only),
        ],
    )
    app.state.holdfast_links = links
    return app


class _App(Starlette):
    """An app that serves another one, without the layers of Starlette itself, which cost a fifth of a request.

    Nothing here needs them: endpoints answer for their errors, and for any other the server answers that it has failed.
    """

    def __init__(self, served: ASGIApp, middleware: Sequence[Middleware]) -> None:
        super().__init__(middleware=middleware)
        self._served = served

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await super().__call__(scope, receive, send)
        else:  # the server starts or stops; or a websocket, of which there are none
            await self.router(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        app = self._served
        for middleware, args, kwargs in reversed(self.user_middleware):
            app = middleware(app, *args, **kwargs)
        return app


def _open(routes: Sequence[BaseRoute], bytes_max: int) -> list[BaseRoute]:
    """Let everybody use some routes: what needs no key has authorised itself, if it needs that."""

    def opened(app: ASGIApp) -> ASGIApp:
        bounded = BoundedBodies(app, bytes_max)

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            await bounded(with_caller(scope, _NOBODY), receive, send)

        return answer

    for route in routes:
        if isinstance(route, Route):
            route.app = opened(route.app)
    return list(routes)
