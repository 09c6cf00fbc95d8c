"""What the tests of critical sections share: orchestrations that hold locks or wait for them, and end in every way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from engine_kit import SOON, Run, eventually, running

from holdfast import (
    App,
    Entity,
    EntityId,
    IdPolicy,
    LockLostError,
    OrchestrationContext,
    OrchestrationStatus,
    TaskFailedError,
)
from holdfast.model.failure import FailureDetails
from holdfast.storage.port import Store


@dataclass
class Account(Entity):
    balance: int = 0

    def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance


A, B, C = (EntityId(Account, key) for key in "abc")
BRIEF, SHORT = timedelta(milliseconds=20), timedelta(milliseconds=200)


def make_section_app() -> App:
    app = App()
    app.entity(Account)

    @app.orchestrator
    async def holder(ctx: OrchestrationContext, ending: str) -> str:
        """Hold two locks until it is told to go on; then end in some way, or stay outside of the section."""
        if ending == "is over":
            return await ctx.wait_for_external_event("never")
        section = ctx.lock(A, B, lease=BRIEF if ending == "lease" else None)
        if ending in ("completes", "fails", "continues"):
            await section.acquire()
            await ctx.wait_for_external_event("go")
            if ending == "fails":
                raise ValueError(ending)
            if ending == "continues":
                ctx.continue_as_new("is over")
            return ending
        try:
            async with section:
                await ctx.wait_for_external_event("go")
                if ending == "leaves by an error":
                    raise ValueError(ending)
                await ctx.call_entity(A, Account.add, 1_000)
        except ValueError:
            pass
        except LockLostError as error:
            return f"lost {isinstance(error, TaskFailedError)}"
        return await ctx.wait_for_external_event("never")

    @app.orchestrator
    async def waiter(ctx: OrchestrationContext, ending: str) -> str:
        """Ask for locks one of which somebody else holds, and give up."""
        if ending == "is over":
            return await ctx.wait_for_external_event("never")
        section = ctx.lock(A, B, timeout=BRIEF if ending == "times out" else None)
        asked = section.acquire()
        if ending == "times out":
            with pytest.raises(TimeoutError):
                await asked
        elif ending in ("completes", "fails", "continues"):
            await ctx.wait_for_external_event("go")
            if ending == "fails":
                raise ValueError(ending)
            if ending == "continues":
                ctx.continue_as_new("is over")
            return ending
        else:
            await asked
            await ctx.call_entity(A, Account.add, 1_000)
        return await ctx.wait_for_external_event("never")

    @app.orchestrator
    async def keeper(ctx: OrchestrationContext, keys: list[str]) -> None:
        async with ctx.lock(*(EntityId(Account, key) for key in keys)):
            await ctx.wait_for_external_event("go")

    @app.orchestrator
    async def user(ctx: OrchestrationContext, keys: list[str]) -> int:
        accounts = [EntityId(Account, key) for key in keys]
        async with ctx.lock(*accounts):
            return sum([await ctx.call_entity(account, Account.add, 1) for account in accounts])

    _ = (holder, waiter, keeper, user)
    return app


def on(store: Store, app: App, scenario: Callable[[Run], Coroutine[Any, Any, Any]]) -> None:
    async def main() -> None:
        async with running(app, store) as run:
            await scenario(run)

    asyncio.run(main())


async def lock_of(run: Run, entity: EntityId[Any]) -> str | None:
    found = await run.client.get_entity(entity)
    return None if found is None or found.lock is None else found.lock.instance_id


async def is_held(run: Run, by: str | None, *entities: EntityId[Any]) -> None:
    async def held() -> bool:
        return all([await lock_of(run, entity) == by for entity in entities])

    await eventually(held)


async def waits(run: Run, entity: EntityId[Any], *expected: str) -> None:
    """Wait until these, and no others, stand in line for the lock of an entity."""

    async def stand_in_line() -> bool:
        found = await run.client.get_entity(entity)
        return found is not None and [each.instance_id for each in found.lock_requests] == list(expected)

    await eventually(stand_in_line)


async def has_status(run: Run, instance_id: str, *wanted: OrchestrationStatus) -> None:
    async def reached() -> bool:
        status = await run.client.get_status(instance_id)
        return status is not None and status.runtime_status in wanted

    await eventually(reached)


async def use(run: Run, *keys: str) -> int:
    handle = await run.client.start_new("user", list(keys))
    return await handle.wait_for_completion(timeout=SOON)


async def end(run: Run, instance_id: str, ending: str) -> None:
    """Let an orchestration end, or lose its locks, in the way it was started for; some do it by themselves."""
    client = run.client
    match ending:
        case "cancelled":
            await client.cancel(instance_id)
        case "terminated":
            await client.terminate(instance_id)
        case "replaced":
            policy = IdPolicy(replace=frozenset(OrchestrationStatus))
            await client.start_new("holder", "is over", instance_id=instance_id, id_policy=policy)
        case "parked":
            assert run.engine.node is not None
            run.engine.node.parking.park_by_id(instance_id, FailureDetails("SomeError", "it has to be looked at"))
        case "broken":
            for entity in (A, B):
                taken = await client.break_lock(entity)
                assert taken is not None
                assert taken.instance_id == instance_id
        case "expires" | "lease" | "times out":
            pass
        case _:
            await client.raise_event(instance_id, "go")
