"""A task hub in one SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from holdfast.errors import CommitFailedError, OwnershipLostError, StorageError
from holdfast.storage.port import (
    ActivityRow,
    ArrivalRow,
    ChildRow,
    Fence,
    InboxRow,
    InstanceRow,
    OperationKeyRow,
    Ownership,
    PageKey,
    StoredInstance,
    TimerRow,
    WriteSet,
)
from holdfast.storage.selection import EndedInstance, EntityRow, InstanceConditions
from holdfast.storage.sqlite.connection import error_kind, explain, needs_reopening, open_reader, open_writer
from holdfast.storage.sqlite.network import warn_of_network
from holdfast.storage.sqlite.owner_lock import OwnerLock, describe_owner
from holdfast.storage.sqlite.queries import QUERIES
from holdfast.storage.sqlite.writes import apply, check_fence, encode

_T = TypeVar("_T")
_READERS = 2


_FIRST_PAGE: Final[PageKey] = (-(2**63), "", 0)
_NO_LIMIT: Final = -1


class SqliteStore:
    """The store in the file at `path`, which is created when first acquired.

    All writing is done by one thread with one connection; reads have their own, and see committed data only.
    """

    mail = None
    transactions = None

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._closed = False
        self._lock: OwnerLock | None = None
        self._writer: sqlite3.Connection | None = None
        self._idle_readers: list[sqlite3.Connection] = []
        self._writer_thread = ThreadPoolExecutor(1, "holdfast-sqlite-writer")
        self._reader_threads = ThreadPoolExecutor(_READERS, "holdfast-sqlite-reader")

    async def acquire(self, now: int, *, after_crash: bool | None = None, suspect_deliveries: int = 3) -> Ownership:
        return await self._on_writer(lambda: self._acquire(now, after_crash, suspect_deliveries))

    async def renew(self, fence: Fence) -> bool:
        await self._on_reader(lambda connection: check_fence(connection, fence))
        return False

    async def release(self, fence: Fence) -> None:
        await self._on_writer(lambda: self._release(fence))

    def commit(self, fence: Fence, writes: WriteSet) -> Awaitable[None]:
        try:
            # Here: with the loop busy beside it, the writer would have to ask for the interpreter again and again.
            group = encode(fence, writes)
        except (OverflowError, UnicodeError) as error:
            raise CommitFailedError(f"Nothing was committed to {explain(error, self._path)}") from error
        return self._on_writer(lambda: self._write(lambda connection: apply(connection, fence, writes, group)))

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._close)

    async def load(self, instance_ids: list[str]) -> list[StoredInstance]:
        return await self._on_reader(lambda connection: load_stored(connection, instance_ids))

    async def load_history(
        self, instance_id: str, execution_id: str, first: int = 0, limit: int | None = None
    ) -> list[str]:
        bound = _NO_LIMIT if limit is None else limit
        return [row[0] for row in await self._select("load_history", execution_id, first, bound)]

    async def read_instance(self, instance_id: str) -> InstanceRow | None:
        rows = await self._select("read_instance", instance_id)
        return instance_row(rows[0]) if rows else None

    async def instances(self, after: str, limit: int) -> list[InstanceRow]:
        return [instance_row(row) for row in await self._select("instances", after, limit)]

    async def find_instances(self, wanted: InstanceConditions, after: str, limit: int) -> list[InstanceRow]:
        rows = await self._find("find_instances", wanted, after=after, limit=limit)
        return [instance_row(row) for row in rows]

    async def count_instances(self, wanted: InstanceConditions) -> dict[str, int]:
        return dict(await self._find("count_instances" if wanted.prefix else "count_all_instances", wanted))

    async def ended_instances(
        self, wanted: InstanceConditions, after: tuple[int, str], limit: int
    ) -> list[EndedInstance]:
        bounds = {"after_updated_at": after[0], "after": after[1], "limit": limit}
        return [EndedInstance(*row) for row in await self._find("ended_instances", wanted, **bounds)]

    async def _find(self, query: str, wanted: InstanceConditions, **bounds: str | int) -> list[tuple[Any, ...]]:
        parameters = {
            **msgspec.structs.asdict(wanted),
            "names_excluded": _json_or_none(wanted.names_excluded),
            "statuses": _json_or_none(wanted.statuses),
            "tags": _json_or_none(wanted.tags),
            **bounds,
        }
        return await self._on_reader(lambda connection: connection.execute(QUERIES[query], parameters).fetchall())

    async def entities(
        self,
        prefix: str,
        after: str,
        limit: int,
        *,
        updated_from: int | None = None,
        updated_until: int | None = None,
        with_state: bool = True,
        with_empty: bool = False,
        only_parked: bool = False,
    ) -> list[EntityRow]:
        parameters = {
            "prefix": prefix,
            "after": after,
            "limit": limit,
            "updated_from": updated_from,
            "updated_until": updated_until,
            "with_state": with_state,
            "with_empty": with_empty,
            "only_parked": only_parked,
        }
        rows = await self._on_reader(lambda connection: connection.execute(QUERIES["entities"], parameters).fetchall())
        return [_entity_row(row) for row in rows]

    async def entities_locked(self, after: str, limit: int) -> list[EntityRow]:
        return [_entity_row(row) for row in await self._select("entities_locked", after, limit)]

    async def arrivals(self, after: int, limit: int) -> list[ArrivalRow]:
        return [ArrivalRow(*row) for row in await self._select("arrivals", after, limit)]

    async def instances_with_messages(self, after: str, limit: int) -> list[str]:
        return [row[0] for row in await self._select("instances_with_messages", after, limit)]

    async def activities_visible(self, until: int, limit: int, after: PageKey | None = None) -> list[ActivityRow]:
        rows = await self._select("activities_visible", until, *(after or _FIRST_PAGE), limit)
        return [ActivityRow(*row) for row in rows]

    async def timers_due(self, until: int, limit: int, after: PageKey | None = None) -> list[TimerRow]:
        return [TimerRow(*row) for row in await self._select("timers_due", until, *(after or _FIRST_PAGE), limit)]

    def _on_writer(self, work: Callable[[], _T]) -> Awaitable[_T]:
        self._check_open()
        return asyncio.get_running_loop().run_in_executor(self._writer_thread, work)

    async def _select(self, query: str, *parameters: str | int) -> list[tuple[Any, ...]]:
        return await self._on_reader(lambda connection: connection.execute(QUERIES[query], parameters).fetchall())

    async def _on_reader(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        self._check_open()
        return await asyncio.get_running_loop().run_in_executor(self._reader_threads, self._read, read)

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(f"The store {str(self._path)!r} is closed.")

    def _read(self, read: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            connection = self._idle_readers.pop()
        except IndexError:
            connection = open_reader(self._path)
        try:
            connection.execute("BEGIN")
            result = read(connection)
            connection.execute("COMMIT")
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error | OverflowError | UnicodeError):
                raise StorageError(explain(error, self._path)) from error
            raise
        self._idle_readers.append(connection)
        return result

    def _acquire(self, now: int, after_crash: bool | None, suspect_deliveries: int) -> Ownership:
        lock = self._lock
        if lock is None:
            self._path = self._path.resolve()  # the lock lies beside the file, whatever link leads there
            warn_of_network(self._path)
            self._lock = OwnerLock(self._path)
        try:
            return self._write(lambda connection: _take(connection, now, after_crash, suspect_deliveries))
        except BaseException:
            if lock is None:
                self._drop_ownership()
            raise

    def _release(self, fence: Fence) -> None:
        self._write(lambda connection: _leave(connection, fence))
        self._drop_ownership()

    def _drop_ownership(self) -> None:
        # The last connection to close takes the log into the file and removes it; a later owner finds one file.
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _close(self) -> None:
        self._reader_threads.shutdown()
        while self._idle_readers:
            self._idle_readers.pop().close()
        self._writer_thread.submit(self._drop_ownership)
        self._writer_thread.shutdown()

    def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` in one transaction, and keep apart what certainly was not applied from what may have been."""
        if self._lock is None:
            raise OwnershipLostError(f"This store does not own {str(self._path)!r}; acquire it first.")
        if self._writer is None:
            self._writer = open_writer(self._path)
        connection = self._writer
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            self._abandon(connection, error)
            raise CommitFailedError(f"Nothing was committed to {explain(error, self._path)}") from error
        except BaseException as error:
            self._abandon(connection, error)
            raise
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if error_kind(error) == sqlite3.SQLITE_BUSY:
                self._abandon(connection, error)
                raise CommitFailedError(f"Nothing was committed to {explain(error, self._path)}") from error
            self._discard(connection)
            raise CommitFailedError(
                f"It is not known whether the commit was applied to {explain(error, self._path)}", outcome_unknown=True
            ) from error
        return result

    def _abandon(self, connection: sqlite3.Connection, error: BaseException) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._discard(connection)
        if needs_reopening(error):
            self._discard(connection)

    def _discard(self, connection: sqlite3.Connection) -> None:
        connection.close()
        self._writer = None


def _take(connection: sqlite3.Connection, now: int, after_crash: bool | None, suspect_deliveries: int) -> Ownership:
    connection.execute(QUERIES["create_hub"], {"now": now})
    connection.execute(QUERIES["create_node"])
    connection.execute(QUERIES["create_partition"])
    released = connection.execute(QUERIES["read_node"]).fetchone()[0]
    [(node_id, incarnation, lsn)] = connection.execute(QUERIES["take_node"], {"owner": describe_owner()}).fetchall()
    epochs = dict(connection.execute(QUERIES["take_partitions"], {"node_id": node_id}).fetchall())
    if after_crash if after_crash is not None else not released:
        bounds = {"now": now, "suspect_deliveries": suspect_deliveries}
        connection.execute(QUERIES["count_activity_deliveries"], bounds)
        connection.execute(QUERIES["count_instance_deliveries"], bounds)
    return Ownership(Fence(node_id, incarnation, epochs), lsn, len(epochs))


def _leave(connection: sqlite3.Connection, fence: Fence) -> None:
    released = connection.execute(QUERIES["release_node"], (fence.node_id, fence.incarnation)).rowcount
    if released != 1:
        raise OwnershipLostError("Another process took the task hub over, or it was released already.")


def load_stored(connection: sqlite3.Connection, instance_ids: Iterable[str]) -> list[StoredInstance]:
    """Return what `Store.load` returns."""

    def select(query: str, keys: list[str]) -> list[tuple[Any, ...]]:
        return connection.execute(QUERIES[query], (msgspec.json.encode(keys).decode(),)).fetchall()

    wanted = list(instance_ids)
    rows = [instance_row(columns) for columns in select("load_instances", wanted)]
    by_id = {row.instance_id: StoredInstance(row.instance_id, row, [], [], [], [], []) for row in rows}
    for message in [InboxRow(*columns) for columns in select("load_messages", wanted)]:
        id_ = message.instance_id
        by_id.setdefault(id_, StoredInstance(id_, None, [], [], [], [], [])).messages.append(message)
    executions = [row.execution_id for row in rows]
    for activity in [ActivityRow(*columns) for columns in select("load_activities", executions)]:
        by_id[activity.instance_id].activities.append(activity)
    for timer in [TimerRow(*columns) for columns in select("load_timers", executions)]:
        by_id[timer.instance_id].timers.append(timer)
    for child in [ChildRow(*columns) for columns in select("load_children", executions)]:
        by_id[child.instance_id].children.append(child)
    entities = [id_ for id_ in by_id if id_.startswith("@")]
    for key in [OperationKeyRow(*columns) for columns in select("load_operation_keys", entities)] if entities else []:
        by_id[key.instance_id].operation_keys.append(key)
    return list(by_id.values())


def _json_or_none(value: tuple[str, ...] | dict[str, str]) -> str | None:
    return msgspec.json.encode(value).decode() if value else None


def instance_row(columns: tuple[Any, ...]) -> InstanceRow:
    """Return the row that the columns of a `SELECT *` make."""
    return InstanceRow(*columns)


def _entity_row(columns: tuple[Any, ...]) -> EntityRow:
    fields = dict(zip(EntityRow.__struct_fields__, columns, strict=True))
    fields["has_state"] = bool(fields["has_state"])
    return EntityRow(**fields)
