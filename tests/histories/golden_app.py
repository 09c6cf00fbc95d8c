"""The orchestrators whose histories are recorded here. Add to them; change none: they must replay for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from holdfast import (
    App,
    DurableTask,
    Entity,
    EntityId,
    ExternalEvent,
    LockLostError,
    OrchestrationContext,
    RetryPolicy,
    TaskFailedError,
    activity_context,
    when_all,
    when_any,
)
from holdfast.errors import CancelledError
from holdfast.model.retry import RetryContext
from holdfast.replay.races import race, select

app = App()
A_MOMENT = timedelta(milliseconds=20)
LONG = timedelta(days=365)


class OutOfStockError(Exception):
    """An error of the app's own."""


@dataclass
class Order:
    item: str
    count: int = 1


# Activities


@app.activity
async def double(number: int) -> int:
    return 2 * number


@app.activity(retry=RetryPolicy(max_attempts=3, first_retry_interval=timedelta(milliseconds=5)))
async def third_time_lucky(number: int) -> int:
    if activity_context().attempt < 3:
        raise ConnectionError("not yet")
    return number


@app.activity
async def reserve(order: Order) -> Order:
    if order.item == "pears":
        raise OutOfStockError(f"no {order.item} left")
    return order


@app.activity
async def give_back(order: Order) -> None: ...


@app.activity
async def never() -> None:
    await asyncio.Event().wait()


# Entities


@app.entity
@dataclass
class Account(Entity):
    balance: int = 0

    def add(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def overdraw(self) -> None:
        raise ValueError("the limit")


# Calls


@app.orchestrator
async def chain(ctx: OrchestrationContext, length: int) -> int:
    value = 1
    for _ in range(length):
        value = await ctx.call_activity(double, value)
    return value


@app.orchestrator
async def fan_out(ctx: OrchestrationContext, width: int) -> int:
    return sum(await when_all(ctx.call_activity(double, number) for number in range(width)))


@app.orchestrator
def generator(ctx: OrchestrationContext, number: int) -> Generator[DurableTask[Any], Any, int]:
    doubled = yield ctx.call_activity(double, number)
    yield ctx.create_timer(A_MOMENT)
    again = yield from ctx.call_activity(double, doubled)
    return doubled + again


@app.orchestrator
async def retries(ctx: OrchestrationContext) -> list[Any]:
    """The hub's retries, a policy in the orchestrator, and a handler that says when."""
    seen: list[Any] = [await ctx.call_activity(third_time_lucky, 7)]

    def handler(retry: RetryContext) -> timedelta | bool:
        return A_MOMENT if retry.attempts_made < 3 else False

    twice = RetryPolicy(max_attempts=2, first_retry_interval=A_MOMENT, jitter=False)
    for call in (
        lambda: ctx.call_activity(reserve, Order("pears"), retry=handler),
        lambda: ctx.call_sub_orchestrator(fails, "pears", retry=twice),
    ):
        try:
            await call()
        except OutOfStockError as error:
            seen.append(str(error.args[0]))
    return seen


@app.orchestrator
async def fails(ctx: OrchestrationContext, item: str) -> Order:
    return await ctx.call_activity(reserve, Order(item, count=2))


@app.orchestrator
async def sub_orchestrations(ctx: OrchestrationContext, width: int) -> list[int]:
    lengths = await when_all(ctx.call_sub_orchestrator(chain, n, tags={"n": str(n)}) for n in range(width))
    named = await ctx.call_sub_orchestrator(chain, 4, instance_id=f"{ctx.instance_id}-named", timeout=LONG)
    detached = ctx.start_orchestration(events, instance_id=f"{ctx.instance_id}-detached")
    ctx.send_event(detached, ORDERED, Order("plums"))
    await ctx.create_timer(A_MOMENT)
    return [*lengths, named]


# Time and events

ORDERED = ExternalEvent("Ordered", Order)


@app.orchestrator
async def timers(ctx: OrchestrationContext) -> bool:
    started = ctx.current_utc_datetime
    long = ctx.create_timer(LONG)
    await ctx.create_timer(A_MOMENT)
    await ctx.create_timer(started)
    long.cancel()
    taken_back = ctx.create_timer(LONG)
    taken_back.cancel()
    return ctx.current_utc_datetime >= started + A_MOMENT


@app.orchestrator
async def events(ctx: OrchestrationContext) -> list[str]:
    seen: list[str] = []
    try:
        await ctx.wait_for_external_event("Never", timeout=A_MOMENT)
    except TimeoutError:
        seen.append("timeout")
    order = await ctx.wait_for_external_event(ORDERED, timeout=LONG)
    return [*seen, order.item]


@app.orchestrator
async def continues(ctx: OrchestrationContext, left: int) -> str:
    tick = await ctx.wait_for_external_event("tick")
    doubled = await ctx.call_activity(double, left)
    if left == 1:
        return f"{tick} {doubled}"
    ctx.continue_as_new(left - 1)
    return ""


# Entities


@app.orchestrator
async def entities(ctx: OrchestrationContext) -> list[Any]:
    source, target = EntityId(Account, "source"), EntityId(Account, "target")
    ctx.signal_entity(source, Account.add, 100)
    seen: list[Any] = [await ctx.call_entity(source, Account.add, 1)]
    try:
        await ctx.call_entity(target, Account.overdraw)
    except ValueError as error:
        seen.append(str(error.args[0]))
    async with ctx.lock(target, source):
        seen.append(ctx.is_locked)
        seen.append(await ctx.call_entity(source, Account.add, -50))
        seen.append(await ctx.call_entity(target, Account.add, 50))
    return seen


@app.orchestrator
async def keeps_a_lock(ctx: OrchestrationContext) -> None:
    async with ctx.lock(EntityId(Account, "taken")):
        await ctx.wait_for_external_event("let go")


@app.orchestrator
async def locks(ctx: OrchestrationContext) -> list[Any]:
    """One whose lease is over, one that is not free in time, and one that is given up."""
    free, taken = EntityId(Account, "free"), EntityId(Account, "taken")
    seen: list[Any] = []
    try:
        async with ctx.lock(free, timeout=timedelta(minutes=1), lease=timedelta(milliseconds=20)):
            seen.append(await ctx.call_entity(free, Account.add, 1))
            ctx.signal_entity(taken, Account.add, 1, due=timedelta(days=1))
            await ctx.create_timer(timedelta(milliseconds=60))
            await ctx.call_entity(free, Account.add, 1)
    except LockLostError as error:
        seen.append(error.details.error_type)
    try:
        async with ctx.lock(free, taken, timeout=timedelta(milliseconds=20)):
            seen.append("not free")
    except TimeoutError:
        seen.append("timed out")
    request = ctx.lock(taken).acquire()
    request.cancel()
    async with ctx.lock(free):
        seen.append(await ctx.call_entity(free, Account.add, 1))
    return seen


# Combinations


@app.orchestrator
async def races(ctx: OrchestrationContext) -> list[Any]:
    """Losers are cancelled: a timer, an activity, a sub-orchestration, a wait."""
    seen: list[Any] = [await race(ctx.call_activity(double, 1), ctx.create_timer(LONG))]
    won = await select(ctx.create_timer(A_MOMENT), ctx.call_activity(never), ctx.call_sub_orchestrator(events))
    seen.append(won[0])
    first = await when_any([ctx.wait_for_external_event("Never"), ctx.call_activity(double, 2)])
    seen.append(first.result)
    return seen


@app.orchestrator
async def maps(ctx: OrchestrationContext) -> list[Any]:
    seen: list[Any] = [await ctx.map(double, range(5), concurrency=2)]
    try:
        await ctx.map(reserve, [Order("plums"), Order("pears"), Order("figs")], concurrency=1, fail_fast=True)
    except OutOfStockError as error:
        seen.append(str(error.args[0]))
    return seen


@app.orchestrator
async def task_groups(ctx: OrchestrationContext) -> list[Any]:
    async def doubled_twice(number: int) -> int:
        return await ctx.call_activity(double, await ctx.call_activity(double, number))

    async with ctx.task_group() as group:
        tasks = [group.create_task(doubled_twice(number)) for number in range(3)]
    seen: list[Any] = [task.result for task in tasks]
    try:
        async with ctx.task_group() as group:
            group.create_task(ctx.call_activity(never))
            group.create_task(ctx.call_activity(reserve, Order("pears")))
    except* OutOfStockError as errors:
        seen.append(len(errors.exceptions))
    return seen


@app.orchestrator
async def sagas(ctx: OrchestrationContext) -> list[Any]:
    reserved: list[Any] = []
    try:
        async with ctx.saga() as saga:
            for item in ("plums", "figs", "pears"):
                order = await ctx.call_activity(reserve, Order(item))
                saga.add_compensation(give_back, order)
                reserved.append(order.item)
    except OutOfStockError:
        reserved.append("undone")
    return reserved


# Ends


@app.orchestrator
async def cancelled(ctx: OrchestrationContext) -> None:
    try:
        await ctx.call_activity(never)
    finally:
        await ctx.call_activity(give_back, Order("plums"))


@app.orchestrator
async def survives_cancellation(ctx: OrchestrationContext) -> str:
    try:
        await ctx.call_sub_orchestrator(cancelled)
    except CancelledError:
        await ctx.call_activity(double, 4)
    return "survived"


@app.orchestrator
async def terminated(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(double, 1)
    await ctx.create_timer(LONG)


@app.orchestrator
async def catches(ctx: OrchestrationContext) -> str:
    try:
        await ctx.call_sub_orchestrator(fails, "pears")
    except TaskFailedError as error:
        raise RuntimeError("no order") from error
    return ""


@app.orchestrator
async def running(ctx: OrchestrationContext) -> None:
    """Its history is that of an instance in flight."""
    ctx.set_custom_status({"step": 1})
    await ctx.call_activity(double, 1)
    ctx.set_custom_status("waits")
    await ctx.wait_for_external_event("Never")


# What is the same on every replay, and what changes it


@app.orchestrator
async def deterministic(ctx: OrchestrationContext) -> list[Any]:
    logger = ctx.create_replay_safe_logger(logging.getLogger("golden"))
    chosen = ctx.random.randrange(1_000_000)
    doubled = await ctx.call_activity(double, chosen)
    logger.info("doubled %s", doubled)
    ids = [str(ctx.new_uuid()), str(ctx.new_uuid())]
    await ctx.call_activity(reserve, Order(ids[0], ctx.random.randrange(10)))
    times = [ctx.current_utc_datetime.isoformat(), ctx.instance_id, ctx.execution_id, ctx.name, ctx.version]
    return [*ids, ctx.random.random(), *times, dict(ctx.tags), ctx.parent_instance_id]


@app.orchestrator
async def patched(ctx: OrchestrationContext) -> int:
    value = 1
    for _ in range(2):
        if ctx.patched("twice"):
            value = await ctx.call_activity(double, value)
        value = await ctx.call_activity(double, value)
    return value


@app.orchestrator(name="versioned", version="2.0")
async def versioned_2(ctx: OrchestrationContext) -> str:
    assert ctx.version is not None
    await ctx.call_sub_orchestrator("versioned", version="1.9")
    return ctx.version


@app.orchestrator(name="versioned", version="1.9")
async def versioned_1(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(double, 19)


@app.orchestrator
async def updates(ctx: OrchestrationContext) -> int:
    """One update is rejected, one fails, one waits for an activity, one is answered at once, one comes too late."""
    total = 0

    def not_negative(amount: int) -> None:
        if amount < 0:
            raise ValueError("it must not be negative")

    async def add(amount: int) -> int:
        nonlocal total
        if amount == 13:
            raise OutOfStockError("no luck")
        total += await ctx.call_activity(double, amount)
        return total

    def peek() -> int:
        return total

    async def late() -> None:
        await ctx.create_timer(LONG)

    ctx.set_update_handler("add", add, validator=not_negative)
    ctx.set_update_handler("peek", peek)
    ctx.set_update_handler("late", late)
    ctx.set_query_handler("total", peek)
    await ctx.wait_for_external_event("enough")
    return total
