"""The app that the tests of this room serve, and how they serve it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from holdfast import App, Client, Entity, EntityId, Host, HostConfig, OrchestrationContext, OverloadedError
from holdfast.http import check_status_response, management_payload

BASE = "/runtime/webhooks/durabletask"
ORIGIN = "http://localhost:7071"
PATIENCE = timedelta(seconds=30)


class Secret(Exception): ...


def make_app() -> App:
    app = App()

    @app.activity
    async def double(number: int) -> int:
        return 2 * number

    @app.activity
    async def refuse(text: str) -> None:
        raise ValueError(text)

    @app.orchestrator
    async def echo(ctx: OrchestrationContext, input: Any = None) -> Any:
        return input

    @app.orchestrator
    async def doubled(ctx: OrchestrationContext, number: int) -> int:
        ctx.set_custom_status({"step": 0})
        return await ctx.call_activity(double, number)

    @app.orchestrator
    async def nested(ctx: OrchestrationContext, number: int) -> int:
        return await ctx.call_sub_orchestrator(doubled, number)

    @app.orchestrator
    async def failing(ctx: OrchestrationContext, text: str) -> None:
        await ctx.call_activity(refuse, text)

    @app.orchestrator(name="WaitForApproval")
    async def wait_for_approval(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("ApprovalEvent")

    @app.entity
    @dataclass
    class Counter(Entity):
        value: int = 0
        notes: str = ""

        def add(self, amount: int) -> None:
            self.value += amount

        def note(self, text: str) -> None:
            self.notes += text

        def clear(self) -> None:
            self.value = 0

    @app.orchestrator
    async def keep_lock(ctx: OrchestrationContext) -> None:
        async with ctx.lock(EntityId("counter", "shared")):
            await ctx.wait_for_external_event("LetGo")

    @app.orchestrator
    async def fails_locked(ctx: OrchestrationContext) -> None:
        async with ctx.lock(EntityId("counter", "held")):
            await ctx.call_activity(refuse, "in a critical section")

    add_lively(app)
    add_routes(app)
    return app


def add_lively(app: App) -> None:
    attempts: list[str] = []

    @app.activity
    async def settle(text: str) -> str:
        attempts.append(text)
        if len(attempts) == 1:
            raise ValueError(f"{text} is not settled yet")
        return text

    @app.orchestrator
    async def settling(ctx: OrchestrationContext, text: str) -> str:
        return await ctx.call_activity(settle, text)

    @app.orchestrator
    async def cart(ctx: OrchestrationContext) -> list[str]:
        items: list[str] = []

        def check(item: str) -> None:
            if item in items:
                raise ValueError(f"{item} is in the cart already")

        def add(item: str) -> int:
            items.append(item)
            return len(items)

        ctx.set_query_handler("items", lambda: items)
        ctx.set_update_handler("add", add, validator=check)
        ctx.set_update_handler("remove", lambda item: items.remove(item))
        await ctx.wait_for_external_event("checkout")
        return items

    @app.orchestrator
    async def staged(ctx: OrchestrationContext, input: Any = None) -> str:
        ctx.set_custom_status("first")
        await ctx.wait_for_external_event("Next")
        ctx.set_custom_status("second")
        await ctx.wait_for_external_event("Next")
        return "done"

    @app.orchestrator
    async def keeps_child(ctx: OrchestrationContext) -> str:
        return await ctx.call_sub_orchestrator(staged, instance_id="child")

    @app.orchestrator(version="2")
    async def versioned(ctx: OrchestrationContext) -> str:
        return "two"


def add_routes(app: App) -> None:
    @app.route("/orders/{order}", methods=["POST"])
    async def order(request: Request, client: Client) -> Response:
        started = await client.start_new("echo", await request.json(), instance_id=request.path_params["order"])
        return check_status_response(request, started.instance_id)

    @app.route("/payload/{instance}")
    async def payload(request: Request, client: Client) -> dict[str, str]:
        return management_payload(request, request.path_params["instance"])

    @app.route("/value")
    async def value(request: Request, client: Client) -> Any:
        return {"moment": timedelta(seconds=1), "nothing": None}

    @app.route("/text")
    async def text(request: Request, client: Client) -> Response:
        return PlainTextResponse("plain")

    @app.route("/broken")
    async def broken(request: Request, client: Client) -> None:
        raise Secret("the password is swordfish")

    @app.route("/unsendable")
    async def unsendable(request: Request, client: Client) -> Any:
        return object()

    @app.route("/missing")
    async def missing(request: Request, client: Client) -> None:
        await client.raise_event("nobody", "Go")

    @app.route("/busy")
    async def busy(request: Request, client: Client) -> None:
        raise OverloadedError("Too much at once.")

    @app.route("/teapot")
    async def teapot(request: Request, client: Client) -> None:
        raise HTTPException(418, "short and stout", {"X-Spout": "yes"})


class Served:
    """A running host, and an HTTP client for it."""

    def __init__(self, host: Host, http: httpx.AsyncClient) -> None:
        self.host = host
        self.http = http

    async def start(self, name: str, instance_id: str, input: Any = None) -> httpx.Response:
        response = await self.http.post(f"{BASE}/orchestrators/{name}/{instance_id}", json=input)
        assert response.status_code == 202, response.text
        return response

    async def ended(self, instance_id: str) -> Any:
        """Wait until an instance has ended, and return its status object."""
        await self.host.client.wait_until_stopped(instance_id, timeout=PATIENCE)
        return (await self.http.get(f"{BASE}/instances/{instance_id}")).json()

    async def until(self, instance_id: str, status: str) -> Any:
        """Wait until an instance has a status, and return its status object."""
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while True:
                found = (await self.http.get(f"{BASE}/instances/{instance_id}")).json()
                if found.get("runtimeStatus") == status:
                    return found
                await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def serving(
    store: str = "memory://",
    *,
    key: str | None = None,
    loopback_only: bool = False,
    config: HostConfig | None = None,
) -> AsyncIterator[Served]:
    async with make_app().host(store, config=config) as host:
        transport = httpx.ASGITransport(host.http_app(key, loopback_only=loopback_only))
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as http:
            yield Served(host, http)


def serve(scenario: Callable[[Served], Awaitable[None]], store: str = "memory://", **options: Any) -> None:
    """Run a scenario against a host of its own."""

    async def run() -> None:
        async with serving(store, **options) as served:
            await scenario(served)

    asyncio.run(run())
