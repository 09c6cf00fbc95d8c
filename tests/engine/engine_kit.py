"""What the engine tests share: an app with a bit of everything, hosts on stores, which fail or wait on demand."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast import App, Client, Entity, EntityId, HostConfig, OrchestrationContext, RetryPolicy, when_all
from holdfast.codec.converter import JsonConverter
from holdfast.engine.clock import Clock
from holdfast.engine.engine import Engine
from holdfast.engine.task_hub import LocalTaskHub
from holdfast.errors import CommitFailedError, OverloadedError, StorageError
from holdfast.storage.port import Fence, Store, WriteSet

T = TypeVar("T")

SOON = timedelta(seconds=60)
"""How long a test waits for what must happen; only a failing test waits that long."""


@dataclass
class Run:
    engine: Engine
    client: Client
    store: Store


@asynccontextmanager
async def running(
    app: App, store: Store, config: HostConfig | None = None, clock: Clock | None = None
) -> AsyncIterator[Run]:
    config = config or HostConfig(drain_s=0.2)
    converter = JsonConverter(payload_bytes_max=config.limits.payload_bytes_max)
    engine = Engine(app.registry, store, converter, config, clock)
    client = Client(LocalTaskHub(engine), converter, config.limits)
    await engine.start()
    try:
        yield Run(engine, client, store)
    finally:
        await engine.stop()


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(SOON.total_seconds()):
        while not await condition():
            await asyncio.sleep(0.005)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that can be seen at once."""

    async def holds() -> bool:
        return condition()

    await eventually(holds)


async def insist(request: Callable[[], Awaitable[T]]) -> T:
    """Repeat an idempotent request until it is acknowledged, as a careful client does."""
    while True:
        try:
            return await request()
        except (StorageError, OverloadedError):
            await asyncio.sleep(0.001)


async def start(run: Run, name: str, value: object, instance_id: str) -> None:
    """Start an orchestration once, whatever becomes of the first request."""

    async def request() -> None:
        if await run.client.get_status(instance_id) is None:
            await run.client.start_new(name, value, instance_id=instance_id)

    await insist(request)


if TYPE_CHECKING:
    _Wrapper = Any
else:
    _Wrapper = object


class FailingStore(_Wrapper):
    """Passes everything on to a store, except that chosen commits fail, before or after they were applied."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.commits = 0
        self.fail_at: dict[int, str] = {}
        """Number of the commit (from 1) to `before`, `unknown, not applied` or `unknown, applied`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(self, fence: Fence, writes: WriteSet) -> None:
        self.commits += 1
        how = self.fail_at.pop(self.commits, None)
        if how == "before":
            raise CommitFailedError("planted: refused")
        if how == "unknown, not applied":
            raise CommitFailedError("planted: the connection went away", outcome_unknown=True)
        await self._store.commit(fence, writes)
        if how == "unknown, applied":
            raise CommitFailedError("planted: the answer got lost", outcome_unknown=True)


class SlowStore(_Wrapper):
    """Passes everything on to a store; chosen methods wait before they do so, or before they answer."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.before: dict[str, float | asyncio.Event] = {}
        """Name of a method to seconds, or to an event that lets it go on."""
        self.after: dict[str, float | asyncio.Event] = {}
        self.calls: Counter[str] = Counter()
        self.errors: list[StorageError] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **options: Any) -> Any:
            self.calls[name] += 1
            await _pause(self.before.get(name))
            try:
                answer = await method(*args, **options)
            except StorageError as error:
                self.errors.append(error)
                raise
            await _pause(self.after.get(name))
            return answer

        return call


async def _pause(how: float | asyncio.Event | None) -> None:
    if isinstance(how, asyncio.Event):
        await how.wait()
    elif how is not None:
        await asyncio.sleep(how)


@dataclass
class World:
    """The outside world of the app below: what its activities did, and what they may do next."""

    calls: list[Any] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)


def make_app(world: World) -> App:
    app = App()

    @app.activity
    async def double(number: int) -> int:
        world.calls.append(("double", number))
        return number * 2

    @app.activity(retry=RetryPolicy(max_attempts=3, first_retry_interval=timedelta(milliseconds=5)))
    async def flaky(times: int) -> int:
        world.calls.append(("flaky", times))
        done = sum(call == ("flaky", times) for call in world.calls)
        if done < times:
            raise ConnectionError(f"attempt {done}")
        return done

    @app.orchestrator
    async def chain(ctx: OrchestrationContext, length: int) -> int:
        value = 1
        for _ in range(length):
            value = await ctx.call_activity(double, value)
        return value

    @app.orchestrator
    async def fan(ctx: OrchestrationContext, width: int) -> int:
        return sum(await when_all(ctx.call_activity(double, n) for n in range(width)))

    @app.orchestrator
    async def parent(ctx: OrchestrationContext, width: int) -> list[int]:
        return await when_all(ctx.call_sub_orchestrator(chain, n) for n in range(width))

    @app.orchestrator
    async def events(ctx: OrchestrationContext, count: int) -> list[Any]:
        return [await ctx.wait_for_external_event("e") for _ in range(count)]

    @app.orchestrator
    async def countdown(ctx: OrchestrationContext, left: int) -> str:
        got = await ctx.wait_for_external_event("tick")
        if left == 1:
            return f"last {got}"
        ctx.continue_as_new(left - 1)
        return ""

    @app.entity
    @dataclass
    class Account(Entity):
        balance: int = 0

        def add(self, amount: int) -> int:
            self.balance += amount
            return self.balance

        def fail_after(self, amount: int) -> None:
            self.balance += amount
            raise ValueError("after the change")

    @app.orchestrator
    async def transfer(ctx: OrchestrationContext, pair: tuple[str, str, int]) -> int:
        source, target = EntityId(Account, pair[0]), EntityId(Account, pair[1])
        async with ctx.lock(source, target):
            await ctx.call_entity(source, Account.add, -pair[2])
            return await ctx.call_entity(target, Account.add, pair[2])

    @app.orchestrator
    async def sleepy(ctx: OrchestrationContext, milliseconds: int) -> str:
        await ctx.create_timer(timedelta(milliseconds=milliseconds))
        return "awake"

    _ = (parent, events, countdown, transfer, sleepy, fan, flaky)
    return app
