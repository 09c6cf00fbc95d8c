"""Writing to a file that no host owns: taking over all rows of another one, and removing what belongs to nobody."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import StorageError
from holdfast.storage.sqlite.connection import explain, open_writer
from holdfast.storage.sqlite.owner_lock import OwnerLock
from holdfast.storage.sqlite.queries import OFFLINE, QUERIES
from holdfast.storage.sqlite.snapshot import TABLES, AnyRow, HubRecord, Snapshot

_INSERTS: Final = {
    kind: QUERIES[f"insert_{name}"]
    for kind, name in zip(
        TABLES.values(),
        ("instance", "history", "message", "activity", "timer", "child", "operation_key"),
        strict=True,
    )
}
_PARTITION: Final = 0
"""The only one of a file."""
_REMOVALS: Final = {
    "activity": "remove_activity",
    "timer": "remove_timer",
    "child": "remove_child",
    "operation_key": "remove_operation_key",
}


def restore(path: Path, hub: HubRecord, rows: Iterable[AnyRow]) -> None:
    """Put all rows of a hub into a file that is new or was never used, in one transaction.

    Whatever `rows` raises leaves the file as it was; one that was new is removed again.

    Raises:
        StoreInUseError: if a host owns it.
        StorageError: if something is stored there, or it cannot be written.
    """
    with _owning(path) as connection:
        [is_used] = connection.execute(OFFLINE["is_used"]).fetchone()
        if is_used:
            raise StorageError(f"{str(path)!r} is in use already: an import needs a file that is new or empty.")
        connection.execute(QUERIES["create_hub"], {"now": hub.created_at})
        connection.execute(QUERIES["create_node"])
        connection.execute(QUERIES["create_partition"])
        for name in ("hub", "node", "partition"):
            connection.execute(OFFLINE[f"restore_{name}"], msgspec.structs.asdict(hub))
        for row in rows:
            connection.execute(_INSERTS[type(row)], msgspec.structs.astuple(row))


def remove_orphans(path: Path) -> int:
    """Remove what belongs to nobody, in one transaction; return how many rows and histories that were.

    Raises:
        StoreInUseError: if a host owns the file.
        StorageError: if it cannot be written.
    """
    with _owning(path) as connection:
        orphans = list(Snapshot(connection).orphans())
        for orphan in orphans:
            if orphan.table == "history":
                connection.execute(QUERIES["remove_history"], (_PARTITION, *orphan.key[:1]))
            else:
                connection.execute(QUERIES[_REMOVALS[orphan.table]], (_PARTITION, *orphan.key))
    return len(orphans)


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
