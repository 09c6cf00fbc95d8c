"""What a call may say about its activity: how long it may wait, run, be silent; and what an attempt leaves behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from engine_kit import SOON, Run, eventually
from test_orchestrations import on, result

from holdfast import (
    App,
    HostConfig,
    OrchestrationContext,
    OrchestrationFailedError,
    RetryPolicy,
    activity_context,
    when_all,
)
from holdfast.storage.port import Store

MakeStore = Callable[[], Store]
AT_ONCE = timedelta(0)


def ms(count: int) -> timedelta:
    return timedelta(milliseconds=count)


def test_an_attempt_that_finds_no_place_in_time_fails_the_call_without_a_retry(make_store: MakeStore) -> None:
    app = App()
    gate = asyncio.Event()
    ran: list[str] = []

    @app.activity(retry=RetryPolicy(max_attempts=5, first_retry_interval=AT_ONCE))
    async def occupy(name: str) -> str:
        ran.append(name)
        await gate.wait()
        return name

    @app.orchestrator
    async def crowded(ctx: OrchestrationContext) -> str:
        first = ctx.call_activity(occupy, "first")
        try:
            await ctx.call_activity(occupy, "second", start_timeout=ms(30))
        except TimeoutError as error:
            gate.set()
            return f"{await first}: {error}"
        return "no timeout"

    async def scenario(run: Run) -> None:
        assert "found no place to run" in await result(run, "crowded")
        assert ran == ["first"]

    on(make_store(), app, scenario, HostConfig(drain_s=0.2, activities_max=1))


def test_an_attempt_that_is_silent_is_given_up_and_the_next_one_goes_on_from_its_progress(
    make_store: MakeStore,
) -> None:
    app = App()
    starts: list[int] = []

    @app.activity(retry=RetryPolicy(max_attempts=3, first_retry_interval=AT_ONCE), heartbeat_timeout=ms(80))
    async def copy(total: int) -> int:
        context = activity_context()
        done = context.last_progress(int) or 0
        starts.append(done)
        while done < total:
            done += 1
            context.heartbeat(done)
            if done == 3 and context.attempt == 1:
                await asyncio.Event().wait()
        return done

    @app.orchestrator
    async def copying(ctx: OrchestrationContext) -> int:
        return await ctx.call_activity(copy, 5)

    async def scenario(run: Run) -> None:
        assert await result(run, "copying") == 5
        assert starts == [0, 3]

    on(make_store(), app, scenario)


def test_progress_survives_the_host(make_store: MakeStore) -> None:
    app = App()
    found: list[Any] = []

    @app.activity
    async def long(_: int) -> str:
        context = activity_context()
        found.append(context.last_progress())
        if len(found) == 1:
            context.heartbeat({"page": 7})
            await asyncio.Event().wait()
        return "done"

    @app.orchestrator
    async def reading(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(long, 0)

    async def first(run: Run) -> None:
        await run.client.start_new(reading, instance_id="r")
        await eventually(lambda: asyncio.sleep(0, bool(found)))

    async def then(run: Run) -> None:
        assert await run.client.wait_for_completion("r", timeout=SOON) == "done"
        assert found == [None, {"page": 7}]

    on(make_store(), app, first)
    on(make_store(), app, then)


def test_a_plain_function_sees_that_it_is_cancelled(make_store: MakeStore) -> None:
    app = App()
    seen: list[str] = []

    @app.activity
    def poll(name: str) -> None:
        seen.append(f"{name} began")
        while not activity_context().cancelled:
            pass
        seen.append(f"{name} ended")

    @app.orchestrator
    async def timed(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(poll, "timed", timeout=ms(30))

    @app.orchestrator
    async def cancelled(ctx: OrchestrationContext) -> str:
        task = ctx.call_activity(poll, "cancelled")
        await ctx.wait_for_external_event("go")
        task.cancel()
        return "over"

    async def scenario(run: Run) -> None:
        with pytest.raises(OrchestrationFailedError, match="took longer"):
            await result(run, "timed")
        handle = await run.client.start_new(cancelled)
        await eventually(lambda: asyncio.sleep(0, "cancelled began" in seen))
        await handle.raise_event("go")
        assert await handle.wait_for_completion(timeout=SOON) == "over"
        await eventually(lambda: asyncio.sleep(0, "cancelled ended" in seen))
        await eventually(lambda: asyncio.sleep(0, len(seen) == 4))

    on(make_store(), app, scenario)


def test_tags_and_retries_by_class(make_store: MakeStore) -> None:
    app = App()
    attempts: list[tuple[str, int]] = []

    @app.activity(tags={"queue": "slow"})
    async def picky(kind: str) -> str:
        context = activity_context()
        attempts.append((kind, context.attempt))
        if context.attempt < 3:
            raise {"refused": ConnectionRefusedError, "value": ValueError}[kind](kind)
        return context.tags["queue"]

    policy = RetryPolicy(max_attempts=5, first_retry_interval=ms(1), jitter=0.5, retry_on=(ConnectionError,))

    @app.orchestrator
    async def trying(ctx: OrchestrationContext) -> list[str]:
        calls = [ctx.call_activity(picky, kind, retry=policy) for kind in ("refused", "value")]
        try:
            await when_all(calls)
        except ValueError:
            return [await calls[0]]
        return []

    async def scenario(run: Run) -> None:
        assert await result(run, "trying") == ["slow"]
        assert sorted(attempts) == [("refused", 1), ("refused", 2), ("refused", 3), ("value", 1)]

    on(make_store(), app, scenario)


def test_waiting_for_a_thread_is_no_running_time_but_counts_for_the_start(make_store: MakeStore) -> None:
    app = App()
    gate = threading.Event()

    @app.activity
    def occupy(name: str) -> str:
        gate.wait(SOON.total_seconds())
        return name

    @app.orchestrator
    async def crowded(ctx: OrchestrationContext) -> list[str]:
        first = ctx.call_activity(occupy, "first")
        patient = ctx.call_activity(occupy, "patient", timeout=timedelta(seconds=30))
        with pytest.raises(TimeoutError, match="found no place"):
            await ctx.call_activity(occupy, "hasty", start_timeout=ms(30))
        gate.set()
        return await when_all([first, patient])

    async def scenario(run: Run) -> None:
        assert await result(run, "crowded") == ["first", "patient"]

    on(make_store(), app, scenario, HostConfig(drain_s=0.2, threads_max=1))


def test_the_running_time_of_a_plain_function_begins_when_it_begins(make_store: MakeStore) -> None:
    """It was counted from the moment that it was given to a thread pool, which may have no thread for it."""
    app = App()
    began: list[str] = []
    gate = threading.Event()

    @app.activity
    def quick(name: str) -> str:
        began.append(name)
        gate.wait(SOON.total_seconds()) if name == "first" else None
        return name

    @app.orchestrator
    async def queueing(ctx: OrchestrationContext) -> list[str]:
        calls = [ctx.call_activity(quick, "first"), ctx.call_activity(quick, "second", timeout=ms(50))]
        await ctx.create_timer(ms(150))
        gate.set()
        return await when_all(calls)

    async def scenario(run: Run) -> None:
        assert await result(run, "queueing") == ["first", "second"]
        assert began == ["first", "second"]

    on(make_store(), app, scenario, HostConfig(drain_s=0.2, threads_max=1))
