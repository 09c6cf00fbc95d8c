"""Which part of the app a request is for."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send


class FirstFit:
    """Lets the first route that fits a request answer it, and another app answer all others.

    In this protocol a wrong method is a wrong path: such a route does not fit.
    """

    def __init__(self, routes: Sequence[BaseRoute], others: ASGIApp) -> None:
        self._routes = tuple(routes)
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for route in self._routes:
            fit, found = route.matches(scope)
            if fit is Match.FULL:
                scope.update(found)
                await route.handle(scope, receive, send)
                return
        await self._others(scope, receive, send)
