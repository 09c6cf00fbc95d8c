"""The app that is measured. Its functions do nothing, so that what is left is the cost of doing it durably."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from holdfast import App, Entity, EntityId, ExternalEvent, OrchestrationContext, when_all

app = App()

STEPS = 3
"""Activities in one `chain_of_three`."""

GO = ExternalEvent("go", int)


class Probe:
    """What activities note down or ask; the process that runs them owns it."""

    def __init__(self) -> None:
        self.step_times: list[float] = []
        self.to_hold = 0
        """So many calls of `hold` keep their callers in flight until the process is killed; 0: none does."""
        self.held = 0
        self.all_held = asyncio.Event()


probe = Probe()


@app.activity
async def increment(number: int) -> int:
    return number + 1


@app.activity
async def note_time(number: int) -> int:
    probe.step_times.append(time.perf_counter())
    return number + 1


@app.activity
async def hold(number: int) -> int:
    if probe.to_hold:
        probe.held += 1
        if probe.held == probe.to_hold:
            probe.all_held.set()
        await asyncio.Event().wait()
    return number + 1


@app.orchestrator
async def chain_of_three(ctx: OrchestrationContext, number: int) -> int:
    for _ in range(STEPS):
        number = await ctx.call_activity(increment, number)
    return number


@app.orchestrator
async def start_only(ctx: OrchestrationContext, number: int) -> int:
    return number


@app.orchestrator
async def fan_out(ctx: OrchestrationContext, width: int) -> int:
    return sum(await when_all([ctx.call_activity(increment, number) for number in range(width)]))


@app.orchestrator
async def long_chain(ctx: OrchestrationContext, length: int) -> int:
    number = 0
    for _ in range(length):
        number = await ctx.call_activity(note_time, number)
    return number


@app.orchestrator
async def chain_and_wait(ctx: OrchestrationContext, length: int) -> int:
    for number in range(length):
        await ctx.call_activity(increment, number)
    return await ctx.wait_for_external_event(GO)


@app.orchestrator
async def wait_for_go(ctx: OrchestrationContext) -> int:
    return await ctx.wait_for_external_event(GO)


@app.orchestrator
async def keep(ctx: OrchestrationContext, text: str) -> None:
    """End at once; the input stays in the store."""


@app.orchestrator
async def sleep_until(ctx: OrchestrationContext, due: datetime) -> None:
    await ctx.create_timer(due)


@app.orchestrator
async def sleep_a_second(ctx: OrchestrationContext) -> float:
    """Return when the timer was due, in seconds since the epoch."""
    due = ctx.current_utc_datetime + timedelta(seconds=1)
    await ctx.create_timer(due)
    return due.timestamp()


@app.orchestrator
async def chain_with_hold(ctx: OrchestrationContext, number: int) -> int:
    number = await ctx.call_activity(increment, number)
    number = await ctx.call_activity(hold, number)
    return await ctx.call_activity(increment, number)


@app.entity
@dataclass
class Counter(Entity):
    value: int = 0

    def add(self, amount: int) -> None:
        self.value += amount


@dataclass
class Transfer:
    source: str
    target: str
    amount: int


@app.entity
@dataclass
class Account(Entity):
    balance: int = 0

    def add(self, amount: int) -> None:
        self.balance += amount

    def get(self) -> int:
        return self.balance


@app.orchestrator
async def transfer(ctx: OrchestrationContext, order: Transfer) -> bool:
    source, target = EntityId(Account, order.source), EntityId(Account, order.target)
    async with ctx.lock(source, target):
        if await ctx.call_entity(source, Account.get) < order.amount:
            return False
        await when_all(
            [
                ctx.call_entity(source, Account.add, -order.amount),
                ctx.call_entity(target, Account.add, order.amount),
            ]
        )
        return True
