"""Loops without end, monitors, handlers, helpers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from company_library import retried, with_audit
from holdfast import App, Client, DurableTask, OrchestrationContext

if TYPE_CHECKING:
    import requests

app = App()
POLL = timedelta(minutes=1)


@dataclass
class Job:
    url: str
    until: datetime
    done: set[str] = field(default_factory=set)
    tries: int = 0


@app.activity
async def look(url: str, /) -> str:
    return url


@app.orchestrator
async def monitor(ctx: OrchestrationContext, job: Job) -> str:
    while True:
        if await ctx.call_activity(look, job.url) == "done":
            return "done"
        if ctx.current_utc_datetime > job.until:
            break
        await ctx.create_timer(POLL)
    return "expired"


@app.orchestrator
async def eternal(ctx: OrchestrationContext, turn: int) -> None:
    while True:
        await ctx.create_timer(POLL)
        if ctx.history_events > 1_000:
            ctx.continue_as_new(turn + 1, preserve_unprocessed_events=True)
            return


@app.orchestrator
async def bounded(ctx: OrchestrationContext) -> int:
    left = 3
    while left > 0:
        left -= 1
        await ctx.create_timer(POLL)
    while True:
        try:
            await ctx.call_activity(look, "x")
        except ValueError:
            raise
        else:
            break
    return left


@app.orchestrator
async def cart(ctx: OrchestrationContext) -> dict[str, int]:
    items: dict[str, int] = {}
    total = 0

    def check(item: str) -> None:
        if item in items:
            raise ValueError(item)

    async def add(item: str) -> int:
        nonlocal total
        items[item] = len(await ctx.call_activity(look, item))
        total += items[item]
        return total

    ctx.set_query_handler("items", lambda: items)
    ctx.set_update_handler("add", add, validator=check)
    await ctx.wait_for_external_event("checkout")
    items.clear()
    return items


class Steps:
    """Helpers that hold the context."""

    total: int

    def __init__(self, ctx: OrchestrationContext) -> None:
        self.ctx = ctx
        self.seen: list[str] = []
        self.log = ctx.create_replay_safe_logger(logging.getLogger("steps"))

    async def first(self, url: str) -> str:
        self.seen.append(url)
        self.log.info("first")
        return await self.ctx.call_activity(look, url)

    async def run(self) -> list[str]:
        self.seen.append(await self.first("a"))
        pending: DurableTask[str] = self.ctx.call_activity(look, "b")
        await self.until(pending)
        return self.seen

    async def until(self, task: DurableTask[str]) -> None:
        await task


@app.orchestrator
async def with_object(ctx: OrchestrationContext, job: Job) -> list[str]:
    steps = Steps(ctx)
    job.done.add("x")
    job.tries += 1
    if "x" in job.done:
        await steps.run()
    return await Steps(ctx).run()


@asynccontextmanager
async def noted(ctx: OrchestrationContext, name: str) -> AsyncIterator[str]:
    ctx.set_custom_status(name)
    yield name
    ctx.set_custom_status(None)


@app.orchestrator
async def with_library(ctx: OrchestrationContext, job: Job) -> str:
    audited = with_audit(ctx)
    async with noted(ctx, "work") as name:
        await audited.note(name)
    return await retried(ctx, look, job.url)


@app.orchestrator
async def recursive(ctx: OrchestrationContext, depth: int) -> int:
    async def down(left: int) -> int:
        return 0 if left == 0 else 1 + await down(left - 1)

    return await down(depth) + (await recursive(ctx, 0) if depth else 0)


@app.orchestrator
async def typed(ctx: OrchestrationContext, status: requests.Response | None = None, *, size: int = 3) -> int:
    width: int = size
    rows = [[row * column for column in range(width)] for row in range(width)]
    (lambda: None)()
    return rows[0][0] if status is None else int(status.ok)


@app.route("/start", methods=["POST"])
async def start(request: object, client: Client) -> str:
    return (await client.start_new(monitor, Job("x", datetime.now()))).instance_id
