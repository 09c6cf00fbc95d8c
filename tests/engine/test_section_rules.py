"""The rules of critical sections, who is seen to hold and to want a lock, and locks that outlive a host or a holder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from engine_kit import SOON, Run
from section_kit import BRIEF, A, Account, B, C, end, has_status, is_held, lock_of, make_section_app, on, use, waits

from holdfast import EntityId, InvalidInputError, LockingRulesError, OrchestrationContext, OrchestrationStatus
from holdfast.codec.history import encode_record
from holdfast.hub.instance import LockHolder
from holdfast.model.ids import address_of
from holdfast.storage.port import InstanceUpdate, Store, WriteSet

MakeStore = Callable[[], Store]


# Rules


def refusal(request: Callable[[], object]) -> str:
    with pytest.raises((LockingRulesError, InvalidInputError)) as refused:
        request()
    return f"{type(refused.value).__name__}: {refused.value}"


def test_rules(make_store: MakeStore) -> None:
    app = make_section_app()

    @app.orchestrator
    async def breaks_rules(ctx: OrchestrationContext) -> list[str]:
        assert ctx.lock(B, A, B).lock_set == ctx.lock(A, B).lock_set, "all must lock in one order, and nothing twice"
        refused = [refusal(lambda: ctx.lock())]
        asked = ctx.lock(A, B, A).acquire()
        refused.append(refusal(lambda: ctx.call_entity(A, Account.add, 1)))
        await asked
        refused += [
            refusal(lambda: ctx.lock(C).acquire()),
            refusal(lambda: ctx.call_entity(C, Account.add, 1)),
            refusal(lambda: ctx.signal_entity(A, Account.add, 1)),
            refusal(lambda: ctx.call_sub_orchestrator("user", ["c"])),
        ]
        ctx.signal_entity(C, Account.add, 5)
        first, other = ctx.call_entity(A, Account.add, 1), ctx.call_entity(B, Account.add, 1)
        refused.append(refusal(lambda: ctx.call_entity(A, Account.add, 1)))
        await first
        await other
        await ctx.call_entity(A, Account.add, 1)
        return refused

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new(breaks_rules)
        refused = await handle.wait_for_completion(timeout=SOON)
        expected = [
            "InvalidInputError: .* at least one",
            "LockingRulesError: .* while the locks are still asked for",
            "LockingRulesError: .* do not nest",
            "LockingRulesError: .* does not lock it",
            "LockingRulesError: .* do not signal it",
            "LockingRulesError: Sub-orchestrations",
            "LockingRulesError: .* before the last call has been answered",
        ]
        assert len(refused) == len(expected)
        for text, pattern in zip(refused, expected, strict=True):
            with pytest.raises(AssertionError, match=pattern):
                raise AssertionError(text)
        balances = [await run.client.call_entity(each, Account.add, 0, timeout=SOON) for each in (A, B, C)]
        assert balances == [2, 1, 5]

    on(make_store(), app, scenario)


# Who holds, who waits


def test_all_others_wait_in_order_while_an_entity_is_locked(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        await run.client.start_new("keeper", ["a"], instance_id="k1")
        await is_held(run, "k1", A)
        await run.client.signal_entity(A, Account.add, 1)
        await run.client.start_new("keeper", ["a"], instance_id="k2")
        await waits(run, A, "k2")
        await run.client.signal_entity(A, Account.add, 10)
        await run.client.start_new("keeper", ["a"], instance_id="k3")
        await waits(run, A, "k2", "k3")
        found = await run.client.get_entity(A)
        assert found is not None
        assert (found.state, found.messages) == (None, 4)
        await run.client.raise_event("k1", "go")
        await is_held(run, "k2", A)
        await waits(run, A, "k3")
        assert await run.client.read_entity_state(A) == Account(1)
        await run.client.terminate("k3")
        await waits(run, A)
        await run.client.raise_event("k2", "go")
        assert await run.client.call_entity(A, Account.add, 0, timeout=SOON) == 11
        assert await lock_of(run, A) is None
        assert await run.client.break_lock(A) is None

    on(make_store(), make_section_app(), scenario)


# Hosts that stop


def test_locks_and_requests_outlive_the_host(make_store: MakeStore) -> None:
    async def first(run: Run) -> None:
        await run.client.start_new("holder", "leaves", instance_id="h")
        await is_held(run, "h", A, B)
        await run.client.start_new("keeper", ["a", "c"], instance_id="k")
        await waits(run, A, "k")
        await run.client.start_new("waiter", "completes", instance_id="w")
        await waits(run, A, "k", "w")

    async def second(run: Run) -> None:
        assert await lock_of(run, A) == await lock_of(run, B) == "h"
        await run.client.raise_event("w", "go")
        assert await run.client.wait_for_completion("w", timeout=SOON) == "completes"
        await waits(run, A, "k")
        await run.client.raise_event("h", "go")
        await is_held(run, "k", A, C)
        assert await use(run, "b") == 1

    async def third(run: Run) -> None:
        await run.client.raise_event("k", "go")
        assert await use(run, "a", "b", "c") == 1_004

    store, app = make_store, make_section_app()
    for scenario in (first, second, third):
        on(store(), app, scenario)


def test_leases_and_timeouts_outlive_the_host(make_store: MakeStore) -> None:
    async def first(run: Run) -> None:
        await run.client.start_new("holder", "lease", instance_id="h")
        await run.client.start_new("keeper", ["c"], instance_id="k")
        await is_held(run, "k", C)
        await run.client.start_new("impatient", instance_id="i")
        await has_status(run, "i", OrchestrationStatus.RUNNING)

    async def second(run: Run) -> None:
        assert await use(run, "a", "b") == 2
        assert await run.client.wait_for_completion("i", timeout=SOON) == "timed out"
        await run.client.raise_event("h", "go")
        assert await run.client.wait_for_completion("h", timeout=SOON) == "lost True"

    app = make_section_app()

    @app.orchestrator
    async def impatient(ctx: OrchestrationContext) -> str:
        try:
            async with ctx.lock(C, timeout=BRIEF):
                return "locked"
        except TimeoutError:
            return "timed out"

    on(make_store(), app, first)
    on(make_store(), app, second)


def test_a_grant_that_a_suspended_holder_has_not_seen_outlives_the_host(make_store: MakeStore) -> None:
    """It is read from the store again, but its lease began when it came first."""
    app = make_section_app()

    @app.orchestrator
    async def leased(ctx: OrchestrationContext) -> int:
        async with ctx.lock(B, lease=timedelta(hours=1)):
            return await ctx.call_entity(B, Account.add, 1)

    async def first(run: Run) -> None:
        await run.client.start_new("keeper", ["b"], instance_id="k")
        await is_held(run, "k", B)
        await run.client.start_new(leased, instance_id="l")
        await waits(run, B, "l")
        await run.client.suspend("l")
        await has_status(run, "l", OrchestrationStatus.SUSPENDED)
        await run.client.raise_event("k", "go")
        await is_held(run, "l", B)

    async def second(run: Run) -> None:
        node = run.engine.node
        await run.client.resume("l")
        assert await run.client.wait_for_completion("l", timeout=SOON) == 1
        assert await use(run, "b") == 2
        assert run.engine.node is node

    on(make_store(), app, first)
    on(make_store(), app, second)


def test_who_was_parked_with_a_lost_section_is_still_told_after_a_restart(make_store: MakeStore) -> None:
    async def first(run: Run) -> None:
        await run.client.start_new("keeper", ["b"], instance_id="k")
        await run.client.start_new("holder", "parked", instance_id="h")
        await waits(run, B, "h")
        await end(run, "h", "parked")
        await has_status(run, "h", OrchestrationStatus.SUSPENDED)

    async def second(run: Run) -> None:
        await run.client.raise_event("k", "go")
        assert await use(run, "a", "b") == 2

    async def third(run: Run) -> None:
        await run.client.resume("h")
        await run.client.raise_event("h", "go")
        assert await run.client.wait_for_completion("h", timeout=SOON) == "lost True"
        assert await use(run, "a", "b") == 4

    app = make_section_app()
    for scenario in (first, second, third):
        on(make_store(), app, scenario)


# Holders that are gone


async def plant_lock(store: Store, entity: EntityId[Any], holder: LockHolder) -> None:
    """Lock an entity behind the back of the hub."""
    ownership = await store.acquire(0)
    [stored] = await store.load([address_of(entity)])
    row = stored.row
    assert row is not None
    locked = msgspec.structs.replace(row, revision=row.revision + 1, lock=encode_record(holder))
    nothing: dict[str, Any] = {each: [] for each in WriteSet.__struct_fields__ if each not in ("lsn_before", "lsn")}
    nothing["instances_updated"] = [InstanceUpdate(locked, row.revision)]
    await store.commit(ownership.fence, WriteSet(lsn_before=ownership.lsn, lsn=ownership.lsn + 1, **nothing))
    await store.close()


@pytest.mark.parametrize("holder", ["nobody", "ended", "lives on"])
def test_locks_without_a_holder_are_found(make_store: MakeStore, holder: str) -> None:
    async def first(run: Run) -> None:
        await run.client.start_new("keeper", ["b"], instance_id="lives on")
        await is_held(run, "lives on", B)
        await run.client.start_new("user", ["a"], instance_id="ended")
        assert await run.client.wait_for_completion("ended", timeout=SOON) == 1
        await is_held(run, None, A)
        status = await run.client.get_status(holder)
        execution_id = status.state.execution_id if status else "none"
        planted.append(LockHolder(f"{execution_id}/7", holder, datetime.now(UTC)))

    async def second(run: Run) -> None:
        assert await lock_of(run, A) == holder
        handle = await run.client.start_new("user", ["a"])
        await waits(run, A, handle.instance_id)
        cleaned = await run.client.clean_entities(idle_for=timedelta(0))
        assert cleaned.orphaned_locks_released == 1
        assert await handle.wait_for_completion(timeout=SOON) == 2
        assert await lock_of(run, B) == "lives on"
        await run.client.raise_event("lives on", "go")
        await run.client.wait_for_completion("lives on", timeout=SOON)

    async def between() -> None:
        await plant_lock(make_store(), A, planted[0])

    planted: list[LockHolder] = []
    app = make_section_app()
    on(make_store(), app, first)
    asyncio.run(between())
    on(make_store(), app, second)
