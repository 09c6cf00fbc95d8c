"""Correct use of the whole typed API. No checker may object to any of it; `test_typing.py` asks two."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, assert_type

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from holdfast import (
    Activity,
    ActivityContext,
    App,
    CancelledError,
    Client,
    CompensationFailedError,
    DurableTask,
    EntitiesRemoved,
    Entity,
    EntityContext,
    EntityFunction,
    EntityId,
    EntityPage,
    EntityQuery,
    EntitySignal,
    EntityStatus,
    ExternalEvent,
    FailureDetails,
    Host,
    HostConfig,
    InstanceStatus,
    Limits,
    LockState,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationHandle,
    OrchestrationStatus,
    Orchestrator,
    RetryContext,
    RetryPolicy,
    Saga,
    SyncClient,
    SyncOrchestrationHandle,
    TaskFailedError,
    TaskGroup,
    TimerTask,
    activity_context,
    connect,
    entity_context,
    race,
    select,
    when_all,
    when_any,
)

app = App()
logger = logging.getLogger(__name__)


@dataclass
class Order:
    item: str
    amount: int = 1


@dataclass
class Approval:
    approver: str
    granted: bool


APPROVAL = ExternalEvent("approval", Approval)
NUMBERS = ExternalEvent("numbers", list[int])
WAKE_UP = ExternalEvent("wake up", type(None))


# Activities: sync and async, with and without an input, with and without options


@app.activity
def say_hello(city: str) -> str:
    return f"Hello {city}!"


@app.activity
async def file_size(path: str) -> int:
    return len(path)


@app.activity
def roll_dice() -> int:
    return 4


@app.activity
async def fetch_cities() -> list[str]:
    context: ActivityContext = activity_context()
    assert_type(context.idempotency_key, str)
    assert_type(context.attempt, int)
    return ["Tokyo", "Oslo"]


@app.activity
def greet(name: str | None) -> str:
    return f"Hello {name or 'you'}!"


@app.activity
def greet_with_default(name: str = "you") -> str:
    return f"Hello {name}!"


@app.activity(
    retry=RetryPolicy(max_attempts=5, non_retriable=("ValueError",)), timeout=timedelta(seconds=30), queue="orders"
)
async def place(order: Order) -> str:
    return order.item


@app.activity(name="Checksum", process=True, speculative=True)
def checksum(text: str) -> int:
    return sum(text.encode())


@app.activity()
async def ping() -> None: ...


@app.activity(name="today")
def today_number() -> int:
    return 1


assert_type(say_hello("Oslo"), str)
assert_type(roll_dice(), int)
assert_type(checksum("x"), int)


async def call_activities_directly() -> None:
    """A decorated activity is still the function it wraps."""
    assert_type(await file_size("/"), int)
    assert_type(await fetch_cities(), list[str])
    assert_type(await place(Order("tea")), str)
    await ping()


# Orchestrators: async and generator, with and without an input


@app.orchestrator
async def hello_cities(ctx: OrchestrationContext) -> list[str]:
    return [await ctx.call_activity(say_hello, city) for city in ("Tokyo", "Seattle", "London")]


@app.orchestrator
async def total_size(ctx: OrchestrationContext, paths: list[str]) -> int:
    sizes = await when_all(ctx.call_activity(file_size, path) for path in paths)
    assert_type(sizes, list[int])
    return sum(sizes)


@app.orchestrator
async def no_input(ctx: OrchestrationContext) -> int:
    assert_type(await ctx.call_activity(roll_dice), int)
    assert_type(await ctx.call_activity(fetch_cities), list[str])
    assert_type(await ctx.call_activity(today_number, timeout=timedelta(seconds=1)), int)
    assert_type(await ctx.call_activity(greet), str)
    assert_type(await ctx.call_activity(greet, "Ann"), str)
    assert_type(await ctx.call_activity(greet_with_default, "Ann"), str)
    await ctx.call_activity(ping)
    by_name: int = await ctx.call_activity("Checksum", "text")
    return by_name


@app.orchestrator(name="Purchase")
async def purchase(ctx: OrchestrationContext, order: Order) -> str:
    task = ctx.call_activity(place, order, retry=RetryPolicy(max_attempts=3), timeout=timedelta(minutes=1))
    assert_type(task, DurableTask[str])
    try:
        approval = await ctx.wait_for_external_event(APPROVAL, timeout=timedelta(days=3))
    except TimeoutError:
        return "expired"
    assert_type(approval, Approval)
    if not approval.granted:
        return f"refused by {approval.approver}"
    try:
        return await task
    except TaskFailedError as error:
        details: FailureDetails = error.details
        return details.error_message


@app.orchestrator
async def races(ctx: OrchestrationContext) -> str:
    timer = ctx.create_timer(timedelta(hours=1))
    event = ctx.wait_for_external_event(APPROVAL)
    size = ctx.call_activity(file_size, "/")
    assert_type(timer, TimerTask)

    same = await when_any([size, ctx.call_activity(roll_dice)])
    assert_type(same, DurableTask[int])
    assert_type(same.result, int)

    two = await when_any(event, timer)
    if two is timer:
        return "late"
    assert_type(timer.cancel(), bool)
    assert_type(timer.is_cancelled, bool)
    assert_type(event.result, Approval)

    three = await when_any(event, timer, size)
    assert_type(three, DurableTask[Approval] | DurableTask[None] | DurableTask[int])
    assert_type(three.result, Approval | None | int)
    return "in time" if three.is_completed and not three.is_failed else "failed"


# Compositions


@app.orchestrator
async def combines(ctx: OrchestrationContext) -> str:
    size, text = ctx.call_activity(file_size, "/"), ctx.call_activity(say_hello, "Oslo")
    assert_type(await when_all(size, text), tuple[int, str])
    assert_type(await when_all(size, text, ctx.create_timer(timedelta(0)), fail_fast=True), tuple[int, str, None])
    four = await when_all(size, text, text, size)
    assert_type(four, tuple[int, str, str, int])
    assert_type(await when_all([size], fail_fast=True), list[int])
    assert_type(await race([size, size]), int)
    assert_type(await race(size, text), int | str)
    assert_type(await race(size, text, ctx.wait_for_external_event(APPROVAL)), int | str | Approval)
    nested = when_all([when_all([size]), when_all([size])])
    assert_type(await nested, list[list[int]])
    match await select(ctx.wait_for_external_event(APPROVAL), ctx.create_timer(timedelta(days=1)), size):
        case (0, approval):
            assert_type(approval, Approval)
            return approval.approver
        case (1, nothing):
            assert_type(nothing, None)
            return "late"
        case (2, number):
            assert_type(number, int)
            return str(number)


@app.orchestrator
async def maps(ctx: OrchestrationContext) -> int:
    sizes = await ctx.map(file_size, ["/", "/tmp"], concurrency=5, fail_fast=True, timeout=timedelta(seconds=1))
    assert_type(sizes, list[int])
    assert_type(ctx.map(say_hello, (name for name in "ab"), retry=RetryPolicy(jitter=0.1)), DurableTask[list[str]])
    assert_type(await ctx.map(purchase, [Order("tea")]), list[str])
    return sum(sizes)


@app.orchestrator
async def scopes(ctx: OrchestrationContext) -> str:
    async def work(name: str) -> int:
        return len(await ctx.call_activity(say_hello, name))

    async def add(group: TaskGroup, saga: Saga) -> None:
        saga.add_compensation(ping)
        saga.add_compensation("by name", 5)
        saga.add_compensation(place, Order("tea"), retry=RetryPolicy(), timeout=timedelta(minutes=1))
        group.create_task(work("Ann"))

    try:
        async with ctx.task_group() as group, ctx.saga() as saga:
            length = group.create_task(work("Oslo"))
            assert_type(length, DurableTask[int])
            assert_type(group.create_task(ctx.call_activity(file_size, "/")), DurableTask[int])
            await add(group, saga)
            assert_type(length.cancel(), bool)
    except CompensationFailedError as error:
        assert_type(error.failures, tuple[Exception, ...])
        return "mend it by hand"
    except CancelledError:
        return "cancelled"
    return str(length.result)


def decide(context: RetryContext) -> bool | timedelta:
    assert_type(context.last_failure, FailureDetails)
    assert_type(context.elapsed, timedelta)
    return timedelta(seconds=context.attempts_made) if context.attempts_made < 3 else False


@app.orchestrator
async def retries(ctx: OrchestrationContext) -> None:
    await ctx.call_activity(roll_dice, retry=decide)
    await ctx.call_activity(roll_dice, retry=lambda context: context.attempts_made < 5, tags={"cost": "low"})
    await ctx.call_activity(roll_dice, retry=RetryPolicy(retry_on=(ValueError, "httpx.HTTPError"), jitter=1))
    await ctx.call_activity(roll_dice, retry=RetryPolicy(retry_on=lambda failure: failure.is_non_retriable))
    await ctx.call_activity(roll_dice, retry=None, timeout=None, queue=None)
    await ctx.call_activity(say_hello, "Oslo", queue="gpu")
    await ctx.call_sub_orchestrator(
        purchase,
        Order("tea"),
        retry=decide,
        timeout=timedelta(hours=1),
        instance_id="order-7",
        version="2",
        tags={"a": "b"},
    )
    assert_type(ctx.start_orchestration(purchase, Order("tea"), start_at=timedelta(hours=1)), str)


@app.orchestrator
async def parent(ctx: OrchestrationContext, order: Order) -> list[str]:
    first = ctx.call_sub_orchestrator(purchase, order, instance_id=f"{ctx.instance_id}-purchase")
    assert_type(first, DurableTask[str])
    assert_type(await ctx.call_sub_orchestrator(hello_cities), list[str])
    assert_type(await ctx.call_sub_orchestrator(total_size, ["a", "b"]), int)
    assert_type(await ctx.call_sub_orchestrator(generator_sum), int)
    ctx.send_event("another", APPROVAL, Approval("ann", granted=True))
    ctx.send_event("another", WAKE_UP)
    ctx.send_event("another", "by name")
    ctx.send_event("another", "by name", {"granted": True})
    return await when_all([first, ctx.call_sub_orchestrator(hello_generator, "Oslo")])


@app.orchestrator
def hello_generator(ctx: OrchestrationContext, city: str) -> Generator[DurableTask[Any], Any, str]:
    text = yield from ctx.call_activity(say_hello, city)
    assert_type(text, str)
    yield ctx.create_timer(timedelta(seconds=1))
    untyped = yield ctx.call_activity(say_hello, city)
    winner = yield from when_any(ctx.call_activity(file_size, text), ctx.create_timer(timedelta(seconds=1)))
    assert_type(winner, DurableTask[int] | DurableTask[None])
    return text + str(untyped)


@app.orchestrator
def generator_sum(ctx: OrchestrationContext) -> Generator[DurableTask[Any], Any, int]:
    numbers = yield from when_all([ctx.call_activity(roll_dice) for _ in range(3)])
    assert_type(numbers, list[int])
    return sum(numbers) + sum((yield from ctx.wait_for_external_event(NUMBERS)))


@app.orchestrator
async def everything_else(ctx: OrchestrationContext, rounds: int) -> None:
    assert_type(ctx.current_utc_datetime, datetime)
    assert_type(ctx.parent_instance_id, str | None)
    assert_type(ctx.random.random(), float)
    assert_type(str(ctx.new_uuid()), str)
    ctx.create_replay_safe_logger(logger).info("round %s of %s", rounds, ctx.name)
    await ctx.create_timer(ctx.current_utc_datetime + timedelta(minutes=5))
    ctx.set_custom_status({"rounds": rounds})
    if not ctx.is_replaying and rounds:
        ctx.continue_as_new(rounds - 1, preserve_unprocessed_events=False)


# Entities: operations as unbound methods


@app.entity
@dataclass
class Counter(Entity):
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def get(self) -> int:
        return self.value

    def reset(self) -> None:
        self.value = 0


@app.entity(name="account")
@dataclass
class BankAccount(Entity):
    owner: str = ""

    def rename(self, owner: str) -> str:
        self.owner = owner
        return owner


@app.orchestrator
async def count(ctx: OrchestrationContext, key: str) -> int:
    counter = EntityId(Counter, key)
    assert_type(counter, EntityId[Counter])
    ctx.signal_entity(counter, Counter.add, 1)
    ctx.signal_entity(counter, Counter.reset)
    assert_type(await ctx.call_entity(EntityId(BankAccount, key), BankAccount.rename, "Ann"), str)
    async with ctx.lock(counter, EntityId(BankAccount, key)):
        assert_type(await ctx.call_entity(counter, Counter.get), int)
        await ctx.call_entity(counter, "reset")
        await ctx.call_entity(EntityId("counter", key), "add", 1)
    both = await when_all([ctx.call_entity(counter, Counter.get), ctx.call_entity(counter, Counter.add, 5)])
    assert_type(both, list[int])
    return await ctx.call_entity(counter, Counter.add, 5)


@app.orchestrator
def count_in_generator(ctx: OrchestrationContext) -> Generator[DurableTask[Any], Any, int]:
    section = ctx.lock(EntityId(Counter, "clicks"))
    yield from section.acquire()
    value = yield from ctx.call_entity(EntityId(Counter, "clicks"), Counter.add, 1)
    section.release()
    return value


# Entities: async operations, functions, contexts, versions of states


def upgrade(state: Any, version: int) -> Any:
    return {"text": state["body"]} if version == 1 else state


@app.entity(name="mailbox", state_version=2, upgrade_state=upgrade)
@dataclass
class Mailbox(Entity):
    text: str = ""

    def initialize(self) -> None:
        self.text = entity_context().entity_id.key

    async def send(self, text: str) -> int:
        context = entity_context()
        assert_type(context, EntityContext)
        assert_type(context.request_id, str)
        context.signal_entity(EntityId(Counter, "mails"), Counter.add, 1)
        context.signal_entity(EntityId(Counter, "mails"), Counter.reset, due=timedelta(days=1))
        context.signal_entity(EntityId(Mailbox, "archive"), Mailbox.send, text)
        context.signal_entity(context.entity_id, "send", text)
        assert_type(context.start_orchestration(purchase, Order("tea"), instance_id="order-8"), str)
        assert_type(context.start_orchestration(hello_cities, start_at=timedelta(hours=1)), str)
        context.start_orchestration("Purchase", {"item": "tea"})
        return len(text)

    async def fetch(self) -> list[str]:
        return [self.text]

    def leave(self) -> None:
        entity_context().delete_state()


@app.entity
def tally(ctx: EntityContext) -> int:
    value = ctx.get_state(int)
    assert_type(value, int)
    assert_type(ctx.get_state(dict[str, int]), dict[str, int])
    assert_type(ctx.get_state(lambda: Order("tea"), Order), Order)
    assert_type(ctx.get_input(int), int)
    assert_type(ctx.operation_name, str)
    assert_type(ctx.has_state, bool)
    assert_type(ctx.current_utc_datetime, datetime)
    anything: object = ctx.get_input()
    ctx.set_result(anything)
    ctx.set_state(value + 1)
    ctx.set_state(None)
    return value


@app.entity
async def waits(ctx: EntityContext, amount: int | None) -> None:
    ctx.set_state(amount)


@app.entity(name="last", state_version=2, upgrade_state=lambda state, version: [state, version])
def last_with_options(ctx: EntityContext, amount: float) -> float:
    return amount


@app.entity()
def without_result(ctx: EntityContext) -> None: ...


assert_type(tally, EntityFunction)
assert_type(waits, EntityFunction)
assert_type(last_with_options, EntityFunction)
assert_type(EntityId(tally, "a"), EntityId[Any])
assert_type(EntityId("tally", "a"), EntityId[Any])
assert_type(EntityId(Mailbox, "ann"), EntityId[Mailbox])
assert_type(EntityId.parse("@tally@a"), EntityId[object])


@app.orchestrator
async def mails(ctx: OrchestrationContext) -> int:
    ann = EntityId(Mailbox, "ann")
    assert_type(ctx.call_entity(ann, Mailbox.send, "Hello"), DurableTask[int])
    assert_type(await ctx.call_entity(ann, Mailbox.send, "Hello"), int)
    assert_type(await ctx.call_entity(ann, Mailbox.fetch), list[str])
    assert_type(await ctx.call_entity(ann, Mailbox.leave), None)
    by_name: str = await ctx.call_entity(EntityId(tally, "a"), "add", 5)
    ctx.signal_entity(ann, Mailbox.send, "Hello", due=timedelta(days=1))
    ctx.signal_entity(ann, Mailbox.fetch, due=ctx.current_utc_datetime)
    ctx.signal_entity(EntityId(tally, "a"), "add")
    async with ctx.lock(ann, EntityId(tally, "a"), timeout=timedelta(minutes=1), lease=timedelta(hours=1)) as section:
        assert_type(section.is_held, bool)
    assert_type(await race(ctx.lock(ann).acquire(), ctx.call_entity(ann, Mailbox.send, by_name)), int | None)
    return await ctx.call_entity(ann, Mailbox.send, "Bye")


# The client and the host


async def use_client(client: Client) -> None:
    run = await client.start_new(purchase, Order("tea"), instance_id="order-7")
    assert_type(run, OrchestrationHandle[str])
    await client.raise_event(run.instance_id, APPROVAL, Approval("ann", granted=True))
    await client.raise_event(run.instance_id, WAKE_UP)
    await client.raise_event(run.instance_id, "by name")
    await client.raise_event(run.instance_id, "by name", data=1)
    await run.raise_event(NUMBERS, [1, 2])
    await run.raise_event(WAKE_UP)
    await run.raise_event("by name", 1)
    try:
        assert_type(await run.wait_for_completion(timeout=timedelta(minutes=1)), str)
    except OrchestrationFailedError as error:
        print(error)

    assert_type(await (await client.start_new(hello_cities)).wait_for_completion(), list[str])
    assert_type(await (await client.start_new(hello_generator, "Oslo")).wait_for_completion(), str)
    assert_type(await client.get_handle(purchase, "order-7").wait_for_completion(), str)
    await client.start_new("Purchase", {"item": "tea"})
    await client.wait_for_completion("order-7", timeout=timedelta(seconds=1))

    status = await run.get_status()
    assert_type(status, InstanceStatus | None)
    if status is not None and status.runtime_status is OrchestrationStatus.RUNNING:
        await client.suspend(run.instance_id, "a break")
        await client.resume(run.instance_id)
        await run.terminate("enough")
    assert_type(await client.wait_until_stopped(run.instance_id), InstanceStatus)

    counter = EntityId(Counter, "clicks")
    await client.signal_entity(counter, Counter.add, 1)
    await client.signal_entity(counter, Counter.reset)
    by_name = EntityId("counter", "clicks")
    await client.signal_entity(by_name, "add", 1)
    anything: object = await client.read_entity_state(by_name)
    print(anything, EntityId.parse("@counter@clicks") == by_name)
    state = await client.read_entity_state(counter)
    assert_type(state, Counter | None)


async def use_entities(client: Client) -> None:
    counter, ann, by_name = EntityId(Counter, "clicks"), EntityId(Mailbox, "ann"), EntityId(tally, "a")
    assert_type(await client.call_entity(counter, Counter.add, 1), int)
    assert_type(await client.call_entity(counter, Counter.get, timeout=timedelta(seconds=5)), int)
    assert_type(await client.call_entity(counter, Counter.reset), None)
    assert_type(await client.call_entity(ann, Mailbox.send, "Hello", key="mail-7"), int)
    assert_type(await client.call_entity(ann, Mailbox.fetch), list[str])
    untyped: dict[str, int] = await client.call_entity(by_name, "get")
    await client.call_entity(counter, "delete")
    await client.signal_entity(ann, Mailbox.send, "Hello", due=timedelta(days=1), key="mail-8")
    await client.signal_entity(by_name, "add", untyped)
    signals = [
        EntitySignal(counter, Counter.add, 1, key="e-1"),
        EntitySignal(counter, Counter.reset),
        EntitySignal(ann, Mailbox.send, "Hello", due=timedelta(days=1)),
        EntitySignal(by_name, "add", 5),
    ]
    await client.signal_many(signals)
    await client.signal_many(EntitySignal(counter, Counter.add, number) for number in range(5))

    status = await client.get_entity(counter)
    assert_type(status, EntityStatus[Counter] | None)
    if status is not None:
        assert_type(status.state, Counter | None)
        assert_type(status.lock, LockState | None)
        assert_type(status.lock_requests, tuple[LockState, ...])
        assert_type(status.parked, FailureDetails | None)
    page = await client.list_entities(EntityQuery(entity=Counter, key_prefix="c"), limit=10)
    assert_type(page, EntityPage)
    await client.list_entities(EntityQuery(entity=tally), continuation_token=page.continuation_token)
    assert_type([each.entity_id.key async for each in client.iterate_entities()], list[str])
    assert_type(await client.break_lock(by_name), LockState | None)
    assert_type(await client.clean_entities(idle_for=timedelta(days=1)), EntitiesRemoved)


async def use_remote_client() -> None:
    async with connect("https://orders.example.com", key="k", timeout_s=10, limits=Limits()) as client:
        assert_type(client, Client)
        assert_type(await (await client.start_new(purchase, Order("tea"))).wait_for_completion(), str)


def use_sync_client(running: Host) -> None:
    with SyncClient.connect("https://orders.example.com", key="k", attempts_max=2) as client:
        run = client.start_new(purchase, Order("tea"), instance_id="order-7")
        assert_type(run, SyncOrchestrationHandle[str])
        assert_type(run.wait_for_completion(timeout=timedelta(minutes=1)), str)
        assert_type(client.start_new(hello_cities).wait_for_completion(), list[str])
        assert_type(client.get_handle(purchase, "order-7").wait_for_completion(), str)
        run.raise_event(NUMBERS, [1, 2])
        client.raise_event(run.instance_id, APPROVAL, Approval("ann", granted=True))
        client.raise_event(run.instance_id, "by name", data=1)
        assert_type(run.get_status(), InstanceStatus | None)
        counter, ann = EntityId(Counter, "clicks"), EntityId(Mailbox, "ann")
        client.signal_entity(counter, Counter.add, 1)
        assert_type(client.call_entity(counter, Counter.add, 1), int)
        assert_type(client.call_entity(ann, Mailbox.fetch), list[str])
        assert_type(client.read_entity_state(counter), Counter | None)
        assert_type([each.entity_id.key for each in client.iterate_entities()], list[str])
        assert_type([each.instance_id for each in client.iterate_instances()], list[str])
    assert_type(running.sync_client, SyncClient)
    with SyncClient.hosting(app.host("memory://")) as hosting:
        assert_type(hosting.get_handle(purchase, "order-7"), SyncOrchestrationHandle[str])


@app.route("/orders", methods=["POST"])
async def order_tea(request: Request, client: Client) -> Response:
    run = await client.start_new(purchase, Order(**await request.json()))
    return JSONResponse({"id": run.instance_id}, status_code=202)


@app.route("/orders/count")
async def count_orders(request: Request, client: Client) -> dict[str, int]:
    counter = await client.read_entity_state(EntityId(Counter, "orders"))
    return {"count": counter.value if counter else 0}


async def start_all(functions: list[Orchestrator[None, Any]], client: Client) -> list[str]:
    """References are values with types of their own."""
    return [(await client.start_new(each)).instance_id for each in functions]


def references() -> None:
    sizer: Activity[str, int] = file_size
    wider: Activity[str, object] = say_hello
    starters: list[Orchestrator[None, Any]] = [hello_cities, no_input, generator_sum]
    print(sizer.name, wider.name, starters)


async def main() -> None:
    config = HostConfig(activities_max=10, queues=("orders", "default"), limits=Limits(payload_bytes_max=1024))
    async with app.host("sqlite:///orders.db", config=config) as host:
        assert_type(host, Host)
        await use_client(host.client)
        await start_all([hello_cities, no_input], host.client)
