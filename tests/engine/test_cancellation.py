"""Cancellation from end to end: what runs is stopped, what cleans up runs once, and what comes late is not heard."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from engine_kit import SOON, FailingStore, Run, World, eventually, insist, running, until
from test_orchestrations import MakeStore, on

from holdfast import (
    App,
    CancelledError,
    HostConfig,
    InstanceNotRunningError,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationStatus,
    RetryPolicy,
    race,
    when_all,
)
from holdfast.model.history import CancelRequested, HistoryEvent, SubOrchestrationInstanceCreated
from holdfast.storage.memory import MemoryStore

CRASHING = HostConfig(drain_s=0.001)
"""What runs when the host goes is not given any time, as if the process had died."""


def make_app(world: World) -> App:
    """A world whose activities take as long as its gate is shut, and tell how they ended."""
    app = App()

    @app.activity
    async def slow(name: str) -> str:
        world.calls.append(f"begin {name}")
        try:
            await world.gate.wait()
        except asyncio.CancelledError:
            world.calls.append(f"stopped {name}")
            raise
        world.calls.append(f"end {name}")
        return name

    @app.activity
    async def undo(name: str) -> None:
        world.calls.append(f"undo {name}")

    @app.orchestrator
    async def waits(ctx: OrchestrationContext, name: str) -> str:
        return await ctx.call_activity(slow, name)

    @app.orchestrator
    async def parent(ctx: OrchestrationContext) -> list[str]:
        return await when_all(ctx.call_sub_orchestrator(waits, name, instance_id=name) for name in ("one", "two"))

    @app.orchestrator
    async def books(ctx: OrchestrationContext) -> None:
        async with ctx.saga() as saga:
            for name in ("hotel", "flight"):
                saga.add_compensation(undo, name)
            try:
                await ctx.call_activity(slow, "car")
            finally:
                await ctx.call_activity(slow, "finally")

    @app.orchestrator
    async def races(ctx: OrchestrationContext) -> Any:
        first = await race(ctx.call_activity(slow, "loser"), ctx.wait_for_external_event("e"))
        return [first, await ctx.wait_for_external_event("e")]

    @app.orchestrator
    async def limited(ctx: OrchestrationContext) -> str:
        retry = RetryPolicy(max_attempts=2, first_retry_interval=timedelta(0))
        try:
            return await ctx.call_sub_orchestrator(waits, "child", timeout=timedelta(milliseconds=20), retry=retry)
        except TimeoutError:
            return "late"

    @app.orchestrator
    async def stubborn(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity(slow, "a")
        except CancelledError:
            await ctx.wait_for_external_event("e")
        return "went on"

    _ = (parent, books, races, limited, stubborn)
    return app


async def cancel(run: Run, instance_id: str, reason: str = '"enough"') -> None:
    request = CancelRequested(timestamp=datetime.now(UTC), reason=reason)
    await run.client._hub.send(instance_id, request)  # pyright: ignore[reportPrivateUsage] - the client cannot yet


async def ended(run: Run, instance_id: str) -> tuple[OrchestrationStatus, Any]:
    status = await run.client.wait_until_stopped(instance_id, timeout=SOON)
    return status.runtime_status, status.output


CANCELED = (OrchestrationStatus.CANCELED, "enough")


def test_an_activity_that_runs_is_stopped(make_store: MakeStore) -> None:
    world = World()

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("waits", "a", instance_id="i")
        await until(lambda: world.calls == ["begin a"])
        await cancel(run, "i")
        assert await ended(run, "i") == CANCELED
        await until(lambda: world.calls == ["begin a", "stopped a"])
        assert await run.store.activities_visible(2**62, 10) == []
        with pytest.raises(OrchestrationFailedError, match="Canceled"):
            await handle.wait_for_completion(timeout=SOON)
        with pytest.raises(InstanceNotRunningError, match="cancel"):
            await cancel(run, "i")

    on(make_store(), make_app(world), scenario)


def test_the_children_of_a_cancelled_parent_are_cancelled(make_store: MakeStore) -> None:
    world = World()

    async def scenario(run: Run) -> None:
        await run.client.start_new("parent", instance_id="i")
        await until(lambda: sorted(world.calls) == ["begin one", "begin two"])
        await cancel(run, "i")
        assert await ended(run, "i") == CANCELED
        for name in ("one", "two"):
            status, reason = await ended(run, name)
            assert status is OrchestrationStatus.CANCELED
            assert reason == "The parent cancelled this call."
        await until(lambda: sorted(world.calls)[2:] == ["stopped one", "stopped two"])

    on(make_store(), make_app(world), scenario)


def test_the_loser_of_a_race_is_stopped_and_its_result_is_not_heard(make_store: MakeStore) -> None:
    world = World()

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("races")
        await until(lambda: world.calls == ["begin loser"])
        await handle.raise_event("e", 1)
        await until(lambda: world.calls == ["begin loser", "stopped loser"])
        world.gate.set()
        await handle.raise_event("e", 2)
        assert await handle.wait_for_completion(timeout=SOON) == [1, 2]
        history = await run.client.get_history(handle.instance_id)
        assert "TaskCompleted" not in kinds(history)
        assert kinds(history)["TaskCancelled"] == 1

    on(make_store(), make_app(world), scenario)


def kinds(history: Any) -> Counter[str]:
    return Counter(type(event).__name__ for event in history)


def test_a_late_result_is_fenced(make_store: MakeStore) -> None:
    """A thread cannot be stopped: it ends in its own time, and nobody hears of it."""
    begun, gate, finished = threading.Event(), threading.Event(), threading.Event()
    app = App()

    @app.activity
    def deaf() -> str:
        begun.set()
        gate.wait(SOON.total_seconds())
        finished.set()
        return "late"

    @app.orchestrator
    async def cleans(ctx: OrchestrationContext) -> None:
        try:
            await ctx.call_activity(deaf)
        finally:
            await ctx.wait_for_external_event("cleaned")

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(cleans, instance_id="i")
        await until(begun.is_set)
        await cancel(run, "i")

        async def is_cleaning() -> bool:
            return "TaskCancelled" in kinds(await run.client.get_history("i"))

        await eventually(is_cleaning)
        gate.set()
        await until(finished.is_set)
        await handle.raise_event("cleaned")
        assert await ended(run, "i") == CANCELED
        assert "TaskCompleted" not in kinds(await run.client.get_history("i"))

    try:
        on(make_store(), app, scenario)
    finally:
        gate.set()


def test_a_timeout_cancels_each_attempt_of_a_child(make_store: MakeStore) -> None:
    world = World()

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("limited")
        assert await handle.wait_for_completion(timeout=SOON) == "late"
        history = await run.client.get_history(handle.instance_id)
        children = [event.instance_id for event in history if isinstance(event, SubOrchestrationInstanceCreated)]
        assert len(children) == 2
        for child in children:
            status, _ = await ended(run, child)
            assert status is OrchestrationStatus.CANCELED
        await until(lambda: world.calls.count("begin child") == world.calls.count("stopped child"))

    on(make_store(), make_app(world), scenario)


def test_a_cancellation_that_is_swallowed_leaves_the_rest_running(make_store: MakeStore) -> None:
    world = World()

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("stubborn", instance_id="i")
        await until(lambda: world.calls == ["begin a"])
        await cancel(run, "i")
        await until(lambda: world.calls == ["begin a", "stopped a"])
        await handle.raise_event("e")
        assert await handle.wait_for_completion(timeout=SOON) == "went on"

    on(make_store(), make_app(world), scenario)


def test_a_cancellation_waits_while_the_instance_is_suspended(make_store: MakeStore) -> None:
    world = World()

    async def first(run: Run) -> None:
        await run.client.start_new("waits", "a", instance_id="i")
        await until(lambda: world.calls == ["begin a"])
        await run.client.suspend("i")
        await cancel(run, "i")

    async def second(run: Run) -> None:
        status = await run.client.get_status("i")
        assert status is not None
        assert status.runtime_status is OrchestrationStatus.SUSPENDED
        await run.client.resume("i")
        assert await ended(run, "i") == CANCELED

    on(make_store(), make_app(world), first, CRASHING)
    on(make_store(), make_app(world), second)


@pytest.mark.parametrize("crashes", [0, 1, 3])
def test_cleanup_and_compensations_are_made_once_whenever_the_host_goes(make_store: MakeStore, crashes: int) -> None:
    """It goes while the `finally` waits, as often as one likes; the history has each call once."""
    world = World()
    app = make_app(world)

    async def main() -> list[HistoryEvent]:
        async with running(app, make_store(), CRASHING) as run:
            await run.client.start_new("books", instance_id="i")
            await until(lambda: "begin car" in world.calls)
            await cancel(run, "i")
            await until(lambda: "begin finally" in world.calls)
        for _ in range(crashes):
            begun = world.calls.count("begin finally")
            async with running(app, make_store(), CRASHING):
                await until(lambda begun=begun: world.calls.count("begin finally") > begun)
        world.gate.set()
        async with running(app, make_store()) as run:
            assert await ended(run, "i") == CANCELED
            return list(await run.client.get_history("i"))

    history = asyncio.run(main())
    assert kinds(history)["TaskScheduled"] == 4
    assert kinds(history)["TaskCancelled"] == 1
    assert kinds(history)["CancelRequested"] == 1
    assert [call for call in world.calls if call.startswith("undo")] == ["undo flight", "undo hotel"]


def test_a_chain_of_combinations_that_is_long_ends_like_any_other(make_store: MakeStore) -> None:
    """It broke the whole node."""
    app = App()

    @app.activity
    async def one() -> int:
        return 1

    @app.orchestrator
    async def folds(ctx: OrchestrationContext) -> str:
        whole: Any = ctx.call_activity(one)
        for _ in range(2_000):
            whole = when_all([whole, ctx.call_activity(one)])
        await whole
        return "folded"

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(folds)
        assert await handle.wait_for_completion(timeout=SOON) == "folded"

    on(make_store(), app, scenario)


async def cancel_with_failure(commit: int, how: str) -> bool:
    """Cancel a saga with a commit for each transition, one of which fails; return whether that one was reached."""
    world, app = World(), App()

    @app.activity
    async def endless() -> None:
        world.gate.set()
        await asyncio.Event().wait()

    @app.activity
    async def note(what: str) -> None: ...

    @app.orchestrator
    async def books(ctx: OrchestrationContext) -> None:
        async with ctx.saga() as saga:
            saga.add_compensation(note, "undo")
            try:
                await ctx.call_activity(endless)
            finally:
                await ctx.call_activity(note, "finally")

    failing = FailingStore(MemoryStore())
    failing.fail_at = {commit: how}
    async with running(app, failing, HostConfig(group_transitions_max=1, drain_s=0.2)) as run:

        async def start() -> None:
            if await run.client.get_status("i") is None:
                await run.client.start_new("books", instance_id="i")

        async def ask() -> None:
            with suppress(InstanceNotRunningError):
                await cancel(run, "i")

        await insist(start)
        await world.gate.wait()
        await insist(ask)
        assert await ended(run, "i") == CANCELED
        history = kinds(await run.client.get_history("i"))
        assert (history["TaskScheduled"], history["TaskCancelled"], history["TaskCompleted"]) == (3, 1, 2)
    return not failing.fail_at


@pytest.mark.parametrize("how", ["before", "unknown, not applied", "unknown, applied"])
def test_each_commit_of_a_cancellation_fails_once(how: str) -> None:
    commit = 1
    while asyncio.run(cancel_with_failure(commit, how)):
        commit += 1
    assert commit > 5
