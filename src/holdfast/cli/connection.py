"""From `--url` and `--key` to a client of a host that runs."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Final, TypeVar

import msgspec
import typer

from holdfast.cli.errors import leaving
from holdfast.client.client import Client
from holdfast.client.connection import connect

T = TypeVar("T")

DEFAULT_URL: Final = "http://127.0.0.1:7071"

Url = Annotated[
    str, typer.Option("--url", envvar="HOLDFAST_URL", help="Where the host is.", rich_help_panel="Connection")
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="HOLDFAST_KEY",
        help="The key of the host. Better in HOLDFAST_KEY: others can see command lines.",
        rich_help_panel="Connection",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of text: one document, or one per line for lists.")]


class Connection(msgspec.Struct, frozen=True):
    """Where a host is, and what it wants to see."""

    url: str
    key: str | None

    def __repr__(self) -> str:
        return f"Connection({self.url!r})"


def client_of(connection: Connection) -> AbstractAsyncContextManager[Client]:
    """Return what connects to a host while it is entered."""
    return connect(connection.url, key=connection.key)


def with_client(url: str, key: str | None, work: Callable[[Client], Awaitable[T]]) -> T:
    """Do something with a client, and leave with a message and an exit code if that fails."""
    # Programs that a command starts, such as an editor, have no use for it.
    os.environ.pop("HOLDFAST_KEY", None)
    with leaving():
        return asyncio.run(_work(Connection(url, key or None), work))


async def _work(connection: Connection, work: Callable[[Client], Awaitable[T]]) -> T:
    async with client_of(connection) as client:
        return await work(client)
