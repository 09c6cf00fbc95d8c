"""`holdfast.connect`: a client of a host elsewhere."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypedDict, Unpack

from holdfast.errors import ConfigurationError
from holdfast.model.limits import Limits
from holdfast.model.options import check_names

if TYPE_CHECKING:
    import ssl

    import httpx

    from holdfast.client.client import Client

_TIMEOUT_S: Final = 30.0
_ATTEMPTS_MAX: Final = 4
_CONNECTIONS_MAX: Final = 100
_ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024


class ConnectOptions(TypedDict, total=False):
    """Options of a connection to a host."""

    key: str | None
    """What the host asks for; it is sent as a header, never in the URL."""
    allow_insecure: bool
    """Let the key travel over plain HTTP to another machine."""
    timeout_s: float
    """How long one request may take, besides what it waits for; 30."""
    attempts_max: int
    """How often a request is sent that did not arrive, or is safe to repeat; 4."""
    connections_max: int
    """Connections for requests, and as many again for waits; 100."""
    answer_bytes_max: int
    """The size of one answer; 256 MiB."""
    limits: Limits | None
    """Those of the host, if they are not the usual ones."""
    ssl_context: ssl.SSLContext | None
    """What is trusted, if not the usual authorities."""
    transport: httpx.AsyncBaseTransport | None
    """Instead of sockets: a proxy, or the app itself in a test."""


def check_connection(url: str, options: ConnectOptions) -> str:
    """Return the URL of a host as it is used.

    Raises:
        ConfigurationError: if the URL or an option cannot be meant.
    """
    from holdfast.client.address import parse_address

    check_names(options, ConnectOptions, "connect")
    key = options.get("key")
    if key is not None and not (isinstance(key, str) and key and key.isascii() and key.isprintable()):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise ConfigurationError("The key must be a text of at least one printable ASCII character.")
    timeout_s = options.get("timeout_s", _TIMEOUT_S)
    if not (isinstance(timeout_s, int | float) and math.isfinite(timeout_s) and timeout_s > 0):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
        raise ConfigurationError(f"timeout_s={timeout_s!r} must be a number of seconds, more than zero.")
    for name in ("attempts_max", "connections_max", "answer_bytes_max"):
        value = options.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigurationError(f"{name}={value!r} must be a whole number of at least 1.")
    allow_insecure = options.get("allow_insecure", False)
    return parse_address(url, has_key=key is not None, allow_insecure=allow_insecure).url


@asynccontextmanager
async def connect(url: str, **options: Unpack[ConnectOptions]) -> AsyncGenerator[Client]:
    """Return a client of a host elsewhere: `async with connect("https://host:7071", key=...) as client: ...`.

    Its methods are those of `host.client`, and raise the same errors. Nothing is sent before the first request.

    Options: see `ConnectOptions`.

    Raises:
        ConfigurationError: if the URL or an option cannot be meant, or the host refuses the key.
        HostUnreachableError: by a request, if the host cannot be reached.
        CommitFailedError: by a request, if its answer was lost and it cannot be repeated safely.
    """
    # Here, not above: most programs that import a client connect later, and some of them never.
    from holdfast.client.client import Client
    from holdfast.client.exchange import HttpExchange
    from holdfast.client.origins import random_id
    from holdfast.client.remote import RemoteTaskHub
    from holdfast.codec.converter import JsonConverter

    address = check_connection(url, options)
    limits = options.get("limits") or Limits()
    exchange = HttpExchange(
        address,
        options.get("key"),
        timeout_s=options.get("timeout_s", _TIMEOUT_S),
        connections_max=options.get("connections_max", _CONNECTIONS_MAX),
        answer_bytes_max=options.get("answer_bytes_max", _ANSWER_BYTES_MAX),
        transport=options.get("transport"),
        ssl_context=options.get("ssl_context"),
    )
    try:
        attempts_max = options.get("attempts_max", _ATTEMPTS_MAX)
        hub = RemoteTaskHub(exchange, address, random_id, attempts_max=attempts_max)
        yield Client(hub, JsonConverter(payload_bytes_max=limits.payload_bytes_max), limits)
    finally:
        await exchange.close()
