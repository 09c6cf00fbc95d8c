"""Messages from within transactions of users: sent if these commit, once, in order; and never otherwise."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from engine_kit import FailingStore, SlowStore, World, eventually, insist, make_app, running
from outbox_kit import (
    CONFIG,
    SQLITE,
    TRANSACTIONS,
    Sender,
    arrivals,
    completed,
    host,
    make_hub,
    path_of,
    server_of,
    taken_in,
)
from sqlalchemy.ext.asyncio import create_async_engine

from holdfast import (
    App,
    ConfigurationError,
    EntityId,
    ExternalEvent,
    HostConfig,
    InvalidInputError,
    Limits,
    OrchestrationContext,
    OrchestrationStatus,
    Outbox,
    PayloadError,
    PayloadTooLargeError,
    SyncOutbox,
)
from holdfast.model.ids import partition_of
from holdfast.storage.open_store import open_store
from postgres_kit import drop, execute, new_schema, schema_of


def on_sqlite(kind: str) -> bool:
    return "sqlite" in kind


@pytest.fixture(params=TRANSACTIONS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The hub for the kind of connection of a test, or for that of its store."""
    of = request.getfixturevalue("kind")
    if on_sqlite(of):
        yield f"{SQLITE}{tmp_path / 'hub.db'}"
        return
    url = new_schema(request.getfixturevalue("postgres_server"), partitions=4)
    yield url
    drop(url)


on_each_store = pytest.mark.parametrize("kind", ["asyncpg", "sqlite3"])


# Commit, or nothing


def test_what_a_transaction_sends_runs_once_when_it_commits_and_not_at_all_if_it_does_not(kind: str, url: str) -> None:
    world = World()

    async def scenario() -> None:
        async with host(url, make_app(world)) as run:
            async with TRANSACTIONS[kind](url, False) as send:
                await send("start_new", "chain", 3, instance_id="undone")
                await send("signal_entity", EntityId("account", "a"), "add", 100)
            async with TRANSACTIONS[kind](url, True) as send:
                assert await send("start_new", "chain", 3, instance_id="done") == "done"
                await send("signal_entity", EntityId("account", "a"), "add", 1)
                await asyncio.sleep(0)
                assert await run.client.get_status("done") is None
            assert await completed(run, "done") == 8
            assert await run.client.get_status("undone") is None
            await eventually(lambda: has_balance(run.client, 1))
            assert await arrivals(url) == 0

    async def has_balance(client: object, balance: int) -> bool:
        found = await client.get_entity(EntityId("account", "a"))  # pyright: ignore
        return found is not None and found.state == {"balance": balance}

    asyncio.run(scenario())
    assert len(world.calls) == 3


@on_each_store
def test_it_commits_together_with_what_else_the_transaction_did(kind: str, url: str) -> None:
    """An order without its orchestration, or the other way round, is what this is for."""
    table = "purchases" if on_sqlite(kind) else f"{schema_of(url)}.purchases"

    async def scenario() -> None:
        async def do(send: Sender, statement: str) -> Any:
            done = send.connection.execute(statement)  # pyright: ignore
            return await done if isinstance(done, Awaitable) else done.fetchall()

        await make_hub(url)
        async with TRANSACTIONS[kind](url, True) as send:
            await do(send, f"CREATE TABLE {table} (id int)")
        for commits in (False, True):
            async with TRANSACTIONS[kind](url, commits) as send:
                await do(send, f"INSERT INTO {table} VALUES (7)")
                await send("start_new", "chain", 1, instance_id=f"{commits}")
        assert await arrivals(url) == 1
        async with TRANSACTIONS[kind](url, True) as send:
            assert str(await do(send, f"DELETE FROM {table} RETURNING id")) in ("DELETE 1", "[(7,)]")

    asyncio.run(scenario())


@on_each_store
def test_one_sender_is_heard_in_order(kind: str, url: str) -> None:
    async def scenario() -> None:
        async with host(url) as run:
            for batch in range(4):
                async with TRANSACTIONS[kind](url, True) as send:
                    if batch == 0:
                        await send("start_new", "events", 40, instance_id="listens")
                    for number in range(10):
                        await send("raise_event", "listens", ExternalEvent("e", int), batch * 10 + number)
            assert await completed(run, "listens") == list(range(40))

    asyncio.run(scenario())


@on_each_store
def test_no_host_needs_to_run_meanwhile(kind: str, url: str) -> None:
    async def scenario() -> None:
        await make_hub(url)
        async with TRANSACTIONS[kind](url, True) as send:
            made = await send("start_new", "chain", 2)
        async with host(url) as run:
            assert await completed(run, made) == 4

    asyncio.run(scenario())


@on_each_store
@pytest.mark.parametrize("how", ["before", "unknown, not applied", "unknown, applied"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_commit_that_fails_while_it_is_taken_in_loses_and_doubles_nothing(
    kind: str, url: str, how: str, number: int
) -> None:
    async def scenario() -> None:
        store = FailingStore(open_store(url))
        async with running(make_app(World()), store, CONFIG) as run:  # pyright: ignore
            async with TRANSACTIONS[kind](url, True) as send:
                await send("start_new", "events", 3, instance_id="i")
                store.fail_at = {store.commits + number: how}
                for each in range(3):
                    await send("raise_event", "i", "e", each)
            assert await insist(lambda: completed(run, "i")) == [0, 1, 2]
            assert await insist(lambda: completed(run, "i")) == [0, 1, 2]
        assert await arrivals(url) == 0
        await store.close()

    asyncio.run(scenario())


@on_each_store
def test_a_host_that_dies_before_it_has_taken_in_what_was_committed_loses_nothing(kind: str, url: str) -> None:
    """The commit that takes it in never returns there; the next host finds it where it was."""

    async def scenario() -> None:
        store, never = SlowStore(open_store(url)), asyncio.Event()
        dying = asyncio.Event()

        async def begin() -> None:
            async with running(make_app(World()), store, CONFIG):  # pyright: ignore
                store.before["commit"] = never
                dying.set()
                await never.wait()

        job = asyncio.ensure_future(begin())
        await dying.wait()
        async with TRANSACTIONS[kind](url, True) as send:
            await send("start_new", "chain", 2, instance_id="i")
        before = store.calls["commit"]
        await eventually(lambda: _is(store.calls["commit"] > before))
        job.cancel()
        never.set()  # what it has in flight is all that a cancelled host waits for
        await asyncio.gather(job, return_exceptions=True)
        await store.close()
        async with host(url) as run:
            assert await completed(run, "i") == 4

    asyncio.run(scenario())


async def _is(condition: bool) -> bool:
    return condition


# What a start does


@on_each_store
def test_a_start_of_an_id_that_was_used_does_nothing_unless_it_replaces(
    kind: str, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "holdfast.engine")

    async def start(value: int, **options: object) -> None:
        async with TRANSACTIONS[kind](url, True) as send:
            await send("start_new", "events", value, instance_id="i", **options)
            await send("start_new", "chain", 0, instance_id=f"after {len(starts)}")
        starts.append(value)

    starts: list[int] = []

    async def scenario() -> None:
        async with host(url) as run:
            await start(1)
            await start(2, replace_ended=True)  # it has not ended
            assert await completed(run, "after 1") == 1
            await run.client.raise_event("i", "e", "first")
            assert await completed(run, "i") == ["first"]
            before = await run.client.get_status("i")
            await start(3)
            assert await completed(run, "after 2") == 1
            after = await run.client.get_status("i")
            assert before is not None
            assert after is not None
            assert (after.execution_id, after.output) == (before.execution_id, ["first"])
            assert caplog.messages.count("A start of instance 'i' had no effect: there is one of this id already.") == 2
            await start(0, replace_ended=True)
            assert await completed(run, "after 3") == 1
            assert await completed(run, "i") == []

    asyncio.run(scenario())


@on_each_store
def test_the_options_of_a_start_are_those_of_the_client(kind: str, url: str) -> None:
    app, now = App(), datetime.now(UTC)

    @app.orchestrator
    async def shows(ctx: OrchestrationContext) -> str | None:
        return ctx.version

    @app.orchestrator
    async def waits(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("never")

    async def scenario() -> None:
        config = HostConfig(drain_s=0.2, poll_s=0.05, default_version="2.0")
        async with host(url, app, config) as run:
            async with TRANSACTIONS[kind](url, True) as send:
                await send("start_new", shows, instance_id="default", tags={"a": "b"})
                await send("start_new", shows, instance_id="old", version="1.0")
                await send("start_new", shows, instance_id="later", start_at=now + timedelta(days=1))
                await send("start_new", waits, instance_id="short", run_timeout=timedelta(milliseconds=10))
            assert await completed(run, "default") == "2.0"
            assert await completed(run, "old") == "1.0"
            status = await run.client.get_status("default")
            assert status is not None
            assert status.tags == {"a": "b"}
            assert (await taken_in(run, "later")).runtime_status is OrchestrationStatus.PENDING
            await taken_in(run, "short")
            stopped = await run.client.wait_until_stopped("short")
            assert stopped.runtime_status is OrchestrationStatus.FAILED

    asyncio.run(scenario())


@on_each_store
def test_an_event_for_nobody_is_dropped_and_logged(kind: str, url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with host(url) as run:
            async with TRANSACTIONS[kind](url, True) as send:
                await send("start_new", "chain", 0, instance_id="ended")
            await completed(run, "ended")
            async with TRANSACTIONS[kind](url, True) as send:
                await send("raise_event", "nobody", "e", 1)
                await send("raise_event", "ended", "e", 1)
            await eventually(lambda: _is(sum("was dropped" in each for each in caplog.messages) == 2))
            assert await arrivals(url) == 0

    asyncio.run(scenario())


@on_each_store
def test_keys_and_times_of_signals_and_events_count_as_those_of_a_client(kind: str, url: str) -> None:
    async def scenario() -> None:
        async with host(url) as run:
            async with TRANSACTIONS[kind](url, True) as send:
                await send("start_new", "events", 2, instance_id="i")
                for _ in range(2):
                    await send("raise_event", "i", "e", "once", key="k")
                    await send("signal_entity", EntityId("Account", "a"), "add", 5, key="k")
                await send("signal_entity", EntityId("Account", "a"), "add", 1, due=timedelta(days=1))
                await send("raise_event", "i", "e", "then")
            assert await completed(run, "i") == ["once", "then"]
            found = await run.client.get_entity(EntityId("account", "a"))
            assert found is not None
            assert found.state == {"balance": 5}

    asyncio.run(scenario())


# What is refused


REFUSED = {
    "slash": ("start_new", ("chain", 1), {"instance_id": "a/b"}, InvalidInputError, "contains '/'"),
    "entity": ("start_new", ("chain", 1), {"instance_id": "@a@b"}, InvalidInputError, "kept for entities"),
    "name": ("start_new", ("", 1), {}, InvalidInputError, "no name of a function"),
    "payload": ("start_new", ("chain", object()), {}, PayloadError, "object"),
    "large": ("start_new", ("chain", "x" * 2_000), {}, PayloadTooLargeError, "the limit is 1,000"),
    "tags": ("start_new", ("chain", 1), {"tags": {"a": 1}}, InvalidInputError, "tag"),
    "time": ("start_new", ("chain", 1), {"start_at": datetime(2026, 1, 1)}, InvalidInputError, "time zone"),  # noqa: DTZ001
    "timeout": ("start_new", ("chain", 1), {"run_timeout": timedelta(0)}, InvalidInputError, "more than zero"),
    "version": ("start_new", ("chain", 1), {"version": ""}, InvalidInputError, "version"),
    "option": ("start_new", ("chain", 1), {"instance": "a"}, TypeError, "instance_id"),
    "event": ("raise_event", ("i", "", 1), {}, InvalidInputError, "external event"),
    "event id": ("raise_event", ("", "e", 1), {}, InvalidInputError, "empty"),
    "event key": ("raise_event", ("i", "e", 1), {"key": ""}, InvalidInputError, "key"),
    "no entity": ("signal_entity", ("@a@b", "add"), {}, InvalidInputError, "EntityId"),
    "private": ("signal_entity", (EntityId("a", "b"), "_add"), {}, InvalidInputError, "operation"),
    "due": ("signal_entity", (EntityId("a", "b"), "add"), {"due": 5}, InvalidInputError, "time to wait"),
}


@on_each_store
def test_what_cannot_be_meant_is_refused_before_anything_is_stored(kind: str, url: str) -> None:
    async def scenario() -> None:
        await make_hub(url)
        async with TRANSACTIONS[kind](url, True) as send:
            outbox = type(send.outbox)(
                *([] if on_sqlite(kind) else [schema_of(url)]), limits=Limits(payload_bytes_max=1_000)
            )
            for method, arguments, options, error, message in REFUSED.values():
                with pytest.raises(error, match=message):
                    await Sender(outbox, send.connection)(method, *arguments, **options)
        assert await arrivals(url) == 0

    asyncio.run(scenario())


def test_a_connection_that_would_send_at_once_is_refused(postgres_server: str, tmp_path: Path) -> None:
    url, file = new_schema(postgres_server), f"{SQLITE}{tmp_path / 'hub.db'}"
    outbox, blocking = Outbox(schema_of(url)), SyncOutbox(schema_of(url))

    async def scenario() -> None:
        await make_hub(url)
        await make_hub(file)
        with closing(sqlite3.connect(path_of(file), isolation_level=None)) as connection, refusal():
            SyncOutbox().start_new(connection, "chain", 1)
        with closing(psycopg.connect(server_of(url), autocommit=True)) as connection:
            with refusal():
                blocking.start_new(connection, "chain", 1)
            with connection.transaction(force_rollback=True):
                blocking.start_new(connection, "chain", 1)
        for engine_url in (file, server_of(url, "+psycopg")):
            engine = sqlalchemy.create_engine(engine_url, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection, refusal():
                blocking.start_new(connection, "chain", 1)
            engine.dispose()
        connection = await asyncpg.connect(server_of(url))
        with refusal():
            await outbox.start_new(connection, "chain", 1)
        await connection.close()
        async with await psycopg.AsyncConnection.connect(server_of(url), autocommit=True) as connection:
            with refusal():
                await outbox.start_new(connection, "chain", 1)
        for driver in ("+asyncpg", "+psycopg"):
            engine = create_async_engine(server_of(url, driver), isolation_level="AUTOCOMMIT")
            async with engine.connect() as connection:
                with refusal():
                    await outbox.start_new(connection, "chain", 1)
            with pytest.raises(InvalidInputError, match="not open yet"):
                await outbox.start_new(engine.connect(), "chain", 1)
            await engine.dispose()
        assert [await arrivals(each) for each in (url, file)] == [0, 0]

    asyncio.run(scenario())
    drop(url)


def refusal() -> pytest.RaisesExc[InvalidInputError]:
    return pytest.raises(InvalidInputError, match=r"in no transaction.*Nothing was stored")


def test_other_connections_are_refused_with_what_is_taken_instead(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        with pytest.raises(InvalidInputError, match=r"sqlite3\.Connection is for SyncOutbox"):
            asyncio.run(Outbox().start_new(connection, "chain", 1))
        with pytest.raises(InvalidInputError, match=r"A builtins.str is no connection .* psycopg.Connection"):
            SyncOutbox().start_new("sqlite:///hub.db", "chain", 1)
        with pytest.raises(ConfigurationError, match="no task hub where this connection leads to"):
            SyncOutbox().start_new(connection, "chain", 1)
    with pytest.raises(ConfigurationError, match="cannot be the schema"):
        Outbox('hub"; DROP TABLE hub; --')


def test_a_database_without_a_hub_is_named(postgres_server: str) -> None:
    async def scenario() -> None:
        connection = await asyncpg.connect(server_of(postgres_server))
        with pytest.raises(ConfigurationError, match="'nowhere'"):
            async with connection.transaction():
                await Outbox("nowhere").start_new(connection, "chain", 1)
        await connection.close()
        blocking = psycopg.connect(server_of(postgres_server))
        with closing(blocking), pytest.raises(ConfigurationError, match="'nowhere'"):
            SyncOutbox("nowhere").start_new(blocking, "chain", 1)
        engine = sqlalchemy.create_engine(server_of(postgres_server, "+psycopg"))
        with engine.connect() as alchemy, pytest.raises(ConfigurationError, match="'nowhere'"):
            SyncOutbox("nowhere").start_new(alchemy, "chain", 1)
        engine.dispose()

    asyncio.run(scenario())


DJANGO = """
import asyncio
import sys

import django
from django.conf import settings

options = {"HOST": sys.argv[3], "USER": "postgres"} if sys.argv[1] == "postgresql" else {}
database = {"ENGINE": f"django.db.backends.{sys.argv[1]}", "NAME": sys.argv[2], **options}
settings.configure(DATABASES={"default": database})
django.setup()

from django.db import connection, connections, transaction

from holdfast import InvalidInputError, SyncOutbox

outbox = SyncOutbox(sys.argv[4])
with transaction.atomic():
    outbox.start_new(connection, "chain", 2, instance_id="100% done")
with transaction.atomic():
    outbox.start_new(connections["default"], "chain", 2, instance_id="undone")
    transaction.set_rollback(True)
try:
    outbox.start_new(connection, "chain", 2, instance_id="at once")
except InvalidInputError as error:
    print(error)
connection.close()
"""


@on_each_store
def test_djangos_connection_does_as_well(kind: str, url: str) -> None:
    database = ("sqlite3", path_of(url), "", "holdfast")
    if not on_sqlite(kind):
        database = ("postgresql", "postgres", server_of(url).partition("host=")[2], schema_of(url))

    async def scenario() -> None:
        await make_hub(url)
        command = (sys.executable, "-c", DJANGO, *database)
        said = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True, timeout=60)
        assert "Use `with transaction.atomic():`" in said.stdout
        assert await arrivals(url) == 1
        async with host(url) as run:
            assert await completed(run, "100% done") == 4

    asyncio.run(scenario())


# What others may have inserted


def test_what_no_host_can_take_in_stays_and_stops_nobody(
    postgres_server: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A row in the wrong partition would make the commit fail that removes it, again and again."""
    url = new_schema(postgres_server, partitions=4)
    start = '{"v":1,"event":{"type":"ExecutionStarted","timestamp":"2026-01-01T00:00:00Z","name":"chain",'
    start += '"instance_id":"%s","execution_id":"x","input":"1"}}'
    right = partition_of("i", 4)
    rows = [
        (right, "i", "no JSON"),
        (right, "i", start % "j"),
        ((right + 1) % 4, "i", start % "i"),
        (partition_of("a/b", 4), "a/b", start % "a/b"),
        (partition_of("@a@b", 4), "@a@b", start % "@a@b"),
    ]

    async def scenario() -> None:
        await make_hub(url)
        values = ", ".join(f"({partition}, '{of}', '{event}')" for partition, of, event in rows)
        await execute(url, f"INSERT INTO arrival (partition, instance_id, event) VALUES {values}")
        async with host(url) as run:
            async with TRANSACTIONS["asyncpg"](url, True) as send:
                await send("start_new", "chain", 2, instance_id="works")
            assert await completed(run, "works") == 4
            assert await run.client.get_status("i") is None
        assert await arrivals(url) == len(rows)

    asyncio.run(scenario())
    assert sum("cannot be read" in message for message in caplog.messages) == len(rows)
    drop(url)
