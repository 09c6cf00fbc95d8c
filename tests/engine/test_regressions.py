"""Results, events and answers that were once lost, doubled or told too soon, and must not be again."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta

import msgspec
import pytest
from engine_kit import SOON, FailingStore, Run, SlowStore, World, eventually, make_app, running, until
from test_orchestrations import MakeStore, on, result

from holdfast import (
    App,
    HostConfig,
    HostStoppedError,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    Limits,
    OrchestrationContext,
    OrchestrationFailedError,
    OverloadedError,
    RetryPolicy,
    StorageError,
    when_all,
)
from holdfast.errors import CommitFailedError
from holdfast.storage.memory import MemoryData, MemoryStore

TINY = HostConfig(cache_bytes_max=1, drain_s=0.2)
LOOKS_OFTEN = HostConfig(cache_bytes_max=1, drain_s=0.2, clock_check_s=0.02)
"""Nothing stays in memory that need not."""


def make_orders(world: World) -> App:
    """Orders that are placed when the gate opens; each call is told to the world."""
    app = App()

    @app.activity
    async def place_order(number: int) -> int:
        world.calls.append(number)
        await world.gate.wait()
        return number

    @app.orchestrator
    async def order(ctx: OrchestrationContext, number: int) -> int:
        return await ctx.call_activity(place_order, number)

    @app.orchestrator
    async def other(ctx: OrchestrationContext) -> str:
        return "other"

    @app.orchestrator
    async def waits(ctx: OrchestrationContext) -> str:
        return await ctx.wait_for_external_event("e")

    _ = (order, other, waits)
    return app


async def evict(run: Run, instance_id: str) -> None:
    """Have other traffic until an instance is not in memory any more."""

    async def evicted() -> bool:
        await result(run, "other")
        return run.engine.node.residents.get(instance_id) is None

    await eventually(evicted)


async def refill(run: Run, store: SlowStore) -> None:
    """Have the store looked through for activities that do not run; `LOOKS_OFTEN` is for that."""
    for _ in range(2):  # when the second look begins, the first is over
        seen = store.calls["activities_visible"]
        run.engine.node.starts.overflowed.set()
        await until(lambda seen=seen: store.calls["activities_visible"] > seen)


# Events and results


def test_events_that_arrive_together_survive_continue_as_new(make_store: MakeStore) -> None:
    """Events behind the one that ended an execution, in the same episode, were lost."""

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("countdown", 5)
        await asyncio.gather(*(handle.raise_event("tick", number) for number in range(5)))
        assert await handle.wait_for_completion(timeout=SOON) == "last 4"

    on(make_store(), make_app(World()), scenario)


@pytest.mark.parametrize(("count", "is_evicted"), [(600, False), (1, True)])
def test_a_graceful_stop_keeps_what_finishes_in_time(make_store: MakeStore, count: int, is_evicted: bool) -> None:
    """Results that came while the host stopped were dropped: if many came at once, or their instance was evicted."""
    world = World()
    app = make_orders(world)
    config = HostConfig(cache_bytes_max=1 if is_evicted else 10**9, drain_s=10.0)

    async def before(run: Run) -> None:
        await asyncio.gather(*(run.client.start_new("order", n, instance_id=f"o{n}") for n in range(count)))
        await until(lambda: len(world.calls) == count)
        if is_evicted:
            await evict(run, "o0")
        asyncio.get_running_loop().call_later(0.05, world.gate.set)

    async def after(run: Run) -> None:
        for number in range(count):
            assert await run.client.wait_for_completion(f"o{number}", timeout=SOON) == number
        assert len(world.calls) == count

    on(make_store(), app, before, config)
    on(make_store(), app, after, config)


def test_a_result_is_kept_when_its_instance_is_parked(make_store: MakeStore) -> None:
    """The result that an instance could not take in, because its code had changed, stayed in memory only."""
    world = World()
    app = App()
    is_broken = False

    @app.activity
    async def place_order() -> int:
        world.calls.append("order")
        await world.gate.wait()
        return 1

    @app.activity
    async def first() -> None:
        return None

    @app.orchestrator
    async def order(ctx: OrchestrationContext) -> int:
        await ctx.call_activity(first)
        if is_broken:
            await ctx.create_timer(timedelta(days=1))
        return await ctx.call_activity(place_order)

    async def before(run: Run) -> None:
        await run.client.start_new(order, instance_id="o")
        await until(lambda: bool(world.calls))

    async def broken(run: Run) -> None:
        status = await run.client.wait_until_stopped("o", timeout=SOON)
        assert status.parked is not None
        assert world.calls == ["order"]

    async def mended(run: Run) -> None:
        await run.client.resume("o")
        assert await run.client.wait_for_completion("o", timeout=SOON) == 1
        assert world.calls == ["order"]

    on(make_store(), app, before)
    world.calls.clear()
    world.gate.set()
    is_broken = True
    on(make_store(), app, broken)
    is_broken = False
    on(make_store(), app, mended)


def test_a_result_is_kept_when_its_instance_is_suspended_in_the_same_moment(make_store: MakeStore) -> None:
    """A result that was in the inbox already when the instance was suspended stayed in memory only."""
    world = World()
    app = make_orders(world)

    async def before(run: Run) -> None:
        await run.client.start_new("order", 1, instance_id="o")
        await until(lambda: bool(world.calls))
        world.gate.set()
        await asyncio.sleep(0)
        await run.client.suspend("o")

    async def after(run: Run) -> None:
        status = await run.client.get_status("o")
        assert status is not None
        if status.runtime_status.value == "Suspended":
            await run.client.resume("o")
        assert await run.client.wait_for_completion("o", timeout=SOON) == 1
        assert world.calls == [1]

    on(make_store(), app, before)
    on(make_store(), app, after)


# Nothing runs twice


def test_an_activity_is_not_started_again_while_its_completion_waits_for_the_loader(make_store: MakeStore) -> None:
    """It was neither queued nor running, and its row was still there, so a look through the store started it again."""
    world = World()

    async def scenario() -> None:
        store = SlowStore(make_store())
        async with running(make_orders(world), store, LOOKS_OFTEN) as run:
            handle = await run.client.start_new("order", 1, instance_id="o")
            await until(lambda: bool(world.calls))
            await evict(run, "o")
            store.before["load"] = loads = asyncio.Event()
            world.gate.set()
            await refill(run, store)
            loads.set()
            assert await handle.wait_for_completion(timeout=SOON) == 1
        assert world.calls == [1]

    asyncio.run(scenario())


def test_an_activity_that_finished_during_failed_commits_is_not_started_again(make_store: MakeStore) -> None:
    """Its outcome outlived the failed commit, yet the recovery started it again beside that."""
    world = World()

    async def scenario() -> None:
        failing = FailingStore(make_store())
        store = SlowStore(failing)
        store.before["load"] = 0.02
        async with running(make_orders(world), store) as run:
            handle = await run.client.start_new("order", 1)
            await until(lambda: bool(world.calls))
            failing.fail_at = {failing.commits + 1: "before", failing.commits + 2: "before"}
            with suppress(StorageError):
                await run.client.start_new("other")
            world.gate.set()
            assert await handle.wait_for_completion(timeout=SOON) == 1
        assert world.calls == [1]

    asyncio.run(scenario())


def test_an_activity_of_an_unreadable_instance_is_left_alone() -> None:
    """Nobody could take its completion in, so each look through the store ran it once more."""
    world = World()
    app = make_orders(world)
    data = MemoryData()

    async def before(run: Run) -> None:
        await run.client.start_new("order", 1, instance_id="o")
        await until(lambda: bool(world.calls))

    async def scenario() -> None:
        store = SlowStore(MemoryStore(data))
        async with running(app, store, LOOKS_OFTEN) as run:
            for _ in range(4):
                await refill(run, store)
            assert await result(run, "order", 2) == 2
        assert world.calls == [2]

    on(MemoryStore(data), app, before)
    world.calls.clear()
    world.gate.set()
    data.instances["o"] = msgspec.structs.replace(data.instances["o"], status="Bogus")
    asyncio.run(scenario())


def test_an_instance_stays_in_memory_until_its_last_change_is_stored(make_store: MakeStore) -> None:
    """Evicted with a planned retry that was not stored yet, it was read back as it was before that, and hung."""
    world = World()
    first, second = asyncio.Event(), asyncio.Event()
    app = make_orders(world)

    @app.activity(retry=RetryPolicy(max_attempts=3, first_retry_interval=timedelta(0)))
    async def fails_once() -> str:
        world.calls.append("fails_once")
        if world.calls.count("fails_once") == 1:
            await first.wait()
            raise ConnectionError("once")
        return "retried"

    @app.activity
    async def waits_long() -> str:
        world.calls.append("waits_long")
        await second.wait()
        return "waited"

    @app.orchestrator
    async def both(ctx: OrchestrationContext) -> list[str]:
        return await when_all([ctx.call_activity(fails_once), ctx.call_activity(waits_long)])

    async def scenario() -> None:
        store = SlowStore(make_store())
        async with running(app, store, TINY) as run:
            handle = await run.client.start_new(both, instance_id="b")
            await until(lambda: len(world.calls) == 2)
            await evict(run, "b")
            node = run.engine.node
            store.before["commit"] = commits = asyncio.Event()
            first.set()
            await until(lambda: node.residents.get("b") is not None and not node.journal.is_settled)
            lsn = node.hub.lsn
            start = asyncio.create_task(run.client.start_new("other"))  # other traffic, so that the cache shrinks
            await until(lambda: node.hub.lsn > lsn)
            second.set()
            await asyncio.sleep(0.02)
            assert node.residents.get("b") is not None
            commits.set()
            await start
            assert await handle.wait_for_completion(timeout=SOON) == ["retried", "waited"]
            assert run.engine.node is node

    asyncio.run(scenario())


def test_a_snapshot_older_than_a_commit_brings_no_dropped_message_back(make_store: MakeStore) -> None:
    """A load whose rows were read before a commit dropped a message again after it; that commit was refused."""
    app = App()

    @app.orchestrator
    async def shouts(ctx: OrchestrationContext) -> None:
        ctx.send_event("nobody", "e", 1)

    async def scenario() -> None:
        store = SlowStore(make_store())
        store.before["commit"], store.after["load"] = 0.005, 0.03
        async with running(app, store) as run:
            for _ in range(25):
                await run.client.start_new(shouts)

            async def nothing_waits() -> bool:
                return await run.store.instances_with_messages("", 10) == []

            await eventually(nothing_waits)
        assert store.errors == []

    asyncio.run(scenario())


@pytest.mark.parametrize("queue_max", [3, 100])
def test_activities_asked_for_with_the_last_breath_do_not_start(make_store: MakeStore, queue_max: int) -> None:
    """They have no row, since nobody waits for them, but some of them ran: as many as there was room for."""
    world = World()
    app = make_orders(world)

    @app.activity
    async def notify(number: int) -> None:
        world.calls.append(("notify", number))

    @app.orchestrator
    async def ends(ctx: OrchestrationContext) -> str:
        for number in range(10):
            ctx.call_activity(notify, number)
        return "ended"

    async def scenario(run: Run) -> None:
        world.gate.set()
        assert await result(run, "ends") == "ended"
        assert await result(run, "order", 1) == 1
        assert world.calls == [1]

    _ = ends
    on(make_store(), app, scenario, HostConfig(activities_max=2, activity_queue_max=queue_max, drain_s=0.2))


# What clients are told


def test_a_refusal_is_told_only_once_its_cause_is_durable() -> None:
    """Of two starts with one id, one was told 'exists already' although the other was never stored."""

    async def scenario() -> None:
        store = FailingStore(MemoryStore())
        store.fail_at = {1: "before"}
        async with running(make_orders(World()), store) as run:
            starts = [run.client.start_new("waits", instance_id="o") for _ in range(2)]
            outcomes = await asyncio.gather(*starts, return_exceptions=True)
            assert all(isinstance(each, StorageError) for each in outcomes)
            assert not any(isinstance(each, InstanceAlreadyExistsError) for each in outcomes)
            await until(lambda: run.engine.is_ready)
            assert await run.client.get_status("o") is None

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("how", "unknown"), [("unknown, applied", True), ("unknown, not applied", True), ("before", False)]
)
def test_an_outcome_that_is_unknown_is_told(how: str, unknown: bool) -> None:
    """The error of a request said 'nothing was stored' when it could have been."""

    async def scenario() -> None:
        store = FailingStore(MemoryStore())
        store.fail_at = {1: how}
        async with running(make_orders(World()), store) as run:
            with pytest.raises(CommitFailedError) as error:
                await run.client.start_new("waits")
            assert error.value.outcome_unknown is unknown
            await until(lambda: run.engine.is_ready)

    asyncio.run(scenario())


def test_a_wait_on_a_start_that_was_lost_ends() -> None:
    """It waited for ever for an instance that never existed."""

    async def scenario() -> None:
        failing = FailingStore(MemoryStore())
        store = SlowStore(failing)
        async with running(make_orders(World()), store) as run:
            failing.fail_at = {failing.commits + 1: "before"}
            store.before["commit"] = gate = asyncio.Event()
            start = asyncio.create_task(run.client.start_new("waits", instance_id="o"))
            await until(lambda: store.calls["commit"] > 0)
            wait = asyncio.create_task(run.client.wait_for_completion("o"))
            await asyncio.sleep(0.02)
            gate.set()
            with pytest.raises(StorageError):
                await start
            async with asyncio.timeout(SOON.total_seconds()):
                with pytest.raises((InstanceNotFoundError, StorageError, OverloadedError)):
                    await wait

    asyncio.run(scenario())


def test_a_request_at_stop_is_answered(make_store: MakeStore) -> None:
    """One whose instance was being read, or whose commit was on its way, hung for ever."""

    async def scenario() -> None:
        store = SlowStore(make_store())
        async with running(make_orders(World()), store) as run:
            await run.engine.node.journal.settled()
            store.before.update(commit=0.1, load=0.05)
            loads, commits = store.calls["load"], store.calls["commit"]
            requests = [asyncio.create_task(run.client.start_new("waits"))]
            await until(lambda: store.calls["commit"] > commits)
            requests.append(asyncio.create_task(run.client.start_new("waits", instance_id="o")))
            await until(lambda: store.calls["load"] > loads)
            await run.engine.stop()
            async with asyncio.timeout(SOON.total_seconds()):
                outcomes = await asyncio.gather(*requests, return_exceptions=True)
        errors = [each for each in outcomes if isinstance(each, BaseException)]
        assert all(isinstance(each, HostStoppedError | StorageError) for each in errors)

    asyncio.run(scenario())


@pytest.mark.parametrize("request_name", ["resume", "terminate"])
def test_a_full_inbox_lets_control_messages_pass(make_store: MakeStore, request_name: str) -> None:
    """A suspended instance with a full inbox could be neither resumed nor terminated."""

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("waits")
        await run.client.suspend(handle.instance_id)
        for number in range(3):
            await handle.raise_event("e", str(number))
        with pytest.raises(OverloadedError):
            await handle.raise_event("e", "3")
        await getattr(run.client, request_name)(handle.instance_id)
        if request_name == "resume":
            assert await handle.wait_for_completion(timeout=SOON) == "0"
        else:
            with pytest.raises(OrchestrationFailedError):
                await handle.wait_for_completion(timeout=SOON)

    config = HostConfig(drain_s=0.2, limits=Limits(inbox_messages_max=3))
    on(make_store(), make_orders(World()), scenario, config)


def test_recovery_does_not_start_what_the_journal_is_about_to_start(make_store: MakeStore) -> None:
    """Recovery could read a row before the answer to its commit had come; the activity was started twice then."""
    store = SlowStore(make_store())
    app = App()
    runs: list[int] = []

    @app.activity
    async def once(number: int) -> int:
        runs.append(number)
        return number

    @app.orchestrator
    async def calling(ctx: OrchestrationContext) -> int:
        return await ctx.call_activity(once, 1)

    async def scenario(run: Run) -> None:
        handle = asyncio.create_task(run.client.start_new(calling, instance_id="i"))
        await until(lambda: store.calls["commit"] >= 1)

        async def is_stored() -> bool:
            return bool(await run.store._store.activities_visible(2**62, 1))  # type: ignore[attr-defined]

        await eventually(is_stored)
        reading.set()  # recovery, which has waited at its first read, goes on
        await until(lambda: store.calls["instances_with_messages"] >= 1)
        await asyncio.sleep(0.02)
        committing.set()
        assert await (await handle).wait_for_completion(timeout=SOON) == 1
        assert runs == [1]

    async def main() -> None:
        nonlocal reading, committing
        reading, committing = asyncio.Event(), asyncio.Event()
        store.before["timers_due"], store.after["commit"] = reading, committing
        async with running(app, store) as run:
            await scenario(run)

    reading = committing = asyncio.Event()
    asyncio.run(main())


def test_a_request_beside_a_timer_of_the_instance_is_answered() -> None:
    """The run_timeout was over while a history was being read: the request met a timer where it knew only requests."""
    slow = SlowStore(MemoryStore())
    slow.before["load_history"] = gate = asyncio.Event()

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("waits", instance_id="i", run_timeout=timedelta(milliseconds=300))
        while "i" in run.engine.node.residents:
            await result(run, "other")
        await handle.raise_event("other")

        def is_over() -> bool:
            resident = run.engine.node.residents.get("i")
            return resident is not None and bool(resident.instance.controls)

        await until(is_over)
        node = run.engine.node
        await handle.raise_event("other")
        gate.set()
        with pytest.raises(OrchestrationFailedError, match="run_timeout"):
            await handle.wait_for_completion(timeout=SOON)
        assert run.engine.node is node

    on(slow, make_orders(World()), scenario, TINY)
