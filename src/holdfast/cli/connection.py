"""From `--url` and `--key`, or what is configured, to a client of a host that runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Final, TypeVar

import typer

from holdfast.cli.configured import Connection, configured_connection
from holdfast.cli.errors import leaving
from holdfast.client.client import Client
from holdfast.client.connection import connect

T = TypeVar("T")

DEFAULT_URL: Final = ""
"""Says nothing: what is configured holds."""

Url = Annotated[
    str,
    typer.Option(
        "--url",
        help="Where the host is. If it is not given: HOLDFAST_URL, or `url` in holdfast.toml; else where "
        "`holdfast run` would listen, http://127.0.0.1:7071 if nothing is configured.",
        rich_help_panel="Connection",
        show_default=False,
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="The key of the host. Better in HOLDFAST_KEY, or as `key` in holdfast.toml: others can see command lines.",
        rich_help_panel="Connection",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text: one document, or one per line for lists.")]


def client_of(connection: Connection) -> AbstractAsyncContextManager[Client]:
    """Return what connects to a host while it is entered."""
    return connect(connection.url, key=connection.key)


def with_client(url: str, key: str | None, work: Callable[[Client], Awaitable[T]]) -> T:
    """Do something with a client, and leave with a message and an exit code if that fails.

    What `url` and `key` do not say is taken from the configuration.
    """
    with leaving():
        connection = configured_connection(url, key)
        # Programs that a command starts, such as an editor, have no use for it.
        os.environ.pop("HOLDFAST_KEY", None)
        return asyncio.run(_work(connection, work))


async def _work(connection: Connection, work: Callable[[Client], Awaitable[T]]) -> T:
    async with client_of(connection) as client:
        return await work(client)
