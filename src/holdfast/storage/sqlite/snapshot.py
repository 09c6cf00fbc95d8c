"""A file as it is at one moment: everything in it, read in one transaction while a host may go on writing."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from holdfast.errors import StorageError
from holdfast.storage.port import InboxRow, InstanceRow, StoredInstance
from holdfast.storage.sqlite.connection import explain, open_reader
from holdfast.storage.sqlite.queries import OFFLINE, QUERIES
from holdfast.storage.sqlite.store import instance_row, load_stored
from holdfast.storage.transfer import COLUMNS, AnyRow, HubRecord, Orphan, row_of, with_arrivals

_ORPHAN_TABLES: Final = ("activity", "timer", "child", "history", "operation_key")
_COMPLAINTS_MAX: Final = 100


class SqliteSnapshot:
    """Reads in one transaction. Nothing here holds more than a page in memory."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @property
    def partition_count(self) -> int:
        return 1

    def hub(self) -> HubRecord | None:
        row = self._connection.execute(OFFLINE["read_hub"]).fetchone()
        if row is None:
            return None
        return msgspec.convert(dict(zip(HubRecord.__struct_fields__, row, strict=True)), HubRecord, strict=False)

    def remarks(self) -> list[str]:
        return []

    def damages(self) -> list[str]:
        found = self._connection.execute(f"PRAGMA quick_check({_COMPLAINTS_MAX})").fetchall()
        return [] if found == [("ok",)] else [str(row[0]) for row in found]

    def rows(self, table: str) -> Iterator[AnyRow]:
        query = OFFLINE.get(f"all_{table}") or OFFLINE["all_rows"].format(
            table=table, columns=", ".join(COLUMNS[table])
        )
        for columns in self._connection.execute(query):
            yield row_of(table, columns)

    def instances(self, after: str, limit: int) -> list[InstanceRow]:
        return [instance_row(row) for row in self._connection.execute(QUERIES["instances"], (after, limit))]

    def load(self, instance_ids: list[str]) -> list[StoredInstance]:
        wanted = msgspec.json.encode(instance_ids).decode()
        arrivals = self._connection.execute(OFFLINE["arrivals_for"], (wanted,))
        return with_arrivals(load_stored(self._connection, instance_ids), (InboxRow(*row) for row in arrivals))

    def episodes(self, partition: int, execution_id: str) -> list[tuple[int, str]]:
        return self._connection.execute(OFFLINE["episodes"], (partition, execution_id)).fetchall()

    def orphans(self) -> Iterator[Orphan]:
        for table in _ORPHAN_TABLES:
            for row in self._connection.execute(OFFLINE[f"orphaned_{table}"]):
                yield _orphan(table, row)

    def doubled_executions(self) -> Iterator[tuple[str, str, str]]:
        yield from self._connection.execute(OFFLINE["doubled_executions"])

    def messages_about(self, text: str) -> list[str]:
        return [row[0] for row in self._connection.execute(OFFLINE["messages_about"], (text,))]

    def messages_to_nobody(self) -> Iterator[tuple[str, int, str]]:
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
def open_snapshot(path: Path) -> Generator[SqliteSnapshot, None, None]:
    """Read a file as it is now.

    Raises:
        StorageError: if there is no task hub, or it cannot be read; also out of the block.
    """
    connection = open_reader(path)
    try:
        connection.execute("BEGIN")
        yield SqliteSnapshot(connection)
    except sqlite3.Error as error:
        raise StorageError(explain(error, path)) from error
    finally:
        connection.close()
