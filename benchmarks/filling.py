"""Fills an SQLite task hub with instances past Holdfast, by copying the rows of one: a million takes seconds."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

_COPIES: Final = """
WITH RECURSIVE
    number(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n < :count - 1),
    copy(n, id) AS (SELECT n, :prefix || printf('%07d', n) FROM number)
INSERT INTO {table} SELECT {values} FROM copy, (SELECT * FROM {table} WHERE {found_by})
"""
"""In the order of the copies, which is that of the indexes: any other takes several times as long."""

_OWN: Final = "partition = (SELECT partition FROM partition)"
"""There is one; every index begins with it."""


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def multiply(url: str, instance_id: str, prefix: str, count: int, changes: Mapping[str, str] | None = None) -> int:
    """Copy an instance, its history and its timers; return how many rows that makes.

    The copies are called `prefix` and a number of seven digits, from 0 on. No host may be running.

    Args:
        changes: SQL expressions for columns of the copies, by `table.column`; `n` is the number of a copy, `copy.id`
            its id.
    """
    with closing(sqlite3.connect(path_of(url), isolation_level=None)) as connection:
        # What is made here is made again if it is lost; only what is measured has to be durable.
        for setting in ("synchronous = OFF", "cache_size = -1000000", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {setting}").fetchall()
        [execution_id] = connection.execute(
            f"SELECT execution_id FROM instance WHERE {_OWN} AND instance_id = ?", (instance_id,)
        ).fetchone()
        names = {"id": instance_id, "execution": execution_id, "prefix": prefix, "count": count}
        columns = {
            "instance_id": "copy.id",
            "execution_id": "copy.id || '-e'",
            "history.events": "replace(replace(events, :execution, copy.id || '-e'), :id, copy.id)",
            **(changes or {}),
        }
        connection.execute("BEGIN IMMEDIATE")
        for table, found_by in (
            ("instance", "instance_id = :id"),
            ("history", "execution_id = :execution"),
            ("timer", "execution_id = :execution"),
        ):
            values = ", ".join(
                columns.get(f"{table}.{name}", columns.get(name, name)) for name in _columns(connection, table)
            )
            connection.execute(_COPIES.format(table=table, values=values, found_by=f"{_OWN} AND {found_by}"), names)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        made = connection.total_changes
    with path_of(url).open("rb") as file:
        os.fsync(file.fileno())  # else it is what is measured that waits for the disk
    return made


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
