"""The SQL functions for programs in other languages do what the outbox does."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from engine_kit import SOON, World, eventually, make_app
from hypothesis import given, settings
from hypothesis import strategies as st
from outbox_kit import CONFIG, arrivals, completed, host, make_hub, server_of, taken_in

from holdfast import App, EntityId, HostConfig, OrchestrationContext, OrchestrationStatus
from holdfast.codec.history import decode_message
from holdfast.model.history import ExecutionStarted
from holdfast.model.ids import INSTANCE_ID_CHARS_MAX
from postgres_kit import connect, drop, installed, installed_server, new_schema, schema_of


@pytest.fixture(
    scope="module", params=["tests", *([pytest.param("machine", marks=pytest.mark.soak)] if installed() else [])]
)
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The server of the tests, or that of the machine, whose version is another one."""
    if request.param == "tests":
        yield request.getfixturevalue("postgres_server")
        return
    programs = installed()
    assert programs is not None
    with installed_server(programs) as url:
        yield url


@pytest.fixture
def url(server: str) -> Iterator[str]:
    url = new_schema(server, partitions=7)
    yield url
    drop(url)


async def call(url: str, function: str, *arguments: str, commits: bool = True) -> Any:
    """Call a function as a program does that knows of the hub its schema only."""
    connection = await asyncpg.connect(server_of(url))
    try:
        transaction = connection.transaction()
        await transaction.start()
        answer = await connection.fetchval(f"SELECT {schema_of(url)}.{function}({', '.join(arguments)})")
        await (transaction.commit if commits else transaction.rollback)()
        return answer
    finally:
        await connection.close()


def test_the_checksum_is_that_of_python(url: str) -> None:
    texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=INSTANCE_ID_CHARS_MAX)

    async def scenario() -> None:
        await make_hub(url)
        connection = await connect(url)
        samples: list[str] = ["", "a", "é", "订单-1", "🦀" * 64, "@counter@x"]

        @settings(max_examples=300, deadline=None, derandomize=True)
        @given(texts)
        def collect(text: str) -> None:
            samples.append(text)

        collect()
        found = await connection.fetch(
            "SELECT crc32_of(id) FROM unnest($1::text[]) WITH ORDINALITY AS u (id, n) ORDER BY n", samples
        )
        assert [row[0] for row in found] == [zlib.crc32(text.encode()) for text in samples]
        await connection.close()

    asyncio.run(scenario())


def test_what_is_sent_runs_once_if_the_transaction_commits(url: str) -> None:
    world = World()

    async def scenario() -> None:
        async with host(url, make_app(world)) as run:
            await call(url, "start_orchestration", "'chain'", "'3'", "'undone'", commits=False)
            assert await call(url, "start_orchestration", "'chain'", "'3'", "'订单-1'") == "订单-1"
            assert await completed(run, "订单-1") == 8
            made = await call(url, "start_orchestration", "name => 'events'", "input => '2'")
            await call(url, "raise_event", f"'{made}'", "'e'", """'{"a": [1, null]}'""", "'k'")
            await call(url, "raise_event", f"'{made}'", "'e'", """'{"a": [1, null]}'""", "'k'")
            await call(url, "raise_event", f"'{made}'", "'e'", "notify => false")
            assert await completed(run, made) == [{"a": [1, None]}, None]
            for key in ("'k'", "'k'", "NULL"):
                await call(url, "signal_entity", "'Account'", "'ä@b'", "'add'", "'5'", key)
            await call(url, "signal_entity", "'account'", "'ä@b'", "'add'", "'5'", "due => now() + interval '1 day'")

            async def is_there() -> bool:
                found = await run.client.get_entity(EntityId("account", "ä@b"))
                return found is not None and found.state == {"balance": 10} and found.scheduled_signals == 1

            await eventually(is_there)
            assert await run.client.get_status("undone") is None
            assert await arrivals(url) == 0

    asyncio.run(scenario())
    assert len(world.calls) == 3


def test_the_options_of_a_start(url: str) -> None:
    app = App()

    @app.orchestrator
    async def shows(ctx: OrchestrationContext, value: Any) -> Any:
        return [ctx.version, value]

    @app.orchestrator
    async def waits(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("never")

    async def scenario() -> None:
        async with host(url, app, HostConfig(drain_s=0.2, poll_s=CONFIG.poll_s, default_version="2.0")) as run:
            await call(url, "start_orchestration", "'shows'", "NULL", "'a'", """tags => '{"x": "y"}'""")
            await call(url, "start_orchestration", "'shows'", "'[1]'", "'b'", "version => '1.0'")
            await call(url, "start_orchestration", "'waits'", "NULL", "'c'", "run_timeout => '10 ms'")
            await call(url, "start_orchestration", "'waits'", "NULL", "'d'", "start_at => '2999-01-01'")
            assert await completed(run, "a") == ["2.0", None]
            assert await completed(run, "b") == ["1.0", [1]]
            status = await run.client.get_status("a")
            assert status is not None
            assert status.tags == {"x": "y"}
            await taken_in(run, "c")
            stopped = await run.client.wait_until_stopped("c", timeout=SOON)
            assert stopped.runtime_status is OrchestrationStatus.FAILED

            assert (await taken_in(run, "d")).runtime_status is OrchestrationStatus.PENDING
            await call(url, "start_orchestration", "'shows'", "'2'", "'a'")
            await call(url, "start_orchestration", "'shows'", "'3'", "'b'", "replace_ended => true")

            async def is_replaced() -> bool:
                return await completed(run, "b") == ["2.0", 3]

            await eventually(is_replaced)
            assert await completed(run, "a") == ["2.0", None]

    asyncio.run(scenario())


def test_what_arrives_is_what_the_outbox_writes(url: str) -> None:
    async def scenario() -> None:
        await make_hub(url)
        await call(url, "start_orchestration", "'chain'", "'1'", "'i'", "run_timeout => '1 h'")
        connection = await connect(url)
        text = await connection.fetchval("SELECT event FROM arrival")
        await connection.close()
        event = decode_message(text)
        assert isinstance(event, ExecutionStarted)
        assert (event.name, event.instance_id, event.input, event.id_rule) == ("chain", "i", "1", "once")
        assert event.expires_at is not None
        assert event.expires_at - event.timestamp == timedelta(hours=1)
        stem, _, rest = event.execution_id.partition("-")
        assert (stem[0], len(stem), len(rest)) == ("t", 14, 32)

    asyncio.run(scenario())


REFUSED = {
    "start_orchestration": {
        ("''",): "name of the orchestrator",
        ("NULL",): "name of the orchestrator",
        ("'chain'", "NULL", "'a/b'"): "instance id",
        ("'chain'", "NULL", r"'a\b'"): "instance id",
        ("'chain'", "NULL", "'a#b'"): "instance id",
        ("'chain'", "NULL", "E'a\\nb'"): "instance id",
        ("'chain'", "NULL", "repeat('x', 257)"): "instance id",
        ("'chain'", "NULL", "'@a@b'"): "kept for entities",
        ("'chain'", "to_jsonb(repeat('x', 4194304))"): "limit is 4194304",
        ("'chain'", "'no JSON'"): "invalid input syntax",
        ("'chain'", "tags => '[]'"): "tags",
        ("'chain'", """tags => '{"a": 1}'"""): "tags",
        ("'chain'", """tags => '{"a": null}'"""): "tags",
        ("'chain'", "version => ''"): "version",
        ("'chain'", "version => repeat('x', 101)"): "version",
        ("'chain'", "run_timeout => '0 s'"): "more than zero",
        ("'chain'", "start_at => 'infinity'"): "calendar",
        ("'chain'", "start_at => '10000-01-01'"): "calendar",
    },
    "raise_event": {
        ("''", "'e'"): "instance id",
        ("'@a@b'", "'e'"): "is an entity",
        ("'i'", "''"): "name of the event",
        ("'i'", "'e'", "NULL", "''"): "key",
    },
    "signal_entity": {
        ("'a@b'", "'c'", "'add'"): "entity name",
        ("'a'", "''", "'add'"): "entity key",
        ("'a'", "repeat('x', 255)", "'add'"): "entity id",
        ("'a'", "'b'", "'_add'"): "no operation",
        ("'a'", "'b'", "NULL"): "operation",
    },
}


def test_what_cannot_be_meant_is_refused(url: str) -> None:
    async def scenario() -> None:
        await make_hub(url)
        for function, calls in REFUSED.items():
            for arguments, message in calls.items():
                with pytest.raises(asyncpg.DataError, match=message):
                    await call(url, function, *arguments)
        assert await arrivals(url) == 0

    asyncio.run(scenario())


def test_a_role_needs_no_more_rights_than_the_manual_says(url: str) -> None:
    role, schema = f"sender_{schema_of(url)}", schema_of(url)

    async def scenario() -> None:
        await make_hub(url)
        connection = await asyncpg.connect(server_of(url))
        for statement in (
            f"CREATE ROLE {role}",
            f"GRANT USAGE ON SCHEMA {schema} TO {role}",
            f"GRANT SELECT ON {schema}.hub TO {role}",
            f"GRANT INSERT, SELECT (partition) ON {schema}.arrival TO {role}",
            f"SET ROLE {role}",
        ):
            await connection.execute(statement)
        await connection.execute(f"SELECT {schema}.raise_event('i', 'e')")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(f"SELECT * FROM {schema}.instance")
        await connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")
        await connection.close()
        assert await arrivals(url) == 1

    asyncio.run(scenario())
