"""Writing to a schema that no host owns: taking over all rows of another hub, and removing what belongs to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import groupby, islice
from typing import Final, TypeVar

import asyncpg

from holdfast.errors import StorageError, StoreInUseError
from holdfast.storage.postgres.connections import Connection, Connections
from holdfast.storage.postgres.location import Location
from holdfast.storage.postgres.ownership import prepare, read_hub
from holdfast.storage.postgres.queries import OFFLINE
from holdfast.storage.postgres.snapshot import ORPHAN_TABLES, open_snapshot
from holdfast.storage.transfer import COLUMNS, TABLE_OF, TABLES, AnyRow, HubRecord, Snapshot, columns_for

_T = TypeVar("_T")

_PAGE: Final = 100
"""Rows at once: each may hold several payloads."""
_MENDING_S: Final = 86_400.0
_PATIENCE: Final = (
    "SET LOCAL lock_timeout = 3000; SET LOCAL statement_timeout = 0; "
    "SET LOCAL idle_in_transaction_session_timeout = 600000"
)
"""For what takes as long as it takes; but whoever has the owner's row works with it."""


class WholeSchema:
    """A task hub in a schema, as one thing."""

    def __init__(self, location: Location) -> None:
        self._location = location

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        return open_snapshot(self._location)

    def restore(self, hub: HubRecord, rows: Iterable[AnyRow]) -> None:
        asyncio.run(self._write(lambda connection: _restore(connection, self._location, hub, rows)))

    def remove_orphans(self) -> int:
        return asyncio.run(self._write(lambda connection: _remove_orphans(connection, self._location)))

    async def _write(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        connections = Connections(self._location)
        try:
            return await connections.write(work)
        finally:
            await connections.close()


async def _restore(connection: Connection, location: Location, hub: HubRecord, rows: Iterable[AnyRow]) -> None:
    await prepare(connection, location)
    await _keep_out(connection, location)
    for query in (OFFLINE["is_used"], *(OFFLINE["has_rows"].format(table=table) for table in TABLES)):
        if await connection.fetchval(query):
            raise StorageError(
                f"{location.text} is in use already: an import needs a schema that is new or empty; name one with "
                "?schema=."
            )
    partition_count = (await read_hub(connection, location)).partition_count
    await connection.execute(OFFLINE["restore_hub"], hub.hub_id, hub.created_at, hub.incarnation)
    await connection.execute(OFFLINE["restore_node"], hub.lsn, hub.released)
    await connection.execute(OFFLINE["restore_partitions"], hub.released)
    for table, page in _pages(rows):
        try:
            await connection.copy_records_to_table(
                table, records=[columns_for(row, partition_count) for row in page], columns=COLUMNS[table]
            )
        except asyncpg.UniqueViolationError as error:
            raise StorageError(
                f"Nothing was stored: a row of the hub that was to come is there twice ({error.detail or error})."
            ) from error


def _pages(rows: Iterable[AnyRow]) -> Iterator[tuple[str, list[AnyRow]]]:
    """Return rows of one table that follow each other, so many at once."""
    for kind, following in groupby(rows, type):
        while page := list(islice(following, _PAGE)):
            yield TABLE_OF[kind], page


async def _remove_orphans(connection: Connection, location: Location) -> int:
    await _keep_out(connection, location)
    return sum([await connection.fetchval(OFFLINE[f"mend_{table}"], timeout=_MENDING_S) for table in ORPHAN_TABLES])


async def _keep_out(connection: Connection, location: Location) -> None:
    """Keep hosts from the hub until the end of the transaction.

    Raises:
        StoreInUseError: if one owns it.
    """
    await connection.execute(_PATIENCE)
    try:
        owners = await connection.fetch(OFFLINE["living_owners"])
    except asyncpg.LockNotAvailableError as error:
        raise StoreInUseError(f"{location.text} is in use: somebody is just changing it, or taking it.") from error
    if owners:
        raise StoreInUseError(
            f"{location.text} is in use by {owners[0][0]}. Stop that one first; if it died, its lease ends by itself."
        )
