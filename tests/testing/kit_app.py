"""A small shop, for the tests of the user's test kit."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta

from holdfast import (
    App,
    CancelledError,
    Entity,
    EntityContext,
    EntityId,
    ExternalEvent,
    OrchestrationContext,
    RetryPolicy,
    activity_context,
    entity_context,
)

app = App()
ANSWER = ExternalEvent("Answer", bool)


@dataclass
class Claim:
    amount: int
    patience: timedelta = timedelta(days=3)


@app.activity
def fee(amount: int) -> int:
    return amount // 10


@app.activity
async def reach_out(host: str) -> None:
    import asyncio

    await asyncio.open_connection(host, 80)


@app.activity
def copy_pages(pages: int) -> str:
    context = activity_context()
    for page in range(context.last_progress(int) or 0, pages):
        if context.cancelled:
            return "given up"
        context.heartbeat(page + 1)
    return f"attempt {context.attempt}"


@app.entity
@dataclass
class Till(Entity):
    money: int = 0

    def take(self, amount: int) -> int:
        if amount > self.money:
            raise ValueError(f"There is only {self.money}.")
        self.money -= amount
        context = entity_context()
        context.signal_entity(EntityId(Till, "log"), Till.put, amount)
        if self.money == 0:
            context.start_orchestration(refill, context.entity_id.key, instance_id="refill")
        return self.money

    def put(self, amount: int) -> None:
        self.money += amount

    def close(self) -> None:
        entity_context().delete_state()

    async def ask(self) -> str:
        return entity_context().request_id


@app.entity
def counter(ctx: EntityContext, amount: int = 1) -> int:
    ctx.set_state(ctx.get_state(int) + amount)
    return ctx.get_state(int)


@app.orchestrator
async def refill(ctx: OrchestrationContext, key: str) -> None:
    await ctx.create_timer(timedelta(days=1))


@app.orchestrator
async def refund(ctx: OrchestrationContext, claim: Claim) -> int:
    """Waits for an answer, takes money out of a locked till, and pays out what the fee leaves."""
    try:
        is_granted = await ctx.wait_for_external_event(ANSWER, timeout=claim.patience)
    except TimeoutError:
        ctx.set_custom_status("forgotten")
        return 0
    if not is_granted:
        return 0
    till = EntityId(Till, "main")
    async with ctx.lock(till):
        await ctx.call_entity(till, Till.take, claim.amount)
    ctx.signal_entity(EntityId(Till, "log"), Till.put, 1)
    ctx.send_event("audit", "refunded", claim.amount)
    return claim.amount - await ctx.call_activity(fee, claim.amount)


@app.orchestrator
async def parent(ctx: OrchestrationContext, amounts: list[int]) -> int:
    try:
        return sum([await ctx.call_sub_orchestrator(refund, Claim(amount)) for amount in amounts])
    except CancelledError:
        await ctx.call_activity(fee, 0)
        raise


@app.orchestrator
async def patient(ctx: OrchestrationContext, rounds: int) -> int:
    """Tries again with timers of its own, answers queries and updates, and starts over."""
    done = 0

    def set_done(value: int) -> int:
        nonlocal done
        done = value
        return done

    ctx.set_query_handler("done", lambda: done)
    ctx.set_update_handler("set", set_done)
    policy = RetryPolicy(
        max_attempts=3,
        first_retry_interval=timedelta(hours=1),
        retry_on=lambda failure: "busy" in failure.error_message,
    )
    await ctx.call_activity(fee, 1, retry=policy)
    if rounds:
        ctx.continue_as_new(rounds - 1)
    return done


@app.orchestrator
async def fetch(ctx: OrchestrationContext, page: str) -> str | None:
    response = await ctx.call_http("GET", f"https://example.org/{page}")
    return response.content


@app.orchestrator
async def dicey(ctx: OrchestrationContext) -> int:
    return await ctx.call_activity(fee, random.randrange(10**9))
