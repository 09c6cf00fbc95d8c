"""Signals that are delivered later: not before they are due, in the order of that, and after whatever happens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from engine_kit import SOON, FailingStore, Run, eventually, until
from entity_kit import MakeStore, Outside, entries, has_entries, ledger, make_entities, note, on

from holdfast import (
    EntityContext,
    EntityId,
    EntitySignal,
    HostConfig,
    Limits,
    OrchestrationContext,
    OverloadedError,
    StorageError,
)
from holdfast.storage.memory import MemoryData, MemoryStore


class SetClock:
    """A clock that somebody sets."""

    def __init__(self) -> None:
        self.time = datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time


async def scheduled(data: MemoryData, count: int) -> None:
    await until(lambda: len(data.timers) == count)


async def all_read(run: Run, key: str) -> None:
    """Wait until an entity has taken in all that was sent to it."""

    async def empty() -> bool:
        found = await run.client.get_entity(ledger(key))
        return found is not None and found.messages == 0

    await eventually(empty)


def test_a_signal_waits_until_it_is_due_over_years_and_hosts(make_store: MakeStore) -> None:
    clock = SetClock()
    year = timedelta(days=365)

    async def sends(run: Run) -> None:
        await run.client.signal_many([
            note("a", "in a year", due=clock.time + year),
            note("a", "past", due=clock.time - year),
            note("a", "in an hour", due=clock.time + timedelta(hours=1)),
        ])  # fmt: skip
        await has_entries(run, "a", ["past"])
        await all_read(run, "a")

    async def has(run: Run, expected: list[Any]) -> None:
        await has_entries(run, "a", expected)

    on(make_store(), make_entities(), sends, clock=clock)
    clock.time += timedelta(minutes=59)
    on(make_store(), make_entities(), lambda run: has(run, ["past"]), clock=clock)
    clock.time += timedelta(minutes=1)
    on(make_store(), make_entities(), lambda run: has(run, ["past", "in an hour"]), clock=clock)
    clock.time += year - timedelta(hours=2)
    on(make_store(), make_entities(), lambda run: has(run, ["past", "in an hour"]), clock=clock)
    clock.time += timedelta(hours=1)
    on(make_store(), make_entities(), lambda run: has(run, ["past", "in an hour", "in a year"]), clock=clock)


def test_the_order_is_that_in_which_they_are_due(make_store: MakeStore) -> None:
    """Equal ones keep the order in which they were sent; whoever finds them all overdue has the same order."""
    clock = SetClock()
    dues = [5, 3, 9, 3, 1, 9, 5]

    async def sends(run: Run) -> None:
        for number, minutes in enumerate(dues):
            due = clock.time + timedelta(minutes=minutes)
            await run.client.signal_entity(ledger("a"), "note", [minutes, number], due=due)
        await run.client.signal_entity(ledger("a"), "note", "now")
        await has_entries(run, "a", ["now"])
        await all_read(run, "a")

    async def later(run: Run) -> None:
        await has_entries(run, "a", ["now", *sorted([minutes, number] for number, minutes in enumerate(dues))])

    on(make_store(), make_entities(), sends, clock=clock)
    clock.time += timedelta(minutes=10)
    on(make_store(), make_entities(), later, clock=clock)


def test_they_come_to_entities_that_have_left_memory() -> None:
    data, clock, count = MemoryData(), SetClock(), 60

    async def scenario(run: Run) -> None:
        due = clock.time + timedelta(hours=1)
        await run.client.signal_many([note(f"{n}", "later", due=due) for n in range(count)])
        await scheduled(data, count)
        for n in range(count):
            await run.client.call_entity(ledger(f"x{n}"), "note", 1)
        resident = {each.instance.instance_id for each in run.engine.node.residents}
        assert any(f"@ledger@{n}" not in resident for n in range(count)), "too few have left memory"
        clock.time = due
        for n in range(count):
            await has_entries(run, f"{n}", ["later"])
        await scheduled(data, 0)

    config = HostConfig(cache_bytes_max=10_000, clock_check_s=0.01, drain_s=0.2)
    on(MemoryStore(data), make_entities(), scenario, config, clock)


def test_orchestrators_and_entities_schedule_too(make_store: MakeStore) -> None:
    """What a failed operation has scheduled is not sent."""
    clock, app = SetClock(), make_entities()

    @app.entity
    def alarm(ctx: EntityContext) -> None:
        ctx.signal_entity(ledger("a"), "note", ctx.operation_name, due=timedelta(minutes=2))
        if ctx.operation_name == "fail":
            raise ValueError("after it was scheduled")

    @app.orchestrator
    async def sets_alarms(ctx: OrchestrationContext) -> None:
        ctx.signal_entity(ledger("a"), "note", "by orchestrator", due=timedelta(minutes=3))
        ctx.signal_entity(ledger("a"), "note", "at an instant", due=ctx.current_utc_datetime + timedelta(minutes=1))
        await ctx.call_entity(EntityId("alarm", "a"), "ring")

    async def sends(run: Run) -> None:
        handle = await run.client.start_new("sets_alarms")
        await handle.wait_for_completion(timeout=SOON)
        await run.client.signal_entity(EntityId("alarm", "a"), "fail")
        await run.client.call_entity(EntityId("alarm", "a"), "ring", timeout=SOON)
        await all_read(run, "a")
        assert await entries(run, "a") == []

    async def later(run: Run) -> None:
        await has_entries(run, "a", ["at an instant", "ring", "ring", "by orchestrator"])

    _ = (alarm, sets_alarms)
    on(make_store(), app, sends, clock=clock)
    clock.time += timedelta(minutes=4)
    on(make_store(), app, later, clock=clock)


def test_what_is_scheduled_neither_delays_nor_is_delayed_by_the_queue() -> None:
    """While an operation waits, what is not due goes to its timer, and what falls due takes its place in the queue."""
    outside, data = Outside(), MemoryData()

    async def scenario(run: Run) -> None:
        await run.client.signal_entity(ledger("a"), "wait", "first")
        await until(lambda: bool(outside.seen))
        await run.client.signal_many([
            note("a", "due", due=timedelta(milliseconds=20)), note("a", "second"), note("a", "far", due=timedelta(1))
        ])  # fmt: skip
        await scheduled(data, 2)
        instance = next(each.instance for each in run.engine.node.residents if each.instance.is_entity)
        await until(lambda: len(instance.inbox) == 2)
        await run.client.signal_entity(ledger("a"), "note", "third")
        outside.gate.set()
        await has_entries(run, "a", ["first", "second", "due", "third"])
        await scheduled(data, 1)

    on(MemoryStore(data), make_entities(outside), scenario)


def test_a_deleted_entity_gets_its_scheduled_signals() -> None:
    async def scenario(run: Run) -> None:
        await run.client.signal_many([
            note("a", 1), note("a", "later", due=timedelta(milliseconds=30)), EntitySignal(ledger("a"), "delete")
        ])  # fmt: skip
        await run.client.clean_entities(idle_for=timedelta(0))
        await has_entries(run, "a", ["later"])

    on(MemoryStore(), make_entities(), scenario)


def test_none_is_lost_or_delivered_twice_when_commits_fail() -> None:
    data = MemoryData()
    failing = FailingStore(MemoryStore(data))

    async def scenario(run: Run) -> None:
        failing.fail_at = {number: "unknown, applied" if number % 2 else "before" for number in range(2, 40, 3)}
        for number in range(8):
            due = datetime.now(UTC) + timedelta(milliseconds=10 * number)
            while True:
                try:
                    await run.client.signal_entity(ledger("a"), "note", number, due=due, key=f"{number}")
                    break
                except StorageError:
                    await until(lambda: run.engine.is_ready)

        async def complete() -> bool:
            return len(await entries(run, "a")) >= 8

        await eventually(complete)
        await scheduled(data, 0)
        assert sorted(await entries(run, "a")) == list(range(8))

    on(failing, make_entities(), scenario, HostConfig(group_transitions_max=1, drain_s=0.2))


def test_scheduled_signals_of_an_entity_that_left_memory_are_counted() -> None:
    config = HostConfig(cache_bytes_max=1, limits=Limits(inbox_messages_max=3))
    later = timedelta(hours=1)

    async def scenario(run: Run) -> None:
        for number in range(3):
            await run.client.signal_entity(ledger("a"), "note", number, due=later)
        await run.client.call_entity(ledger("b"), "note", "so that the other one leaves memory", timeout=SOON)
        await until(lambda: ledger("a").instance_id not in run.engine.node.residents)
        with pytest.raises(OverloadedError, match="up to 3"):
            await run.client.signal_entity(ledger("a"), "note", 3, due=later)
        found = await run.client.get_entity(ledger("a"))
        assert found is not None
        assert (found.scheduled_signals, found.messages) == (3, 0)

    on(MemoryStore(), make_entities(), scenario, config)
