"""HTTP functions of an app, as plain values; the http room serves them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import msgspec

Handler: TypeAlias = Callable[[Any, Any], Awaitable[Any]]
"""Takes the Starlette request and the client; returns a Starlette response, or a value to be sent as JSON."""


class Route(msgspec.Struct, frozen=True):
    """`path` begins with a slash and is served below `/api`; `methods` are in capitals."""

    path: str
    methods: tuple[str, ...]
    handler: Handler
    is_anonymous: bool = False
    """It asks for no key, even if the host has one."""
