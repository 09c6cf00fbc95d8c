"""What the simulator has found, as small worlds of their own, which do not depend on a seed."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from holdfast import App, OrchestrationContext
from holdfast.errors import StorageError
from holdfast.testing.simulation import Simulation


def make_app() -> App:
    app = App()

    @app.orchestrator
    async def wait(ctx: OrchestrationContext) -> str:
        return await ctx.wait_for_external_event("e")

    @app.orchestrator
    async def collect(ctx: OrchestrationContext, count: int) -> list[int]:
        return [await ctx.wait_for_external_event("e") for _ in range(count)]

    _ = (wait, collect)
    return app


async def take_over(sim: Simulation) -> tuple[str, str]:
    """Wait at the first host, let the second one take over and finish the work, and let the first one go on."""
    client, first = sim.client, sim.hosts[0]
    await sim.advance(seconds=1)
    run = await client.start_new("wait", instance_id="w")
    waiting = asyncio.ensure_future(run.wait_for_completion())
    await sim.advance(seconds=1)
    owner = first if first.is_ready else sim.hosts[1]
    assert owner.process is not None
    paused = owner.process
    paused.pause()
    other = sim.hosts[1] if owner is first else first
    while not other.is_ready:
        await sim.advance(seconds=1)
    incarnation = sim.ledger.incarnation
    owner.task_hub = None  # nobody asks the one that stands still
    await client.raise_event("w", "e", "done")
    result = await client.wait_for_completion("w")
    paused.go_on()
    assert sim.ledger.incarnation == incarnation, "the one that stood still took the store back"
    return result, await asyncio.wait_for(waiting, timedelta(minutes=1).total_seconds())


def test_who_waits_at_a_host_that_lost_the_store_is_answered_all_the_same() -> None:
    """It had nothing to commit, so it never noticed; whoever waited there waited for ever."""
    for seed in range(20):
        assert Simulation(make_app(), seed=seed, hosts=2).run(take_over) == ("done", "done")


async def fail_reads(sim: Simulation) -> list[int]:
    """Let a read fail after each commit of the same instance, so often that it could be taken for guilty."""
    client, host = sim.client, sim.hosts[0]
    await sim.advance(seconds=1)
    run = await client.start_new("collect", 8, instance_id="c")
    await client.start_new("collect", 9, instance_id="another")
    for _ in range(3):  # without progress between them, so that commits are made one by one
        assert host.node is not None
        host.node.fail(StorageError("planted: a read fails"))
        while host.node is None:
            await sim.advance(seconds=0.01)
    for number in range(8):
        await client.raise_event("c", "e", number, key=f"e{number}")
        assert host.node is not None
        host.node.fail(StorageError("planted: a read fails"))
        await client.raise_event("another", "e", number, key=f"e{number}")  # the store goes on for others
        await sim.advance(seconds=0.6)
    status = await client.get_status("c")
    assert status is not None
    assert status.parked is None
    result = await run.wait_for_completion()
    await client.terminate("another")
    return result


def test_a_read_that_fails_is_not_the_fault_of_who_was_stored_last() -> None:
    """After a few of them it was parked, though nothing was wrong with it."""
    assert Simulation(make_app()).run(fail_reads) == list(range(8))
