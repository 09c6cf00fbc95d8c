"""A fleet behind PgBouncer in transaction mode, which gives each transaction whatever connection is free.

What hosts do that hear no hints, without a pooler, is in test_fleet.py.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack

import asyncpg
import pytest
from engine_kit import SOON, Run, World, make_app
from fleet_kit import PARTITIONS, joined, shared_by

from holdfast import App, EntityId, HostConfig, OrchestrationContext, activity_context, when_all
from postgres_kit import drop, execute, new_schema, pgbouncer, schema_of

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="no package of Python has it, the machine may"),
]
CONNECTIONS = 3
CONFIG = HostConfig(drain_s=0.2, poll_s=0.05, renew_s=0.1)
ACCOUNTS = 8
ROUNDS = 60


@pytest.fixture
def direct_url(postgres_server: str) -> Iterator[str]:
    url = new_schema(postgres_server, partitions=PARTITIONS)
    yield url
    drop(url)


def test_what_is_asked_of_a_fleet_behind_a_pooler_ends_exactly(postgres_server: str, direct_url: str) -> None:
    with pgbouncer(postgres_server, CONNECTIONS) as pooler_url:
        schema = schema_of(direct_url)
        url = f"{pooler_url}&schema={schema}&partitions={PARTITIONS}&pooler=transaction"
        asyncio.run(_survive(url, direct_url))


async def _survive(url: str, direct_url: str) -> None:
    app = _app(schema_of(direct_url))
    async with joined(app, url, CONFIG) as a, joined(app, url, CONFIG) as b, AsyncExitStack() as stack:
        await execute(direct_url, "CREATE TABLE written (item INTEGER)")
        await shared_by(a, b)
        working = asyncio.ensure_future(
            asyncio.gather(*(_work(number, (a, b)[number % 2]) for number in range(ROUNDS)))
        )
        c = await stack.enter_async_context(joined(app, url, CONFIG))
        await shared_by(a, b, c)
        assert await _backends(direct_url) <= CONNECTIONS, "they are connected past the pooler"
        await stack.aclose()
        await shared_by(a, b)
        await working
        balances = Counter[str]()
        for number in range(ROUNDS):
            balances.update({f"k{number % ACCOUNTS}": -number, f"k{(number + 1) % ACCOUNTS}": number})
        for key, balance in balances.items():
            assert await b.client.read_entity_state(EntityId("account", key)) == {"balance": balance}
        assert await a.client.call_entity(EntityId("account", "signals"), "add", 0, timeout=SOON) == ROUNDS
        written = await execute(direct_url, "SELECT item FROM written")
        assert written == f"SELECT {ROUNDS}"


async def _work(number: int, run: Run) -> None:
    """Ask for a bit of everything at one host; most of it is up to the others."""
    client = run.client
    parent = await client.start_new("parent", 4, instance_id=f"p{number}", request_key="once")
    events = await client.start_new("events", 2, instance_id=f"e{number}", request_key="once")
    for value in range(2):
        await client.raise_event(events.instance_id, "e", value, key=f"{value}")
    pair = [f"k{number % ACCOUNTS}", f"k{(number + 1) % ACCOUNTS}", number]
    transfer = await client.start_new("transfer", pair, instance_id=f"t{number}", request_key="once")
    writing = await client.start_new("writing", number, instance_id=f"w{number}", request_key="once")
    await client.signal_entity(EntityId("account", "signals"), "add", 1, key=f"{number}")
    assert await parent.wait_for_completion(timeout=SOON) == [1, 2, 4, 8]
    assert await events.wait_for_completion(timeout=SOON) == [0, 1]
    assert await writing.wait_for_completion(timeout=SOON) == number
    await transfer.wait_for_completion(timeout=SOON)


def _app(schema: str) -> App:
    app = make_app(World())

    @app.activity(transactional=True)
    async def write(number: int) -> int:
        connection = activity_context().connection
        assert isinstance(connection, asyncpg.Connection)
        await connection.execute(f"INSERT INTO {schema}.written VALUES ($1)", number)
        return number

    @app.orchestrator
    async def writing(ctx: OrchestrationContext, number: int) -> int:
        [written] = await when_all([ctx.call_activity(write, number)])
        return written

    _ = writing
    return app


async def _backends(direct_url: str) -> int:
    connections = "SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    return int((await execute(direct_url, connections)).removeprefix("SELECT "))
