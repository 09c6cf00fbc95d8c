"""Connections of users to the database of a hub, of each kind, as a test opens them: to send, then to commit or not."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import psycopg
import sqlalchemy
from engine_kit import SOON, Run, World, make_app, running
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from holdfast import App, HostConfig, InstanceStatus, Outbox, SyncOutbox
from holdfast.storage.open_store import open_store
from postgres_kit import schema_of

SQLITE = "sqlite:///"


def server_of(url: str, driver: str = "") -> str:
    """Return the URL of the server of a hub, for SQLAlchemy with a driver."""
    return f"postgresql{driver}://postgres@/postgres?host={parse_qs(urlsplit(url).query)['host'][0]}"


def path_of(url: str) -> str:
    return url.removeprefix(SQLITE)


class Sender:
    """An outbox and an open transaction, whatever their kind. What it is asked for is `Outbox.start_new` and so on."""

    def __init__(self, outbox: Outbox | SyncOutbox, connection: object) -> None:
        self.outbox = outbox
        self.connection = connection

    async def __call__(self, method: str, *arguments: object, **options: object) -> Any:
        sent = getattr(self.outbox, method)(self.connection, *arguments, **options)
        return await sent if isinstance(sent, Awaitable) else sent


def blocking(open_: Callable[[str], Any]) -> Callable[[str, bool], AbstractAsyncContextManager[Sender]]:
    """Make a transaction of a function that opens a connection with `commit` and `rollback`."""

    @asynccontextmanager
    async def transaction(url: str, commits: bool) -> AsyncIterator[Sender]:
        outbox = SyncOutbox() if url.startswith(SQLITE) else SyncOutbox(schema_of(url))
        with open_(url) as (given, connection):
            yield Sender(outbox, given)
            (connection.commit if commits else connection.rollback)()

    return transaction


@contextmanager
def by_psycopg(url: str) -> Iterator[tuple[object, Any]]:
    with closing(psycopg.connect(server_of(url))) as connection:
        yield connection, connection


@contextmanager
def by_psycopg_cursor(url: str) -> Iterator[tuple[object, Any]]:
    with closing(psycopg.connect(server_of(url), row_factory=psycopg.rows.dict_row)) as connection:
        yield connection.cursor(), connection


@contextmanager
def by_sqlalchemy(url: str) -> Iterator[tuple[object, Any]]:
    engine = sqlalchemy.create_engine(url if url.startswith(SQLITE) else server_of(url, "+psycopg"))
    with engine.connect() as connection:
        yield connection, connection
    engine.dispose()


@contextmanager
def by_session(url: str) -> Iterator[tuple[object, Any]]:
    engine = sqlalchemy.create_engine(url if url.startswith(SQLITE) else server_of(url, "+psycopg"))
    with Session(engine) as session:
        yield session, session
    engine.dispose()


@contextmanager
def by_sqlite3(url: str) -> Iterator[tuple[object, Any]]:
    with closing(sqlite3.connect(path_of(url))) as connection:
        yield connection, connection


@contextmanager
def by_sqlite3_without_magic(url: str) -> Iterator[tuple[object, Any]]:
    with closing(sqlite3.connect(path_of(url), isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN IMMEDIATE")
        yield connection.cursor(), connection


@asynccontextmanager
async def by_asyncpg(url: str, commits: bool) -> AsyncIterator[Sender]:
    connection = await asyncpg.connect(server_of(url))
    transaction = connection.transaction()
    await transaction.start()
    yield Sender(Outbox(schema_of(url)), connection)
    await (transaction.commit if commits else transaction.rollback)()
    await connection.close()


@asynccontextmanager
async def by_asyncpg_pool(url: str, commits: bool) -> AsyncIterator[Sender]:
    async with asyncpg.create_pool(server_of(url), min_size=1) as pool, pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        yield Sender(Outbox(schema_of(url), notify=False), connection)
        await (transaction.commit if commits else transaction.rollback)()


@asynccontextmanager
async def by_async_psycopg(url: str, commits: bool) -> AsyncIterator[Sender]:
    async with await psycopg.AsyncConnection.connect(server_of(url)) as connection:
        yield Sender(Outbox(schema_of(url)), connection.cursor())
        await (connection.commit if commits else connection.rollback)()


def by_async_sqlalchemy(driver: str) -> Callable[[str, bool], AbstractAsyncContextManager[Sender]]:
    @asynccontextmanager
    async def transaction(url: str, commits: bool) -> AsyncIterator[Sender]:
        engine = create_async_engine(server_of(url, driver))
        async with AsyncSession(engine) as session:
            # A session, and the connection below it.
            yield Sender(Outbox(schema_of(url)), session if "asyncpg" in driver else await session.connection())
            await (session.commit if commits else session.rollback)()
        await engine.dispose()

    return transaction


TRANSACTIONS: Mapping[str, Callable[[str, bool], AbstractAsyncContextManager[Sender]]] = {
    "asyncpg": by_asyncpg,
    "asyncpg pool": by_asyncpg_pool,
    "psycopg": blocking(by_psycopg),
    "psycopg cursor": blocking(by_psycopg_cursor),
    "psycopg async": by_async_psycopg,
    "sqlalchemy": blocking(by_sqlalchemy),
    "sqlalchemy session": blocking(by_session),
    "sqlalchemy asyncpg": by_async_sqlalchemy("+asyncpg"),
    "sqlalchemy async psycopg": by_async_sqlalchemy("+psycopg"),
    "sqlite3": blocking(by_sqlite3),
    "sqlite3 cursor": blocking(by_sqlite3_without_magic),
    "sqlalchemy on sqlite": blocking(by_sqlalchemy),
    "sqlalchemy session on sqlite": blocking(by_session),
}
CONFIG = HostConfig(drain_s=0.2, poll_s=0.05)


@asynccontextmanager
async def host(url: str, app: App | None = None, config: HostConfig = CONFIG) -> AsyncIterator[Run]:
    """A host on a hub."""
    store = open_store(url)
    try:
        async with running(app or make_app(World()), store, config) as run:
            yield run
    finally:
        await store.close()


async def make_hub(url: str) -> None:
    """Create a hub, on which no host runs."""
    async with host(url):
        pass


async def taken_in(run: Run, instance_id: str) -> InstanceStatus:
    """Return the status of an orchestration, once there is one."""
    async with asyncio.timeout(SOON.total_seconds()):
        while (status := await run.client.get_status(instance_id)) is None:
            await asyncio.sleep(0.005)
    return status


async def completed(run: Run, instance_id: str) -> Any:
    """Return the result of an orchestration, once it has been taken in and has ended."""
    await taken_in(run, instance_id)
    return await run.client.wait_for_completion(instance_id, timeout=SOON)


async def arrivals(url: str) -> int:
    """Return how many messages wait that no host has taken in."""
    store = open_store(url)
    try:
        if url.startswith(SQLITE):
            return len(await store.arrivals(0, 1_000))
        connection = await asyncpg.connect(server_of(url))
        found = await connection.fetchval(f"SELECT count(*) FROM {schema_of(url)}.arrival")
        await connection.close()
        return int(found)
    finally:
        await store.close()
