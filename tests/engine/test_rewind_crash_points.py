"""Every commit of a recursive rewind fails once, in each way in which a commit can fail; it still comes out right."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import pytest
from engine_kit import SOON, FailingStore, Run, eventually, insist, running

from holdfast import (
    App,
    Entity,
    EntityId,
    HostConfig,
    InstanceNotRunningError,
    OrchestrationContext,
    OrchestrationFailedError,
    when_all,
)
from holdfast.storage.memory import MemoryData, MemoryStore


def make_app(broken: set[str]) -> App:
    app = App()

    @app.activity
    async def work(name: str) -> str:
        if name in broken:
            raise ConnectionError(f"{name} is broken")
        return name.upper()

    @app.entity
    @dataclass
    class Tally(Entity):
        total: int = 0

        def add(self, amount: int) -> int:
            if "tally" in broken:
                raise ConnectionError("tally is broken")
            self.total += amount
            return self.total

    @app.orchestrator
    async def chain(ctx: OrchestrationContext, names: list[str]) -> list[str]:
        return [await ctx.call_activity(work, name) for name in names]

    @app.orchestrator
    async def counted(ctx: OrchestrationContext) -> int:
        return await ctx.call_entity(EntityId(Tally, "t"), Tally.add, 5)

    @app.orchestrator
    async def mapped(ctx: OrchestrationContext, groups: list[list[str]]) -> list[list[str]]:
        return await ctx.map(chain, groups, concurrency=1)

    @app.orchestrator
    async def top(ctx: OrchestrationContext) -> Any:
        event = ctx.wait_for_external_event("e")
        parts: Any = [
            ctx.call_sub_orchestrator(mapped, [["a", "b"], ["c"], ["d"]]),
            ctx.call_sub_orchestrator(counted),
            ctx.call_activity(work, "e"),
        ]
        return [*await when_all(parts), await event]

    _ = top
    return app


EXPECTED = [[["A", "B"], ["C"], ["D"]], 5, "E", 7]


async def workload(run: Run, broken: set[str]) -> Any:
    async def start() -> None:
        if await run.client.get_status("i") is None:
            await run.client.start_new("top", instance_id="i")

    async def raise_event() -> None:
        if not any(type(event).__name__ == "EventRaised" for event in await run.client.get_history("i")):
            await run.client.raise_event("i", "e", 7)

    await insist(start)
    await insist(raise_event)
    with pytest.raises(OrchestrationFailedError):
        await run.client.wait_for_completion("i", timeout=SOON)
    broken.clear()
    with contextlib.suppress(InstanceNotRunningError):  # it was stored, but not acknowledged, before
        await insist(lambda: run.client.rewind("i"))
    return await run.client.wait_for_completion("i", timeout=SOON)


async def run_with_failure(commit: int, how: str, cache_bytes_max: int) -> bool:
    """Run the workload with a commit for each transition; return whether the one that was to fail was reached."""
    data = MemoryData()
    failing = FailingStore(MemoryStore(data))
    failing.fail_at = {commit: how}
    broken = {"b", "d", "e", "tally"}
    config = HostConfig(group_transitions_max=1, drain_s=0.2, cache_bytes_max=cache_bytes_max)
    async with running(make_app(broken), failing, config) as run:
        assert await workload(run, broken) == EXPECTED
        assert await run.client.read_entity_state(EntityId("tally", "t")) == {"total": 5}

        async def is_clean() -> bool:
            return not (data.messages or data.activities or data.timers or data.children)

        await eventually(is_clean)
    return not failing.fail_at


@pytest.mark.parametrize("cache_bytes_max", [1, 1 << 20], ids=["replayed", "live"])
@pytest.mark.parametrize("how", ["before", "unknown, not applied", "unknown, applied"])
def test_each_commit_of_a_rewind_fails_once(how: str, cache_bytes_max: int) -> None:
    commit = 1
    while asyncio.run(run_with_failure(commit, how, cache_bytes_max)):
        commit += 1
    assert commit > 40, "the workload has become too small to test anything"
