"""Opening an SQLite file: whose it is, its version, the settings of its connections, and what its errors mean."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from holdfast.errors import StorageError
from holdfast.storage.sqlite.queries import APPLY_SCRIPT, QUERIES
from holdfast.storage.statements import migration

APPLICATION_ID: Final = 0x486F6C64
"""`Hold`: marks a file as a task hub."""

SCHEMA_VERSION: Final = 1
_PACKAGE: Final = "holdfast.storage.sqlite"

_BUSY_SECONDS = 10.0
"""How long to wait for the write lock, which only foreign tools ever hold."""

_WRITER_SETTINGS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # NORMAL would lose acknowledged commits when the power fails
    "PRAGMA fullfsync = ON",  # macOS: a plain fsync stops at the drive's cache. Nothing elsewhere
    "PRAGMA checkpoint_fullfsync = ON",
    "PRAGMA wal_autocheckpoint = 4000",  # 16 MB: a page that many commits change is copied back once
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA cache_size = -65536",
    "PRAGMA temp_store = MEMORY",
)
"""No mmap: an I/O error would kill the process where a read call reports it."""


def open_writer(path: Path) -> sqlite3.Connection:
    """Open the file for writing, created or migrated as needed. The caller must hold the owner lock.

    Raises:
        StorageError: if it cannot be opened, or is not a task hub that this version can use.
    """
    connection = _connect(path, "rwc")
    try:
        version = _identify(connection, path)
        for setting in _WRITER_SETTINGS:
            connection.execute(setting).fetchall()  # to the end: that is where a failure to switch to WAL comes out
        [mode] = connection.execute("PRAGMA journal_mode").fetchone()
        if mode != "wal":
            raise StorageError(f"{str(path)!r}: the file system does not support SQLite's WAL; put it on a local disk.")
        for number in range(version + 1, SCHEMA_VERSION + 1):
            connection.executescript(f"BEGIN IMMEDIATE;\n{migration(_PACKAGE, number)}\nCOMMIT;")
        # What an earlier connection failed to sync must not stay in the log under the commits to come.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.executescript(APPLY_SCRIPT)
    except sqlite3.Error as error:
        connection.close()
        raise StorageError(explain(error, path)) from error
    except BaseException:
        connection.close()
        raise
    return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open an existing task hub for reading.

    Raises:
        StorageError: if there is none, or it is not one that this version can read.
    """
    if not path.exists():
        raise StorageError(f"There is no task hub at {str(path)!r} yet: it is created when a host first starts on it.")
    connection = _connect(path, "rw")
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("PRAGMA cache_size = -16384")
        if _identify(connection, path) < SCHEMA_VERSION:
            raise StorageError(f"{str(path)!r} was last used by an older version of Holdfast; start a host on it once.")
    except sqlite3.Error as error:
        connection.close()
        raise StorageError(explain(error, path)) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    try:
        return sqlite3.connect(
            f"{path.as_uri()}?mode={mode}",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,  # each connection has one thread at a time, but not always the same
        )
    except sqlite3.Error as error:
        raise StorageError(explain(error, path)) from error


def _identify(connection: sqlite3.Connection, path: Path) -> int:
    row: tuple[int, int, int] = connection.execute(QUERIES["identify"]).fetchone()
    application_id, version, objects = row
    if application_id != APPLICATION_ID and (application_id, version, objects) != (0, 0, 0):
        raise StorageError(f"{str(path)!r} is the database of another application; choose another path.")
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"{str(path)!r} has schema version {version}, and this version of Holdfast knows {SCHEMA_VERSION}: "
            "it was used by a newer one. Upgrade Holdfast, or choose another path."
        )
    return version


def error_kind(error: BaseException) -> int:
    """Return the primary SQLite code of an error, or 0 for an error that is not SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def needs_reopening(error: BaseException) -> bool:
    """Return whether the connection must not be used again: after a failed sync, what it believes may not be so."""
    return error_kind(error) in _BROKEN


def explain(error: BaseException, path: Path) -> str:
    """Say what happened to the file and what to do."""
    advice = _ADVICE.get(error_kind(error))
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return f"{str(path)!r}: {error} ({name})." + (f" {advice}" if advice else "")


_BROKEN: Final = frozenset(
    {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN}
)

_ADVICE: Final = {
    sqlite3.SQLITE_BUSY: "Another program holds a lock on the file; close it there.",
    sqlite3.SQLITE_CANTOPEN: "The directory must exist and be writable, and the path must not name a directory.",
    sqlite3.SQLITE_CORRUPT: "The file is damaged; restore it from a backup.",
    sqlite3.SQLITE_FULL: "Free some space on the disk; nothing that was acknowledged is lost.",
    sqlite3.SQLITE_IOERR: "The disk reported an error; look at the system's log.",
    sqlite3.SQLITE_NOTADB: "The file is not an SQLite database; choose another path.",
    sqlite3.SQLITE_PERM: "The process must be allowed to write the file and its directory.",
    sqlite3.SQLITE_READONLY: "The process must be allowed to write the file and its directory.",
}
