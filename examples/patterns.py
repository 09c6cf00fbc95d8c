"""The six patterns of durable functions, each in a few lines: `holdfast run examples/patterns.py` serves them."""

import asyncio
import json
import os
import time
import urllib.request
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from holdfast import App, Client, Entity, EntityId, ExternalEvent, OrchestrationContext, RetryPolicy, when_all
from holdfast.http import check_status_response

app = App()


def note(activity: str, subject: str) -> None:
    """Log that an activity runs, for `examples/demo.py`, which compares this with what Holdfast has recorded."""
    if path := os.environ.get("HOLDFAST_DEMO_LOG"):
        with Path(path).open("a", encoding="utf-8") as log:
            log.write(f"{activity}\t{subject}\n")


@app.activity
async def notify(text: str) -> None:
    note("notify", text)


# 1. Function chaining: the output of one activity is the input of the next; what was done is undone on a failure.


@dataclass
class Order:
    id: str
    price: int
    credit: int = 100
    steps: tuple[str, ...] = ()
    step_takes: timedelta = timedelta(0)


class CardDeclinedError(Exception): ...


async def work(order: Order, step: str) -> Order:
    note(step, order.id)
    await asyncio.sleep(order.step_takes.total_seconds())
    return replace(order, steps=(*order.steps, step))


@app.activity
async def reserve(order: Order) -> Order:
    return await work(order, "reserve")


@app.activity
async def charge(order: Order) -> Order:
    if order.price > order.credit:
        raise CardDeclinedError(f"The card of order {order.id} is not good for {order.price}.")
    return await work(order, "charge")


@app.activity
async def ship(order: Order) -> Order:
    return await work(order, "ship")


@app.activity
async def release(order: Order) -> Order:
    return await work(order, "release")


@app.orchestrator
async def process_order(ctx: OrchestrationContext, order: Order) -> Order:
    reserved = await ctx.call_activity(reserve, order)
    try:
        charged = await ctx.call_activity(charge, reserved)
    except CardDeclinedError:
        return await ctx.call_activity(release, reserved)
    return await ctx.call_activity(ship, charged)


# 2. Fan-out/fan-in: many activities at once, and one result made of all of theirs.


@dataclass
class Source:
    path: str
    files_max: int = 1_000
    file_takes: timedelta = timedelta(0)


@app.activity
def list_files(folder: Source) -> list[Source]:
    note("list_files", folder.path)
    paths = sorted(str(path) for path in Path(folder.path).rglob("*.py"))
    return [replace(folder, path=path) for path in paths[: folder.files_max]]


@app.activity
def count_lines(file: Source) -> int:
    note("count_lines", file.path)
    time.sleep(file.file_takes.total_seconds())
    return Path(file.path).read_bytes().count(b"\n")


@app.orchestrator
async def count_all_lines(ctx: OrchestrationContext, folder: Source) -> int:
    files = await ctx.call_activity(list_files, folder)
    counts = await when_all(ctx.call_activity(count_lines, file) for file in files)
    return sum(counts)


# 3. Async HTTP API: answer 202 at once with the address of the status; the caller polls until the work is done.


@app.activity
async def do_step(seconds: float) -> str:
    note("do_step", str(seconds))
    await asyncio.sleep(seconds)
    return "done"


@app.orchestrator(name="DoWork")
async def do_work(ctx: OrchestrationContext, seconds: float | None) -> str:
    return await ctx.call_activity(do_step, seconds or 0.0)


@app.route("/work", methods=["POST"])
async def start_work(request: Request, client: Client) -> Response:
    run = await client.start_new(do_work, float(request.query_params.get("seconds", "0")))
    return check_status_response(request, run.instance_id)


# 4. Monitor: look at something again and again, until it is done or time is up.


@dataclass
class Job:
    status_url: str
    polling_interval: timedelta = timedelta(minutes=1)
    expires_after: timedelta = timedelta(hours=24)


@app.activity(retry=RetryPolicy(max_attempts=5), timeout=timedelta(seconds=30))
def get_job_status(url: str) -> str:
    note("get_job_status", url)
    with urllib.request.urlopen(url) as response:
        return str(json.load(response)["runtimeStatus"])


@app.orchestrator
async def monitor_job(ctx: OrchestrationContext, job: Job) -> str:
    expiry = ctx.current_utc_datetime + job.expires_after
    while ctx.current_utc_datetime < expiry:
        if await ctx.call_activity(get_job_status, job.status_url) == "Completed":
            await ctx.call_activity(notify, f"{job.status_url} is completed")
            return "Completed"
        await ctx.create_timer(job.polling_interval)
    return "Expired"


# 5. Human interaction: ask somebody, wait for days at no cost, and go another way if no answer comes.


@dataclass
class Expense:
    employee: str
    amount: int
    approve_within: timedelta = timedelta(hours=72)


APPROVAL = ExternalEvent("ApprovalEvent", bool)


@app.activity
async def pay(expense: Expense) -> str:
    note("pay", expense.employee)
    return f"{expense.amount} paid to {expense.employee}"


@app.orchestrator
async def approve_expense(ctx: OrchestrationContext, expense: Expense) -> str:
    await ctx.call_activity(notify, f"{expense.employee} asks for {expense.amount}: see /api/approve/{ctx.instance_id}")
    try:
        is_approved = await ctx.wait_for_external_event(APPROVAL, timeout=expense.approve_within)
    except TimeoutError:
        await ctx.call_activity(notify, f"Nobody has answered {expense.employee}; it goes to the next manager")
        return "escalated"
    return await ctx.call_activity(pay, expense) if is_approved else "rejected"


@app.route("/approve/{instance_id}", methods=["POST"])
async def approve(request: Request, client: Client) -> Response:
    await client.raise_event(request.path_params["instance_id"], APPROVAL, True)
    return Response(status_code=202)


# 6. Aggregator: events from everywhere meet in one entity per metric, which handles them one at a time.


@app.entity
@dataclass
class Counter(Entity):
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def reset(self) -> None:
        self.value = 0

    def get(self) -> int:
        return self.value


@app.route("/events", methods=["POST"])
async def feed(request: Request, client: Client) -> Response:
    event = await request.json()
    await client.signal_entity(EntityId(Counter, event["metric"]), Counter.add, int(event["delta"]))
    return Response(status_code=202)
