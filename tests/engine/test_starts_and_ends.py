"""How instances start, which of two starts counts, how they are ended from outside, and what their children hear."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from engine_kit import SOON, Run, eventually
from test_orchestrations import on

from holdfast import (
    App,
    HostConfig,
    IdPolicy,
    InstanceAlreadyExistsError,
    InstanceNotRunningError,
    InvalidInputError,
    Limits,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationStatus,
    OverloadedError,
    TaskFailedError,
)
from holdfast.storage.port import Store

MakeStore = Callable[[], Store]
S = OrchestrationStatus
HOUR = timedelta(hours=1)


def make_app() -> App:
    app = App()
    app_log: list[str] = []
    app.log = app_log  # type: ignore[attr-defined]  # what the functions have done, for the tests to see

    @app.orchestrator
    async def wait(ctx: OrchestrationContext, name: Any) -> Any:
        try:
            return await ctx.wait_for_external_event("go")
        finally:
            app_log.append(f"{name} ended")

    @app.orchestrator
    async def parent(ctx: OrchestrationContext, depth: int) -> Any:
        if depth == 0:
            return await ctx.wait_for_external_event("go")
        return await ctx.call_sub_orchestrator(parent, depth - 1, instance_id=f"level-{depth - 1}")

    @app.orchestrator
    async def starter(ctx: OrchestrationContext) -> str:
        return ctx.start_orchestration(wait, "detached", tags={"own": "1"}, start_at=timedelta(0))

    @app.orchestrator
    async def tagged(ctx: OrchestrationContext) -> dict[str, str]:
        return dict(ctx.tags)

    @app.orchestrator
    async def tagging(ctx: OrchestrationContext) -> dict[str, str]:
        return await ctx.call_sub_orchestrator(tagged, tags={"b": "2"})

    return app


async def status(run: Run, instance_id: str) -> OrchestrationStatus | None:
    found = await run.client.get_status(instance_id)
    return found.runtime_status if found else None


async def reached(run: Run, instance_id: str, *wanted: OrchestrationStatus) -> None:
    async def holds() -> bool:
        return await status(run, instance_id) in wanted

    await eventually(holds)


POLICIES = {
    "default": (IdPolicy(), {S.RUNNING: "reject", S.SUSPENDED: "reject", S.COMPLETED: "start", S.FAILED: "start"}),
    "once": (IdPolicy(replace=()), {S.RUNNING: "reject", S.COMPLETED: "reject", S.TERMINATED: "reject"}),
    "get or create": (IdPolicy(replace=(), otherwise="return"), {S.RUNNING: "return", S.COMPLETED: "return"}),
    "failed only": (IdPolicy(replace=(S.FAILED,)), {S.FAILED: "start", S.COMPLETED: "reject", S.RUNNING: "reject"}),
    "always": (IdPolicy(replace=S), {S.RUNNING: "start", S.SUSPENDED: "start", S.TERMINATED: "start"}),
}


async def bring(run: Run, wanted: OrchestrationStatus) -> None:
    """Leave an instance `i` in a status."""
    handle = await run.client.start_new("wait", "first", instance_id="i")
    await reached(run, "i", S.RUNNING)
    if wanted is S.COMPLETED:
        await handle.raise_event("go", 1)
    elif wanted is S.TERMINATED:
        await handle.terminate()
    elif wanted is S.SUSPENDED:
        await handle.suspend()
    elif wanted is S.FAILED:
        run.engine.registry.orchestrator("wait").function = _fails
        await handle.terminate()
        await reached(run, "i", S.TERMINATED)
        await run.client.start_new("wait", "first", instance_id="i")
    await reached(run, "i", wanted)


async def _fails(ctx: OrchestrationContext, name: Any) -> None:
    raise ValueError(name)


@pytest.mark.parametrize("name", POLICIES)
def test_an_id_policy_decides_by_the_status_of_the_existing_instance(make_store: MakeStore, name: str) -> None:
    policy, table = POLICIES[name]

    for existing, expected in table.items():

        async def scenario(run: Run, existing: OrchestrationStatus = existing, expected: str = expected) -> None:
            await bring(run, existing)
            before = await run.client.get_status("i")
            assert before is not None
            started = run.client.start_new("wait", "second", instance_id="i", id_policy=policy)
            if expected == "reject":
                with pytest.raises(InstanceAlreadyExistsError):
                    await started
            else:
                assert (await started).instance_id == "i"
            after = await run.client.get_status("i")
            assert after is not None
            assert (after.state.execution_id != before.state.execution_id) is (expected == "start")
            assert after.input == ("second" if expected == "start" else "first")
            await run.client.terminate("i") if not after.runtime_status.is_terminal else None
            free = await run.client.start_new("wait", instance_id="free", id_policy=IdPolicy(replace=S))
            with suppress(InstanceNotRunningError):  # it may have failed at once
                await free.terminate()
            for each in ("i", "free"):  # the next status needs an empty hub
                await reached(run, each, S.TERMINATED, S.COMPLETED, S.FAILED)
                await run.client.purge(each)

        on(make_store(), make_app(), scenario)


def test_of_concurrent_get_or_create_one_starts_and_all_get_it(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        policy = IdPolicy(replace=(), otherwise="return")
        handles = await asyncio.gather(
            *(run.client.start_new("wait", n, instance_id="one", id_policy=policy) for n in range(20))
        )
        await handles[0].raise_event("go", "done")
        results = await asyncio.gather(*(handle.wait_for_completion(timeout=SOON) for handle in handles))
        assert results == ["done"] * 20
        assert run.engine.registry.orchestrator("wait")

    on(make_store(), make_app(), scenario)


def test_a_repeated_request_starts_nothing_even_after_the_end(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        first = await run.client.start_new("wait", "x", request_key="order-7")
        again = await run.client.start_new("wait", "x", request_key="order-7")
        assert first.instance_id == again.instance_id
        await first.raise_event("go", 1)
        assert await first.wait_for_completion(timeout=SOON) == 1
        late = await run.client.start_new("wait", "x", request_key="order-7")
        assert await late.wait_for_completion(timeout=SOON) == 1
        other = await run.client.start_new("wait", "x", request_key="order-8")
        assert other.instance_id != first.instance_id
        with pytest.raises(InstanceAlreadyExistsError):
            await run.client.start_new("wait", "x", instance_id=other.instance_id, request_key="order-9")

    on(make_store(), make_app(), scenario)


def test_a_planned_start_waits_for_its_time_over_restarts(make_store: MakeStore) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.3)

    async def plan(run: Run) -> None:
        await run.client.start_new("wait", "later", instance_id="later", start_at=datetime.now(UTC) + HOUR)
        await run.client.start_new("tagged", instance_id="soon", start_at=soon)
        await run.client.raise_event("later", "go", "early")
        assert await status(run, "later") is S.PENDING

    async def then(run: Run) -> None:
        await run.client.wait_for_completion("soon", timeout=SOON)
        found = await run.client.get_status("soon")
        assert found is not None
        assert found.last_updated_at >= soon
        assert await status(run, "later") is S.PENDING
        await run.client.cancel("later", "not needed")
        stopped = await run.client.wait_until_stopped("later", timeout=SOON)
        assert (stopped.runtime_status, stopped.output) == (S.CANCELED, "not needed")

    app = make_app()
    on(make_store(), app, plan)
    on(make_store(), app, then)
    assert app.log == []  # type: ignore[attr-defined]  # it has never run


def test_the_run_timeout_ends_an_instance_and_cancels_its_children(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("parent", 1, run_timeout=timedelta(milliseconds=50))
        with pytest.raises(OrchestrationFailedError, match="run_timeout was over"):
            await handle.wait_for_completion(timeout=SOON)
        await reached(run, "level-0", S.CANCELED)

    on(make_store(), make_app(), scenario)


def test_the_run_timeout_holds_for_all_executions_together(make_store: MakeStore) -> None:
    app = App()

    @app.orchestrator
    async def forever(ctx: OrchestrationContext, n: int) -> None:
        await ctx.create_timer(timedelta(milliseconds=1))
        ctx.continue_as_new(n + 1)

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(forever, 0, run_timeout=timedelta(milliseconds=100))
        with pytest.raises(OrchestrationFailedError, match="run_timeout was over"):
            await handle.wait_for_completion(timeout=SOON)
        found = await handle.get_status()
        assert found is not None
        assert found.input > 0

    on(make_store(), app, scenario)


@pytest.mark.parametrize("recursive", [False, True])
def test_terminate_reaches_the_children_on_request(make_store: MakeStore, recursive: bool) -> None:
    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("parent", 3)
        await reached(run, "level-0", S.RUNNING)
        await handle.terminate("stop", recursive=recursive)
        await reached(run, handle.instance_id, S.TERMINATED)
        if recursive:
            for level in range(3):
                await reached(run, f"level-{level}", S.TERMINATED)
        else:
            await run.client.raise_event("level-0", "go", "on")
            assert await run.client.wait_for_completion("level-2", timeout=SOON) == "on"

    on(make_store(), make_app(), scenario)


def test_suspend_and_resume_reach_the_children_on_request(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("parent", 2)
        await reached(run, "level-0", S.RUNNING)
        await handle.suspend(recursive=True)
        for instance_id in (handle.instance_id, "level-1", "level-0"):
            await reached(run, instance_id, S.SUSPENDED)
        await run.client.raise_event("level-0", "go", "kept")
        await handle.resume(recursive=True)
        assert await handle.wait_for_completion(timeout=SOON) == "kept"

    on(make_store(), make_app(), scenario)


def test_cancel_reaches_the_child_that_is_waited_for(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("parent", 2)
        await reached(run, "level-0", S.RUNNING)
        await handle.cancel("changed my mind")
        with pytest.raises(OrchestrationFailedError, match="Canceled"):
            await handle.wait_for_completion(timeout=SOON)
        for level in range(2):
            await reached(run, f"level-{level}", S.CANCELED)

    on(make_store(), make_app(), scenario)


def test_a_request_of_a_parent_does_not_reach_a_stranger_with_the_id_of_its_child(make_store: MakeStore) -> None:
    """The child has ended, its id is used by somebody else, and the parent has not taken the end in yet."""
    app = App()

    @app.orchestrator
    async def child(ctx: OrchestrationContext) -> None: ...

    @app.orchestrator
    async def stranger(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("go")

    @app.orchestrator
    async def calling(ctx: OrchestrationContext) -> None:
        ctx.call_sub_orchestrator(child, instance_id="shared")
        await ctx.wait_for_external_event("go")

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(calling)
        await reached(run, "shared", S.COMPLETED)
        await handle.suspend()
        await reached(run, handle.instance_id, S.SUSPENDED)
        await run.client.start_new(stranger, instance_id="shared")
        await handle.terminate(recursive=True)
        await reached(run, handle.instance_id, S.TERMINATED)
        await run.client.raise_event("shared", "go", "unharmed")
        assert await run.client.wait_for_completion("shared", timeout=SOON) == "unharmed"

    on(make_store(), app, scenario)


def test_a_detached_orchestration_goes_on_without_its_starter(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("starter", tags={"of": "starter"})
        detached = await handle.wait_for_completion(timeout=SOON)
        await reached(run, detached, S.RUNNING)
        found = await run.client.get_status(detached)
        assert found is not None
        assert (found.state.parent_instance_id, found.state.tags) == (None, {"own": "1"})
        await run.client.raise_event(detached, "go", 5)
        assert await run.client.wait_for_completion(detached, timeout=SOON) == 5

    on(make_store(), make_app(), scenario)


def test_tags_are_inherited_by_sub_orchestrations(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("tagging", tags={"a": "1"})
        assert await handle.wait_for_completion(timeout=SOON) == {"a": "1", "b": "2"}

    on(make_store(), make_app(), scenario)


REFUSED: dict[str, dict[str, Any]] = {
    "a naive start_at": {"start_at": datetime(2030, 1, 1)},  # noqa: DTZ001 - it is what is refused
    "a negative run_timeout": {"run_timeout": timedelta(seconds=-1)},
    "tags that are no texts": {"tags": {"a": 1}},
    "too many tags": {"tags": {str(n): "" for n in range(65)}},
    "a long tag": {"tags": {"a": "x" * 1_001}},
    "an empty version": {"version": ""},
    "an empty request key": {"request_key": ""},
    "a tag with a NUL": {"tags": {"a": "x\0"}},
    "a policy that is none": {"id_policy": "reject"},
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_cannot_be_meant_are_refused_at_the_call(name: str) -> None:
    async def scenario(run: Run) -> None:
        with pytest.raises(InvalidInputError):
            await run.client.start_new("wait", "x", instance_id="i", **REFUSED[name])
        assert await run.client.get_status("i") is None
        with pytest.raises(TypeError, match="Did you mean 'request_key'"):
            await run.client.start_new("wait", "x", requestkey="k")  # type: ignore[call-overload]  # it is the point

    from holdfast.storage.memory import MemoryStore

    on(MemoryStore(), make_app(), scenario)


def test_events_with_one_key_count_once_over_restarts_and_executions(make_store: MakeStore) -> None:
    app = App()

    @app.orchestrator
    async def collect(ctx: OrchestrationContext, seen: list[str]) -> list[str]:
        seen += [await ctx.wait_for_external_event("e") for _ in range(2)]
        if len(seen) < 4:
            ctx.continue_as_new(seen)
        return seen

    async def first(run: Run) -> None:
        await run.client.start_new(collect, [], instance_id="c")
        for key in ("a", "a", "b", "a"):
            await run.client.raise_event("c", "e", key, key=key)

    async def then(run: Run) -> None:
        for key in ("b", "a", "c", "b", "c", "d"):
            await run.client.raise_event("c", "e", key, key=key)
        assert await run.client.wait_for_completion("c", timeout=SOON) == ["a", "b", "c", "d"]

    on(make_store(), app, first)
    on(make_store(), app, then)


def test_events_that_nobody_waits_for_are_limited(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        await run.client.start_new("wait", "x", instance_id="i")
        await reached(run, "i", S.RUNNING)

        async def flood() -> None:
            for n in range(100):
                await run.client.raise_event("i", "other", n)

        with pytest.raises(OverloadedError, match="taken in 3 external events"):
            await flood()
        await run.client.terminate("i")

    on(make_store(), make_app(), scenario, HostConfig(drain_s=0.2, limits=Limits(events_buffered_max=3)))


def test_continue_as_new_waits_for_open_work_on_request(make_store: MakeStore) -> None:
    app = App()
    gate = asyncio.Event()
    done: list[int] = []

    @app.activity
    async def work(n: int) -> int:
        await gate.wait()
        done.append(n)
        return n

    @app.orchestrator
    async def again(ctx: OrchestrationContext, n: int) -> int:
        if n == 2:
            return ctx.history_events
        ctx.call_activity(work, n)
        await ctx.wait_for_external_event("next")
        ctx.continue_as_new(n + 1, open_tasks="wait")
        return 0

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(again, 1)
        await reached(run, handle.instance_id, S.RUNNING)
        await handle.raise_event("next")
        found = await handle.get_status()
        assert found is not None
        assert (found.runtime_status, found.input) == (S.RUNNING, 1)
        gate.set()
        assert await handle.wait_for_completion(timeout=SOON) == 0
        assert done == [1]

    on(make_store(), app, scenario)


def test_a_running_activity_is_stopped_when_its_orchestration_ends(make_store: MakeStore) -> None:
    app = App()
    stopped = asyncio.Event()

    @app.activity
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    @app.orchestrator
    async def hanging(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(hang)

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(hanging)
        await eventually(lambda: asyncio.sleep(0, bool(run.engine.runner.known_keys())))
        await handle.terminate()
        await asyncio.wait_for(stopped.wait(), SOON.total_seconds())

    on(make_store(), app, scenario)


def test_a_failure_keeps_its_attributes_and_its_chain(make_store: MakeStore) -> None:
    app = App()

    class CardDeclinedError(Exception):
        def __init__(self, message: str, code: int) -> None:
            super().__init__(message)
            self.code = code
            self.unjsonable = object()

    caught: list[CardDeclinedError] = []
    globals()["CardDeclinedError"] = CardDeclinedError
    CardDeclinedError.__qualname__ = "CardDeclinedError"

    @app.activity
    async def charge() -> None:
        try:
            raise ConnectionResetError(104, "reset")
        except OSError as error:
            raise CardDeclinedError("declined", 51) from error

    @app.orchestrator
    async def pay(ctx: OrchestrationContext) -> Any:
        try:
            await ctx.call_activity(charge)
        except CardDeclinedError as error:
            caught.append(error)
            return error.code
        raise AssertionError

    async def scenario(run: Run) -> None:
        assert await (await run.client.start_new(pay)).wait_for_completion(timeout=SOON) == 51
        (error,) = caught
        assert isinstance(error, TaskFailedError)
        assert error.is_caused_by(ConnectionError)
        assert error.is_caused_by("OSError")
        assert not error.is_caused_by(KeyError)
        assert isinstance(error.__cause__, ConnectionResetError)
        assert error.__cause__.errno == 104

    on(make_store(), app, scenario)
