"""A file as it is at one moment: everything in it, read in one transaction while a host may go on writing."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import msgspec

from holdfast.errors import StorageError
from holdfast.storage.port import (
    ActivityRow,
    ChildRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    OperationKeyRow,
    StoredInstance,
    TimerRow,
)
from holdfast.storage.sqlite.connection import explain, open_reader
from holdfast.storage.sqlite.queries import OFFLINE, QUERIES
from holdfast.storage.sqlite.store import instance_row, load_stored

AnyRow: TypeAlias = InstanceRow | HistoryRow | InboxRow | ActivityRow | TimerRow | ChildRow | OperationKeyRow

TABLES: Final[dict[str, type[AnyRow]]] = {
    "instance": InstanceRow,
    "history": HistoryRow,
    "inbox": InboxRow,
    "activity": ActivityRow,
    "timer": TimerRow,
    "child": ChildRow,
    "operation_key": OperationKeyRow,
}

_ORPHAN_TABLES: Final = ("activity", "timer", "child", "history", "operation_key")
_COMPLAINTS_MAX: Final = 100


class HubRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a hub is besides its rows."""

    hub_id: str
    partition_count: int
    created_at: int
    node_id: str
    incarnation: int
    lsn: int
    released: bool
    epoch: int


class Orphan(msgspec.Struct, frozen=True):
    """A row, or the whole history of an execution, that belongs to nobody. `key` identifies it in its table."""

    table: str
    instance_id: str | None
    key: tuple[str, str | int]


class Snapshot:
    """Reads in one transaction. Nothing here holds more than a page in memory."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def hub(self) -> HubRecord | None:
        """Return what the hub is, or None if no host has come up on it yet."""
        row = self._connection.execute(OFFLINE["read_hub"]).fetchone()
        if row is None:
            return None
        return msgspec.convert(dict(zip(HubRecord.__struct_fields__, row, strict=True)), HubRecord, strict=False)

    def damages(self) -> list[str]:
        """Return what SQLite itself finds wrong with the file."""
        found = self._connection.execute(f"PRAGMA quick_check({_COMPLAINTS_MAX})").fetchall()
        return [] if found == [("ok",)] else [str(row[0]) for row in found]

    def rows(self, table: str) -> Iterator[AnyRow]:
        """Return all rows of one of `TABLES`, in the order of its key."""
        kind = TABLES[table]
        names = kind.__struct_fields__
        for columns in self._connection.execute(OFFLINE[f"all_{table}"]):
            yield kind(**dict(zip(names, columns, strict=True)))

    def instances(self, after: str, limit: int) -> list[InstanceRow]:
        """Return the rows of orchestrations and entities with ids greater than `after`, ascending by id."""
        return [instance_row(row) for row in self._connection.execute(QUERIES["instances"], (after, limit))]

    def load(self, instance_ids: list[str]) -> list[StoredInstance]:
        """Return all that is stored of instances, except their histories."""
        return load_stored(self._connection, instance_ids)

    def episodes(self, execution_id: str) -> list[tuple[int, str]]:
        """Return the episodes of an execution with their numbers, in order."""
        return self._connection.execute(OFFLINE["episodes"], (execution_id,)).fetchall()

    def orphans(self) -> Iterator[Orphan]:
        """Return what belongs to no instance, or to one that has ended."""
        for table in _ORPHAN_TABLES:
            for row in self._connection.execute(OFFLINE[f"orphaned_{table}"]):
                yield _orphan(table, row)

    def doubled_executions(self) -> Iterator[tuple[str, str, str]]:
        """Return executions that two instances have, with two of these."""
        yield from self._connection.execute(OFFLINE["doubled_executions"])

    def messages_about(self, text: str) -> list[str]:
        """Return messages to anybody that have a text in them, at most 1,000."""
        return [row[0] for row in self._connection.execute(OFFLINE["messages_about"], (text,))]

    def messages_to_nobody(self) -> Iterator[tuple[str, int, str]]:
        """Return (instance id, message id, event) of the first message to each orchestration that is not there."""
        yield from self._connection.execute(OFFLINE["messages_to_nobody"])


def _orphan(table: str, row: tuple[Any, ...]) -> Orphan:
    match table:
        case "history":
            return Orphan(table, None, cast(tuple[str, int], row))
        case "operation_key":
            return Orphan(table, cast(str, row[0]), cast(tuple[str, str], row))
        case _:
            return Orphan(table, cast(str, row[0]), cast(tuple[str, int], row[1:]))


@contextmanager
def open_snapshot(path: Path) -> Generator[Snapshot, None, None]:
    """Read a file as it is now.

    Raises:
        StorageError: if there is no task hub, or it cannot be read; also out of the block.
    """
    connection = open_reader(path)
    try:
        connection.execute("BEGIN")
        yield Snapshot(connection)
    except sqlite3.Error as error:
        raise StorageError(explain(error, path)) from error
    finally:
        connection.close()
