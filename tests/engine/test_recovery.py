"""Restarts, eviction, changed code, damaged rows and work that kills: what goes on, and what waits for an operator."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_kit import SOON, FailingStore, Run, World, eventually, make_app, running
from test_orchestrations import MakeStore, on, result

from holdfast import (
    App,
    Client,
    HostConfig,
    HostStoppedError,
    InstanceParkedError,
    Limits,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationStatus,
    OverloadedError,
    RetryPolicy,
    StorageError,
    when_all,
)
from holdfast.engine import culprits, engine, handover
from holdfast.errors import CommitFailedError, CorruptRecordError, OwnershipLostError, StoreInUseError
from holdfast.storage.memory import MemoryData, MemoryStore
from holdfast.storage.open_store import open_store

TINY = HostConfig(cache_bytes_max=1, drain_s=0.2)
"""Nothing stays in memory that need not: each episode is a replay."""


async def parked(run: Run, instance_id: str) -> str:
    """Wait until an instance is parked; return why."""
    with pytest.raises(InstanceParkedError) as error:
        await run.client.wait_for_completion(instance_id, timeout=SOON)
    return error.value.details.error_message


def test_waiting_instances_survive_a_restart(make_store: MakeStore) -> None:
    async def before(run: Run) -> None:
        await run.client.start_new("events", 2, instance_id="waits")
        await run.client.raise_event("waits", "e", "before")
        await run.client.start_new("sleepy", 50, instance_id="sleeps")

    async def after(run: Run) -> None:
        await run.client.raise_event("waits", "e", "after")
        assert await run.client.wait_for_completion("waits", timeout=SOON) == ["before", "after"]
        assert await run.client.wait_for_completion("sleeps", timeout=SOON) == "awake"

    on(make_store(), make_app(World()), before)
    on(make_store(), make_app(World()), after)


def test_eviction_changes_nothing(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        handles = [await run.client.start_new("events", 5) for _ in range(20)]
        for number in range(5):
            for handle in handles:
                await handle.raise_event("e", number)
        for handle in handles:
            assert await handle.wait_for_completion(timeout=SOON) == [0, 1, 2, 3, 4]
        assert await result(run, "chain", 30) == 2**30
        assert await result(run, "parent", 3) == [1, 2, 4]
        assert await result(run, "transfer", ["a", "b", 5]) == 5

    on(make_store(), make_app(World()), scenario, TINY)


def test_finally_runs_once_at_the_end_and_not_at_waits_or_eviction() -> None:
    """Also with everything else evicted around it, and the garbage collector running."""
    app = App()
    seen: list[str] = []

    @app.orchestrator
    async def careful(ctx: OrchestrationContext, label: str) -> str:
        try:
            return await ctx.wait_for_external_event("go")
        finally:
            seen.append(label)

    @app.orchestrator
    async def plain(ctx: OrchestrationContext, label: str) -> str:
        try:
            return await ctx.wait_for_external_event("go")
        except TimeoutError:
            return "never"

    async def scenario(run: Run) -> None:
        for name in ("careful", "plain"):
            for number in range(5):
                await run.client.start_new(name, str(number), instance_id=f"{name}{number}")

        async def evicted() -> bool:
            await run.client.start_new("plain", "x")
            return len([each for each in run.engine.node.residents if each.instance.name == "plain"]) <= 2

        await eventually(evicted)
        gc.collect()
        assert seen == []
        for name in ("careful", "plain"):
            for number in range(5):
                await run.client.raise_event(f"{name}{number}", "go", "went")
                assert await run.client.wait_for_completion(f"{name}{number}", timeout=SOON) == "went"
        assert seen == ["0", "1", "2", "3", "4"]

    on(MemoryStore(), app, scenario, TINY)


def changed_app(step: str, value: int) -> App:
    app = App()

    @app.activity
    async def first(n: int) -> int:
        return n

    @app.activity
    async def second(n: int) -> int:
        return n

    @app.orchestrator
    async def order(ctx: OrchestrationContext) -> str:
        await ctx.call_activity(step, value)
        got = await ctx.wait_for_external_event("go")
        return f"{step} {got}"

    _ = (first, second, order)
    return app


@pytest.mark.parametrize(
    ("step", "value", "cause"),
    [("second", 1, "changed while this instance was in flight"), ("first", 2, "differs between runs")],
)
def test_changed_code_parks_the_instance_and_the_old_code_mends_it(
    make_store: MakeStore, step: str, value: int, cause: str
) -> None:
    async def before(run: Run) -> None:
        await run.client.start_new("order", instance_id="o")

        async def waiting() -> bool:
            return len(await run.client.get_history("o")) >= 5

        await eventually(waiting)

    async def changed(run: Run) -> None:
        await run.client.raise_event("o", "go", 7)
        why = await parked(run, "o")
        assert "TaskScheduled(event_id=0, name='first', input=1)" in why
        assert f"TaskScheduled(event_id=0, name={step!r}, input={value})" in why
        assert "test_recovery.py" in why
        assert cause in why
        status = await run.client.get_status("o")
        assert status is not None
        assert status.runtime_status.value == "Suspended"

    async def mended(run: Run) -> None:
        await run.client.resume("o")
        assert await run.client.wait_for_completion("o", timeout=SOON) == "first 7"

    on(make_store(), changed_app("first", 1), before)
    on(make_store(), changed_app(step, value), changed)
    on(make_store(), changed_app("first", 1), mended)


def test_missing_code_parks_what_is_in_flight(make_store: MakeStore) -> None:
    async def before(run: Run) -> None:
        await run.client.start_new("events", 1, instance_id="w")

    async def without(run: Run) -> None:
        await run.client.raise_event("w", "e", 1)
        assert "no orchestrator 'events'" in await parked(run, "w")

    async def again(run: Run) -> None:
        await run.client.resume("w")
        assert await run.client.wait_for_completion("w", timeout=SOON) == [1]

    on(make_store(), make_app(World()), before)
    on(make_store(), App(), without)
    on(make_store(), make_app(World()), again)


def test_only_what_is_stored_is_said_to_be_parked(caplog: pytest.LogCaptureFixture) -> None:
    """A host that had lost what it owned, and did not know yet, read a history that had gone on without it."""
    data = MemoryData()

    async def before(run: Run) -> None:
        await run.client.start_new("sleepy", 300, instance_id="w")

    async def scenario() -> None:
        store = FailingStore(MemoryStore(data))
        store.fail_at = {1: "before", 2: "unknown, not applied"}
        async with running(App(), store) as run:
            status = await run.client.wait_until_stopped("w", timeout=SOON)
            assert status.parked is not None
            assert store.fail_at == {}

    on(MemoryStore(data), make_app(World()), before)
    asyncio.run(scenario())
    assert caplog.text.count("Instance 'w' is parked: The app has no orchestrator") == 1


def spoil(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement).rowcount > 0
    connection.close()


@pytest.mark.parametrize(
    "damage",
    [
        'UPDATE history SET events = \'{"v":1,"events":[{\' WHERE execution_id = '
        "(SELECT execution_id FROM instance WHERE instance_id = 'hurt')",
        'UPDATE history SET events = \'{"v":99,"events":[]}\' WHERE execution_id = '
        "(SELECT execution_id FROM instance WHERE instance_id = 'hurt')",
        "DELETE FROM history WHERE execution_id = (SELECT execution_id FROM instance WHERE instance_id = 'hurt')",
    ],
)
def test_a_damaged_history_parks_one_instance(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "hub.db"

    def make_store() -> Any:
        return open_store(f"sqlite:///{path}")

    async def before(run: Run) -> None:
        for instance_id in ("hurt", "well"):
            await run.client.start_new("events", 1, instance_id=instance_id)

        async def waiting() -> bool:
            return all([await run.client.get_history(each) for each in ("hurt", "well")])

        await eventually(waiting)

    async def after(run: Run) -> None:
        for instance_id in ("hurt", "well"):
            await run.client.raise_event(instance_id, "e", 1)
        assert "history of instance 'hurt'" in await parked(run, "hurt")
        assert await run.client.wait_for_completion("well", timeout=SOON) == [1]
        assert await result(run, "chain", 2) == 4

    on(make_store(), make_app(World()), before)
    spoil(path, damage)
    on(make_store(), make_app(World()), after)


def test_a_damaged_message_parks_one_instance_and_a_damaged_row_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"

    async def before(run: Run) -> None:
        for instance_id in ("message", "row", "well"):
            await run.client.start_new("events", 2, instance_id=instance_id)
            await run.client.suspend(instance_id)
            await run.client.raise_event(instance_id, "e", 1)

    async def after(run: Run) -> None:
        assert "cannot be read" in await parked(run, "message")
        with pytest.raises(CorruptRecordError, match="Bogus"):
            await run.client.resume("row")
        await run.client.resume("well")
        await run.client.raise_event("well", "e", 2)
        assert await run.client.wait_for_completion("well", timeout=SOON) == [1, 2]

    on(open_store(f"sqlite:///{path}"), make_app(World()), before)
    spoil(path, "UPDATE inbox SET event = 'nonsense' WHERE instance_id = 'message'")
    spoil(path, "UPDATE instance SET status = 'Bogus' WHERE instance_id = 'row'")
    on(open_store(f"sqlite:///{path}"), make_app(World()), after)


def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    """The store refuses commits for a while; what was acknowledged is there, what was refused is not."""

    async def scenario() -> None:
        failing = FailingStore(open_store(f"sqlite:///{tmp_path / 'hub.db'}"))
        async with running(make_app(World()), failing) as run:
            await run.client.start_new("events", 1, instance_id="before")
            failing.fail_at = {failing.commits + n: "before" for n in range(1, 4)}
            with pytest.raises(StorageError, match="planted"):
                await run.client.start_new("events", 1, instance_id="refused")
            with pytest.raises(OverloadedError, match="recovering"):
                await run.client.start_new("events", 1, instance_id="too early")

            async def accepted() -> bool:
                try:
                    await run.client.start_new("chain", 3, instance_id="after")
                except (StorageError, OverloadedError):
                    return False
                return True

            await eventually(accepted)
            assert await run.client.wait_for_completion("after", timeout=SOON) == 8
            assert await run.client.get_status("refused") is None
            await run.client.raise_event("before", "e", 1)
            assert await run.client.wait_for_completion("before", timeout=SOON) == [1]

    asyncio.run(scenario())


def test_a_waiter_hears_of_an_end_whose_commit_was_in_doubt() -> None:
    async def scenario() -> None:
        failing = FailingStore(MemoryStore())
        async with running(make_app(World()), failing) as run:
            handle = await run.client.start_new("events", 1)
            waiter = asyncio.create_task(handle.wait_for_completion(timeout=SOON))
            await asyncio.sleep(0)
            await handle.raise_event("e", 0)  # its own commit; the episode's may share it or follow
            failing.fail_at = {failing.commits + 1: "unknown, applied"}
            assert await waiter == [0]

    asyncio.run(scenario())


@pytest.mark.parametrize("how", [None, "unknown, applied"])
def test_who_watches_hears_of_a_change_once_it_is_stored_also_of_one_in_doubt(how: str | None) -> None:
    async def scenario() -> None:
        failing = FailingStore(MemoryStore())
        async with running(make_app(World()), failing) as run:
            await run.client.start_new("events", 1, instance_id="i")
            await run.engine.node.journal.settled()
            with run.engine.waiters.watch("i") as changed, run.engine.waiters.watch("other") as other:
                if how is not None:
                    failing.fail_at = {failing.commits + 1: how}
                with suppress(CommitFailedError):
                    await run.client.suspend("i")
                status = None
                async with asyncio.timeout(SOON.total_seconds()):
                    while status != "Suspended":  # which may be stored after the request for it
                        await changed.wait()
                        changed.clear()
                        found = await run.client.get_status("i")
                        status = found and found.runtime_status
                assert other.is_set() == (how is not None)  # in doubt, everybody looks again
            run.engine.waiters.changed(["i"])  # nobody watches any more

    asyncio.run(scenario())


def test_taken_over_means_stop() -> None:
    """A host whose store was taken by another must not write any more, and says so."""

    async def scenario() -> None:
        data = MemoryData()
        async with running(make_app(World()), MemoryStore(data)) as run:
            await run.client.start_new("events", 1, instance_id="i")
            data.owner = None  # the lock is lost, as on a broken network file system
            other = MemoryStore(data)
            await other.acquire(0)
            with pytest.raises(OwnershipLostError):
                await run.client.raise_event("i", "e", 1)
            with pytest.raises((OwnershipLostError, StoreInUseError)):
                await run.engine.wait_stopped()
            with pytest.raises(HostStoppedError):
                await run.client.raise_event("i", "e", 1)
            await other.close()

    asyncio.run(scenario())


REFUSED_ELSEWHERE: dict[str, Callable[[Client], Awaitable[object]]] = {
    "a start of what runs": lambda client: client.start_new("events", 1, instance_id="i"),
    "a start that is known": lambda client: client.start_new("events", 1, instance_id="i", request_key="once"),
    "a query": lambda client: client.query("i", "none"),
    "an event for what has ended": lambda client: client.raise_event("ended", "e", 1),
    "a query of what has ended": lambda client: client.query("ended", "none"),
}


@pytest.mark.parametrize("what", REFUSED_ELSEWHERE)
def test_what_memory_tells_is_told_only_by_the_owner(what: str) -> None:
    """A host that was paused answered from its memory that something runs, which its successor had purged."""

    async def scenario() -> None:
        data = MemoryData()
        async with running(make_app(World()), MemoryStore(data)) as run:
            await run.client.start_new("events", 1, instance_id="i", request_key="once")
            await (await run.client.start_new("events", 0, instance_id="ended")).wait_for_completion(timeout=SOON)
            assert all(each in run.engine.node.residents for each in ("i", "ended"))
            data.owner = None
            other = MemoryStore(data)
            await other.acquire(0)
            with pytest.raises(OwnershipLostError):
                await REFUSED_ELSEWHERE[what](run.client)
            with pytest.raises((OwnershipLostError, StoreInUseError)):
                await run.engine.wait_stopped()
            await other.close()

    asyncio.run(scenario())


def test_back_pressure_refuses_with_a_clear_error() -> None:
    class SlowStore(FailingStore):
        async def commit(self, fence: Any, writes: Any) -> None:
            await asyncio.sleep(0.02)
            await super().commit(fence, writes)

    async def scenario() -> None:
        config = HostConfig(journal_transitions_max=5, limits=Limits(inbox_messages_max=10), drain_s=0.2)
        async with running(make_app(World()), SlowStore(MemoryStore()), config) as run:
            starts = [run.client.start_new("events", 30) for _ in range(50)]
            outcomes = await asyncio.gather(*starts, return_exceptions=True)
            refused = [each for each in outcomes if isinstance(each, OverloadedError)]
            started = [each for each in outcomes if not isinstance(each, BaseException)]
            assert refused
            assert started
            assert len(refused) + len(started) == 50
            await run.engine.node.journal.settled()
            await run.client.suspend(started[0].instance_id)
            await run.engine.node.journal.settled()
            for _ in range(10):
                await started[0].raise_event("e", 1)
            with pytest.raises(OverloadedError, match="10 messages waiting"):
                await started[0].raise_event("e", 1)

    asyncio.run(scenario())


def test_two_hubs_in_one_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        first, second = (open_store(f"sqlite:///{tmp_path / name}") for name in ("a.db", "b.db"))
        async with running(make_app(World()), first) as a, running(make_app(World()), second) as b:
            await a.client.start_new("events", 1, instance_id="same")
            await b.client.start_new("events", 1, instance_id="same")
            await b.client.raise_event("same", "e", "b")
            await a.client.raise_event("same", "e", "a")
            assert await a.client.wait_for_completion("same", timeout=SOON) == ["a"]
            assert await b.client.wait_for_completion("same", timeout=SOON) == ["b"]
            again = open_store(f"sqlite:///{tmp_path / 'a.db'}")
            with pytest.raises(StoreInUseError):
                await again.acquire(0)
            await again.close()

    asyncio.run(scenario())


def test_a_bug_of_ours_parks_one_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    """An internal error in the middle of a step: half of it may be in memory, so the node starts afresh."""
    from holdfast.hub import hub as hub_module

    original = hub_module.complete_episode

    def broken(transition: Any, instance: Any, *rest: Any) -> None:
        if instance.instance_id == "cursed":
            raise RuntimeError("planted bug")
        original(transition, instance, *rest)

    monkeypatch.setattr(hub_module, "complete_episode", broken)

    async def scenario() -> None:
        async with running(make_app(World()), MemoryStore()) as run:
            await run.client.start_new("events", 1, instance_id="fine")
            with suppress(StorageError):  # its start may have shared the fate of its first episode
                await run.client.start_new("events", 1, instance_id="cursed")

            async def settled() -> bool:
                if not run.engine.is_ready:
                    return False
                status = await run.client.get_status("cursed")
                return status is None or status.parked is not None

            await eventually(settled)
            await run.client.raise_event("fine", "e", 1)
            assert await run.client.wait_for_completion("fine", timeout=SOON) == [1]

    asyncio.run(scenario())


KILLER = """
import asyncio, os, sys
from datetime import timedelta
from holdfast import App, OrchestrationContext, InstanceParkedError

app = App()

@app.activity
async def kill(n: int) -> int:
    os._exit(7)

@app.activity
async def honest(n: int) -> int:
    await asyncio.sleep(0.05)
    return n

@app.orchestrator
async def doomed(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(kill, 1)

@app.orchestrator
async def innocent(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(honest, 1)

@app.orchestrator
async def deadly(ctx: OrchestrationContext) -> None:
    await ctx.create_timer(timedelta(milliseconds=20))
    os._exit(8)

async def main() -> None:
    async with app.host(sys.argv[1]) as host:
        client = host.client
        if await client.get_status("doomed") is None:
            for orchestrator in (innocent, deadly, doomed):
                await client.start_new(orchestrator, instance_id=orchestrator.name)
        assert await client.wait_for_completion("innocent", timeout=timedelta(seconds=20)) == 1
        for name in ("doomed", "deadly"):
            try:
                await client.wait_for_completion(name, timeout=timedelta(seconds=20))
            except InstanceParkedError as error:
                print(name, error.details.error_message, flush=True)

asyncio.run(main())
"""


def test_work_that_kills_the_process_is_parked_and_the_innocent_finish(tmp_path: Path) -> None:
    script = tmp_path / "killer.py"
    script.write_text(KILLER)
    codes: list[int] = []
    output = ""
    while len(codes) < 20 and (not codes or codes[-1]):
        run = subprocess.run(
            [sys.executable, str(script), f"sqlite:///{tmp_path / 'hub.db'}"],
            capture_output=True,
            text=True,
            check=False,
        )
        codes.append(run.returncode)
        output = run.stdout + run.stderr
    assert codes[-1] == 0, output
    assert set(codes[:-1]) == {7, 8}, codes
    assert 6 <= len(codes) <= 12, codes
    assert "doomed The process died 5 times while activity 'kill' was running" in output
    assert "deadly The process died 5 times while an episode" in output


def test_stopping_lets_short_activities_finish_and_long_ones_run_again(make_store: MakeStore) -> None:
    world = World()
    app = App()

    @app.activity
    async def work(seconds: float) -> float:
        world.calls.append(("begin", seconds))
        if len(world.calls) > 4:
            return seconds
        await asyncio.sleep(seconds)
        world.calls.append(("end", seconds))
        return seconds

    @app.orchestrator
    async def two(ctx: OrchestrationContext) -> list[float]:
        short, long = ctx.call_activity(work, 0.05), ctx.call_activity(work, 60.0)
        return [await short, await long]

    async def before(run: Run) -> None:
        await run.client.start_new(two, instance_id="t")

        async def begun() -> bool:
            return len(world.calls) == 2

        await eventually(begun)

    async def after(run: Run) -> None:
        world.calls.append("restarted")
        assert await run.client.wait_for_completion("t", timeout=SOON) == [0.05, 60.0]
        assert world.calls.count(("begin", 0.05)) == 1
        assert world.calls.count(("begin", 60.0)) == 2

    on(make_store(), app, before)
    on(make_store(), app, after)


def test_an_orchestration_that_never_rests_does_not_keep_the_host(
    make_store: MakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is paused between two steps; the stop is a clean one, so nothing is counted against anybody."""
    monkeypatch.setattr(handover, "LEAVE_S", 0.5)
    app = App()

    @app.orchestrator
    async def spins(ctx: OrchestrationContext, turns: int) -> int:
        if turns < 0:
            return turns
        ctx.continue_as_new(turns + 1)
        return 0

    async def before(run: Run) -> None:
        await run.client.start_new(spins, 0, instance_id="spins")

    async def after(run: Run) -> None:
        status = await run.client.get_status("spins")
        assert status is not None
        assert status.runtime_status is OrchestrationStatus.RUNNING
        row = await run.store.read_instance("spins")
        assert row is not None
        assert row.deliveries == 0
        await run.client.terminate("spins")

    on(make_store(), app, before)
    on(make_store(), app, after)


def test_timers_and_retries_wait_in_the_store(make_store: MakeStore) -> None:
    """With a horizon of a second, what is due later is not in memory but fires all the same."""

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("sleepy", 1600)
        assert await handle.wait_for_completion(timeout=SOON) == "awake"

    on(make_store(), make_app(World()), scenario, HostConfig(timer_horizon_s=1, drain_s=0.2))


def test_activities_beyond_the_queue_wait_in_the_store(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        assert await result(run, "fan", 100) == sum(2 * n for n in range(100))

    on(make_store(), make_app(World()), scenario, HostConfig(activities_max=3, activity_queue_max=10, drain_s=0.2))


def test_messages_to_nobody_are_dropped_once(make_store: MakeStore) -> None:
    """Also while the transitions that drop them are not stored yet, and loads find the rows again."""
    app = App()

    @app.orchestrator
    async def shouts(ctx: OrchestrationContext) -> str:
        for _ in range(20):
            ctx.send_event("nobody", "hello", 1)
            ctx.send_event("ended", "hello", 1)
            await ctx.create_timer(timedelta(0))
        return "hoarse"

    @app.orchestrator
    async def ends(ctx: OrchestrationContext) -> None:
        return None

    async def scenario(run: Run) -> None:
        node = run.engine.node
        await run.client.start_new(ends, instance_id="ended")
        assert await result(run, "shouts") == "hoarse"

        async def nothing_waits() -> bool:
            return await run.store.instances_with_messages("", 10) == []

        await eventually(nothing_waits)
        assert run.engine.node is node, "a commit was refused on the way"

    on(make_store(), app, scenario, HostConfig(cache_bytes_max=1, group_transitions_max=1, drain_s=0.2))


def test_what_is_terminated_does_not_start_any_more(make_store: MakeStore) -> None:
    """Neither a retry whose time comes, nor an activity that waits for its turn."""
    world = World()
    app = App()

    @app.activity
    async def fails() -> None:
        world.calls.append("fails")
        raise ValueError

    @app.activity
    async def waits() -> None:
        world.calls.append("waits")
        await world.gate.wait()

    soon = RetryPolicy(first_retry_interval=timedelta(milliseconds=800), max_attempts=10)

    @app.orchestrator
    async def retries(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(fails, retry=soon)

    @app.orchestrator
    async def queues(ctx: OrchestrationContext) -> None:
        await when_all([ctx.call_activity(waits), ctx.call_activity(waits), ctx.call_activity(waits)])

    async def scenario(run: Run) -> None:
        handles = [await run.client.start_new(retries), await run.client.start_new(queues)]

        async def begun() -> bool:
            return sorted(world.calls) == ["fails", "waits"]

        await eventually(begun)
        for handle in handles:
            await handle.terminate()
            with pytest.raises(OrchestrationFailedError):
                await handle.wait_for_completion(timeout=SOON)
        world.gate.set()
        assert await result(run, "sleeper") is None
        assert sorted(world.calls) == ["fails", "waits"]

    @app.orchestrator
    async def sleeper(ctx: OrchestrationContext) -> None:
        await ctx.create_timer(timedelta(milliseconds=1_000))

    on(make_store(), app, scenario, HostConfig(activities_max=1, drain_s=0.2))


class StubbornStore(FailingStore):
    """Refuses every commit that touches one instance, as a store does that cannot hold what it is given."""

    def __init__(self, store: Any, refuses: Callable[[str, str], bool], error: Exception) -> None:
        super().__init__(store)
        self._refuses = refuses
        self._error = error

    async def commit(self, fence: Any, writes: Any) -> None:
        rows = [*writes.instances_inserted, *(update.row for update in writes.instances_updated)]
        if any(self._refuses(row.instance_id, row.status) for row in rows):
            raise self._error
        await super().commit(fence, writes)


@pytest.mark.parametrize(
    ("even_parking", "error"),
    [
        (False, CommitFailedError("planted: this row cannot be stored")),
        (True, CommitFailedError("planted: this row cannot be stored")),
        (False, ValueError("planted: a bug of ours, or of the adapter")),
    ],
)
def test_an_instance_that_cannot_be_stored_does_not_stop_the_others(
    even_parking: bool, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_ISOLATION_S", 0.1)
    monkeypatch.setattr(culprits, "_BACK_OFF_S", (0.0, 0.02, 0.1, 0.2))

    def refuses(instance_id: str, status: str) -> bool:
        return instance_id == "cursed" and (status == "Completed" or (even_parking and status == "Suspended"))

    async def scenario() -> None:
        store = StubbornStore(MemoryStore(), refuses, error)
        async with running(make_app(World()), store) as run:
            await run.client.start_new("events", 1, instance_id="fine")
            await run.client.start_new("sleepy", 20, instance_id="cursed")

            async def others_go_on() -> bool:
                with suppress(StorageError, OverloadedError):
                    await run.client.start_new("chain", 1)
                status = await run.client.get_status("cursed")
                banned = run.engine.is_ready and "cursed" in run.engine.banned
                return banned if even_parking else status is not None and status.parked is not None

            await eventually(others_go_on)

            async def event_accepted() -> bool:
                with suppress(StorageError, OverloadedError):
                    await run.client.raise_event("fine", "e", 2)
                    return True
                return False

            await eventually(event_accepted)
            assert await run.client.wait_for_completion("fine", timeout=SOON) == [2]

    asyncio.run(scenario())
