"""An app of which everything can be under way at once, and what comes out of it wherever it has been meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast import App, Client, Entity, EntityId, HostConfig, OrchestrationContext, when_all
from holdfast.model.status import OrchestrationStatus

CONFIG = HostConfig(drain_s=0.05)
SOON = timedelta(seconds=20)
LONG = timedelta(days=365)

EXPECTED: dict[str, Any] = {
    "done": 8,
    "held": [0, 10, 20],
    "waits": ["one", "two", "early"],
    "sleeps": "slept",
    "raced": "now",
    "parent": ["for the child", 2],
    "child": "for the child",
    "locks": 3,
    "queues": 103,
    "again": ["a", "b"],
    "fickle": [0, "seen"],
    "planned": 2,
    "paused": "go on",
}
"""The results of all that is started; `doomed` is terminated at the end."""


@dataclass
class Account(Entity):
    balance: int = 0

    def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance


A, B, C = EntityId(Account, "a"), EntityId(Account, "b"), EntityId(Account, "c")


def make_app(*, is_open: bool, is_changed: bool = False) -> App:
    """Make the app.

    Args:
        is_open: whether the activities `gated` return, or are under way for ever.
        is_changed: whether the code of `fickle` asks for something else than it used to.
    """
    app = App()
    app.entity(Account)

    @app.activity
    async def double(number: int) -> int:
        return 2 * number

    @app.activity
    async def gated(number: int) -> int:
        if not is_open:
            await asyncio.Event().wait()
        return 10 * number

    @app.orchestrator
    async def chain(ctx: OrchestrationContext, length: int) -> int:
        value = 1
        for _ in range(length):
            value = await ctx.call_activity(double, value)
        return value

    @app.orchestrator
    async def held(ctx: OrchestrationContext) -> list[int]:
        return await when_all(ctx.call_activity(gated, number) for number in range(3))

    @app.orchestrator
    async def waits(ctx: OrchestrationContext) -> list[str]:
        return [await ctx.wait_for_external_event(name) for name in ("First", "Second", "Early")]

    @app.orchestrator
    async def sleeps(ctx: OrchestrationContext) -> str:
        await ctx.create_timer(timedelta(seconds=3))
        return "slept"

    @app.orchestrator
    async def raced(ctx: OrchestrationContext) -> str:
        return await ctx.wait_for_external_event("Go", timeout=LONG)

    @app.orchestrator
    async def parent(ctx: OrchestrationContext) -> list[Any]:
        return [
            await ctx.call_sub_orchestrator(child, instance_id="child"),
            await ctx.call_sub_orchestrator(chain, 1),
        ]

    @app.orchestrator
    async def child(ctx: OrchestrationContext) -> str:
        return await ctx.wait_for_external_event("Go")

    @app.orchestrator
    async def locks(ctx: OrchestrationContext) -> int:
        async with ctx.lock(A, B):
            await ctx.call_entity(A, Account.add, 1)
            await ctx.wait_for_external_event("Go")
            return await ctx.call_entity(A, Account.add, 2)

    @app.orchestrator
    async def queues(ctx: OrchestrationContext) -> int:
        async with ctx.lock(A):
            return await ctx.call_entity(A, Account.add, 100)

    @app.orchestrator
    async def again(ctx: OrchestrationContext, seen: list[str]) -> list[str]:
        seen = [*seen, await ctx.wait_for_external_event("Tick")]
        if len(seen) < 2:
            ctx.continue_as_new(seen)
        return seen

    @app.orchestrator
    async def fickle(ctx: OrchestrationContext) -> list[Any]:
        first = await ctx.call_activity(double if is_changed else gated, 0)
        return [first, await ctx.wait_for_external_event("Seen")]

    @app.orchestrator
    async def never(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("Never")

    _ = (held, waits, sleeps, raced, parent, locks, queues, again, fickle, never)
    return app


async def begin(client: Client) -> None:
    """Start everything, and bring it to where it waits. The app is not open."""
    await client.start_new("chain", 3, instance_id="done")
    for name in ("held", "waits", "sleeps", "raced", "parent", "locks", "fickle"):
        await client.start_new(name, instance_id=name)
    await client.start_new("again", [], instance_id="again")
    await client.start_new("chain", 1, instance_id="planned", start_at=datetime.now(UTC) + timedelta(seconds=3))
    for name in ("paused", "doomed"):
        await client.start_new("waits" if name == "doomed" else "child", instance_id=name)
    await client.suspend("paused", "for the move")
    await client.raise_event("paused", "Go", "go on")
    await client.raise_event("waits", "Early", "early")
    await client.raise_event("waits", "First", "one", key="first")
    await client.raise_event("again", "Tick", "a")
    assert await client.call_entity(C, Account.add, 5, key="five") == 5
    await client.signal_entity(C, Account.add, 7, due=datetime.now(UTC) + timedelta(seconds=3))
    await client.wait_for_completion("done", timeout=SOON)
    await until(client, lambda status: status == OrchestrationStatus.RUNNING, "child")
    await until_locked(client)
    await client.start_new("queues", instance_id="queues")
    await until(client, lambda status: status == OrchestrationStatus.RUNNING, "queues", "held", "fickle", "again")


async def until(client: Client, holds: Callable[[OrchestrationStatus], bool], *instance_ids: str) -> None:
    async with asyncio.timeout(SOON.total_seconds()):
        for instance_id in instance_ids:
            while (found := await client.get_status(instance_id)) is None or not holds(found.runtime_status):
                await asyncio.sleep(0.005)


async def until_locked(client: Client) -> None:
    async with asyncio.timeout(SOON.total_seconds()):
        while (found := await client.get_entity(A)) is None or found.lock is None:
            await asyncio.sleep(0.005)


async def park(client: Client) -> None:
    """Let `fickle` be parked. The app is changed, and not open."""
    await client.raise_event("fickle", "Seen", "seen")
    await until(client, lambda status: status == OrchestrationStatus.SUSPENDED, "fickle")


async def finish(client: Client) -> dict[str, Any]:
    """Let everything end; return the results. The app is open."""
    await client.raise_event("waits", "First", "repeated", key="first")
    await client.raise_event("waits", "Second", "two")
    for name in ("raced", "child", "locks"):
        await client.raise_event(name, "Go", {"raced": "now", "child": "for the child", "locks": None}[name])
    await client.raise_event("again", "Tick", "b")
    for name in ("fickle", "paused"):
        await client.resume(name)
    await client.terminate("doomed")
    assert await client.call_entity(C, Account.add, 5, key="five") == 5, "it is remembered"
    results = {name: await client.wait_for_completion(name, timeout=SOON) for name in EXPECTED}
    async with asyncio.timeout(SOON.total_seconds()):
        while await client.read_entity_state(C) != Account(12):  # the signal that is due later
            await asyncio.sleep(0.005)
    await until(client, lambda status: status == OrchestrationStatus.TERMINATED, "doomed")
    return results
