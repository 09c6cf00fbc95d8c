"""The app that the tests of this room serve, and the ways to a client of it: the same methods, near and far."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from holdfast import (
    App,
    Client,
    Entity,
    EntityId,
    ExternalEvent,
    Host,
    HostConfig,
    OrchestrationContext,
    SyncClient,
    SyncOrchestrationHandle,
    connect,
)
from holdfast.cli.server import HttpServer, bind, url_of

KEY = "a key for tests"
SOON = timedelta(seconds=30)
AT_ONCE = timedelta(milliseconds=1)


@dataclass
class Order:
    item: str
    amount: int = 1


@dataclass
class Receipt:
    text: str


class Switch:
    """What the tests turn while the host runs."""

    def __init__(self) -> None:
        self.is_broken = False
        self.is_changed = False


APPROVAL = ExternalEvent("Approval", Order)


class Served:
    """A running host, with the functions of its app."""

    def __init__(self, host: Host, functions: Functions, switch: Switch, store: str) -> None:
        self.host = host
        self.functions = functions
        self.switch = switch
        self.store = store


@dataclass
class Functions:
    buy: Any
    approve: Any
    counter: Any


def make_app(switch: Switch) -> tuple[App, Functions]:
    app = App()

    @app.activity
    async def work(number: int) -> int:
        if switch.is_broken:
            raise ValueError("it is broken")
        return 2 * number

    @app.activity
    async def other_work(number: int) -> int:
        return number

    @app.orchestrator
    async def buy(ctx: OrchestrationContext, order: Order) -> Receipt:
        ctx.set_custom_status({"item": order.item})
        return Receipt(f"{await ctx.call_activity(work, order.amount)} x {order.item}")

    @app.orchestrator
    async def approve(ctx: OrchestrationContext) -> Order:
        return await ctx.wait_for_external_event(APPROVAL)

    @app.orchestrator
    async def cart(ctx: OrchestrationContext) -> list[str]:
        items: list[str] = []

        def check(item: str) -> None:
            if item in items:
                raise ValueError(f"{item} is in the cart already")

        async def add(item: str) -> int:
            if item == "bomb":
                raise KeyError(item)
            if item == "later":
                await ctx.wait_for_external_event("go")
            items.append(item)
            return len(items)

        ctx.set_query_handler("items", lambda: items)
        ctx.set_update_handler("add", add, validator=check)
        await ctx.wait_for_external_event("checkout")
        return items

    @app.orchestrator
    async def parent(ctx: OrchestrationContext) -> Order:
        return await ctx.call_sub_orchestrator(approve, instance_id="child")

    @app.orchestrator
    async def changing(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(other_work if switch.is_changed else work, 1)
        await ctx.wait_for_external_event("go")

    @app.entity
    @dataclass
    class Counter(Entity):
        value: int = 0

        def add(self, amount: int) -> int:
            if amount < 0:
                raise ValueError("it only counts up")
            self.value += amount
            return self.value

        def get(self) -> int:
            return self.value

    @app.orchestrator
    async def keep_lock(ctx: OrchestrationContext, key: str) -> None:
        async with ctx.lock(EntityId(Counter, key)):
            await ctx.wait_for_external_event("let go")

    return app, Functions(buy, approve, Counter)


@contextlib.asynccontextmanager
async def serving(store: str, **settings: Any) -> AsyncGenerator[Served]:
    """Run a host that forgets what it can, so that each episode is a replay."""
    switch = Switch()
    app, functions = make_app(switch)
    async with app.host(store, config=HostConfig(cache_bytes_max=1, **settings)) as host:
        yield Served(host, functions, switch, store)


# The ways to a client


@contextlib.asynccontextmanager
async def on_port(served: Served, port: int = 0) -> AsyncGenerator[str]:
    """Serve a host on a port of this machine; return its URL."""
    with contextlib.closing(bind("127.0.0.1", port)) as listener:
        server = HttpServer(served.host.http_app(KEY, loopback_only=True), listener)
        job = asyncio.create_task(server.serve())
        try:
            yield url_of(listener)
        finally:
            server.stop()
            await job


@contextlib.asynccontextmanager
async def in_process(served: Served) -> AsyncIterator[Client]:
    yield served.host.client


@contextlib.asynccontextmanager
async def over_asgi(served: Served) -> AsyncIterator[Client]:
    transport = httpx.ASGITransport(served.host.http_app(KEY, loopback_only=True))
    async with connect("http://localhost/", key=KEY, transport=transport) as client:
        yield client


@contextlib.asynccontextmanager
async def over_a_port(served: Served) -> AsyncIterator[Client]:
    async with on_port(served) as url, connect(url, key=KEY) as client:
        yield client


@contextlib.asynccontextmanager
async def sync_over_a_port(served: Served) -> AsyncIterator[Any]:
    async with on_port(served) as url:
        client = SyncClient.connect(url, key=KEY)
        yield InThreads(client)
        await asyncio.to_thread(client.close)


@contextlib.asynccontextmanager
async def sync_in_process(served: Served) -> AsyncIterator[Any]:
    with served.host.sync_client as client:
        yield InThreads(client)


class InThreads:
    """A synchronous client, or its handle, as if it were async: each call is made by a thread of a pool."""

    def __init__(self, target: SyncClient | SyncOrchestrationHandle[Any]) -> None:
        self._target = target

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._target, name)
        if not callable(method):
            return method
        if name == "get_handle":
            return lambda *given: InThreads(method(*given))
        if name.startswith("iterate_"):
            return lambda *given: self._iterate(method, *given)

        async def call(*given: Any, **options: Any) -> Any:
            result = await asyncio.to_thread(method, *given, **options)
            return InThreads(result) if isinstance(result, SyncOrchestrationHandle) else result

        return call

    @staticmethod
    async def _iterate(method: Callable[..., Any], *given: Any) -> AsyncIterator[Any]:
        for item in await asyncio.to_thread(lambda: list(method(*given))):
            yield item


Way = Callable[[Served], AbstractAsyncContextManager[Any]]

WAYS: dict[str, Way] = {
    way.__name__: way for way in (in_process, over_asgi, over_a_port, sync_over_a_port, sync_in_process)
}


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'hub.db'}"
