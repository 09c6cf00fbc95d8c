"""What the check of a store is worth: it misses every row that is taken away, and every one that is somebody else's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from doctor_rows import findings
from engine_kit import Run, eventually, running
from store_check import Rows, complaints, leftovers, rows_in_memory

from holdfast import App, Entity, EntityId, HostConfig, OrchestrationContext
from holdfast.storage.memory import MemoryData, MemoryStore

LONG = timedelta(minutes=10)
NAMES = ("activity", "child", "timer", "holder", "locker", "caller")
TABLES = ("instances", "history", "messages", "activities", "timers", "children")


def make_waiting_app() -> App:
    """Everything in it waits for something."""
    app = App()

    @app.entity
    @dataclass
    class Cell(Entity):
        value: int = 0

        def set(self, value: int) -> None:
            self.value = value

    cell = EntityId(Cell, "c")

    @app.activity
    async def endless() -> None:
        await asyncio.sleep(LONG.total_seconds())

    @app.orchestrator
    async def activity(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(endless)

    @app.orchestrator
    async def child(ctx: OrchestrationContext) -> None:
        await ctx.call_sub_orchestrator(activity)

    @app.orchestrator
    async def timer(ctx: OrchestrationContext) -> None:
        await ctx.create_timer(LONG)

    @app.orchestrator
    async def holder(ctx: OrchestrationContext) -> None:
        async with ctx.lock(cell):
            await ctx.create_timer(LONG)

    @app.orchestrator
    async def locker(ctx: OrchestrationContext) -> None:
        async with ctx.lock(cell):
            pass

    @app.orchestrator
    async def caller(ctx: OrchestrationContext) -> None:
        await ctx.call_entity(cell, Cell.set, 1)

    _ = (child, timer, holder, locker, caller)
    return app


@pytest.fixture(scope="module")
def rows() -> Rows:
    """What a host leaves behind that stops while everybody waits."""
    data = MemoryData()

    async def all_wait(run: Run) -> None:
        for name in NAMES:
            await run.client.start_new(name, instance_id=name)
            await run.engine.node.journal.settled()

        async def is_so() -> bool:
            return len(data.messages) == 2 and len(data.timers) == 2 and len(data.activities) == 2

        await eventually(is_so)

    async def main() -> None:
        async with running(make_waiting_app(), MemoryStore(data), HostConfig(drain_s=0.01)) as run:
            await all_wait(run)

    asyncio.run(main())
    return rows_in_memory(data)


def every_row(rows: Rows) -> Iterator[tuple[str, list[Any], int]]:
    for table in TABLES:
        stored = getattr(rows, table)
        assert stored, f"there is nothing in {table}"
        yield from ((table, stored, number) for number in range(len(stored)))


def test_who_waits_for_something_is_in_order(rows: Rows) -> None:
    assert complaints(rows, ()) == []
    assert findings(rows) == []
    assert len(leftovers(rows)) > 10


def test_each_row_is_missed(rows: Rows) -> None:
    for table, stored, number in every_row(rows):
        less = msgspec.structs.replace(rows, **{table: stored[:number] + stored[number + 1 :]})
        assert complaints(less, ()) != [], f"nobody misses {stored[number]}"


def test_each_row_of_another_execution_is_found(rows: Rows) -> None:
    for table, stored, number in every_row(rows):
        if table == "messages":
            continue  # which may come too late for an execution
        other = msgspec.structs.replace(stored[number], execution_id="another")
        assert complaints(msgspec.structs.replace(rows, **{table: [*stored, other]}), ()) != [], f"{other} is taken"


def test_what_an_ended_instance_left_is_found(rows: Rows) -> None:
    for number, row in enumerate(rows.instances):
        if row.instance_id in NAMES and row.instance_id != "caller":  # whose call is answered to nobody
            ended = [
                *rows.instances[:number],
                msgspec.structs.replace(row, status="Completed"),
                *rows.instances[number + 1 :],
            ]
            assert complaints(msgspec.structs.replace(rows, instances=ended), ()) != [], f"{row.instance_id} has ended"


def test_the_doctor_misses_each_row_but_timers(rows: Rows) -> None:
    """That a timer was cancelled leaves no trace; that an orchestration itself is gone is found by what it leaves."""
    for table, stored, number in every_row(rows):
        if table != "timers" and not (table == "instances" and not stored[number].instance_id.startswith("@")):
            less = msgspec.structs.replace(rows, **{table: stored[:number] + stored[number + 1 :]})
            assert findings(less) != [], f"nobody misses {stored[number]}"
