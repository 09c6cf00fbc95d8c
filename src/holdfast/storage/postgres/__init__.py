"""The adapter for a schema of a PostgreSQL database, whose owner another host replaces once its lease is over."""

from holdfast.storage.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
