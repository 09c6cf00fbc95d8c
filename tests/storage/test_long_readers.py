"""Somebody else's transaction that stays open for long: PostgreSQL keeps every row for it that anybody has removed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import asyncpg
import msgspec
from test_postgres import MAY_SCAN, VALUES, scans

from holdfast import App, Client, OrchestrationContext
from holdfast.storage.postgres.queries import QUERIES
from postgres_kit import connect, drop, new_schema

ORCHESTRATIONS: Final = 2_000
_AT_ONCE: Final = 200
_SMALL_PAGES: Final = 64
"""To go through a table that has no more pages than this is as good as to look something up in it."""

app = App()


@app.activity
async def measure(text: str) -> int:
    return len(text)


@app.orchestrator
async def small(ctx: OrchestrationContext, text: str) -> int:
    return await ctx.call_activity(measure, text)


@asynccontextmanager
async def long_reader(url: str) -> AsyncGenerator[None]:
    """Be somebody who looks at the database for a long time."""
    connection = await connect(url)
    try:
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM instance")
        yield
        assert await connection.fetchval("SELECT count(*) FROM instance") == 0, "it still sees what it saw first"
    finally:
        await connection.close()


async def run_through(client: Client) -> None:
    places = asyncio.Semaphore(_AT_ONCE)

    async def run_one() -> None:
        async with places:
            handle = await client.start_new(small, "x" * 1_000)
            assert await handle.wait_for_completion(timeout=timedelta(seconds=60)) == 1_000

    await asyncio.gather(*(run_one() for _ in range(ORCHESTRATIONS)))


async def pages(connection: asyncpg.Connection[asyncpg.Record]) -> dict[str, int]:
    query = (
        "SELECT relname, pg_relation_size(oid) / 8192 AS pages FROM pg_class "
        "WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
    )
    return {row["relname"]: row["pages"] for row in await connection.fetch(query)}


async def scanned(connection: asyncpg.Connection[asyncpg.Record]) -> set[str]:
    """Return the tables that statements of the hub go through as a whole, by the plans of now."""
    found: set[str] = set()
    for name, sql in QUERIES.items():
        if name in MAY_SCAN:
            continue
        types: list[Any] = [each.name for each in (await connection.prepare(sql)).get_parameters()]
        values = f"({', '.join(VALUES[each] for each in types)})" if types else ""
        await connection.execute(f"PREPARE {name} AS {sql}")
        for mode in ("force_custom_plan", "force_generic_plan"):
            await connection.execute(f"SET plan_cache_mode = {mode}")
            plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {name}{values}")
            found |= set(scans(msgspec.json.decode(plan)[0]["Plan"]))
        await connection.execute(f"DEALLOCATE {name}")
    return found


def test_the_hub_does_not_go_through_what_is_kept_for_a_long_reader(postgres_server: str) -> None:
    async def scenario(url: str) -> None:
        async with app.host(url) as host:
            keeper = await connect(url)
            async with long_reader(url):
                await run_through(host.client)
                for statistics in ("SELECT", "ANALYZE", "VACUUM ANALYZE"):
                    await keeper.execute(statistics)
                    sizes = await pages(keeper)
                    assert sizes["activity"] > 2 * _SMALL_PAGES, "rows that were removed are there for the reader"
                    big = {table for table, count in sizes.items() if count > _SMALL_PAGES}
                    assert big >= {"activity", "instance", "history"}
                    assert await scanned(keeper) & big == set(), statistics
            # The row of the node, which is updated all the time, lies behind what was kept, and has to come forward.
            while max(size for table, size in (await pages(keeper)).items() if table in ("activity", "node")) > 2:
                await (await host.client.start_new(small, "x")).wait_for_completion(timeout=timedelta(seconds=60))
                await keeper.execute("VACUUM")  # which does not wait for a lock to give pages back
            await keeper.close()

    url = new_schema(postgres_server, partitions=4)
    try:
        asyncio.run(scenario(url))
    finally:
        drop(url)
