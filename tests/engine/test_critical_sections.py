"""Critical sections through the whole engine: however its holder ends, or waits and ends, an entity is free again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from engine_kit import SOON, Run, eventually, until
from section_kit import BRIEF, SHORT, A, Account, B, end, has_status, is_held, lock_of, make_section_app, on, use, waits

from holdfast import (
    App,
    Entity,
    EntityId,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationStatus,
)
from holdfast.storage.port import Store

MakeStore = Callable[[], Store]


ENDINGS = ["leaves", "leaves by an error", "completes", "fails", "continues", "cancelled", "terminated", "replaced"]
ENDINGS += ["expires", "parked", "lease", "broken"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_whatever_ends_a_section_frees_its_entities(make_store: MakeStore, ending: str) -> None:
    async def scenario(run: Run) -> None:
        timeout = SHORT if ending == "expires" else None
        await run.client.start_new("holder", ending, instance_id="h", run_timeout=timeout)
        if ending not in ("expires", "lease"):
            await is_held(run, "h", A, B)
        other = await run.client.start_new("user", ["b", "a"])
        await end(run, "h", ending)
        # Only then, for one of them, is the account used inside of the section.
        assert await other.wait_for_completion(timeout=SOON) == (1_002 if ending == "leaves" else 2)
        await is_held(run, None, A, B)
        if ending == "parked":
            await run.client.resume("h")
        if ending in ("parked", "lease", "broken"):
            await run.client.raise_event("h", "go")
            assert await run.client.wait_for_completion("h", timeout=SOON) == "lost True"
            assert await use(run, "a", "b") == 4

    on(make_store(), make_section_app(), scenario)


WAITING = ["completes", "fails", "continues", "cancelled", "terminated", "replaced", "expires", "times out"]


@pytest.mark.parametrize("ending", WAITING)
def test_whatever_ends_the_wait_for_locks_frees_those_it_has(make_store: MakeStore, ending: str) -> None:
    """One lock is held by somebody else all the time: the other one is free before that is."""

    async def scenario(run: Run) -> None:
        await run.client.start_new("keeper", ["b"], instance_id="k")
        await is_held(run, "k", B)
        timeout = SHORT if ending == "expires" else None
        await run.client.start_new("waiter", ending, instance_id="w", run_timeout=timeout)
        if ending not in ("expires", "times out"):
            await waits(run, B, "w")
        await end(run, "w", ending)
        assert await use(run, "a") == 1
        await waits(run, B)
        await run.client.raise_event("k", "go")
        assert await use(run, "a", "b") == 3

    on(make_store(), make_section_app(), scenario)


def test_who_is_parked_while_it_waits_gives_the_locks_back_at_once(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        await run.client.start_new("keeper", ["b"], instance_id="k")
        await run.client.start_new("waiter", "waits", instance_id="w")
        await waits(run, B, "w")
        await end(run, "w", "parked")
        await has_status(run, "w", OrchestrationStatus.SUSPENDED)
        await run.client.raise_event("k", "go")
        assert await use(run, "a", "b") == 2
        await run.client.resume("w")
        with pytest.raises(OrchestrationFailedError, match="not locked by this critical section any more"):
            await run.client.wait_for_completion("w", timeout=SOON)
        assert await use(run, "a", "b") == 4

    on(make_store(), make_section_app(), scenario)


def test_a_suspended_holder_keeps_its_locks_until_its_lease_is_over(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        for ending in ("leaves", "lease"):
            await run.client.start_new("holder", ending, instance_id=ending)
            if ending == "leaves":
                await is_held(run, ending, A, B)
            await run.client.suspend(ending)
            await has_status(run, ending, OrchestrationStatus.SUSPENDED)
            if ending == "leaves":
                assert await lock_of(run, A) == await lock_of(run, B) == ending
                await run.client.resume(ending)
                await run.client.raise_event(ending, "go")
        assert await use(run, "a", "b") == 1_002

    on(make_store(), make_section_app(), scenario)


def test_who_timed_out_tries_again(make_store: MakeStore) -> None:
    app = make_section_app()

    @app.orchestrator
    async def tries(ctx: OrchestrationContext) -> int:
        for attempt in range(1_000):
            try:
                async with ctx.lock(A, B, timeout=BRIEF):
                    await ctx.call_entity(A, Account.add, 1)
                    return attempt
            except TimeoutError:
                ctx.set_custom_status("again")
        return -1

    async def scenario(run: Run) -> None:
        await run.client.start_new("keeper", ["b"], instance_id="k")
        await is_held(run, "k", B)
        handle = await run.client.start_new(tries)

        async def has_failed_once() -> bool:
            status = await handle.get_status()
            return status is not None and status.custom_status == "again"

        await eventually(has_failed_once)
        await run.client.raise_event("k", "go")
        assert await handle.wait_for_completion(timeout=SOON) > 0
        await is_held(run, None, A, B)

    on(make_store(), app, scenario)


def test_leases_one_after_the_other(make_store: MakeStore) -> None:
    """The timers of all leases had one key: a group that ended one section and began the next was refused."""
    app = make_section_app()

    @app.activity
    async def work() -> None: ...

    @app.orchestrator
    async def thrice(ctx: OrchestrationContext) -> int:
        for _ in range(3):
            async with ctx.lock(A, lease=timedelta(hours=1)):
                await ctx.call_activity(work)
        return await ctx.call_entity(A, Account.add, 7)

    async def scenario(run: Run) -> None:
        node = run.engine.node
        handle = await run.client.start_new(thrice)
        assert await handle.wait_for_completion(timeout=SOON) == 7
        assert run.engine.node is node
        assert await run.store.timers_due(2**62, 10) == []

    on(make_store(), app, scenario)


@dataclass
class Gates:
    """Lets operations wait."""

    open: dict[str, asyncio.Event] = field(default_factory=dict)
    entered: set[str] = field(default_factory=set)


def test_an_unlock_that_overtakes_its_request_once_and_not_again(make_store: MakeStore) -> None:
    """At `b` the unlock came before the request, at `c` after it: `c` forgot it, and `b` stayed locked for ever."""
    app, gates = App(), Gates()

    @app.entity
    @dataclass
    class Slow(Entity):
        runs: int = 0

        async def wait(self, gate: str) -> None:
            gates.entered.add(gate)
            await gates.open[gate].wait()

        def run(self) -> int:
            self.runs += 1
            return self.runs

    a, b, c = (EntityId(Slow, key) for key in "abc")

    @app.orchestrator
    async def impatient(ctx: OrchestrationContext) -> None:
        asked = ctx.lock(a, b, c).acquire()
        await ctx.wait_for_external_event("go")
        asked.cancel()

    async def scenario(run: Run) -> None:
        for entity in (a, c):
            gates.open[entity.key] = asyncio.Event()
            await run.client.signal_entity(entity, Slow.wait, entity.key)
        await until(lambda: gates.entered == {"a", "c"})
        handle = await run.client.start_new(impatient)
        await handle.raise_event("go")
        await handle.wait_for_completion(timeout=SOON)
        gates.open["a"].set()
        assert await run.client.call_entity(a, Slow.run, timeout=SOON) == 1
        gates.open["c"].set()
        for entity in (c, b):
            assert await run.client.call_entity(entity, Slow.run, timeout=SOON) == 1

    on(make_store(), app, scenario)
