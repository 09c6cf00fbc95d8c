"""A schema as it is at one moment: everything in it, read in one transaction while hosts may go on writing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

import asyncpg
import msgspec

from holdfast.errors import StorageError
from holdfast.storage.port import InboxRow, InstanceRow, StoredInstance
from holdfast.storage.postgres.connections import Connection, close, connect
from holdfast.storage.postgres.failures import FAILURES, explain
from holdfast.storage.postgres.location import Location
from holdfast.storage.postgres.ownership import read_hub
from holdfast.storage.postgres.queries import OFFLINE, QUERIES
from holdfast.storage.postgres.store import load_stored
from holdfast.storage.transfer import COLUMNS, AnyRow, HubRecord, Orphan, row_of, with_arrivals

_T = TypeVar("_T")

ORPHAN_TABLES: Final = ("activity", "timer", "child", "history", "operation_key")
_PAGE: Final = 100
"""Rows at once: each may hold several payloads."""
_SILENCE_S: Final = 600
"""How long whoever reads may do something else: an old snapshot keeps the server from tidying up."""


class Session:
    """One transaction that reads, for code that blocks: the loop runs only while something is asked of the server."""

    def __init__(self, runner: asyncio.Runner, location: Location) -> None:
        self.location = location
        self._runner = runner
        self._numbers = itertools.count()
        self._connection = self._run(connect(location, None))

    def begin(self) -> None:
        settings = (
            f'SET LOCAL search_path = "{self.location.schema}", pg_temp; SET LOCAL statement_timeout = 0; '
            f"SET LOCAL idle_in_transaction_session_timeout = {_SILENCE_S}000"
        )
        self.run(lambda c: c.execute(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {settings}"))

    def run(self, ask: Callable[[Connection], Awaitable[_T]]) -> _T:
        async def asking() -> _T:
            return await ask(self._connection)

        return self._run(asking())

    def fetch(self, query: str, *parameters: object) -> list[asyncpg.Record]:
        return self.run(lambda connection: connection.fetch(query, *parameters))

    def stream(self, query: str) -> Iterator[asyncpg.Record]:
        """Return what a query finds, page by page."""
        # A name of its own: the driver remembers which columns a FETCH of this text has.
        cursor = f"reading_{next(self._numbers)}"
        self.fetch(OFFLINE["declare"].format(cursor=cursor, query=query.removesuffix(";")))
        fetch = OFFLINE["fetch"].format(rows=_PAGE, cursor=cursor)
        while page := self.fetch(fetch):
            yield from page
        self.fetch(OFFLINE["close"].format(cursor=cursor))

    def end(self) -> None:
        self._run(close(self._connection))

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        try:
            return self._runner.run(work)
        except FAILURES as error:
            raise StorageError(explain(error, self.location)) from error


class PostgresSnapshot:
    """Reads in one transaction. Nothing here holds more than a page in memory."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.partition_count = session.run(lambda c: _count_partitions(c, session.location))

    def hub(self) -> HubRecord | None:
        rows = self._session.fetch(OFFLINE["read_hub"])
        return msgspec.convert(dict(rows[0]), HubRecord) if rows else None

    def remarks(self) -> list[str]:
        owners = [_remark(*row) for row in self._session.fetch(OFFLINE["owners"])]
        return [*owners, "The files of the database are not checked: that is for its own tools, such as pg_amcheck."]

    def damages(self) -> list[str]:
        return []

    def rows(self, table: str) -> Iterator[AnyRow]:
        query = OFFLINE.get(f"all_{table}") or OFFLINE["all_rows"].format(
            table=table, columns=", ".join(COLUMNS[table])
        )
        for columns in self._session.stream(query):
            yield row_of(table, columns)

    def instances(self, after: str, limit: int) -> list[InstanceRow]:
        return [InstanceRow(**row) for row in self._session.fetch(QUERIES["instances"], after, limit)]

    def load(self, instance_ids: list[str]) -> list[StoredInstance]:
        found = self._session.run(lambda connection: load_stored(connection, instance_ids, self.partition_count))
        arrivals = self._session.fetch(OFFLINE["arrivals_for"], instance_ids)
        return with_arrivals(found, (InboxRow(*row) for row in arrivals))

    def episodes(self, partition: int, execution_id: str) -> list[tuple[int, str]]:
        found = self._session.fetch(OFFLINE["episodes"], partition, execution_id)
        return [(row[0], row[1]) for row in found]

    def orphans(self) -> Iterator[Orphan]:
        for table in ORPHAN_TABLES:
            for row in self._session.stream(OFFLINE[f"orphaned_{table}"]):
                yield _orphan(table, tuple(row.values()))

    def doubled_executions(self) -> Iterator[tuple[str, str, str]]:
        for row in self._session.stream(OFFLINE["doubled_executions"]):
            yield row[0], row[1], row[2]

    def messages_about(self, text: str) -> list[str]:
        return [row[0] for row in self._session.fetch(OFFLINE["messages_about"], text)]

    def messages_to_nobody(self) -> Iterator[tuple[str, int, str]]:
        for row in self._session.stream(OFFLINE["messages_to_nobody"]):
            yield row[0], row[1], row[2]


def _remark(owner: str, released: bool, was_freed: bool, lease_left_s: float) -> str:
    if was_freed:
        return f"An owner, {owner}, was taken for dead when its lease was over; others may have what it owned."
    if released:
        return f"The last owner, {owner}, has left in good order."
    if lease_left_s > 0:
        return f"It is owned by {owner}, whose lease runs for {lease_left_s:.1f} s more unless it renews it."
    return f"The last owner, {owner}, did not leave in good order; its lease is over."


def _orphan(table: str, row: tuple[Any, ...]) -> Orphan:
    if table == "history":
        return Orphan(table, None, cast(tuple[str, int], row))
    key = row if table == "operation_key" else row[1:]
    return Orphan(table, cast(str, row[0]), cast(tuple[str, str | int], key))


async def _count_partitions(connection: Connection, location: Location) -> int:
    try:
        return (await read_hub(connection, location)).partition_count
    except asyncpg.UndefinedTableError as error:
        raise StorageError(
            f"There is no task hub at {location.text} yet: it is created when a host first starts on it."
        ) from error


@contextmanager
def open_snapshot(location: Location) -> Generator[PostgresSnapshot, None, None]:
    """Read a schema as it is now.

    Raises:
        StorageError: if there is no task hub, or it cannot be read; also out of the block.
    """
    with asyncio.Runner() as runner:
        session = Session(runner, location)
        try:
            session.begin()
            yield PostgresSnapshot(session)
        finally:
            session.end()
