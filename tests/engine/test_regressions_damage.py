"""Suspects, damaged rows, clocks and mistakes of users: what once stopped a whole hub, and must not again."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from engine_kit import SOON, Run, SlowStore, World, eventually, make_app, running, until
from test_orchestrations import MakeStore, on, result
from test_recovery import parked, spoil

from holdfast import (
    App,
    ConfigurationError,
    Entity,
    EntityId,
    HostConfig,
    InstanceNotEndedError,
    InstanceNotFoundError,
    InstanceQuery,
    InvalidInputError,
    OrchestrationContext,
    OrchestrationFailedError,
    RetryPolicy,
    when_all,
)
from holdfast.engine import recovery
from holdfast.errors import CorruptRecordError
from holdfast.model.bulk import BulkProgress
from holdfast.model.failure import FailureDetails
from holdfast.storage.memory import MemoryData, MemoryStore
from holdfast.storage.open_store import open_store


async def is_waiting(run: Run, instance_id: str) -> None:
    """Wait until an orchestration has had its first episode."""

    async def waiting() -> bool:
        return bool(await run.client.get_history(instance_id))

    await eventually(waiting)


def suspect(data: MemoryData, *instance_ids: str) -> None:
    """Have instances counted as after three crashes."""
    for instance_id in instance_ids:
        data.instances[instance_id] = msgspec.structs.replace(data.instances[instance_id], deliveries=3)


# Suspects


def test_a_suspended_suspect_does_not_keep_the_others_waiting() -> None:
    """It held the turn of the suspects, and never used it."""
    data = MemoryData()

    async def before(run: Run) -> None:
        for instance_id in "ab":
            await run.client.start_new("events", 1, instance_id=instance_id)
            await is_waiting(run, instance_id)

    async def after(run: Run) -> None:
        await run.client.suspend("a")
        await run.client.raise_event("b", "e", 1)
        assert await run.client.wait_for_completion("b", timeout=SOON) == [1]

    on(MemoryStore(data), make_app(World()), before)
    suspect(data, "a", "b")
    on(MemoryStore(data), make_app(World()), after)


@pytest.mark.parametrize("suspects", [["@account@a"], ["@account@a", "holder"], ["holder", "@account@a"]])
def test_a_locked_entity_and_its_holder_do_not_wait_for_each_other(suspects: list[str]) -> None:
    """An entity that is a suspect waited for the unlock of a holder, which waited for the turn of the entity."""
    app = App()

    @app.entity
    @dataclass
    class Account(Entity):
        balance: int = 0

        def add(self, amount: int) -> int:
            self.balance += amount
            return self.balance

    account = EntityId(Account, "a")

    @app.orchestrator
    async def pay(ctx: OrchestrationContext) -> int:
        async with ctx.lock(account):
            await ctx.wait_for_external_event("go")
            return await ctx.call_entity(account, Account.add, 1)

    data = MemoryData()

    async def before(run: Run) -> None:
        await run.client.start_new(pay, instance_id="holder")

        async def locked() -> bool:
            return "@account@a" in data.instances and data.instances["@account@a"].lock is not None

        await eventually(locked)
        await run.client.signal_entity(account, Account.add, 1)

    async def after(run: Run) -> None:
        await asyncio.sleep(0.1)  # it is the turn of the entity, which finds itself locked
        await run.client.raise_event("holder", "go", 1)
        assert await run.client.wait_for_completion("holder", timeout=SOON) == 1

    on(MemoryStore(data), app, before)
    suspect(data, *suspects)
    on(MemoryStore(data), app, after)


def test_parking_waits_while_the_history_of_the_instance_is_read() -> None:
    """An instance that turned out to be guilty was parked in the middle of an episode, which ended the whole node."""
    data = MemoryData()

    async def before(run: Run) -> None:
        await run.client.start_new("events", 1, instance_id="guilty")
        await is_waiting(run, "guilty")

    async def scenario() -> None:
        store = SlowStore(MemoryStore(data))
        store.before["load_history"] = reads = asyncio.Event()
        async with running(make_app(World()), store) as run:
            node = run.engine.node
            await run.client.raise_event("guilty", "e", 1)
            await until(lambda: store.calls["load_history"] > 0)
            node.parking.park_by_id("guilty", FailureDetails("SomeError", "it was the killer"))
            reads.set()
            assert await parked(run, "guilty") == "it was the killer"
            await run.client.resume("guilty")
            assert await run.client.wait_for_completion("guilty", timeout=SOON) == [1]
            assert run.engine.node is node

    on(MemoryStore(data), make_app(World()), before)
    asyncio.run(scenario())


# Damaged rows


def test_an_instance_row_with_an_impossible_time_hurts_nobody_else() -> None:
    """Requests to it hung, and the node started afresh again and again."""
    data = MemoryData()

    async def before(run: Run) -> None:
        for instance_id in ("hurt", "well"):
            await run.client.start_new("events", 1, instance_id=instance_id)

    async def after(run: Run) -> None:
        node = run.engine.node
        for _ in range(3):
            with pytest.raises(CorruptRecordError, match="no point in time"):
                await run.client.raise_event("hurt", "e", 1)
        await run.client.raise_event("well", "e", 1)
        assert await run.client.wait_for_completion("well", timeout=SOON) == [1]
        assert run.engine.node is node

    on(MemoryStore(data), make_app(World()), before)
    data.instances["hurt"] = msgspec.structs.replace(data.instances["hurt"], updated_at=10**18)
    on(MemoryStore(data), make_app(World()), after)


def test_a_timer_row_with_an_impossible_time_parks_its_instance() -> None:
    """The node started afresh again and again."""
    data = MemoryData()

    async def before(run: Run) -> None:
        await run.client.start_new("sleepy", 86_400_000, instance_id="hurt")
        await is_waiting(run, "hurt")

    async def after(run: Run) -> None:
        node = run.engine.node
        assert "no point in time" in await parked(run, "hurt")
        assert await result(run, "sleepy", 1) == "awake"
        assert run.engine.node is node

    on(MemoryStore(data), make_app(World()), before)
    for key, row in data.timers.items():
        data.timers[key] = msgspec.structs.replace(row, due_at=-(10**18))
    on(MemoryStore(data), make_app(World()), after)


def test_an_activity_row_that_cannot_be_read_parks_its_instance(tmp_path: Path) -> None:
    """Nobody could start, whatever the other rows were like."""
    path = tmp_path / "hub.db"
    world = World()
    app = App()

    @app.activity
    async def place_order() -> str:
        world.calls.append("order")
        await world.gate.wait()
        return "placed"

    @app.orchestrator
    async def order(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(place_order)

    async def before(run: Run) -> None:
        for instance_id in ("hurt", "well"):
            await run.client.start_new(order, instance_id=instance_id)
        await until(lambda: len(world.calls) == 2)

    async def after(run: Run) -> None:
        assert "cannot be read" in await parked(run, "hurt")
        assert await run.client.wait_for_completion("well", timeout=SOON) == "placed"
        assert world.calls == ["order"]

    on(open_store(f"sqlite:///{path}"), app, before)
    world.calls.clear()
    world.gate.set()
    spoil(path, "UPDATE activity SET options = 'zzz' WHERE instance_id = 'hurt'")
    on(open_store(f"sqlite:///{path}"), app, after)


# Pages and clocks


def test_no_activity_is_skipped_between_the_pages_of_a_recovery(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages were counted by rows; those that went away meanwhile shifted the ones behind them."""
    monkeypatch.setattr(recovery, "_ROWS_PER_READ", 5)
    world = World()
    app = App()

    @app.activity
    async def waits(number: int) -> int:
        world.calls.append(number)
        await world.gate.wait()
        return number

    @app.orchestrator
    async def fan(ctx: OrchestrationContext) -> int:
        return sum(await when_all([ctx.call_activity(waits, number) for number in range(20)]))

    async def before(run: Run) -> None:
        await run.client.start_new(fan, instance_id="f")
        await until(lambda: len(world.calls) == 20)

    async def after() -> None:
        store = SlowStore(make_store())
        store.before["activities_visible"] = 0.02
        async with running(app, store) as run:
            assert await run.client.wait_for_completion("f", timeout=SOON) == 190
        assert sorted(world.calls) == list(range(20))

    on(make_store(), app, before)
    world.calls.clear()
    world.gate.set()
    asyncio.run(after())


class SetClock:
    """A clock that somebody sets, and that may be coarse."""

    def __init__(self, *, coarse: bool = False) -> None:
        self.ahead = timedelta(0)
        self._coarse = coarse

    def now(self) -> datetime:
        now = datetime.now(UTC) + self.ahead
        return now.replace(microsecond=0) if self._coarse else now


def test_timers_fire_after_the_clock_was_set_back(make_store: MakeStore) -> None:
    """Nothing was brought into memory until the clock was again where it had been, here for an hour."""
    clock = SetClock()
    clock.ahead = timedelta(hours=1)

    async def scenario() -> None:
        config = HostConfig(timer_horizon_s=1, clock_check_s=0.02, drain_s=0.2)
        async with running(make_app(World()), make_store(), config, clock) as run:
            await asyncio.sleep(0.1)  # the look-out for what comes due has begun
            clock.ahead = timedelta(0)
            assert await result(run, "sleepy", 1_100) == "awake"

    asyncio.run(scenario())


def test_uuids_differ_over_continue_as_new_whatever_the_clock_says(make_store: MakeStore) -> None:
    """They were made from the time alone, so executions within one tick of a coarse clock repeated them."""
    app = App()
    seen: list[str] = []

    @app.activity
    async def use(uuid: str) -> None:
        seen.append(uuid)

    @app.orchestrator
    async def loop(ctx: OrchestrationContext, left: int) -> None:
        await ctx.call_activity(use, str(ctx.new_uuid()))
        if left:
            ctx.continue_as_new(left - 1)

    async def scenario() -> None:
        async with running(app, make_store(), clock=SetClock(coarse=True)) as run:
            await result(run, "loop", 5)

    _ = loop
    asyncio.run(scenario())
    assert len(set(seen)) == len(seen) == 6


# Mistakes of users


def test_a_name_that_cannot_be_stored_is_refused_at_the_call(make_store: MakeStore) -> None:
    """It went as far as the commit, and the whole node was thrown away for it."""
    app = App()

    @app.orchestrator
    async def calls(ctx: OrchestrationContext) -> str:
        with pytest.raises(InvalidInputError):
            await ctx.call_activity("bad\udc80name")
        return "refused"

    async def scenario(run: Run) -> None:
        node = run.engine.node
        assert await result(run, "calls") == "refused"
        assert run.engine.node is node

    _ = calls
    on(make_store(), app, scenario)


def test_the_custom_status_is_not_inherited_by_the_next_use_of_an_id(make_store: MakeStore) -> None:
    """The status of the orchestration before, perhaps 'approved', was shown for the new one."""
    app = App()

    @app.orchestrator
    async def approval(ctx: OrchestrationContext, is_first: bool) -> None:
        if is_first:
            ctx.set_custom_status("approved")
        else:
            await ctx.wait_for_external_event("e")

    async def scenario(run: Run) -> None:
        await result(run, "approval", True, instance_id="a")
        handle = await run.client.start_new(approval, False, instance_id="a")
        status = await handle.get_status()
        assert status is not None
        assert status.custom_status is None

    on(make_store(), app, scenario)


def test_a_plain_activity_that_raises_stop_iteration_fails(make_store: MakeStore) -> None:
    """No future can carry a StopIteration out of a thread, so the orchestration hung."""
    app = App()

    @app.activity
    def exhausted() -> Any:
        raise StopIteration("nothing left")

    @app.orchestrator
    async def takes(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(exhausted)

    async def scenario(run: Run) -> None:
        with pytest.raises(OrchestrationFailedError, match="raised StopIteration"):
            await result(run, "takes")

    _ = takes
    on(make_store(), app, scenario)


def test_a_retry_that_is_no_policy_is_refused_by_the_decorator_and_at_the_call() -> None:
    """A number was taken, and failed much later, in the engine."""
    app = App()
    number: Any = 3
    with pytest.raises(ConfigurationError, match="RetryPolicy"):
        app.activity(retry=number)(_undecorated)

    @app.activity
    async def fine() -> None:
        return None

    @app.orchestrator
    async def retries(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(fine, retry=number)

    async def scenario(run: Run) -> None:
        with pytest.raises(OrchestrationFailedError, match="RetryPolicy"):
            await result(run, "retries")

    _ = retries
    on(MemoryStore(), app, scenario)


def test_a_function_that_is_no_activity_is_told_to_be_decorated() -> None:
    """The message was about the attributes that a function does not have."""
    app = App()
    function: Any = _undecorated

    @app.orchestrator
    async def calls(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(function)

    async def scenario(run: Run) -> None:
        with pytest.raises(OrchestrationFailedError, match=r"_undecorated.*@app\.activity"):
            await result(run, "calls")

    _ = calls
    on(MemoryStore(), app, scenario)


async def _undecorated() -> None:
    return None


# What is left of damaged rows


def test_a_damaged_instance_is_purged_with_its_open_work_and_refused_by_bulk_jobs(tmp_path: Path) -> None:
    """It could neither run nor be removed, and one such row failed every list and bulk job that met it."""
    path = tmp_path / "hub.db"
    world = World()
    app = App()

    @app.activity(retry=RetryPolicy(first_retry_interval=timedelta(days=1), max_retry_interval=timedelta(days=1)))
    async def failing() -> None:
        world.calls.append("failed")
        raise ValueError

    @app.orchestrator
    async def busy(ctx: OrchestrationContext) -> None:
        await when_all([ctx.call_activity(failing), ctx.create_timer(timedelta(days=1))])

    def make_store() -> Any:
        return open_store(f"sqlite:///{path}")

    async def before(run: Run) -> None:
        for instance_id in ("hurt", "well"):
            await run.client.start_new(busy, instance_id=instance_id)
        await until(lambda: len(world.calls) == 2)
        await run.client.raise_event("hurt", "unread", 1)

    async def after(run: Run) -> None:
        node = run.engine.node
        job = await run.client.start_bulk("suspend", InstanceQuery(name="busy"))
        assert await job.wait_for_completion(timeout=SOON) == BulkProgress(done=1, refused=1)
        assert "no point in time" in await parked(run, "hurt")
        with pytest.raises(InstanceNotEndedError):
            await run.client.purge("well")
        await run.client.purge("hurt")
        with pytest.raises(InstanceNotFoundError):
            await run.client.purge("hurt")
        assert await run.client.get_status("hurt") is None
        assert run.engine.node is node

    on(make_store(), app, before)
    spoil(path, "UPDATE instance SET updated_at = 1000000000000000000 WHERE instance_id = 'hurt'")
    on(make_store(), app, after)
    with closing(sqlite3.connect(path)) as connection:
        for table in ("instance", "activity", "inbox", "timer", "child"):
            assert connection.execute(f"SELECT count(*) FROM {table} WHERE instance_id = 'hurt'").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM activity").fetchone() == (1,)
