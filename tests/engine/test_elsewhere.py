"""What broke in other engines, and is not held by a test elsewhere: see docs/explanation/what-breaks-elsewhere.md."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_kit import SOON, Run, SlowStore, World, make_app, running, until
from hypothesis import given, settings
from hypothesis import strategies as st
from test_orchestrations import on, result
from test_starts_and_ends import reached

from holdfast import (
    App,
    HostConfig,
    OrchestrationContext,
    OrchestrationStatus,
    RetryPolicy,
    TaskFailedError,
    activity_context,
)
from holdfast.errors import WaitTimeoutError
from holdfast.storage.memory import MemoryStore
from holdfast.storage.port import Store
from holdfast.testing.faults import Faults
from holdfast.testing.simulation import Simulation

MakeStore = Callable[[], Store]
SIMULATION = str(Path(__file__).parents[1] / "simulation")


def simulated(app: App, scenario: Callable[[Simulation], Coroutine[Any, Any, Any]], **options: Any) -> Simulation:
    sim = Simulation(app, **options)
    sim.run(scenario)
    return sim


# Hosts that come and go


@pytest.mark.parametrize("seed", range(10))
def test_a_recovery_that_cannot_read_the_store_goes_on_once_it_can(seed: int) -> None:
    """An error in the middle of a recovery was logged, and what it was about to find was never looked at again."""
    faults = Faults(total=12, crash_steps=60, call_failed=0.3)

    async def scenario(sim: Simulation) -> None:
        runs = [await sim.client.start_new("chain", 5, request_key=f"{number}") for number in range(5)]
        for run in runs:
            assert await run.wait_for_completion() == 2**5

    sim = simulated(make_app(World()), scenario, seed=seed, faults=faults)
    assert "call_failed" in sim.trouble.happened


@pytest.mark.parametrize("seed", range(5))
def test_restarts_one_after_the_other_strand_nothing(seed: int) -> None:
    """What a process took back while it drained was found by nobody, since only a start looked for such work."""
    app = make_app(World())

    async def scenario(sim: Simulation) -> None:
        runs = [await sim.client.start_new("chain", 8, request_key=f"{number}") for number in range(20)]
        for _ in range(5):
            await sim.advance(seconds=7)
            await sim.deploy(app)
        for run in runs:
            assert await run.wait_for_completion() == 2**8

    sim = simulated(app, scenario, seed=seed, hosts=2, faults=Faults(total=10_000, activity_slow=0.3))
    assert sum(host.starts for host in sim.hosts) >= 10


def test_whatever_ends_a_child_its_parent_hears_of_it(make_store: MakeStore) -> None:
    """An end that did not go through the one function for it left the parent waiting for ever."""
    app = App()

    @app.orchestrator
    async def child(ctx: OrchestrationContext, how: str) -> str:
        if how == "raise":
            raise ValueError(how)
        return how if how == "return" else await ctx.wait_for_external_event("never")

    @app.orchestrator
    async def parent(ctx: OrchestrationContext, how: str) -> str:
        try:
            return await ctx.call_sub_orchestrator(child, how, instance_id=f"{how} child")
        except Exception as error:
            return type(error).__name__

    async def scenario(run: Run) -> None:
        for how in ("return", "raise", "terminate", "cancel"):
            handle = await run.client.start_new(parent, how)
            if how in ("terminate", "cancel"):
                await reached(run, f"{how} child", OrchestrationStatus.RUNNING)
                await getattr(run.client, how)(f"{how} child")
            told = await handle.wait_for_completion(timeout=SOON)
            assert (told == how) == (how == "return"), (how, told)

    on(make_store(), app, scenario)


# Time


def test_a_timer_of_400_days_fires_once_and_on_time_over_restarts() -> None:
    """Timers beyond what a queue can hide a message for never fired; state in a transport was gone after a day."""
    app = App()

    @app.orchestrator
    async def waits(ctx: OrchestrationContext) -> list[datetime]:
        return [ctx.current_utc_datetime, await ctx.create_timer(timedelta(days=400)) or ctx.current_utc_datetime]

    async def scenario(sim: Simulation) -> None:
        run = await sim.client.start_new(waits)
        for _ in range(13):
            await sim.advance(days=30)
            sim.crash()
        began, fired = await run.wait_for_completion()
        assert timedelta(days=400) <= fired - began < timedelta(days=400, seconds=10)

    simulated(app, scenario, config=HostConfig(timer_horizon_s=86_400, drain_s=0.2))


def test_eternal_orchestrations_lose_no_timer_however_often_the_host_dies() -> None:
    """One in ten of them stood still for ever, because its timer's message had been lost."""
    app = App()

    @app.orchestrator
    async def ticks(ctx: OrchestrationContext, left: int) -> str:
        await ctx.create_timer(timedelta(seconds=1))
        if left:
            ctx.continue_as_new(left - 1)
        return "done"

    async def scenario(sim: Simulation) -> None:
        runs = [await sim.client.start_new(ticks, 80, request_key=f"{number}") for number in range(30)]
        for run in runs:
            assert await run.wait_for_completion() == "done"

    sim = simulated(app, scenario, faults=Faults(total=40, crash_steps=400))
    assert sim.trouble.happened.count("crash") == 40


def test_an_activity_of_ten_days_runs_once() -> None:
    """What took longer than some default that nobody knew of was given to a second worker."""
    app, begun = App(), list[int]()

    @app.activity
    async def long() -> int:
        begun.append(activity_context().attempt)
        await asyncio.sleep(timedelta(days=10).total_seconds())
        return len(begun)

    @app.orchestrator
    async def calls(ctx: OrchestrationContext) -> int:
        return await ctx.call_activity(long)

    async def scenario(sim: Simulation) -> None:
        run = await sim.client.start_new(calls)
        assert await run.wait_for_completion() == 1

    simulated(app, scenario)


def test_attempts_keep_the_distance_that_the_policy_says_whoever_runs_them() -> None:
    """All attempts were made within a second; or a restart forgot how many there had been."""
    app, sims, begun = App(), list[Simulation](), list[datetime]()
    policy = RetryPolicy(max_attempts=4, first_retry_interval=timedelta(seconds=10), backoff_coefficient=3)

    @app.activity(retry=policy)
    async def fails() -> None:
        begun.append(sims[0].now())
        raise ConnectionError

    @app.orchestrator
    async def calls(ctx: OrchestrationContext) -> str:
        try:
            return str(await ctx.call_activity(fails))
        except ConnectionError:
            return "given up"

    async def scenario(sim: Simulation) -> None:
        sims.append(sim)
        run = await sim.client.start_new(calls)
        await sim.advance(seconds=15)
        sim.crash()
        assert await run.wait_for_completion() == "given up"

    simulated(app, scenario)
    waited = [(after - before).total_seconds() for before, after in itertools.pairwise(begun)]
    assert [round(each / 10) for each in waited] == [1, 3, 9]
    assert all(each >= least for each, least in zip(waited, (10, 30, 90), strict=True))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    first_s=st.integers(0, 20),
    backoff=st.integers(1, 3),
    most_s=st.integers(1, 60),
    limit_s=st.none() | st.integers(0, 100),
    attempts=st.integers(1, 6),
    of_child=st.booleans(),
)
def test_retries_are_what_each_option_says_alone_and_together(
    first_s: int, backoff: int, most_s: int, limit_s: int | None, attempts: int, of_child: bool
) -> None:
    """An option was lost on its way, or one of them switched off another."""
    policy = RetryPolicy(
        max_attempts=attempts,
        first_retry_interval=timedelta(seconds=first_s),
        backoff_coefficient=backoff,
        max_retry_interval=timedelta(seconds=most_s),
        retry_timeout=None if limit_s is None else timedelta(seconds=limit_s + 0.5),
    )
    expected, at = [0], 0
    for number in range(1, attempts):
        at += min(first_s * backoff ** (number - 1), most_s)
        if limit_s is None or at <= limit_s + 0.5:
            expected.append(at)
    begun = attempts_of(policy, of_child=of_child)
    assert [round((each - begun[0]).total_seconds()) for each in begun] == expected


def attempts_of(policy: RetryPolicy, *, of_child: bool) -> list[datetime]:
    """Return when the attempts of something that always fails begin."""
    app, sims, begun = App(), list[Simulation](), list[datetime]()

    @app.activity
    async def fails() -> None:
        begun.append(sims[0].now())
        raise ConnectionError

    @app.orchestrator
    async def child(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(fails)

    @app.orchestrator
    async def calls(ctx: OrchestrationContext) -> None:
        with contextlib.suppress(TaskFailedError, ConnectionError):
            await (
                ctx.call_sub_orchestrator(child, retry=policy) if of_child else ctx.call_activity(fails, retry=policy)
            )

    async def scenario(sim: Simulation) -> None:
        sims.append(sim)
        await (await sim.client.start_new(calls)).wait_for_completion()

    simulated(app, scenario)
    return begun


# The language


def test_drawing_random_numbers_changes_no_uuid() -> None:
    """Both came from one stream, so that a new call of `random` changed the ids of everything after it."""

    def uuids(draws: int) -> list[str]:
        app = App()

        @app.orchestrator
        async def draw(ctx: OrchestrationContext) -> list[str]:
            first = ctx.new_uuid()
            for _ in range(draws):
                ctx.random.random()
            return [str(first), str(ctx.new_uuid())]

        found: list[str] = []

        async def scenario(sim: Simulation) -> None:
            found.extend(await (await sim.client.start_new(draw, instance_id="i")).wait_for_completion())

        simulated(app, scenario)
        return found

    assert uuids(0) == uuids(3)
    assert len(set(uuids(0))) == 2


def test_nothing_depends_on_the_order_of_sets() -> None:
    """Combinations of tasks took them from a set; another process, with other hashes, replayed in another order."""
    program = (
        f"import sys; sys.path.insert(0, {SIMULATION!r})\n"
        "import logging; logging.disable(logging.CRITICAL)\n"
        "from seeds import run_seed\n"
        "print([run_seed(seed).fingerprint for seed in range(101, 113)])\n"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            timeout=120,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


@pytest.mark.parametrize("style", ["coroutine", "generator"])
def test_except_and_finally_ask_for_as_much_as_they_like(make_store: MakeStore, style: str) -> None:
    """Only the first task of an `except` block ran, because the error was still thought to be on its way."""
    app, world = make_app(World()), ["double", "no such activity"]

    async def in_coroutine(ctx: OrchestrationContext) -> list[Any]:
        found: list[Any] = []
        try:
            await ctx.call_activity(world[1], 0)
        except TaskFailedError:
            found += [await ctx.call_activity(world[0], 1), await ctx.call_activity(world[0], 2)]
        finally:
            found += [await ctx.call_activity(world[0], 3), await ctx.call_activity(world[0], 4)]
        return found

    def in_generator(ctx: OrchestrationContext) -> Any:
        found: list[Any] = []
        try:
            yield ctx.call_activity(world[1], 0)
        except TaskFailedError:
            found += [(yield ctx.call_activity(world[0], 1)), (yield ctx.call_activity(world[0], 2))]
        finally:
            found += [(yield ctx.call_activity(world[0], 3)), (yield ctx.call_activity(world[0], 4))]
        return found

    app.orchestrator(in_coroutine if style == "coroutine" else in_generator)

    async def scenario(run: Run) -> None:
        assert await result(run, f"in_{style}") == [2, 4, 6, 8]

    on(make_store(), app, scenario)


def test_an_activity_that_is_stopped_inside_of_scopes_ends() -> None:
    """Cancellations of a scope and of the task were taken for each other, and came again and again."""
    app, left = App(), list[str]()

    @app.activity
    async def scopes() -> None:
        try:
            async with asyncio.timeout(3600), asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(3600))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5):
                        await asyncio.sleep(3600)
                left.append("inner")
                await asyncio.sleep(3600)
        finally:
            left.append("outer")

    @app.orchestrator
    async def calls(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity(scopes, timeout=timedelta(minutes=1))
        except TimeoutError:
            return "late"
        return "in time"

    async def scenario(sim: Simulation) -> None:
        assert await (await sim.client.start_new(calls)).wait_for_completion() == "late"
        assert sim.loop.now_us < 61_000_000

    sim = simulated(app, scenario)
    assert left == ["inner", "outer"]
    assert sim.loop.steps < 10_000


def test_the_context_of_an_activity_is_known_in_its_thread_and_in_those_it_starts(make_store: MakeStore) -> None:
    app = App()

    def where() -> int:
        return activity_context().sequence

    @app.activity
    def in_a_thread() -> int:
        return where()

    @app.activity
    async def starts_a_thread() -> int:
        return await asyncio.to_thread(where)

    @app.orchestrator
    async def calls(ctx: OrchestrationContext) -> list[int]:
        return [await ctx.call_activity(in_a_thread), await ctx.call_activity(starts_a_thread)]

    async def scenario(run: Run) -> None:
        assert await result(run, "calls") == [0, 1]

    on(make_store(), app, scenario)


# Places, waits, requests


def test_who_waits_for_a_child_takes_no_place_from_it(make_store: MakeStore) -> None:
    """A parent kept the only slot while it waited for what needed one."""
    app = make_app(World())

    @app.orchestrator
    async def nested(ctx: OrchestrationContext, depth: int) -> int:
        below = await ctx.call_sub_orchestrator(nested, depth - 1) if depth else 0
        return below + await ctx.call_activity("double", 1)

    async def scenario(run: Run) -> None:
        assert await result(run, "nested", 50) == 102

    config = HostConfig(activities_max=1, activity_queue_max=1, threads_max=1, cache_bytes_max=1, drain_s=0.2)
    on(make_store(), app, scenario, config)


def test_waiting_does_not_ask_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waiter polled, and a few thousand of them were all that the store had time for."""
    reads = list[str]()
    for name in ("load", "read_instance"):
        method = getattr(MemoryStore, name)

        def counted(*arguments: Any, name: str = name, method: Any = method) -> Any:
            reads.append(name)
            return method(*arguments)

        monkeypatch.setattr(MemoryStore, name, counted)

    async def scenario(sim: Simulation) -> None:
        run = await sim.client.start_new("events", 1)
        waiters = [asyncio.create_task(run.wait_for_completion()) for _ in range(2_000)]
        await sim.advance(minutes=1)
        assert len(reads) < 10
        await run.raise_event("e", 1)
        assert await asyncio.gather(*waiters) == [[1]] * 2_000
        late = [run.wait_for_completion() for _ in range(2_000)]  # for what has ended, but is in memory still
        assert await asyncio.gather(*late) == [[1]] * 2_000
        assert len(reads) < 10

    simulated(make_app(World()), scenario)


def test_waiting_for_an_end_that_is_not_stored_yet_keeps_to_its_time(make_store: MakeStore) -> None:
    async def scenario() -> None:
        store = SlowStore(make_store())
        async with running(make_app(World()), store) as run:
            await run.client.start_new("events", 1, instance_id="i")
            store.before["commit"] = stored = asyncio.Event()
            raising = asyncio.create_task(run.client.raise_event("i", "e", 1))
            await until(lambda: run.engine.node.residents.get("i").instance.is_terminal)  # type: ignore[union-attr]  # it is there
            with pytest.raises(WaitTimeoutError):
                await asyncio.wait_for(run.client.wait_for_completion("i", timeout=timedelta(milliseconds=50)), 5)
            waiting = asyncio.create_task(run.client.wait_for_completion("i", timeout=SOON))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            stored.set()
            await raising
            assert await waiting == [1]

    asyncio.run(scenario())


def test_a_request_that_is_given_up_takes_nothing_with_it(make_store: MakeStore) -> None:
    """A client that closed its connection cancelled what it had started, or stopped the worker."""

    async def scenario() -> None:
        store = SlowStore(make_store())
        async with running(make_app(World()), store) as run:
            store.before["commit"] = asyncio.Event()
            starting = asyncio.create_task(run.client.start_new("chain", 3, instance_id="i"))
            await until(lambda: store.calls["commit"] > 0)
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await starting
            store.before.pop("commit").set()  # type: ignore[union-attr]  # it is the event from above
            waiting = asyncio.create_task(run.client.wait_for_completion("i", timeout=SOON))
            await asyncio.sleep(0)
            waiting.cancel()
            assert await run.client.wait_for_completion("i", timeout=SOON) == 8

    asyncio.run(scenario())


# Files and processes

_OWNER = """
import asyncio, os, pathlib, sys, time
from holdfast.errors import StoreInUseError
from holdfast.storage.sqlite.store import SqliteStore

async def main():
    store = SqliteStore(pathlib.Path(sys.argv[1]))
    try:
        await store.acquire(1)
    except StoreInUseError:
        os.write(1, b"in use\\n")
    else:
        child = os.fork() if "fork" in sys.argv else 1
        os.write(1, b"mine\\n" if child else f"child {os.getpid()}\\n".encode())  # at once: two write here
        time.sleep(60)

asyncio.run(main())
"""


def owner(path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _OWNER, str(path), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_of_many_that_come_up_at_once_on_a_new_file_one_has_it_and_the_others_are_told(tmp_path: Path) -> None:
    """They got "database is locked" while the file was made, and its journal mode was set."""
    processes = [owner(tmp_path / "hub.db") for _ in range(6)]
    try:
        said = [process.stdout.readline().strip() for process in processes if process.stdout is not None]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert sorted(said) == ["in use"] * 5 + ["mine"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no fork")
def test_a_child_that_was_forked_does_not_keep_the_file(tmp_path: Path) -> None:
    """It had inherited the lock, and held it after its parent was gone."""
    process = owner(tmp_path / "hub.db", "fork")
    assert process.stdout is not None
    said = sorted(process.stdout.readline().strip() for _ in range(2))
    process.kill()
    process.wait()
    try:
        assert said[1] == "mine"
        with owner(tmp_path / "hub.db") as successor:
            assert successor.stdout is not None
            now = successor.stdout.readline().strip()
            successor.kill()
        assert now == "mine"
    finally:
        os.kill(int(said[0].removeprefix("child ")), signal.SIGKILL)
        process.stdout.close()
