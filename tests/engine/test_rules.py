"""What docs/reference/orchestrator-rules.md says about odd orchestrators, line by line."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_kit import SOON, Run, until
from test_cancellation import cancel
from test_orchestrations import on, result

from holdfast import (
    App,
    CancelledError,
    DurableTask,
    HostConfig,
    Limits,
    OrchestrationContext,
    OrchestrationFailedError,
    WaitTimeoutError,
    when_all,
)
from holdfast.errors import ForeignAwaitableError, InvalidInputError, OrchestratorMisuseError
from holdfast.storage.memory import MemoryStore

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "orchestrator-rules.md"


class World:
    """An app with an activity for each purpose, and what orchestrators have leaked into it."""

    def __init__(self) -> None:
        self.app = App()
        self.calls: list[str] = []
        self.leaked: list[Any] = []

        @self.app.activity
        async def echo(text: str) -> str:
            self.calls.append(text)
            return text

        @self.app.activity
        async def fail() -> None:
            raise ValueError("no")

    def run(self, function: Callable[..., Any], *, config: HostConfig | None = None) -> Any:
        """Run one orchestration to its end; return its result."""
        name = self.app.orchestrator(function).name

        async def scenario(run: Run) -> Any:
            return await result(run, name)

        return on(MemoryStore(), self.app, scenario, config)


@pytest.fixture
def world() -> World:
    return World()


def refusal(attempt: Callable[[], Any]) -> str:
    """The name of the error that an attempt raises."""
    try:
        attempt()
    except Exception as error:
        return type(error).__name__
    return "nothing"


def test_a_task_that_is_awaited_twice(world: World) -> None:
    async def twice(ctx: OrchestrationContext) -> list[Any]:
        good, bad = ctx.call_activity("echo", "a"), ctx.call_activity("fail")
        errors: list[ValueError] = []
        for _ in range(2):
            try:
                await bad
            except ValueError as error:
                errors.append(error)
        return [await good, await good, len(errors), errors[0] is errors[1]]

    assert world.run(twice) == ["a", "a", 2, False]
    assert world.calls == ["a"]


def test_a_task_that_is_forgotten(world: World) -> None:
    async def forgets(ctx: OrchestrationContext) -> str:
        ctx.call_activity("echo", "forgotten")
        ctx.call_activity("fail")
        return await ctx.call_activity("echo", "awaited")

    assert world.run(forgets) == "awaited"
    assert sorted(world.calls) == ["awaited", "forgotten"]


def test_a_task_from_outside_of_the_orchestrator(world: World) -> None:
    async def leaks(ctx: OrchestrationContext) -> str:
        world.leaked[:] = [ctx, ctx.call_activity("echo", "a")]
        return await ctx.wait_for_external_event("e")

    world.app.orchestrator(leaks)

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("leaks")
        await until(lambda: world.calls == ["a"])
        ctx, task = world.leaked
        for attempt in (
            lambda: ctx.call_activity("echo", "b"),
            lambda: ctx.create_timer(timedelta(1)),
            ctx.task_group,
            ctx.saga,
        ):
            assert refusal(attempt) == "OrchestratorMisuseError"
        await handle.raise_event("e", "done")
        assert await handle.wait_for_completion(timeout=SOON) == "done"
        assert refusal(lambda: ctx.call_activity("echo", "b")) == "OrchestratorMisuseError"
        assert task.result == "a"
        assert task.cancel() is False

    on(MemoryStore(), world.app, scenario)


def test_a_task_that_is_used_after_its_completion(world: World) -> None:
    async def uses(ctx: OrchestrationContext) -> list[Any]:
        task = ctx.call_activity("echo", "a")
        await task
        return [task.result, task.cancel(), await task, await when_all([task, task])]

    assert world.run(uses) == ["a", False, "a", ["a", "a"]]


def test_a_task_that_is_awaited_after_it_was_cancelled(world: World) -> None:
    async def awaits(ctx: OrchestrationContext) -> int:
        task = ctx.call_activity("echo", "a")
        task.cancel()
        heard = 0
        for _ in range(2):
            try:
                await task
            except CancelledError:
                heard += 1
        return heard

    assert world.run(awaits) == 2
    assert world.calls == []


def test_a_task_of_another_instance(world: World) -> None:
    """Also one that has its result, which it once gave away."""

    async def leaks(ctx: OrchestrationContext) -> str:
        world.leaked[:] = [ctx.create_timer(timedelta(0))]
        return await ctx.wait_for_external_event("e")

    async def steals(ctx: OrchestrationContext) -> list[str]:
        task: DurableTask[Any] = world.leaked[0]
        caught: list[str] = []
        for attempt in (lambda: task, lambda: when_all([task, ctx.call_activity("echo", "b")])):
            try:
                await attempt()
            except OrchestratorMisuseError as error:
                caught.append(type(error).__name__)
        return caught

    for function in (leaks, steals):
        world.app.orchestrator(function)

    async def scenario(run: Run) -> None:
        await run.client.start_new("leaks")
        await until(lambda: bool(world.leaked) and world.leaked[0].is_completed)
        assert await result(run, "steals") == ["ForeignAwaitableError", "OrchestratorMisuseError"]

    on(MemoryStore(), world.app, scenario)


def test_a_thread(world: World) -> None:
    async def spawns(ctx: OrchestrationContext) -> str:
        def work() -> None:
            world.leaked.append(refusal(lambda: ctx.call_activity("echo", "thread")))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return await ctx.call_activity("echo", "a")

    assert world.run(spawns) == "a"
    assert world.leaked == ["OrchestratorMisuseError"]
    assert world.calls == ["a"]


def test_an_asyncio_task(world: World) -> None:
    async def spawns(ctx: OrchestrationContext) -> list[str]:
        async def work() -> None:
            world.leaked.append(refusal(lambda: ctx.call_activity("echo", "task")))

        task = asyncio.get_running_loop().create_task(work())
        try:
            await task
        except ForeignAwaitableError as error:
            return [str(error), await ctx.call_activity("echo", "a")]
        return []

    caught, answer = world.run(spawns)
    assert "which is not durable" in caught
    assert answer == "a"
    assert world.leaked == ["OrchestratorMisuseError"]
    assert world.calls == ["a"]


def test_an_orchestrator_that_never_awaits(world: World) -> None:
    async def child(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity("echo", "child")

    async def hurries(ctx: OrchestrationContext) -> str:
        ctx.call_activity("echo", "never")
        ctx.call_sub_orchestrator("child", instance_id="child")
        return "done"

    for function in (child, hurries):
        world.app.orchestrator(function)

    async def scenario(run: Run) -> None:
        assert await result(run, "hurries") == "done"
        assert await run.client.wait_for_completion("child", timeout=SOON) == "child"

    on(MemoryStore(), world.app, scenario)
    assert world.calls == ["child"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python complains of such code, too
def test_an_orchestrator_that_swallows_everything(world: World) -> None:
    """It cannot be closed, and tried for ever when its instance ended, or the host stopped: that hung."""

    async def swallows(ctx: OrchestrationContext) -> None:
        while True:
            try:
                await ctx.wait_for_external_event("e")
            except BaseException:
                continue

    async def sleeps(ctx: OrchestrationContext) -> None:
        while True:
            try:
                await asyncio.sleep(1)
            except Exception:
                continue

    for function in (swallows, sleeps):
        world.app.orchestrator(function)

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("swallows", instance_id="i")
        await cancel(run, "i")
        with pytest.raises(WaitTimeoutError):
            await handle.wait_for_completion(timeout=timedelta(milliseconds=50))
        await handle.terminate()
        with pytest.raises(OrchestrationFailedError, match="Terminated"):
            await handle.wait_for_completion(timeout=SOON)
        with pytest.raises(OrchestrationFailedError, match="ForeignAwaitableError"):
            await result(run, "sleeps")
        await run.client.start_new("swallows")

    on(MemoryStore(), world.app, scenario)
    gc.collect()


def test_a_result_that_cannot_be_stored(world: World) -> None:
    async def returns(ctx: OrchestrationContext) -> Any:
        return {"x": [object()]}

    with pytest.raises(OrchestrationFailedError, match=r"PayloadError.*\$\.x\[0\]"):
        world.run(returns)


def test_recursion_that_is_too_deep(world: World) -> None:
    async def falls(ctx: OrchestrationContext) -> Any:
        async def fall() -> Any:
            return await fall()

        return await fall()

    with pytest.raises(OrchestrationFailedError, match="RecursionError"):
        world.run(falls)


def test_asking_for_too_much(world: World) -> None:
    async def asks(ctx: OrchestrationContext) -> list[str]:
        tasks: list[DurableTask[str]] = []
        try:
            for number in range(20):
                tasks.append(ctx.call_activity("echo", str(number)))  # noqa: PERF401 - it is left by the error
        except InvalidInputError:
            return await when_all(tasks)
        return []

    config = HostConfig(drain_s=0.2, limits=Limits(actions_max=10))
    assert world.run(asks, config=config) == [str(number) for number in range(10)]


def test_each_line_of_the_page_has_its_test() -> None:
    section = PAGE.read_text(encoding="utf-8").split("## When something odd is done")[1].split("\n## ")[0]
    lines = re.findall(r"^\| (?!What |---)", section, re.MULTILINE)
    tests = [name for name in globals() if name.startswith("test_")]
    assert len(lines) == len(tests) - 1
