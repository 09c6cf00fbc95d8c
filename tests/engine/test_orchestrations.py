"""What orchestrations can rely on, on each store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest
from engine_kit import SOON, Run, World, eventually, make_app, running

from holdfast import (
    App,
    ConfigurationError,
    EntityId,
    HostConfig,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceNotRunningError,
    InvalidInputError,
    NotRegisteredError,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationStatus,
    RetryPolicy,
    TaskFailedError,
    WaitTimeoutError,
    when_all,
    when_any,
)
from holdfast.storage.port import Store

MakeStore = Callable[[], Store]


class OutOfStockError(Exception):
    """An error of the user's own, with an argument that it insists on."""

    def __init__(self, item: str) -> None:
        super().__init__(f"no {item} left")


def on(
    store: Store, app: App, scenario: Callable[[Run], Coroutine[Any, Any, Any]], config: HostConfig | None = None
) -> Any:
    async def main() -> Any:
        async with running(app, store, config) as run:
            return await scenario(run)

    return asyncio.run(main())


async def result(run: Run, name: str, *input: Any, instance_id: str | None = None) -> Any:
    handle = await run.client.start_new(name, *input, instance_id=instance_id)
    return await handle.wait_for_completion(timeout=SOON)


def test_chain_fan_and_children(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        assert await result(run, "chain", 10) == 1024
        assert await result(run, "fan", 200) == sum(2 * n for n in range(200))
        assert await result(run, "parent", 4) == [1, 2, 4, 8]

    on(make_store(), make_app(World()), scenario)


def test_each_early_event_satisfies_one_wait(make_store: MakeStore) -> None:
    """In order, without regard to case; None, 0, "" and [] are events like any other."""
    sent = [None, 0, "", [], False, {"a": 1}]

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("events", len(sent))
        for value in sent:
            await handle.raise_event("E", value)
        assert await handle.wait_for_completion(timeout=SOON) == sent

    on(make_store(), make_app(World()), scenario)


def test_a_timed_out_wait_is_over(make_store: MakeStore) -> None:
    app = App()

    @app.orchestrator
    async def waits(ctx: OrchestrationContext) -> list[Any]:
        seen: list[Any] = []
        for _ in range(3):
            try:
                seen.append(await ctx.wait_for_external_event("e", timeout=timedelta(milliseconds=5)))
            except TimeoutError:
                seen.append("timeout")
        seen.append(await ctx.wait_for_external_event("e"))
        return seen

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(waits)

        async def timed_out_thrice() -> bool:
            history = await run.client.get_history(handle.instance_id)
            return sum(type(event).__name__ == "TimerFired" for event in history) == 3

        await eventually(timed_out_thrice)
        await handle.raise_event("e", None)
        assert await handle.wait_for_completion(timeout=SOON) == ["timeout", "timeout", "timeout", None]

    on(make_store(), app, scenario)


def test_event_beats_timer_and_timer_is_cancelled(make_store: MakeStore) -> None:
    app = App()

    @app.orchestrator
    async def approval(ctx: OrchestrationContext) -> str:
        event = ctx.wait_for_external_event("approve")
        timer = ctx.create_timer(timedelta(days=400))
        winner = await when_any(event, timer)
        assert winner is event
        timer.cancel()
        return f"approved by {event.result}"

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(approval)
        await handle.raise_event("approve", "ann")
        assert await handle.wait_for_completion(timeout=SOON) == "approved by ann"
        assert await run.store.timers_due(2**62, 10) == []

    on(make_store(), app, scenario)


def test_errors_keep_their_class_over_two_boundaries(make_store: MakeStore) -> None:
    app = App()

    @app.activity
    async def reserve(item: str) -> None:
        raise OutOfStockError(item)

    @app.orchestrator
    async def inner(ctx: OrchestrationContext, item: str) -> None:
        await ctx.call_activity(reserve, item)

    @app.orchestrator
    async def outer(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_sub_orchestrator(inner, "pears")
        except OutOfStockError as error:
            both = isinstance(error, TaskFailedError) and error.details.is_caused_by(OutOfStockError)
            return f"{both}: {error.details.error_message}" if isinstance(error, TaskFailedError) else "plain"
        return "no error"

    async def scenario(run: Run) -> None:
        assert await result(run, "outer") == "True: no pears left"
        with pytest.raises(OrchestrationFailedError, match="no plums left") as failed:
            await result(run, "inner", "plums")
        assert failed.value.details is not None
        assert failed.value.details.error_type.endswith("OutOfStockError")

    on(make_store(), app, scenario)


def test_retries(make_store: MakeStore) -> None:
    world = World()
    app = make_app(world)

    @app.activity
    async def never(reason: str) -> None:
        world.calls.append(reason)
        raise PermissionError(reason)

    flaky: Any = app.registry.activity("flaky")
    policy = RetryPolicy(
        max_attempts=4, first_retry_interval=timedelta(milliseconds=1), non_retriable=("PermissionError",)
    )

    @app.orchestrator
    async def tries(ctx: OrchestrationContext) -> list[Any]:
        third = await ctx.call_activity(flaky, 3)
        outcomes: list[Any] = [third]
        for activity, value in ((flaky, 4), (never, "forbidden")):
            try:
                await ctx.call_activity(activity, value, retry=policy if activity is never else None)
            except (ConnectionError, PermissionError) as error:
                outcomes.append(type(error).__name__)
        return outcomes

    async def scenario(run: Run) -> None:
        assert await result(run, "tries") == [3, "ConnectionError", "PermissionError"]
        assert world.calls.count(("flaky", 4)) == 3
        assert world.calls.count("forbidden") == 1

    on(make_store(), app, scenario)


def test_continue_as_new_keeps_events_that_nobody_waited_for(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("countdown", 5)
        for number in range(5):
            await handle.raise_event("tick", number)
        assert await handle.wait_for_completion(timeout=SOON) == "last 4"

    on(make_store(), make_app(World()), scenario)


def test_terminate_suspend_resume(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("events", 1)
        await run.client.suspend(handle.instance_id, "lunch")
        await handle.raise_event("e", 1)

        async def suspended() -> bool:
            status = await handle.get_status()
            return status is not None and status.runtime_status is OrchestrationStatus.SUSPENDED

        await eventually(suspended)
        found = await handle.get_status()
        assert found is not None
        assert found.output == "lunch"
        await run.client.resume(handle.instance_id)
        assert await handle.wait_for_completion(timeout=SOON) == [1]
        other = await run.client.start_new("events", 1)
        await other.terminate("enough")
        with pytest.raises(OrchestrationFailedError, match="Terminated"):
            await other.wait_for_completion(timeout=SOON)
        status = await other.get_status()
        assert status is not None
        assert status.output == "enough"
        with pytest.raises(InstanceNotRunningError):
            await other.raise_event("e", 1)

    on(make_store(), make_app(World()), scenario)


def test_a_result_for_a_suspended_instance_is_kept(make_store: MakeStore) -> None:
    """The activity finished while its orchestration was suspended; after a restart it is not run again."""
    world = World()
    app = App()

    @app.activity
    async def slow() -> str:
        world.calls.append("slow")
        await world.gate.wait()
        return "done"

    @app.orchestrator
    async def waits(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(slow)

    async def first(run: Run) -> None:
        handle = await run.client.start_new(waits, instance_id="i")

        async def started() -> bool:
            return world.calls == ["slow"]

        await eventually(started)
        await run.client.suspend(handle.instance_id)

        async def suspended() -> bool:
            status = await handle.get_status()
            return status is not None and status.runtime_status is OrchestrationStatus.SUSPENDED

        await eventually(suspended)
        world.gate.set()

        async def stored() -> bool:
            return await run.store.activities_visible(2**62, 10) == []

        await eventually(stored)

    async def second(run: Run) -> None:
        await run.client.resume("i")
        assert await run.client.wait_for_completion("i", timeout=SOON) == "done"
        assert world.calls == ["slow"]

    on(make_store(), app, first)
    on(make_store(), app, second)


def test_ids_are_exclusive_until_the_end(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        starts = [run.client.start_new("events", 1, instance_id="one") for _ in range(20)]
        outcomes = await asyncio.gather(*starts, return_exceptions=True)
        assert sum(isinstance(each, InstanceAlreadyExistsError) for each in outcomes) == 19
        await run.client.raise_event("one", "e", "first life")
        assert await run.client.wait_for_completion("one", timeout=SOON) == ["first life"]
        assert await result(run, "chain", 2, instance_id="one") == 4
        history = await run.client.get_history("one")
        assert not any(type(event).__name__ == "EventRaised" for event in history)

    on(make_store(), make_app(World()), scenario)


@pytest.mark.parametrize("instance_id", ["", "x" * 300, "a\x07b", "@entity", "a/b", "a?b", "a#b", "a\\b", "\ud800"])
def test_impossible_ids_are_refused_at_the_call(instance_id: str) -> None:
    from holdfast.storage.memory import MemoryStore

    async def scenario(run: Run) -> None:
        with pytest.raises(InvalidInputError):
            await run.client.start_new("chain", 1, instance_id=instance_id)
        with pytest.raises(InvalidInputError):
            await run.client.raise_event(instance_id if instance_id != "@entity" else "a/b", "e", 1)

    on(MemoryStore(), make_app(World()), scenario)


def test_odd_but_possible_ids(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        for instance_id in ("a b", "ünï", "🍐", "a:b@c", "%2F", "'; drop table instance; --", "x" * 256):
            assert await result(run, "chain", 1, instance_id=instance_id) == 2

    on(make_store(), make_app(World()), scenario)


def test_unknown_names(make_store: MakeStore) -> None:
    app = make_app(World())

    @app.orchestrator
    async def typos(ctx: OrchestrationContext) -> list[str]:
        errors: list[str] = []
        for call in (ctx.call_activity("dubble", 1), ctx.call_sub_orchestrator("chian", 1)):
            try:
                await call
            except TaskFailedError as error:
                errors.append(error.details.error_message)
        return errors

    async def scenario(run: Run) -> None:
        with pytest.raises(NotRegisteredError, match="Did you mean 'chain'"):
            await run.client.start_new("chian", 1)
        with pytest.raises(InstanceNotFoundError):
            await run.client.raise_event("nobody", "e", 1)
        with pytest.raises(InstanceNotFoundError):
            await run.client.wait_for_completion("nobody")
        with pytest.raises(NotRegisteredError, match="account"):
            await run.client.signal_entity(EntityId("acount", "x"), "add", 1)
        with pytest.raises(InvalidInputError, match="no operation 'ad'; it has add"):
            await run.client.signal_entity(EntityId("account", "x"), "ad", 1)
        for function, value in (("add", "one"), ("add", None)):
            with pytest.raises(InvalidInputError, match="int"):
                await run.client.signal_entity(EntityId("account", "x"), function, value)
        with pytest.raises(InvalidInputError, match="int"):
            await run.client.start_new("chain", "three", instance_id="typo")
        assert await run.client.get_status("typo") is None
        activity, child = await result(run, "typos")
        assert "Did you mean 'double'" in activity
        assert "Did you mean 'chain'" in child

    on(make_store(), app, scenario)


def test_what_cannot_be_encoded_is_refused_where_it_is_said(make_store: MakeStore) -> None:
    app = App()

    @app.activity
    async def identity(value: Any) -> Any:
        return object() if value == "bad" else value

    @app.orchestrator
    async def says(ctx: OrchestrationContext) -> list[str]:
        heard: list[str] = []
        try:
            ctx.call_activity(identity, {"a": [1, object()]})
        except InvalidInputError as error:
            heard.append(str(error))
        try:
            await ctx.call_activity(identity, "bad")
        except TaskFailedError as error:
            heard.append(error.details.error_message)
        return heard

    @app.orchestrator
    async def returns_nonsense(ctx: OrchestrationContext) -> Any:
        return {"x": object()}

    async def scenario(run: Run) -> None:
        with pytest.raises(InvalidInputError, match=r"\$\.k"):
            await run.client.start_new("says", {"k": object()})
        at_call, at_return = await result(run, "says")
        assert "$.a[1]" in at_call
        assert "object" in at_return
        with pytest.raises(OrchestrationFailedError, match=r"\$\.x"):
            await result(run, "returns_nonsense")

    on(make_store(), app, scenario)


def test_a_wait_can_time_out_and_the_instance_goes_on(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("events", 1)
        with pytest.raises(WaitTimeoutError):
            await handle.wait_for_completion(timeout=timedelta(milliseconds=10))
        await handle.raise_event("e", "late")
        assert await handle.wait_for_completion(timeout=SOON) == ["late"]

    on(make_store(), make_app(World()), scenario)


def test_generators_speak_the_same_language(make_store: MakeStore) -> None:
    app = make_app(World())
    double: Any = app.registry.activity("double")

    @app.orchestrator
    def generator(ctx: OrchestrationContext, start: int) -> Any:
        one = yield ctx.call_activity(double, start)
        two = yield from ctx.call_activity(double, one)
        three = yield when_all([ctx.call_activity(double, two), ctx.call_activity(double, 0)])
        try:
            yield ctx.call_activity("no such activity", 1)
        except TaskFailedError:
            three.append("caught")
        return three

    @app.orchestrator
    def plain(ctx: OrchestrationContext) -> str:
        return ctx.name

    async def scenario(run: Run) -> None:
        assert await result(run, "generator", 1) == [8, 0, "caught"]
        assert await result(run, "plain") == "plain"

    on(make_store(), app, scenario)


def test_foreign_awaitables_are_named(make_store: MakeStore) -> None:
    app = App()

    @app.orchestrator
    async def sleeps(ctx: OrchestrationContext) -> None:
        await asyncio.sleep(1)

    @app.orchestrator
    async def futures(ctx: OrchestrationContext) -> None:
        await asyncio.get_running_loop().create_future()

    @app.orchestrator
    async def gathers(ctx: OrchestrationContext) -> None:
        await asyncio.gather(asyncio.get_running_loop().create_future())

    async def scenario(run: Run) -> None:
        with pytest.raises(OrchestrationFailedError, match=r"asyncio\.gather\(\).*when_all"):
            await result(run, "gathers")
        with pytest.raises(OrchestrationFailedError, match=r"asyncio\.tasks\.sleep\(\).*ctx\.create_timer") as failed:
            await result(run, "sleeps")
        assert "test_orchestrations.py" in str(failed.value)
        with pytest.raises(OrchestrationFailedError, match="Future"):
            await result(run, "futures")

    on(make_store(), app, scenario)


def test_speculative_activities_and_timeouts(make_store: MakeStore) -> None:
    app = App()

    @app.activity(speculative=True)
    async def square(n: int) -> int:
        return n * n

    @app.activity(timeout=timedelta(milliseconds=10))
    async def endless() -> None:
        await asyncio.Event().wait()

    @app.activity
    def in_a_thread(n: int) -> int:
        return n + 1

    @app.orchestrator
    async def mixed(ctx: OrchestrationContext) -> list[Any]:
        values: list[Any] = list(await when_all(ctx.call_activity(square, n) for n in range(5)))
        try:
            await ctx.call_activity(endless)
        except TimeoutError:
            values.append("timeout")
        values.append(await ctx.call_activity(in_a_thread, 1))
        return values

    async def scenario(run: Run) -> None:
        assert await result(run, "mixed") == [0, 1, 4, 9, 16, "timeout", 2]

    on(make_store(), app, scenario)


def test_requests_that_make_no_sense_for_the_state_are_refused(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("events", 1)
        await run.client.suspend(handle.instance_id)
        with pytest.raises(InstanceNotRunningError, match="suspend"):
            await run.client.suspend(handle.instance_id)
        await run.client.resume(handle.instance_id)
        with pytest.raises(InstanceNotRunningError, match="resume"):
            await run.client.resume(handle.instance_id)
        await handle.raise_event("e", 1)
        assert await handle.wait_for_completion(timeout=SOON) == [1]
        with pytest.raises(InstanceNotRunningError, match="terminate"):
            await handle.terminate()
        await run.client.signal_entity(EntityId("account", "x"), "add", 1)
        for request in (run.client.terminate, run.client.suspend):
            with pytest.raises(InvalidInputError, match="is an entity"):
                await request("@account@x")

    on(make_store(), make_app(World()), scenario)


def test_a_failed_operation_is_rolled_back_alone(make_store: MakeStore) -> None:
    app = make_app(World())

    @app.orchestrator
    async def tries(ctx: OrchestrationContext) -> list[Any]:
        account = EntityId("account", "x")
        seen: list[Any] = [await ctx.call_entity(account, "add", 5)]
        for operation, value in (("fail_after", 100), ("add", "no number"), ("unknown", 1)):
            try:
                await ctx.call_entity(account, operation, value)
            except TaskFailedError as error:
                seen.append(error.details.error_message)
        ctx.signal_entity(account, "fail_after", 1_000)
        seen.append(await ctx.call_entity(account, "ADD", 1))
        await ctx.call_entity(account, "delete")
        seen.append(await ctx.call_entity(account, "add", 0))
        return seen

    async def scenario(run: Run) -> None:
        five, after, typed, unknown, six, zero = await result(run, "tries")
        assert (five, six, zero) == (5, 6, 0)
        assert after == "after the change"
        assert "int" in typed
        assert "no operation 'unknown'" in unknown

    on(make_store(), app, scenario)


@pytest.mark.parametrize("ending", ["completes", "fails", "terminated", "continues"])
def test_locks_are_released_however_the_holder_ends(make_store: MakeStore, ending: str) -> None:
    app = make_app(World())

    @app.orchestrator
    async def holder(ctx: OrchestrationContext, ending: str) -> str:
        section = ctx.lock(EntityId("account", "a"), EntityId("account", "b"))
        await section.acquire()
        await ctx.wait_for_external_event("go")
        if ending == "fails":
            raise ValueError(ending)
        if ending == "continues":
            ctx.continue_as_new("terminated")
        return "ended without giving back"

    async def scenario(run: Run) -> None:
        await run.client.start_new("holder", ending, instance_id="holder")
        await run.client.start_new("holder", "waits", instance_id="waits for the locks")
        other = await run.client.start_new("transfer", ["b", "a", 3])
        with pytest.raises(WaitTimeoutError):
            await other.wait_for_completion(timeout=timedelta(milliseconds=50))
        await run.client.terminate("waits for the locks")
        if ending == "terminated":
            await run.client.terminate("holder")
        else:
            await run.client.raise_event("holder", "go")
        if ending == "continues":
            await eventually(lambda: _is_episode(run, "holder"))
            await run.client.terminate("holder")
        assert await other.wait_for_completion(timeout=SOON) == 3

    on(make_store(), app, scenario)


async def _is_episode(run: Run, instance_id: str) -> bool:
    """Whether an instance has begun its second execution."""
    status = await run.client.get_status(instance_id)
    return status is not None and status.input == "terminated"


def test_process_activities_must_be_importable() -> None:
    """They are found by name in the other process, so one that cannot be is refused when it is decorated."""
    app = App()

    def hidden(n: int) -> int:
        return n

    with pytest.raises(ConfigurationError, match="top level of a module"):
        app.activity(process=True)(hidden)
    with pytest.raises(ConfigurationError, match="top level of a module"):
        app.activity(process=True, name="anonymous")(lambda n: n)
