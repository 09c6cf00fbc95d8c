"""Writing to a file that no host owns: taking over all rows of another one, and removing what belongs to nobody."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import StorageError
from holdfast.storage.sqlite.connection import explain, open_writer
from holdfast.storage.sqlite.owner_lock import OwnerLock
from holdfast.storage.sqlite.queries import OFFLINE, QUERIES
from holdfast.storage.sqlite.snapshot import SqliteSnapshot, open_snapshot
from holdfast.storage.transfer import COLUMNS, TABLES, AnyRow, HubRecord, Snapshot, columns_for

_INSERTS: Final = {
    kind: OFFLINE["insert_row"].format(table=table, columns=", ".join(names), values=", ".join("?" * len(names)))
    for (table, kind), names in zip(TABLES.items(), COLUMNS.values(), strict=True)
}
_PARTITION: Final = 0
"""The only one of a file."""
_WORK: Final = ("partition", "execution_id", "sequence")
_REMOVALS: Final = {
    table: OFFLINE["remove_row"].format(table=table, columns=", ".join(key), values=", ".join("?" * len(key)))
    for table, key in {
        "history": ("partition", "execution_id"),
        "activity": _WORK,
        "timer": _WORK,
        "child": _WORK,
        "operation_key": ("partition", "instance_id", "operation_key"),
    }.items()
}


class WholeFile:
    """A task hub in one file, as one thing."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        return open_snapshot(self._path)

    def restore(self, hub: HubRecord, rows: Iterable[AnyRow]) -> None:
        with _owning(self._path) as connection:
            if _is_used(connection):
                raise StorageError(
                    f"{str(self._path)!r} is in use already: an import needs a file that is new or empty."
                )
            connection.execute(QUERIES["create_hub"], {"now": hub.created_at})
            connection.execute(QUERIES["create_node"])
            connection.execute(QUERIES["create_partition"])
            for name in ("hub", "node", "partition"):
                connection.execute(OFFLINE[f"restore_{name}"], msgspec.structs.asdict(hub))
            for row in rows:
                _insert(connection, row)

    def remove_orphans(self) -> int:
        with _owning(self._path) as connection:
            orphans = list(SqliteSnapshot(connection).orphans())
            for orphan in orphans:
                statement = _REMOVALS[orphan.table]
                connection.execute(statement, (_PARTITION, *orphan.key)[: statement.count("?")])
        return len(orphans)


def _is_used(connection: sqlite3.Connection) -> bool:
    asked = (OFFLINE["is_used"], *(OFFLINE["has_rows"].format(table=table) for table in TABLES))
    return any(connection.execute(query).fetchone()[0] for query in asked)


def _insert(connection: sqlite3.Connection, row: AnyRow) -> None:
    try:
        connection.execute(_INSERTS[type(row)], columns_for(row, 1))
    except sqlite3.IntegrityError as error:
        raise StorageError(
            f"Nothing was stored: a row of the hub that was to come is there twice ({error})."
        ) from error


@contextmanager
def _owning(path: Path) -> Generator[sqlite3.Connection, None, None]:
    """Own a file for one transaction; one that was made for it goes again if it fails."""
    path = path.resolve()  # the lock lies beside the file, whatever link leads there
    lock = OwnerLock(path)
    try:
        # Asked and removed by its owner alone: until the lock is held, a host may make the file and store in it.
        is_new = not path.exists()
        try:
            with _transaction(path) as connection:
                yield connection
        except BaseException:
            if is_new:
                _remove(path)
            raise
    finally:
        lock.release()


@contextmanager
def _transaction(path: Path) -> Generator[sqlite3.Connection, None, None]:
    connection = open_writer(path)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise StorageError(explain(error, path)) from error
    finally:
        connection.close()


def _remove(path: Path) -> None:
    """Remove a file in which nothing was stored. The file of the lock stays: who opened it may be about to lock it."""
    for suffix in ("", "-wal", "-shm"):
        with suppress(OSError):  # what failed says more
            path.with_name(f"{path.name}{suffix}").unlink()
