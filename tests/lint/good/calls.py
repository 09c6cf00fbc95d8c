"""Chains, fan-outs, races, sagas: how durable tasks are meant to be used."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
import requests

from holdfast import (
    App,
    CancelledError,
    DurableTask,
    Entity,
    EntityId,
    ExternalEvent,
    OrchestrationContext,
    RetryPolicy,
    TaskFailedError,
    race,
    select,
    when_all,
    when_any,
)

app = App()
APPROVAL = ExternalEvent("Approval", bool)
DAY = timedelta(days=1)
POLICY = RetryPolicy(max_attempts=3)


@dataclass
class Order:
    item: str
    count: int = 1
    steps: tuple[str, ...] = ()


@app.activity
def reserve(order: Order) -> Order:
    requests.post("http://stock", json={"item": order.item}, timeout=3)
    return replace(order, steps=(*order.steps, "reserve"))


@app.activity(name="refund", retry=POLICY)
async def give_back(order: Order) -> None:
    async with httpx.AsyncClient() as client:
        await client.post("http://refund")


@app.entity
@dataclass
class Account(Entity):
    balance: int = 0

    def add(self, amount: int) -> int:
        self.balance += amount
        print(self.balance)
        return self.balance


@app.orchestrator
async def chain(ctx: OrchestrationContext, order: Order) -> Order:
    reserved = await ctx.call_activity(reserve, order)
    await ctx.call_activity("REFUND", reserved)
    return reserved


@app.orchestrator
async def fan_out(ctx: OrchestrationContext, orders: list[Order]) -> int:
    done = await when_all([ctx.call_activity(reserve, order) for order in orders])
    more = await when_all(ctx.call_activity(reserve, order) for order in done)
    first, second = await when_all(ctx.call_activity(reserve, done[0]), ctx.create_timer(DAY))
    return sum(order.count for order in [*more, first]) + (second is None)


@app.orchestrator
def generator(ctx: OrchestrationContext, order: Order) -> Generator[DurableTask[Any], Any, Order]:
    reserved = yield ctx.call_activity(reserve, order)
    yield ctx.create_timer(DAY)
    section = ctx.lock(EntityId(Account, "a"))
    yield section.acquire()
    section.release()
    return (yield from twice(ctx, reserved))


def twice(ctx: OrchestrationContext, order: Order) -> Generator[DurableTask[Any], Any, Order]:
    once = yield from ctx.call_activity(reserve, order)
    return (yield from ctx.call_activity(reserve, once))


@app.orchestrator
async def first_wins(ctx: OrchestrationContext, order: Order) -> str:
    timer = ctx.create_timer(DAY)
    work = ctx.call_activity(reserve, order)
    winner = await when_any(work, timer)
    if winner is timer:
        work.cancel()
    _ = ctx.call_activity(give_back, order)  # whatever becomes of it
    match await select(ctx.wait_for_external_event(APPROVAL), ctx.create_timer(DAY)):
        case (0, is_approved):
            return "yes" if is_approved else "no"
        case _:
            return str(await race([ctx.call_activity(reserve, order)]))


@app.orchestrator
async def saga(ctx: OrchestrationContext, orders: list[Order]) -> list[str]:
    done: list[str] = []
    async with ctx.saga() as undo:
        for order in orders:
            reserved = await ctx.call_activity(reserve, order)
            undo.add_compensation(give_back, reserved)
            done.append(reserved.item)
    return done


@app.orchestrator
async def locked(ctx: OrchestrationContext, amount: int) -> int:
    source, target = EntityId(Account, "source"), EntityId(Account, "target")
    ctx.signal_entity(source, Account.add, 100)
    async with ctx.lock(source, target, timeout=DAY):
        await ctx.call_entity(source, Account.add, -amount)
        return await ctx.call_entity(target, Account.add, amount)


@app.orchestrator
async def group(ctx: OrchestrationContext, orders: list[Order]) -> int:
    async def steps(order: Order) -> Order:
        return await ctx.call_activity(reserve, await ctx.call_activity(reserve, order))

    async with ctx.task_group() as scope:
        tasks = [scope.create_task(steps(order)) for order in orders]
        scope.create_task(ctx.call_activity(give_back, orders[0]))
    return sum(task.result.count for task in tasks)


@app.orchestrator
async def failures(ctx: OrchestrationContext, order: Order) -> str:
    try:
        await ctx.call_activity(reserve, order, retry=RetryPolicy(max_attempts=2), timeout=DAY)
    except (requests.ConnectionError, httpx.HTTPError, TimeoutError) as error:
        return type(error).__name__
    except TaskFailedError as error:
        raise RuntimeError("no order") from error
    except Exception:
        return "failed"
    except BaseException:
        await ctx.call_activity(give_back, order)
        raise
    finally:
        await ctx.call_activity(give_back, order)
    with contextlib.suppress(CancelledError):
        await ctx.create_timer(DAY)
    return "done"


@app.orchestrator
async def starts_others(ctx: OrchestrationContext, order: Order) -> list[Any]:
    ctx.start_orchestration(chain, order, instance_id=f"{ctx.instance_id}-later")
    ctx.send_event("someone", APPROVAL, True)
    lengths = await ctx.map(reserve, [order], concurrency=3)
    answer = await ctx.call_http("GET", "http://example.com")
    return [*lengths, answer.status_code, await ctx.call_sub_orchestrator("chain", order)]


def note(ctx: OrchestrationContext, text: str) -> None:
    if ctx.is_replaying:
        return
    print(text)


@app.orchestrator
async def replays(ctx: OrchestrationContext) -> str:
    if ctx.is_replaying:
        seen = "again"
    else:
        seen = "first"
        print("once")
    note(ctx, seen)
    if ctx.patched("more"):
        await ctx.create_timer(DAY)
    ctx.set_custom_status("done")
    return "" if seen else "never"
