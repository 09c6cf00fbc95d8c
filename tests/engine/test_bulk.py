"""Bulk jobs: one action for all that a query finds, whatever crashes meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from engine_kit import SOON, eventually, running

from holdfast import App, BulkProgress, InstanceQuery, InvalidInputError, OrchestrationContext, OrchestrationStatus
from holdfast.storage.memory import MemoryStore
from holdfast.testing import Simulation, for_each_crash

app = App()
COUNT = 230
"""More than two pages."""
broken = {"fails"}


@app.orchestrator
async def waits(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_external_event("go")


@app.orchestrator
async def fails(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(work)


@app.activity
def work() -> int:
    if broken:
        raise ValueError("not yet")
    return 1


async def statuses(client: Any, name: str) -> dict[OrchestrationStatus, int]:
    return await client.count_instances(InstanceQuery(name=name))


def test_a_job_does_it_to_all_that_can_take_it_in() -> None:
    async def main() -> None:
        async with running(app, MemoryStore()) as run:
            client = run.client
            for number in range(COUNT):
                await client.start_new(waits, instance_id=f"w{number}", tags={"half": str(number % 2)})
            await eventually(lambda: _all(client, {OrchestrationStatus.RUNNING: COUNT}))
            half = InstanceQuery(name=waits, tags={"half": "0"})
            job = await client.start_bulk("suspend", half)
            assert await job.wait_for_completion(timeout=SOON) == BulkProgress(done=COUNT // 2)
            halves = {OrchestrationStatus.RUNNING: COUNT // 2, OrchestrationStatus.SUSPENDED: COUNT // 2}
            await eventually(lambda: _all(client, halves))
            job = await client.start_bulk("resume", InstanceQuery())
            assert await job.wait_for_completion(timeout=SOON) == BulkProgress(done=COUNT // 2)
            job = await client.start_bulk("terminate", InstanceQuery(), "closing time")
            assert await job.wait_for_completion(timeout=SOON) == BulkProgress(done=COUNT)
            status = await job.get_status()
            assert status is not None
            assert status.custom_status == {"done": COUNT, "refused": 0}
            await eventually(lambda: _all(client, {OrchestrationStatus.TERMINATED: COUNT}))
            ended = await client.get_status("w7")
            assert ended is not None
            assert ended.output == "closing time"
            job = await client.start_bulk("purge", half)
            assert await job.wait_for_completion(timeout=SOON) == BulkProgress(done=COUNT // 2)
            assert await statuses(client, "waits") == {OrchestrationStatus.TERMINATED: COUNT // 2}
            job = await client.start_bulk("rewind", InstanceQuery(name=waits, statuses=["Terminated"]))
            assert await job.wait_for_completion(timeout=SOON) == BulkProgress()

    asyncio.run(main())


async def _all(client: Any, expected: dict[OrchestrationStatus, int]) -> bool:
    return await statuses(client, "waits") == expected


def test_what_has_failed_is_rewound() -> None:
    async def main() -> None:
        async with running(app, MemoryStore()) as run:
            broken.add("fails")
            for number in range(3):
                handle = await run.client.start_new(fails, instance_id=f"f{number}")
                await run.client.wait_until_stopped(handle.instance_id, timeout=SOON)
            broken.clear()
            job = await run.client.start_bulk("rewind", InstanceQuery(name=fails))
            assert await job.wait_for_completion(timeout=SOON) == BulkProgress(done=3)
            assert [await run.client.wait_for_completion(f"f{number}", timeout=SOON) for number in range(3)] == [1] * 3

    asyncio.run(main())


def test_a_job_survives_a_crash_at_each_of_its_commits() -> None:
    async def scenario(sim: Simulation) -> None:
        runs = [await sim.client.start_new(waits, instance_id=f"w{number}") for number in range(3)]
        job = await sim.client.start_bulk("terminate", InstanceQuery(name=waits))
        progress = await job.wait_for_completion()
        assert progress.done + progress.refused <= 3
        for run in runs:
            assert (await sim.client.wait_until_stopped(run.instance_id)).runtime_status == "Terminated"

    assert for_each_crash(app, scenario) > 10


def test_a_job_of_no_known_action_is_refused() -> None:
    async def main() -> None:
        async with running(app, MemoryStore()) as run:
            with pytest.raises(InvalidInputError, match="action='delete' must be one of terminate"):
                await run.client.start_bulk("delete", InstanceQuery())  # pyright: ignore[reportArgumentType] - tested
            assert await run.client.count_instances() == {}

    asyncio.run(main())
