"""The limits of the machine: a disk that is waited for, SQLite with nothing around it, an event loop with no work."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import statistics
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.postgres import commit_p50_s
from benchmarks.results import Machine

Run = Callable[[Coroutine[Any, Any, Any]], Any]
"""Runs a coroutine on a new event loop, of the kind that the workloads get."""


def measure_machine(directory: Path, server_url: str | None, run: Run, *, quick: bool) -> Machine:
    return Machine(
        fsync_p50_s=_fsync_p50_s(directory, 50 if quick else 300),
        # The best of three: a limit is what the machine can do, not what it did while it was busy elsewhere.
        grouped_rows_per_s=max(_grouped_rows_per_s(directory / f"rows-{n}.db", 30 if quick else 150) for n in range(3)),
        task_switch_s=run(_task_switch_s(20_000 if quick else 100_000)),
        postgres_commit_p50_s=run(commit_p50_s(server_url, 50 if quick else 300)) if server_url else None,
    )


def _fsync_p50_s(directory: Path, appends: int) -> float:
    block = os.urandom(4096)
    taken: list[float] = []
    with (directory / "fsync.bin").open("wb", buffering=0) as file:
        for _ in range(appends):
            begin = time.perf_counter()
            file.write(block)
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def _grouped_rows_per_s(path: Path, groups: int) -> float:
    row = "x" * 200
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
        begin = time.perf_counter()
        for _ in range(groups):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO entries (text) VALUES (?)", [(row,)] * 100)
            connection.execute("COMMIT")
        return groups * 100 / (time.perf_counter() - begin)


async def _task_switch_s(switches: int) -> float:
    async def turns() -> None:
        for _ in range(switches // 2):
            await asyncio.sleep(0)

    begin = time.perf_counter()
    await asyncio.gather(turns(), turns())
    return (time.perf_counter() - begin) / switches
