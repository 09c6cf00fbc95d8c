"""Task handles over continue-as-new: what goes on answers the next execution, and runs no second time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from engine_kit import SOON, FailingStore, Run, eventually
from test_orchestrations import MakeStore, on

from holdfast import (
    App,
    HostConfig,
    InvalidInputError,
    OrchestrationContext,
    OrchestrationFailedError,
    activity_context,
)


class World:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.runs: list[str] = []
        self.ends: list[str] = []


def make_app(world: World) -> App:
    app = App()

    @app.activity
    async def upload(name: str) -> str:
        world.runs.append(activity_context().idempotency_key)
        await world.gate.wait()
        if name == "bad":
            raise ValueError("bad")
        world.ends.append(name)
        return f"{name} done"

    @app.orchestrator
    async def child(ctx: OrchestrationContext, name: str) -> str:
        return await ctx.call_activity(upload, name)

    @app.orchestrator
    async def carrying(ctx: OrchestrationContext, given: tuple[str, str, int]) -> str:
        kind, name, left = given
        function: Any = upload if kind == "activity" else child
        if left == 3:
            task = ctx.call_activity(upload, name) if kind == "activity" else ctx.call_sub_orchestrator(child, name)
        else:
            task = ctx.carried_task("upload", function)
        if left == 0:
            return await task
        await ctx.wait_for_external_event("next")
        ctx.continue_as_new((kind, name, left - 1), carry={"upload": task})
        return ""

    _ = carrying
    return app


KINDS = pytest.mark.parametrize("kind", ["activity", "child"])


async def generation(run: Run, left: int) -> None:
    async def holds() -> bool:
        found = await run.client.get_status("c")
        return found is not None and found.input[2] == left and found.runtime_status.value == "Running"

    await eventually(holds)


@KINDS
@pytest.mark.parametrize("name", ["good", "bad"])
def test_what_goes_on_answers_a_later_execution(make_store: MakeStore, kind: str, name: str) -> None:
    world = World()

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("carrying", (kind, name, 3), instance_id="c")
        await eventually(lambda: asyncio.sleep(0, bool(world.runs)))
        for left in (2, 1, 0):
            await handle.raise_event("next")
            await generation(run, left)
        world.gate.set()
        if name == "bad":
            with pytest.raises(OrchestrationFailedError, match="ValueError: bad"):
                await handle.wait_for_completion(timeout=SOON)
        else:
            assert await handle.wait_for_completion(timeout=SOON) == "good done"
        assert len(world.runs) == 1
        assert run.engine.runner.known_keys() == set()

    on(make_store(), make_app(world), scenario)


@KINDS
def test_it_goes_on_over_a_restart_with_the_same_key(make_store: MakeStore, kind: str) -> None:
    world = World()
    config = HostConfig(drain_s=0.1, cache_bytes_max=1)

    async def first(run: Run) -> None:
        handle = await run.client.start_new("carrying", (kind, "good", 3), instance_id="c")
        await eventually(lambda: asyncio.sleep(0, bool(world.runs)))
        await handle.raise_event("next")
        await generation(run, 2)

    async def then(run: Run) -> None:
        for left in (1, 0):
            await run.client.raise_event("c", "next")
            await generation(run, left)
        world.gate.set()
        assert await run.client.wait_for_completion("c", timeout=SOON) == "good done"

    on(make_store(), make_app(world), first, config)
    world.gate = asyncio.Event()
    on(make_store(), make_app(world), then, config)
    assert len(world.runs) == 2
    assert len(set(world.runs)) == 1


@KINDS
@pytest.mark.parametrize("answer_first", [True, False])
def test_an_answer_beside_the_end_of_the_execution_is_not_lost(
    make_store: MakeStore, kind: str, answer_first: bool
) -> None:
    world = World()

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("carrying", (kind, "good", 3), instance_id="c")
        await eventually(lambda: asyncio.sleep(0, bool(world.runs)))
        for left in (2, 1):
            await handle.raise_event("next")
            await generation(run, left)
        await handle.suspend()
        await eventually(lambda: _status_is(run, "Suspended"))
        if not answer_first:
            await handle.raise_event("next")
        world.gate.set()
        await eventually(lambda: asyncio.sleep(0, bool(world.ends)))
        await asyncio.sleep(0.02)
        if answer_first:
            await handle.raise_event("next")
        await handle.resume()
        if answer_first:
            with pytest.raises(OrchestrationFailedError, match="cannot be carried"):
                await handle.wait_for_completion(timeout=SOON)
        else:
            assert await handle.wait_for_completion(timeout=SOON) == "good done"
        assert len(world.runs) == 1

    on(make_store(), make_app(world), scenario)


async def _status_is(run: Run, status: str) -> bool:
    found = await run.client.get_status("c")
    return found is not None and found.runtime_status.value == status


def test_a_carried_task_can_be_cancelled(make_store: MakeStore) -> None:
    world = World()
    app = make_app(world)
    stopped = asyncio.Event()

    @app.activity
    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    @app.orchestrator
    async def giving_up(ctx: OrchestrationContext, is_second: bool) -> str:
        if is_second:
            task = ctx.carried_task("hang", hang)
            await ctx.wait_for_external_event("stop")
            task.cancel()
            return "over"
        task = ctx.call_activity(hang)
        await ctx.create_timer(timedelta(milliseconds=20))
        ctx.continue_as_new(True, carry={"hang": task})
        return ""

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(giving_up, False, instance_id="g")
        await handle.raise_event("stop")
        assert await handle.wait_for_completion(timeout=SOON) == "over"
        await asyncio.wait_for(stopped.wait(), SOON.total_seconds())

    on(make_store(), app, scenario)


def test_what_cannot_be_carried_is_refused(make_store: MakeStore) -> None:
    app = App()
    refused: list[str] = []

    @app.activity
    async def quick() -> int:
        return 1

    @app.orchestrator
    async def odd(ctx: OrchestrationContext) -> None:
        done = ctx.call_activity(quick)
        await done
        timer = ctx.create_timer(timedelta(hours=1))
        twice = ctx.call_activity(quick)
        for carry in ({"done": done}, {"timer": timer}, {"": ctx.call_activity(quick)}, {"a": twice, "b": twice}):
            try:
                ctx.continue_as_new(carry=carry)
            except InvalidInputError as error:
                refused.append(str(error))
        with pytest.raises(InvalidInputError, match="does not go together"):
            ctx.continue_as_new(carry={"x": ctx.call_activity(quick)}, open_tasks="wait")
        with pytest.raises(InvalidInputError, match="it has none"):
            ctx.carried_task("nothing", quick)

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(odd)
        await handle.wait_for_completion(timeout=SOON)

    on(make_store(), app, scenario)
    assert len(refused) == 4


def test_what_was_cancelled_after_it_was_handed_on_is_not_there(make_store: MakeStore) -> None:
    """The next execution was given a handle for it, and waited for ever."""
    world = World()
    app = make_app(world)

    @app.orchestrator
    async def hasty(ctx: OrchestrationContext, is_second: bool) -> str:
        if is_second:
            with pytest.raises(InvalidInputError, match="it has none"):
                ctx.carried_task("upload", app.registry.activity("upload"))
            return "gone"
        task = ctx.call_activity("upload", "good")
        ctx.continue_as_new(True, carry={"upload": task})
        task.cancel()
        return ""

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(hasty, False)
        assert await handle.wait_for_completion(timeout=SOON) == "gone"

    on(make_store(), app, scenario)


@KINDS
@pytest.mark.parametrize("how", ["before", "unknown, not applied", "unknown, applied"])
@pytest.mark.parametrize("commit", range(1, 7))
def test_a_failed_commit_loses_no_handle(make_store: MakeStore, kind: str, how: str, commit: int) -> None:
    world = World()
    store = FailingStore(make_store())

    async def scenario(run: Run) -> None:
        await run.client.start_new("carrying", (kind, "good", 3), instance_id="c")
        await eventually(lambda: asyncio.sleep(0, bool(world.runs)))
        store.fail_at = {store.commits + commit: how}
        for left in (2, 1, 0):

            async def sent(key: str = f"to {left}") -> bool:
                try:
                    await run.client.raise_event("c", "next", key=key)
                except Exception:  # the host starts again; the key makes it safe to send it once more
                    return False
                return True

            await eventually(sent)
            await generation(run, left)
        world.gate.set()

        async def ended() -> bool:
            found = await run.client.get_status("c")
            return found is not None and found.output == "good done"

        await eventually(ended)
        assert len(set(world.runs)) == 1

    on(store, make_app(world), scenario)
