"""The adapter for one SQLite file, owned by one process at a time."""

from holdfast.storage.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
