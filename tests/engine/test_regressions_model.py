"""Defects of the orchestration model that review has found, each as the test that fails without its fix."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from engine_kit import SOON, Run, SlowStore, eventually, running, until
from test_orchestrations import MakeStore, on

from holdfast import (
    App,
    CancelledError,
    Entity,
    EntityId,
    HostConfig,
    InstanceNotRunningError,
    InvalidInputError,
    Limits,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationStatus,
    OverloadedError,
    RetryPolicy,
    TaskFailedError,
    activity_context,
    race,
)
from holdfast.storage.memory import MemoryStore

NEVER = timedelta.max
AT_ONCE = timedelta(0)


def make_app() -> App:
    app = App()

    @app.activity
    async def fails() -> None:
        raise ValueError("no")

    @app.orchestrator
    async def bystander(ctx: OrchestrationContext) -> str:
        return "fine"

    @app.orchestrator
    async def waits(ctx: OrchestrationContext) -> Any:
        ctx.set_update_handler("number", lambda: 7)
        return await ctx.wait_for_external_event("go")

    _ = (fails, bystander, waits)
    return app


async def is_fine(run: Run) -> None:
    """The node is the one that it was, and others go on."""
    assert await (await run.client.start_new("bystander")).wait_for_completion(timeout=SOON) == "fine"


async def reached(run: Run, instance_id: str, wanted: OrchestrationStatus) -> None:
    async def holds() -> bool:
        found = await run.client.get_status(instance_id)
        return found is not None and found.runtime_status is wanted

    await eventually(holds)


LONG: dict[str, Callable[[OrchestrationContext], Any]] = {
    "start_timeout": lambda ctx: ctx.call_activity("fails", start_timeout=NEVER),
    "timeout": lambda ctx: ctx.call_activity("fails", timeout=NEVER, heartbeat_timeout=NEVER),
    "retry": lambda ctx: ctx.call_activity(
        "fails", retry=RetryPolicy(first_retry_interval=NEVER, max_retry_interval=NEVER)
    ),
    "coefficient": lambda ctx: ctx.call_activity(
        "fails", retry=RetryPolicy(backoff_coefficient=1e300, max_retry_interval=NEVER)
    ),
    "handler": lambda ctx: ctx.call_activity("fails", retry=lambda _: NEVER),
    "timer": lambda ctx: ctx.create_timer(datetime.max.replace(tzinfo=UTC)),
}


@pytest.mark.parametrize("name", LONG)
def test_a_duration_beyond_the_calendar_harms_nobody(make_store: MakeStore, name: str) -> None:
    """It raised where no instance was to blame: the host restarted, for ever, also after it was started anew."""
    app = make_app()

    @app.orchestrator
    async def patient(ctx: OrchestrationContext) -> None:
        await LONG[name](ctx)

    async def first(run: Run) -> None:
        node = run.engine.node
        await run.client.start_new(patient, instance_id="patient")
        await run.client.start_new("waits", instance_id="timed", run_timeout=NEVER)
        await reached(run, "patient", OrchestrationStatus.FAILED if "timeout" in name else OrchestrationStatus.RUNNING)
        await is_fine(run)
        assert run.engine.node is node

    async def again(run: Run) -> None:
        node = run.engine.node
        await is_fine(run)
        if name != "timeout" and name != "start_timeout":
            await run.client.terminate("patient")
        assert run.engine.node is node

    on(make_store(), app, first)
    on(make_store(), app, again)


class _OddError(BaseException): ...


@pytest.mark.parametrize("error", [_OddError, CancelledError, asyncio.CancelledError])
@pytest.mark.parametrize("where", ["a retry handler", "a plain function"])
def test_an_odd_error_of_user_code_is_its_own_outcome(
    make_store: MakeStore, error: type[BaseException], where: str
) -> None:
    """It went past the engine: the instance could not even be terminated any more."""
    app = make_app()

    def raises(*_: Any) -> Any:
        raise error("odd")

    @app.orchestrator
    async def retrying(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("fails", retry=raises)

    @app.orchestrator
    def plain(ctx: OrchestrationContext) -> Any:
        raises()

    async def scenario(run: Run) -> None:
        node = run.engine.node
        handle = await run.client.start_new("retrying" if where == "a retry handler" else "plain")
        with pytest.raises(OrchestrationFailedError, match="odd"):
            await handle.wait_for_completion(timeout=SOON)
        assert run.engine.node is node

    _ = (retrying, plain)
    on(make_store(), app, scenario)


def test_a_text_that_cannot_be_stored_is_refused_before_it_has_a_number(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        node = run.engine.node
        with pytest.raises(InvalidInputError, match="surrogate"):
            await run.client.start_new("waits", instance_id="i", tags={"a": "\ud800"})
        assert await run.client.get_status("i") is None
        await is_fine(run)
        assert run.engine.node is node

    on(make_store(), make_app(), scenario)


class _RefusesSubclassesError(Exception):
    def __init_subclass__(cls) -> None:
        raise RuntimeError("no subclasses")


def test_an_exception_class_with_ideas_of_its_own_still_fails_the_call(make_store: MakeStore) -> None:
    app = make_app()

    @app.activity
    async def odd() -> None:
        raise _RefusesSubclassesError("odd")

    @app.orchestrator
    async def calling(ctx: OrchestrationContext) -> str:
        async with ctx.task_group() as group:
            group.create_task(ctx.call_activity(odd))
        return "no error"

    async def scenario(run: Run) -> None:
        node = run.engine.node
        with pytest.raises(OrchestrationFailedError, match="unhandled errors"):
            await (await run.client.start_new(calling)).wait_for_completion(timeout=SOON)
        assert run.engine.node is node

    on(make_store(), app, scenario)


@pytest.mark.parametrize("by", ["cancel", "race"])
def test_a_lock_that_was_given_up_while_it_was_on_its_way_is_free(make_store: MakeStore, by: str) -> None:
    """The unlock overtook the request; the entity was locked by nobody, for ever."""
    app = App()

    @app.entity
    @dataclass
    class Account(Entity):
        balance: int = 0

        def add(self, amount: int) -> int:
            self.balance += amount
            return self.balance

    both = EntityId(Account, "a"), EntityId(Account, "b")

    @app.orchestrator
    async def holder(ctx: OrchestrationContext) -> None:
        done = ctx.call_activity("note")
        await done
        acquiring = ctx.lock(*both).acquire()
        if by == "cancel":
            acquiring.cancel()
        else:
            await race(done, acquiring)
        await ctx.wait_for_external_event("end")

    @app.activity
    async def note() -> None: ...

    @app.orchestrator
    async def user(ctx: OrchestrationContext) -> list[int]:
        return [await ctx.call_entity(each, Account.add, 1) for each in both]

    async def scenario(run: Run) -> None:
        await run.client.start_new(holder, instance_id="h")
        await reached(run, "h", OrchestrationStatus.RUNNING)
        assert await (await run.client.start_new(user)).wait_for_completion(timeout=SOON) == [1, 1]

    on(make_store(), app, scenario)


def test_an_update_beside_the_end_is_answered_in_some_way(make_store: MakeStore) -> None:
    """The end became durable together with the request, before anybody waited for it: the call never returned."""

    async def scenario(run: Run) -> None:
        for turns in range(12):
            handle = await run.client.start_new("waits")
            await reached(run, handle.instance_id, OrchestrationStatus.RUNNING)
            update = asyncio.create_task(handle.update("number"))
            for _ in range(turns % 6):
                await asyncio.sleep(0)
            await asyncio.gather(handle.terminate(), return_exceptions=True)
            async with asyncio.timeout(SOON.total_seconds()):
                answer = (await asyncio.gather(update, return_exceptions=True))[0]
            assert answer == 7 or isinstance(answer, InstanceNotRunningError | TaskFailedError)

    on(make_store(), make_app(), scenario)


def test_what_comes_before_a_planned_start_is_as_good_as_what_comes_after(make_store: MakeStore) -> None:
    app = App()

    @app.orchestrator
    async def count(ctx: OrchestrationContext) -> int:
        number = 0
        ctx.set_update_handler("number", lambda: 7)
        while await ctx.wait_for_external_event("e"):
            number += 1
        return number

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(count, start_at=datetime.now(UTC) + timedelta(seconds=0.2))
        await handle.raise_event("e", 1, key="k")
        assert await handle.update("number", timeout=SOON) == 7
        await handle.raise_event("e", 1, key="k")
        await handle.raise_event("e", 0)
        assert await handle.wait_for_completion(timeout=SOON) == 1

    on(make_store(), app, scenario)


@pytest.mark.parametrize("how", ["drop", "wait"])
def test_an_update_is_carried_into_the_next_execution(make_store: MakeStore, how: Any) -> None:
    app = App()
    gate = asyncio.Event()

    @app.activity
    async def slow() -> None:
        await gate.wait()

    @app.orchestrator
    async def again(ctx: OrchestrationContext, number: int) -> int:
        ctx.set_update_handler("number", lambda: number)
        ctx.call_activity(slow)
        await ctx.wait_for_external_event("go")
        ctx.continue_as_new(number + 1, open_tasks=how)
        return 0

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(again, 1)
        await reached(run, handle.instance_id, OrchestrationStatus.RUNNING)
        await handle.suspend()
        await handle.raise_event("go")
        update = asyncio.create_task(handle.update("number", timeout=SOON))
        await until(lambda: len(run.engine.node.residents.get(handle.instance_id).instance.inbox) == 2)  # type: ignore[union-attr]
        await handle.resume()
        await asyncio.sleep(0.02)
        gate.set()
        assert await update == 2

    on(make_store(), app, scenario)


def test_what_a_rewind_remembers_survives_the_next_failure(make_store: MakeStore) -> None:
    app = App()
    keys: list[str] = []
    broken = {"first"}

    @app.activity
    async def step(name: str) -> None:
        if name in broken:
            raise ValueError(name)

    @app.activity
    async def pay() -> None:
        keys.append(activity_context().idempotency_key)

    @app.orchestrator
    async def order(ctx: OrchestrationContext) -> str:
        error: Exception | None = None
        try:
            await ctx.call_activity(step, "first")
        except ValueError as caught:
            error = caught
        await ctx.call_activity(step, "second" if error is None else "second after a failure")
        await ctx.call_activity(pay)
        if error is not None:
            raise error
        return "done"

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(order)
        for now_broken in ({"second"}, set[str]()):
            with pytest.raises(OrchestrationFailedError):
                await handle.wait_for_completion(timeout=SOON)
            broken.clear()
            broken.update(now_broken)
            await run.client.rewind(handle.instance_id)
        assert await handle.wait_for_completion(timeout=SOON) == "done"
        assert len(keys) == 1

    on(make_store(), app, scenario)


def test_a_validator_or_predicate_that_cannot_be_waited_for_is_refused(make_store: MakeStore) -> None:
    app = make_app()

    async def later(*_: Any) -> bool:
        return False

    @app.orchestrator
    async def odd(ctx: OrchestrationContext) -> list[str]:
        refused: list[str] = []
        attempts: list[Callable[[], object]] = [
            lambda: ctx.set_update_handler("u", lambda x: x, validator=later),
            lambda: ctx.set_query_handler("q", later),
            lambda: RetryPolicy(retry_on=later),  # type: ignore[arg-type]  # it is the point
        ]
        for attempt in attempts:
            try:
                attempt()
            except Exception as error:
                refused.append(str(error))
        return refused

    async def scenario(run: Run) -> None:
        refused = await (await run.client.start_new(odd)).wait_for_completion(timeout=SOON)
        assert len(refused) == 3
        assert all("plain `def`" in text for text in refused)

    on(make_store(), app, scenario)


def test_queries_keep_to_the_cache_and_run_no_finally(make_store: MakeStore) -> None:
    app = make_app()
    ran: list[str] = []

    @app.orchestrator
    async def asked(ctx: OrchestrationContext) -> None:
        ctx.set_query_handler("q", lambda: 1)
        try:
            await ctx.wait_for_external_event("go")
        finally:
            ran.append("finally")

    async def first(run: Run) -> None:
        for n in range(5):
            await run.client.start_new(asked, instance_id=f"i{n}")
            await reached(run, f"i{n}", OrchestrationStatus.RUNNING)

    async def then(run: Run) -> None:
        queries = [asyncio.create_task(run.client.query(f"i{n}", "q")) for n in range(5)]
        for _ in range(3):
            await is_fine(run)
        assert await asyncio.gather(*queries) == [1] * 5
        assert ran == []
        await run.client.terminate("i0")

    on(make_store(), app, first)
    ran.clear()
    slow: Any = SlowStore(make_store())
    slow.before["load_history"] = 0.05
    on(slow, app, then, HostConfig(cache_bytes_max=1, drain_s=0.2))


def test_a_full_buffer_lets_in_what_is_waited_for(make_store: MakeStore) -> None:
    """Noise filled the buffer, and the one event that would have freed it was refused for ever."""

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("waits")
        await reached(run, handle.instance_id, OrchestrationStatus.RUNNING)

        async def flood() -> None:
            for n in range(100):
                await handle.raise_event("noise", n)

        with pytest.raises(OverloadedError, match="has not"):
            await flood()
        await handle.raise_event("go", "free")
        assert await handle.wait_for_completion(timeout=SOON) == "free"

    on(make_store(), make_app(), scenario, HostConfig(drain_s=0.2, limits=Limits(events_buffered_max=3)))


def test_a_failure_that_is_passed_on_stays_small(make_store: MakeStore) -> None:
    """Each level wrapped the failure once more: a recursion of a thousand wrote a gigabyte."""
    app = make_app()

    @app.orchestrator
    async def deep(ctx: OrchestrationContext, depth: int) -> None:
        if depth == 0:
            await ctx.call_activity("fails")
        await ctx.call_sub_orchestrator(deep, depth - 1)

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(deep, 40)
        with pytest.raises(OrchestrationFailedError, match=r"builtins\.ValueError: no") as caught:
            await handle.wait_for_completion(timeout=SOON)
        failure, depth = caught.value.details, 0
        while failure is not None:
            failure, depth = failure.inner_failure, depth + 1
        assert depth == 2

    on(make_store(), app, scenario)


def test_a_result_that_cannot_be_stored_is_not_made_again(make_store: MakeStore) -> None:
    app = App()
    runs: list[int] = []

    @app.activity(retry=RetryPolicy(max_attempts=4, first_retry_interval=AT_ONCE))
    async def odd() -> object:
        runs.append(1)
        return object()

    @app.orchestrator
    async def calling(ctx: OrchestrationContext) -> object:
        return await ctx.call_activity(odd)

    async def scenario(run: Run) -> None:
        with pytest.raises(OrchestrationFailedError, match="PayloadError"):
            await (await run.client.start_new(calling)).wait_for_completion(timeout=SOON)
        assert runs == [1]

    on(make_store(), app, scenario)


def test_suspending_all_reaches_the_children_of_one_that_is_suspended(make_store: MakeStore) -> None:
    app = make_app()

    @app.orchestrator
    async def parent(ctx: OrchestrationContext) -> Any:
        return await ctx.call_sub_orchestrator("waits", instance_id="child")

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(parent)
        await reached(run, "child", OrchestrationStatus.RUNNING)
        await handle.suspend()
        await reached(run, handle.instance_id, OrchestrationStatus.SUSPENDED)
        await handle.suspend(recursive=True)
        await reached(run, "child", OrchestrationStatus.SUSPENDED)
        await handle.resume()
        await reached(run, handle.instance_id, OrchestrationStatus.RUNNING)
        await handle.resume(recursive=True)
        await reached(run, "child", OrchestrationStatus.RUNNING)
        await run.client.raise_event("child", "go", 1)
        assert await handle.wait_for_completion(timeout=SOON) == 1

    on(make_store(), app, scenario)


def test_a_restart_under_the_same_id_keeps_the_request_key(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        first = await run.client.start_new("bystander", request_key="k")
        await first.wait_for_completion(timeout=SOON)
        again = await run.client.restart(first.instance_id, with_new_id=False)
        await again.wait_for_completion(timeout=SOON)
        before = await again.get_status()
        await run.client.start_new("bystander", request_key="k")
        after = await again.get_status()
        assert before is not None
        assert after is not None
        assert before.state.execution_id == after.state.execution_id

    on(make_store(), make_app(), scenario)


def test_a_query_cannot_use_up_what_the_code_will_draw() -> None:
    """It advanced the counter of `new_uuid` on the live execution only, and the replay differed."""
    app = App()

    @app.orchestrator
    async def drawing(ctx: OrchestrationContext) -> str:
        ctx.set_query_handler("draw", lambda: str(ctx.new_uuid()))
        await ctx.wait_for_external_event("go")
        return str(ctx.new_uuid())

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(drawing)
        await reached(run, handle.instance_id, OrchestrationStatus.RUNNING)
        with pytest.raises(Exception, match="used from outside of its orchestrator"):
            await handle.query("draw")

    def main() -> Coroutine[Any, Any, None]:
        async def run_it() -> None:
            async with running(app, MemoryStore()) as run:
                await scenario(run)

        return run_it()

    asyncio.run(main())
