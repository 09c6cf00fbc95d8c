"""A store that commands only read: without owning it, so that a host may run on it meanwhile."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from holdfast.cli.errors import CommandError
from holdfast.storage.memory import MemoryStore
from holdfast.storage.open_store import open_store
from holdfast.storage.port import Store


@asynccontextmanager
async def reading(url: str) -> AsyncGenerator[Store, None]:
    """Open what a URL names, to be read.

    Raises:
        CommandError: for a store in memory.
        ConfigurationError: if the URL names no store.
    """
    store = open_store(url)
    if isinstance(store, MemoryStore):
        raise CommandError("A store in memory belongs to the process that made it; name a file, as sqlite:///file.db.")
    try:
        yield store
    finally:
        await store.close()
