"""Planted mistakes. Both checkers must report every line that ends in a mark, and no other line.

`# E: what` is for both. `# E(mypy): what; why` and `# E(pyright): what; why` are for one of them, with the reason why
the other cannot see it. What no type can tell is at the end, without marks.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from holdfast import (
    Activity,
    App,
    Client,
    DurableTask,
    Entity,
    EntityContext,
    EntityId,
    EntitySignal,
    ExternalEvent,
    OrchestrationContext,
    Orchestrator,
    RetryContext,
    RetryPolicy,
    SyncClient,
    race,
    select,
    when_all,
    when_any,
)

app = App()


@dataclass
class Approval:
    granted: bool


APPROVAL = ExternalEvent("approval", Approval)


@app.activity
def say_hello(city: str) -> str:
    return city


@app.activity
async def file_size(path: str) -> int:
    return len(path)


@app.activity
async def roll_dice() -> int:
    return 4


@app.entity
@dataclass
class Counter(Entity):
    value: int = 0

    def add(self, amount: int) -> int:
        return amount

    def reset(self) -> None:
        self.value = 0


@app.entity
@dataclass
class Account(Entity):
    owner: str = ""

    def rename(self, owner: str) -> None:
        self.owner = owner

    async def pay(self, amount: int) -> int:
        return amount

    async def audit(self) -> list[str]:
        return []


@app.entity
def tally(ctx: EntityContext) -> int:
    text: str = ctx.get_state(int)  # E: wrong type of a state
    number: int = ctx.get_input(str)  # E: wrong type of an input
    ctx.signal_entity(EntityId(Counter, text), Counter.add, "five")  # E: wrong argument of a signal from an entity
    ctx.signal_entity(EntityId(Counter, text), Counter.add)  # E: missing argument of a signal from an entity
    ctx.signal_entity(EntityId(Counter, text), Counter.reset, due=5)  # E: seconds are no timedelta
    ctx.start_orchestration(purchase, "seven")  # E: wrong input of an orchestration started by an entity
    ctx.start_orchestration(purchase)  # E: missing input of an orchestration started by an entity
    ctx.start_orchestration(purchase, 7, retry=3)  # E: unknown option
    return number


@app.orchestrator
async def purchase(ctx: OrchestrationContext, order: int) -> str:
    return str(order)


@app.orchestrator
async def nothing_in(ctx: OrchestrationContext) -> int:
    return 1


@app.orchestrator
async def activity_mistakes(ctx: OrchestrationContext) -> int:
    await ctx.call_activity(say_hello, 5)  # E: wrong input
    await ctx.call_activity(say_hello)  # E: missing input
    await ctx.call_activity(roll_dice, 5)  # E: extra input
    await ctx.call_activity(say_hello, "Oslo", retries=3)  # E: unknown option
    await ctx.call_activity(say_hello, "Oslo", retry=3)  # E: wrong option
    await ctx.call_activity(say_hello, "Oslo", timeout=3)  # E: seconds are no timedelta
    await ctx.call_activity(say_hello, "Oslo", queue=3)  # E: a queue has a name
    await ctx.call_activity(say_hello, "Oslo", "Bergen")  # E: two inputs
    await ctx.call_activity(purchase, 5)  # E: an orchestrator is no activity
    return await ctx.call_activity(say_hello, "Oslo")  # E: wrong result type


@app.orchestrator
async def other_mistakes(ctx: OrchestrationContext) -> None:
    await ctx.call_sub_orchestrator(purchase, "seven")  # E: wrong input of a sub-orchestration
    await ctx.call_sub_orchestrator(purchase)  # E: missing input of a sub-orchestration
    await ctx.call_sub_orchestrator(nothing_in, 1)  # E: extra input of a sub-orchestration
    ctx.create_timer(5)  # E: seconds are no timedelta
    number: int = await ctx.wait_for_external_event(APPROVAL)  # E: wrong type of an event
    ctx.send_event("other", APPROVAL, 5)  # E: wrong event payload
    ctx.send_event("other", APPROVAL)  # E: missing event payload
    numbers: list[str] = await when_all([ctx.call_activity(file_size, "/")])  # E: wrong type of all results
    winner = await when_any(ctx.call_activity(file_size, "/"), ctx.create_timer(timedelta(seconds=1)))
    size: int = winner.result  # E: the timer may have won
    print(number, numbers, size)


def decides_nothing(context: RetryContext) -> str:
    return str(context.attempts_made)


@app.orchestrator
async def composition_mistakes(ctx: OrchestrationContext) -> None:
    size, text = ctx.call_activity(file_size, "/"), ctx.call_activity(say_hello, "Oslo")
    pair: tuple[int, int] = await when_all(size, text)  # E: wrong type of one result
    first: int = await race(size, text)  # E: the other may win
    race([1, 2])  # E: numbers are no tasks
    select(size)  # E: a choice of one
    match await select(size, text):
        case (0, _):
            pass
        case (1, value):
            number: int = value  # E: wrong type of a branch
            print(number)
    sizes: list[str] = await ctx.map(file_size, ["/"])  # E: wrong results of a map
    await ctx.map(file_size, [1, 2])  # E: wrong items of a map
    await ctx.map(file_size, ["/"], concurency=5)  # E: unknown option of a map
    await ctx.map(purchase, ["seven"])  # E: wrong items of a map of sub-orchestrations
    await ctx.map(file_size, "/", retry=3)  # E: wrong option of a map
    await ctx.call_activity(roll_dice, retry=decides_nothing)  # E: a handler that returns a text
    await ctx.call_sub_orchestrator(nothing_in, retries=3)  # E: unknown option of a sub-orchestration
    await ctx.call_sub_orchestrator(nothing_in, timeout=5)  # E: seconds are no timedelta
    ctx.start_orchestration(nothing_in, retry=RetryPolicy())  # E: nobody waits, so nobody tries again
    async with ctx.task_group() as group:
        group.create_task(5)  # E: neither a coroutine nor a task
        length: str = group.create_task(size).result  # E: wrong type of a result
    async with ctx.saga() as saga:
        saga.add_compensation(say_hello, 5)  # E: wrong input of a compensation
        saga.add_compensation(say_hello)  # E: missing input of a compensation
        saga.add_compensation(roll_dice, delay=5)  # E: unknown option of a compensation
    print(pair, first, sizes, length)


@app.orchestrator
async def entity_mistakes(ctx: OrchestrationContext) -> None:
    counter = EntityId(Counter, "clicks")
    await ctx.call_entity(counter, Counter.add, "five")  # E: wrong entity argument
    await ctx.call_entity(counter, Counter.add)  # E: missing entity argument
    await ctx.call_entity(counter, Counter.reset, 5)  # E: extra entity argument
    await ctx.call_entity(counter, Account.rename, "Ann")  # E: operation of another entity
    await ctx.call_entity(counter, Counter.rename, "Ann")  # E: no such operation
    text: str = await ctx.call_entity(counter, Counter.add, 5)  # E: wrong result of an operation
    ctx.signal_entity(counter, Counter.add, "five")  # E: wrong argument of a signal
    async with ctx.lock("counter"):  # E: a lock takes entity ids
        print(text)
    account = EntityId(Account, "ann")
    await ctx.call_entity(account, Account.pay, "five")  # E: wrong argument of an async operation
    await ctx.call_entity(account, Account.pay)  # E: missing argument of an async operation
    await ctx.call_entity(account, Account.audit, 5)  # E: extra argument of an async operation
    await ctx.call_entity(counter, Account.pay, 5)  # E: async operation of another entity
    paid: str = await ctx.call_entity(account, Account.pay, 5)  # E: wrong result of an async operation
    ctx.signal_entity(account, Account.pay, "five")  # E: wrong argument of a signal
    ctx.signal_entity(counter, Counter.reset, due=5)  # E: seconds are no timedelta
    ctx.signal_entity(counter, Counter.add, 5, key="e-1")  # E: only what a client sends has a key
    ctx.lock(counter, lease=5)  # E: seconds are no timedelta
    await ctx.call_entity(EntityId(tally, "a"), 5)  # E: neither an operation nor a name
    EntityId(5, "a")  # E: neither a class nor a function nor a name
    EntityId(purchase, "a")  # E: an orchestrator is no entity
    EntityId(Counter)  # E: no key
    print(paid)


async def client_mistakes(client: Client) -> None:
    await client.start_new(purchase, "seven")  # E: wrong start input
    await client.start_new(purchase)  # E: missing start input
    await client.start_new(nothing_in, 1)  # E: extra start input
    await client.start_new(purchase, 7, id="order-7")  # E: unknown option of a start
    run = await client.start_new(purchase, 7)
    number: int = await run.wait_for_completion()  # E: wrong result of an orchestration
    await run.wait_for_completion(timeout=5)  # E: seconds are no timedelta
    await client.raise_event("order-7", APPROVAL, "yes")  # E: wrong event payload
    await client.raise_event("order-7", APPROVAL)  # E: missing event payload
    await run.raise_event(APPROVAL)  # E: missing event payload, from the handle
    await run.raise_event(APPROVAL, "yes")  # E: wrong event payload, from the handle
    await client.signal_entity(EntityId(Counter, "clicks"), Counter.add, "five")  # E: wrong argument of a signal
    state: Account | None = await client.read_entity_state(EntityId(Counter, "clicks"))  # E: state of another entity
    print(number, state)


def sync_client_mistakes(client: SyncClient) -> None:
    client.start_new(purchase, "seven")  # E: wrong start input
    client.start_new(purchase, 7, id="order-7")  # E: unknown option of a start
    text: int = client.start_new(purchase, 7).wait_for_completion()  # E: wrong result of an orchestration
    client.raise_event("order-7", APPROVAL, "yes")  # E: wrong event payload
    client.call_entity(EntityId(Counter, "clicks"), Counter.add, "five")  # E: wrong argument of a client's call
    SyncClient.connect("https://host", timeout=5)  # E: unknown option of a connection
    print(text)


async def client_mistakes_with_entities(client: Client) -> None:
    counter, account = EntityId(Counter, "clicks"), EntityId(Account, "ann")
    await client.call_entity(counter, Counter.add, "five")  # E: wrong argument of a client's call
    await client.call_entity(counter, Counter.add)  # E: missing argument of a client's call
    await client.call_entity(counter, Counter.reset, 5)  # E: extra argument of a client's call
    await client.call_entity(counter, Account.rename, "Ann")  # E: operation of another entity
    text: str = await client.call_entity(counter, Counter.add, 5)  # E: wrong result of a client's call
    await client.call_entity(account, Account.pay, "five")  # E: wrong argument of an async operation
    await client.call_entity(account, Account.pay)  # E: missing argument of an async operation
    paid: str = await client.call_entity(account, Account.pay, 5)  # E: wrong result of an async operation
    await client.call_entity(counter, Counter.add, 5, due=timedelta(1))  # E: a call is not scheduled
    await client.call_entity(counter, Counter.add, 5, timeout=5)  # E: seconds are no timedelta
    await client.signal_entity(counter, Counter.add)  # E: missing argument of a signal
    await client.signal_entity(counter, Counter.add, 5, due=5)  # E: seconds are no timedelta
    await client.signal_entity(counter, Counter.add, 5, key=5)  # E: a key is a str
    await client.signal_many([(counter, Counter.add, 5)])  # E: no EntitySignal
    EntitySignal(counter, Counter.add, "five")  # E: wrong argument of one of many signals
    EntitySignal(counter, Counter.add)  # E: missing argument of one of many signals
    EntitySignal(counter, Account.rename, "Ann")  # E: operation of another entity, of one of many signals
    EntitySignal(account, Account.pay, "five")  # E: wrong argument of an async operation, of one of many signals
    await client.list_entities(Counter)  # E: a class is no query
    await client.break_lock("@counter@clicks")  # E: a text is no EntityId
    await client.clean_entities(idle_for=5)  # E: seconds are no timedelta
    status = await client.get_entity(counter)
    wrong: Account | None = status.state if status else None  # E: state of another entity
    print(text, paid, wrong)


@app.orchestrator
def generator_mistakes(ctx: OrchestrationContext) -> Generator[DurableTask[Any], Any, int]:
    yield 5  # E: not a durable task
    return (yield from ctx.call_activity(say_hello, "Oslo"))  # E: wrong result type


class NotAnEntity:
    pass


OPTIONAL = ExternalEvent("optional", int | None)  # E: a union is no type[T]
NAMELESS = ExternalEvent(5, int)  # E: a name is a str
POLICY = RetryPolicy(attempts=3)  # E: unknown field
REFERENCE: Activity[str, int] = say_hello  # E: wrong type of a reference
REGISTERED = app.entity(NotAnEntity)  # E: not an entity
QUEUED = app.activity(queue=("gpu",))  # E: an activity is in one queue
VERSIONED = app.entity(state_version="2")  # E: a version is a number
UPGRADED = app.entity(state_version=2, upgrade_state=5)  # E: an upgrade is a function
STARTER: Orchestrator[None, str] = nothing_in  # E: wrong type of a reference


@app.activity  # E: two inputs at the definition
def two_inputs(one: int, two: int) -> int:
    return one + two


@app.activity(retry=3)  # E: wrong option of a decorator
def wrong_option(one: int) -> int:
    return one


@app.orchestrator  # E: swapped context
async def swapped(order: int, ctx: OrchestrationContext) -> str:
    return str(order)


@app.orchestrator  # E: plain def
def plain(ctx: OrchestrationContext) -> int:
    return 1


@app.orchestrator  # E: no context
async def no_context() -> int:
    return 1


@app.entity  # E: a function needs a context
def no_entity_context() -> int:
    return 1


@app.entity  # E: the context of an orchestrator
def wrong_context(ctx: OrchestrationContext) -> int:
    return 1


@app.entity(name="other")  # E: the context of an orchestrator, with options
def wrong_context_with_options(ctx: OrchestrationContext) -> int:
    return 1


@app.entity(name="third")  # E(pyright): not an entity; mypy reports the line of the class
class NotAnEntityEither:  # E(mypy): not an entity; pyright reports the line of the decorator
    pass


@app.route("/orders", methods=["POST"])  # E: a handler takes the request and the client
async def handler() -> str:
    return ""


@app.orchestrator
async def beyond_types(ctx: OrchestrationContext) -> None:
    """Mistakes that no checker sees; each is caught when it runs, or documented."""
    ctx.call_activity(say_hello, "Oslo")  # never awaited: a task is no coroutine, so nobody misses the `await`
    ctx.signal_entity(EntityId(tally, "a"), "typo", "anything")  # an entity function takes what it is sent
    ctx.continue_as_new("seven")  # the context does not know which input its own orchestrator takes
    await when_all(ctx.call_activity(say_hello, "Oslo"))  # `yield from` makes a task an iterable of tasks
