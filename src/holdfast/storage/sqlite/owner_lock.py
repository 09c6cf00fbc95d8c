"""The lock that makes a process the only owner of a file, dropped by the operating system when the process dies."""

from __future__ import annotations

import os
import platform
import sqlite3
from pathlib import Path

from holdfast.errors import StorageError, StoreInUseError
from holdfast.storage.sqlite.connection import error_kind, explain
from holdfast.storage.sqlite.queries import QUERIES


class OwnerLock:
    """An exclusive lock on the side file `<path>-owner`, held until `release`.

    The side file is an empty SQLite database, so that SQLite finds the kind of lock that each platform has.
    Should somebody delete it, the fence of each commit still tells owners apart.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock at once.

        Raises:
            StoreInUseError: if another process, or another store of this one, holds it.
            StorageError: if the side file cannot be made.
        """
        side_path = path.with_name(f"{path.name}-owner")
        try:
            self._connection = sqlite3.connect(side_path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise StorageError(explain(error, side_path)) from error
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            self._connection.close()
            if error_kind(error) == sqlite3.SQLITE_BUSY:
                raise StoreInUseError(
                    f"{str(path)!r} is in use by {_owner_of(path)}. One process at a time may own a file: "
                    "stop that one first, or give this one another path."
                ) from error
            raise StorageError(explain(error, side_path)) from error

    def release(self) -> None:
        """Drop the lock."""
        self._connection.close()


def describe_owner() -> str:
    """Describe this process to whoever finds the file in use."""
    return f"process {os.getpid()} on host {platform.node() or 'unknown'}"


def _owner_of(path: Path) -> str:
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None)
    except sqlite3.Error:
        return "another process"
    try:
        row = connection.execute(QUERIES["read_node"]).fetchone()
    except sqlite3.Error:
        return "another process"
    else:
        return "another process, which is just starting" if row is None or row[0] else row[1]
    finally:
        connection.close()
