"""Faults of a PostgreSQL server and of the way to it, at exactly one moment."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import asyncpg

from postgres_kit import connect, schema_of

_SOCKET = ".s.PGSQL.5432"


async def until(is_so: Callable[[], Awaitable[object]]) -> None:
    """Wait for what will be so. The limit of the test is the only one."""
    while not await is_so():
        await asyncio.sleep(0.01)


class Gate:
    """A place in the transactions of a task hub where they wait while it is shut."""

    def __init__(self, keeper: asyncpg.Connection[asyncpg.Record], key: int) -> None:
        self.keeper = keeper
        """A connection of its own, to look at what waits."""
        self._key = key

    async def shut(self) -> None:
        await self.keeper.execute("SELECT pg_advisory_lock($1)", self._key)

    async def open(self) -> None:
        await self.keeper.execute("SELECT pg_advisory_unlock($1)", self._key)

    async def arrival(self) -> int:
        """Wait until somebody waits at the gate; return the process of the server that does."""
        waiting = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid::bigint = $1"
        await until(lambda: self.keeper.fetchval(waiting, self._key))
        return await self.keeper.fetchval(waiting, self._key)

    async def blocked_by(self, pid: int) -> None:
        """Wait until another process of the server waits for this one."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))"
        await until(lambda: self.keeper.fetchval(query, pid))

    async def terminate(self, pid: int) -> None:
        await self.keeper.execute("SELECT pg_terminate_backend($1)", pid)


@asynccontextmanager
async def gate(url: str, at: str, *, deferred: bool = False) -> AsyncGenerator[Gate]:
    """Put an open gate behind an event of a table, such as `INSERT ON history`, or behind the COMMIT that follows."""
    keeper = await connect(url)
    key = sum(schema_of(url).encode())
    kind, when = ("CONSTRAINT TRIGGER", "DEFERRABLE INITIALLY DEFERRED") if deferred else ("TRIGGER", "")
    await keeper.execute(f"""
        CREATE FUNCTION wait_at_gate() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN PERFORM pg_advisory_xact_lock_shared({key}); RETURN NULL; END';
        CREATE {kind} gate AFTER {at} {when} FOR EACH ROW EXECUTE FUNCTION wait_at_gate();
    """)
    try:
        yield Gate(keeper, key)
    finally:
        await keeper.close()


Loss = Literal["", "COMMIT", "its answer"]


class Wire:
    """A wire between stores and their server, on which something gets lost once."""

    def __init__(self, url: str, folder: str) -> None:
        self.url = url.replace(parse_qs(urlsplit(url).query)["host"][0], folder)
        self.loses: Loss = ""
        self.commit = b"COMMIT\0"
        """What is in a message that commits."""
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._to = f"{parse_qs(urlsplit(url).query)['host'][0]}/{_SOCKET}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._to)
        self._writers += [writer, server_writer]
        swallowed: set[Loss] = set()

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, from_client: bool) -> None:
            while data := await source.read(65536):
                if from_client and self.loses and self.commit in data:
                    swallowed.add(self.loses)
                    self.loses = ""
                if "its answer" in swallowed and not from_client:
                    break
                if "COMMIT" not in swallowed:
                    sink.write(data)
            for each in (writer, server_writer):
                each.close()

        for source, sink, from_client in ((reader, server_writer, True), (server_reader, writer, False)):
            job = asyncio.ensure_future(pump(source, sink, from_client))
            self._pumps.add(job)

    async def close(self) -> None:
        for job in self._pumps:
            job.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for writer in self._writers:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def wire(url: str) -> AsyncGenerator[Wire]:
    """Lead a URL through a wire."""
    folder = tempfile.mkdtemp(prefix="wire")
    wire = Wire(url, folder)
    server = await asyncio.start_unix_server(wire.serve, Path(folder) / _SOCKET)
    try:
        yield wire
    finally:
        server.close()
        await wire.close()
        shutil.rmtree(folder)
