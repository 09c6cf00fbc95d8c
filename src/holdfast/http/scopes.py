"""What a key must allow for each endpoint: one table, and what holds each route to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from holdfast.errors import ConfigurationError
from holdfast.http.audit import Audit
from holdfast.http.errors import error_response
from holdfast.http.keys import ANYBODY, Caller
from holdfast.model.access import RANK, AccessScope

_CALLER: Final = "holdfast.caller"


_BASES: Final = r"/(?:api|runtime/webhooks/durabletask|admin/extensions/DurableTaskExtension)"

_RULES: Final[Mapping[str, Sequence[tuple[str, AccessScope]]]] = MappingProxyType(
    {
        "GET": [("/.+", "read")],
        "DELETE": [("/.+", "admin")],
        "POST": [
            (r"/hub/(?:get|list|count|wait)_\w+", "read"),
            ("/hub/(?:export_history|query)", "read"),
            (r"/hub/(?:purge\w*|break_lock|clean_entities)", "admin"),
            ("/instances/[^/]+/query/.+", "read"),
            ("/makeprimary", "admin"),
            # Some of what comes with Holdfast purges.
            ("/orchestrators/(?i:BuiltIn)::.+", "admin"),
            ("/bulk/.+", "admin"),
            ("/.+", "operate"),
        ],
    }
)
"""By method: the first one that fits a path, with the names of its parameters, decides. What none fits is refused."""

_PATTERNS: Final = MappingProxyType(
    {
        method: re.compile(_BASES + "(?:" + "|".join(f"({path})" for path, _ in rules) + ")")
        for method, rules in _RULES.items()
    }
)
"""All rules for a method as one pattern; the number of its group is that of the rule."""


def needed_scope(method: str, path: str) -> AccessScope:
    """Return what a key must allow for an endpoint.

    Raises:
        ConfigurationError: if no rule says that.
    """
    wanted = "GET" if method == "HEAD" else method
    found = _PATTERNS[wanted].fullmatch(path) if wanted in _PATTERNS else None
    if found is not None and found.lastindex is not None:
        return _RULES[wanted][found.lastindex - 1][1]
    raise ConfigurationError(f"No rule says which keys may {method} {path}; add one to the table in http/scopes.py.")


def scope_for_builtins(method: str, path: str) -> AccessScope:
    """Return the same where what comes with Holdfast is named in the place for a function."""
    return needed_scope(method, path.replace("{functionName}", "BuiltIn::Any"))


def scope_of(method: str, path: str) -> AccessScope:
    """Return the same for a request; below a mount it may have any method, which is then refused to most."""
    try:
        return needed_scope(method, path)
    except ConfigurationError:
        return "admin"


def _stricter(first: AccessScope, second: AccessScope) -> AccessScope:
    return first if RANK[first] >= RANK[second] else second


def _filled(template: str, scope: Scope) -> str:
    """Return a template with what the request has in its places: some names need more than others."""
    filled = template
    for name, value in scope.get("path_params", {}).items():
        for place in (f"{{{name}}}", f"{{{name}:path}}"):
            filled = filled.replace(place, str(value))
    return filled


def with_caller(scope: Scope, caller: Caller) -> Scope:
    """Return the scope of a request whose sender is known."""
    return {**scope, _CALLER: caller}


def caller_of(scope: Scope) -> Caller:
    """Return who has sent a request; where no guard stands in front, anybody may."""
    return scope.get(_CALLER, ANYBODY)


def governed(routes: Iterable[BaseRoute], audit: Audit) -> list[BaseRoute]:
    """Return routes that ask each caller for the scope of the table, and put into the audit log what may change.

    Below a mount, the last part of the path counts as the name of what is asked for.

    Raises:
        ConfigurationError: for a route that has no scope.
    """
    return [_governed(route, audit) for route in routes]


def _governed(route: BaseRoute, audit: Audit) -> BaseRoute:
    if isinstance(route, Route) and route.methods:
        return _GovernedRoute(route, audit)
    if isinstance(route, Mount):
        needed_scope("POST", f"{route.path}/any")
        return Mount(route.path, _Governed(route.app, f"{route.path}/{{name}}", audit, is_mount=True))
    raise ConfigurationError(f"{route!r} has no methods, so no rule can say which keys it needs.")


class _GovernedRoute(Route):
    def __init__(self, route: Route, audit: Audit) -> None:
        super().__init__(route.path, route.endpoint, methods=list(route.methods or ()))
        for method in route.methods or ():
            needed_scope(method, route.path)
        self.app = _Governed(route.app, route.path, audit)


class _Governed:
    """One endpoint, for callers that may use it."""

    def __init__(self, app: ASGIApp, template: str, audit: Audit, *, is_mount: bool = False) -> None:
        self._app = app
        self._template = template
        self._audit = audit
        self._is_mount = is_mount

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = self._template
        if self._is_mount:
            path = path.replace("{name}", scope["path"].rpartition("/")[2] or "-")
        needed = _stricter(scope_of(scope["method"], path), scope_of(scope["method"], _filled(path, scope)))
        caller = caller_of(scope)
        app = self._app if caller.may(needed) else _refusal(caller, needed)
        if needed == "read":
            await app(scope, receive, send)
        else:
            await self._audit.run(app, scope, receive, send, caller=caller.name, action=f"{scope['method']} {path}")


def _refusal(caller: Caller, needed: AccessScope) -> ASGIApp:
    return error_response(403, f"The key {caller.name!r} allows to {caller.scope} only; this needs one for {needed}")


def scopes_of(routes: Sequence[BaseRoute]) -> dict[tuple[str, str], AccessScope]:
    """Return what each endpoint needs, by method and path."""
    return {
        (method, route.path): needed_scope(method, route.path)
        for route in routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
