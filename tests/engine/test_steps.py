"""Steps that are taken several together: whose turn it is next, how much may come of them, and who is blamed."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from engine_kit import SOON, Run, until
from entity_kit import on

from holdfast import App, HostConfig, Limits, OrchestrationContext, when_all
from holdfast.engine.culprits import Culprits
from holdfast.engine.journal import Journal
from holdfast.hub.hub import Hub
from holdfast.storage.memory import MemoryStore


async def with_backlog(run: Run, instance_ids: list[str], events: int) -> None:
    """Have events wait for instances, which take their steps only when this returns."""
    node = run.engine.node
    node.turns.pause()
    for _ in range(events):
        await asyncio.gather(*(run.client.raise_event(each, "e") for each in instance_ids))
    node.turns._is_paused = False
    node.turns.schedule()


@pytest.mark.parametrize("count", [65, 67, 129])
def test_whoever_found_no_time_is_next(count: int) -> None:
    """They went to the end of the queue, behind those who had their turn already; some never had one."""
    app, passed_s, steps = App(), 0.0, Counter[str]()

    @app.orchestrator
    async def slow(ctx: OrchestrationContext) -> None:
        nonlocal passed_s
        while True:
            passed_s += 0.051  # longer than a turn
            steps[ctx.instance_id] += 1
            await ctx.wait_for_external_event("e")

    async def scenario(run: Run) -> None:
        ids = [f"i{number}" for number in range(count)]
        await asyncio.gather(*(run.client.start_new(slow, instance_id=each) for each in ids))
        await until(lambda: len(steps) == count)
        loop, real_time = asyncio.get_running_loop(), asyncio.get_running_loop().time
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(loop, "time", lambda: real_time() + passed_s)
            steps.clear()
            await with_backlog(run, ids, 3)
            while steps.total() < 2 * count:
                await asyncio.sleep(0)
        assert set(steps.values()) == {2}

    on(MemoryStore(), app, scenario, HostConfig(limits=Limits(episode_messages_max=1), drain_s=0.2))


@pytest.mark.parametrize("is_wide", [False, True])
def test_steps_stop_when_the_journal_is_full(monkeypatch: pytest.MonkeyPatch, is_wide: bool) -> None:
    """As if they were taken one by one: one step may go over the limits, but not all those of a turn."""
    app, most = App(), {"chars": 0, "transitions": 0}
    append = Journal.append

    def measured(self: Journal, transition: Any) -> None:
        append(self, transition)
        most["chars"] = max(most["chars"], self._waiting_bytes)
        most["transitions"] = max(most["transitions"], self._tail_lsn - self.durable_lsn)

    @app.orchestrator
    async def child(ctx: OrchestrationContext) -> None: ...

    @app.orchestrator
    async def large(ctx: OrchestrationContext) -> str:
        await ctx.wait_for_external_event("e")
        if is_wide:
            await when_all([ctx.call_sub_orchestrator(child) for _ in range(30)])
        return "x" * (0 if is_wide else 30_000)

    async def scenario(run: Run) -> None:
        ids = [f"i{number}" for number in range(64)]
        await asyncio.gather(*(run.client.start_new(large, instance_id=each) for each in ids))
        await asyncio.sleep(0)
        await with_backlog(run, ids, 1)
        most.update(chars=0, transitions=0)
        for each in ids:
            await run.client.wait_for_completion(each, timeout=SOON)

    monkeypatch.setattr(Journal, "append", measured)
    limited = HostConfig(journal_bytes_max=100_000, journal_transitions_max=100, group_transitions_max=100, drain_s=0.2)
    on(MemoryStore(), app, scenario, limited)
    # The requests of the client count as well; they may have filled it up to its limit.
    assert most["chars"] <= 2 * 100_000 + 2 * 30_000
    assert most["transitions"] <= 2 * 100 + 2 * 30


def test_an_error_in_a_delivery_is_blamed_on_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever took a step after the sender in the same turn was blamed, and parked."""
    app, suspected = App(), list[str]()
    deliver, suspect = Hub.deliver, Culprits.suspect

    def broken(self: Hub, instance: Any, message: Any, now: Any) -> Any:
        if getattr(message.event, "name", None) == "boom":
            raise ValueError("a bug of ours")
        return deliver(self, instance, message, now)

    def noting(self: Culprits, instance_id: str, error: Exception) -> None:
        suspected.append(instance_id)
        suspect(self, instance_id, error)

    @app.orchestrator
    async def sends(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("e")
        ctx.send_event("victim", "boom")

    @app.orchestrator
    async def waits(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("e")

    async def scenario(run: Run) -> None:
        ids = ["sender", "a", "b", "victim"]
        for each in ids:
            await run.client.start_new(sends if each == "sender" else waits, instance_id=each)
        await until(lambda: all(each in run.engine.node.residents for each in ids))
        monkeypatch.setattr(Hub, "deliver", broken)
        monkeypatch.setattr(Culprits, "suspect", noting)
        await with_backlog(run, ids[:3], 1)
        await until(lambda: bool(suspected))
        monkeypatch.setattr(Hub, "deliver", deliver)

    on(MemoryStore(), app, scenario)
    assert suspected[0] == "sender"


def test_activities_that_found_no_room_run_as_soon_as_there_is_some() -> None:
    """That they were left to the store was noticed at the next look around, a second later at best."""
    app = App()

    @app.activity
    async def double(number: int) -> int:
        return 2 * number

    @app.orchestrator
    async def many(ctx: OrchestrationContext) -> list[int]:
        return await when_all([ctx.call_activity(double, number) for number in range(5)])

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(many)
        assert await handle.wait_for_completion(timeout=SOON) == [0, 2, 4, 6, 8]

    seldom = msgspec.structs.replace(HostConfig(), clock_check_s=1e6, activity_queue_max=1, drain_s=0.2)
    on(MemoryStore(), app, scenario, seldom)
