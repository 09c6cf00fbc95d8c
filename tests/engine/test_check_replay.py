"""`App.check_replay`: ends that the code did not make, and histories that change while they are read."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from engine_kit import SOON, running

from holdfast import App, HostConfig, InstanceNotFoundError, Limits, OrchestrationContext, OrchestrationFailedError
from holdfast.codec.exported import decode_exported, encode_exported
from holdfast.engine.exports import read_history
from holdfast.errors import NonDeterminismError, OverloadedError
from holdfast.storage.memory import MemoryStore
from holdfast.storage.port import InstanceRow


def exported(app: App, name: str, *input: Any, instance_id: str = "i", limits: Limits | None = None) -> str:
    """Run an orchestration to its end, whatever that is, and return its history."""

    async def main() -> str:
        async with running(app, MemoryStore(), HostConfig(drain_s=0.2, limits=limits or Limits())) as run:
            await run.client.start_new(name, *input, instance_id="i")
            await run.client.wait_until_stopped("i", timeout=SOON)
            return await run.client.export_history(instance_id)

    return asyncio.run(main())


def test_an_end_for_the_length_of_the_history_is_no_difference() -> None:
    app = App()

    @app.orchestrator
    async def long(ctx: OrchestrationContext) -> None:
        for _ in range(100):
            await ctx.create_timer(ctx.current_utc_datetime)

    text = exported(app, "long", limits=Limits(history_events_max=20))
    assert "has more than 20 events" in text
    app.check_replay(text)


def test_one_that_never_ran_because_it_was_unknown_replays_with_the_code_that_came_later() -> None:
    app, later = App(), App()

    @app.orchestrator
    async def parent(ctx: OrchestrationContext) -> None:
        await ctx.call_sub_orchestrator("unknown", instance_id="child")

    @later.orchestrator
    async def unknown(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("e")

    _ = (parent, unknown)
    text = exported(app, "parent", instance_id="child")
    assert "NotRegisteredError" in text
    later.check_replay(text)
    # The parent was told of that by its child: this end is one of its code.
    app.check_replay(exported(app, "parent"))


def test_a_plain_function_and_an_input_that_does_not_fit() -> None:
    app, fixed = App(), App()

    @app.orchestrator
    def plain(ctx: OrchestrationContext, number: int) -> Any:
        return number + 1

    @fixed.orchestrator(name="plain")
    def lenient(ctx: OrchestrationContext, number: str) -> Any:
        return number

    good, bad = exported(app, "plain", 1), exported(app, "plain", 1).replace('"input": "1"', '"input": "\\"one\\""')
    app.check_replay(good)
    with pytest.raises(
        NonDeterminismError, match=r"expected .*: it returned 2\n.*it raised holdfast.errors.PayloadErr"
    ):
        app.check_replay(bad)
    with pytest.raises(NonDeterminismError, match="it returned 2"):
        fixed.check_replay(good.replace('"input": "1"', '"input": "\\"one\\""'))


def test_an_end_that_has_become_a_new_beginning_differs() -> None:
    app, changed = App(), App()

    @app.orchestrator(name="flow")
    async def ends(ctx: OrchestrationContext) -> int:
        return 1

    @changed.orchestrator(name="flow")
    async def goes_on(ctx: OrchestrationContext) -> int:
        ctx.continue_as_new(2)
        return 1

    @changed.orchestrator(name="wait")
    async def waits(ctx: OrchestrationContext) -> int:
        return await ctx.wait_for_external_event("e")

    _ = (ends, goes_on, waits)
    text = exported(app, "flow")
    with pytest.raises(NonDeterminismError, match="it ended as ContinuedAsNew with 2"):
        changed.check_replay(text)
    with pytest.raises(NonDeterminismError, match=r"\(history\): it returned 1\n.*: +it goes on"):
        changed.check_replay(text.replace('"flow"', '"wait"'))


def test_one_in_flight_is_let_go_where_it_stands() -> None:
    """Python runs the `finally` of a coroutine that is dropped; as at the stop of a host, its context does nothing."""
    asked: list[str] = []
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> None:
        try:
            await ctx.wait_for_external_event("e")
        finally:
            await ctx.call_activity("never")
            asked.append("asked")

    async def main() -> str:
        async with running(app, MemoryStore()) as run:
            await run.client.start_new(flow, instance_id="i")
            while not await run.client.get_history("i"):
                await asyncio.sleep(0)
            return await run.client.export_history("i")

    text = asyncio.run(main())
    app.check_replay(text)
    app.check_replay(encode_exported(msgspec.structs.replace(decode_exported(text), episodes=())))
    assert asked == []


def test_the_limits_are_those_of_the_config() -> None:
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext, text: str) -> str:
        await ctx.create_timer(ctx.current_utc_datetime)
        return text

    small = HostConfig(limits=Limits(payload_bytes_max=100))
    text = exported(app, "flow", "x" * 200)
    app.check_replay(text)
    with pytest.raises(NonDeterminismError, match="PayloadTooLargeError"):
        app.check_replay(text, config=small)


class Restless(MemoryStore):
    """A store in which an instance is continued as new, or goes, whenever its row is read."""

    def __init__(self, reads_until_it_rests: int, *, goes: bool = False) -> None:
        super().__init__()
        self.reads = 0
        self._until = reads_until_it_rests
        self._goes = goes

    async def read_instance(self, instance_id: str) -> InstanceRow | None:
        self.reads += 1
        if self._goes and self.reads > 1:
            return None
        execution = min(self.reads, self._until)
        return InstanceRow(
            partition=0,
            instance_id=instance_id,
            execution_id=f"x{execution}",
            revision=self.reads,
            name="flow",
            status="Running",
            created_at=0,
            updated_at=0,
        )

    async def load_history(
        self, instance_id: str, execution_id: str, first: int = 0, limit: int | None = None
    ) -> list[str]:
        return ['{"v":1,"events":[]}'] * int(execution_id[1:])


def test_a_history_is_read_again_if_its_instance_starts_over_meanwhile() -> None:
    history = asyncio.run(read_history(Restless(4), "i"))
    assert (history.execution_id, len(history.episodes)) == ("x4", 4)


def test_reading_gives_up_on_one_that_never_rests_or_has_gone() -> None:
    restless = Restless(10**6)
    with pytest.raises(OverloadedError, match="'i' starts over too quickly"):
        asyncio.run(read_history(restless, "i"))
    assert restless.reads < 50
    with pytest.raises(InstanceNotFoundError):
        asyncio.run(read_history(Restless(1, goes=True), "i"))


def test_a_failure_is_compared_by_its_type() -> None:
    app, reworded, other = App(), App(), App()

    @app.orchestrator(name="flow")
    async def first(ctx: OrchestrationContext) -> None:
        raise ValueError("one")

    @reworded.orchestrator(name="flow")
    async def second(ctx: OrchestrationContext) -> None:
        raise ValueError("two")

    @other.orchestrator(name="flow")
    async def third(ctx: OrchestrationContext) -> None:
        raise OrchestrationFailedError("i", "Failed", None)

    _ = (first, second, third)
    text = exported(app, "flow")
    reworded.check_replay(text)
    with pytest.raises(NonDeterminismError, match=r"ValueError: one\n.*OrchestrationFailedError"):
        other.check_replay(text)
