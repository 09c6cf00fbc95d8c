"""Requests that wait: none outlives its client, and there is a bound on their number."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from http_app import BASE, ORIGIN, PATIENCE, Served, serve
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message

from holdfast import App, Client, ConfigurationError, HostConfig

WAIT = "timeout=80000&pollingInterval=1"


class Leaver:
    """A client that sends a request, and may go away before the answer."""

    def __init__(self, app: ASGIApp, path: str, query: str = "", body: object = None) -> None:
        self.gone = asyncio.Event()
        self.status: int | None = None
        self._body: bytes | None = json.dumps(body).encode()
        scope = {
            "type": "http",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
            "server": ("localhost", 80),
            "client": ("127.0.0.1", 1),
        }
        self.job = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.status = message.get("status", self.status)

    async def leave(self) -> None:
        """Go away; the host must be done with the request then, since it waits for nothing else."""
        self.gone.set()
        async with asyncio.timeout(PATIENCE.total_seconds()):
            await self.job


async def until_running(served: Served, instance_id: str) -> None:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while await served.host.client.get_status(instance_id) is None:
            await asyncio.sleep(0.005)
    await served.until(instance_id, "Running")


def test_a_wait_ends_when_its_client_goes_away(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(served: Served) -> None:
        app = served.host.http_app()
        start = Leaver(app, f"{BASE}/orchestrators/WaitForApproval/a", WAIT)
        await until_running(served, "a")
        await served.start("cart", "cart")
        await served.until("cart", "Running")
        await served.host.client.suspend("cart")
        await served.until("cart", "Suspended")
        update = Leaver(app, f"{BASE}/instances/cart/update/add", WAIT, "tea")
        restart = Leaver(app, f"{BASE}/instances/a/restart", f"{WAIT}&restartWithNewInstanceId=true")
        wait = Leaver(app, f"{BASE}/hub/wait_until_stopped", body={"instance_id": "a"})
        assert not start.job.done()
        for leaver in (start, restart, wait, update):
            await leaver.leave()
        assert (start.status, restart.status, wait.status, update.status) == (202, 202, 400, 400)
        await served.until("a", "Running")  # only the wait has ended

    with caplog.at_level(logging.INFO, "holdfast.audit"):
        serve(scenario)
    lines = [json.loads(each.message) for each in caplog.records if each.name == "holdfast.audit"]
    started = [line for line in lines if "/orchestrators/" in line["action"]]
    assert [(line["instance"], line["status"]) for line in started] == [("cart", 202), ("a", 202)]


def test_the_number_of_waits_is_bounded_and_places_are_given_back() -> None:
    async def scenario(served: Served) -> None:
        await served.start("cart", "cart")
        await served.until("cart", "Running")
        app = served.host.http_app()
        waiting = Leaver(app, f"{BASE}/orchestrators/WaitForApproval/a", WAIT)
        await until_running(served, "a")
        requests = [
            f"{BASE}/orchestrators/echo/b?{WAIT}",
            f"{BASE}/orchestrators/echo?{WAIT}",
            f"{BASE}/instances/a/restart?{WAIT}",
            f"{BASE}/instances/cart/update/add",
        ]
        # The bound is that of one app.
        other = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN)
        for path in requests:
            refused = await other.post(path, json="tea")
            assert (refused.status_code, "http_waits_max" in refused.text) == (429, True)
            assert "retry-after" in refused.headers
        assert await served.host.client.get_status("b") is None
        assert (await other.post(f"{BASE}/orchestrators/echo/c", json=1)).status_code == 202
        await waiting.leave()
        assert (await other.post(requests[0], json=1)).json() == 1
        assert (await other.post(requests[3], json="tea")).json() == 1
        assert (await other.post(f"{BASE}/orchestrators/nobody?{WAIT}")).status_code == 400
        assert (await other.post(requests[3], json="tea")).status_code == 409

    serve(scenario, config=HostConfig(http_waits_max=1))


class Waiting:
    """An app with routes that answer when they are told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.served = 0

    def app(self) -> App:
        app = App()

        async def waits(request: Request, client: Client) -> str:
            self.served += 1
            await self.go_on.wait()
            return "done"

        async def streams(request: Request, client: Client) -> Response:
            async def parts() -> AsyncIterator[bytes]:
                yield b"begun"
                await self.go_on.wait()

            self.served += 1
            return StreamingResponse(parts())

        async def breaks(request: Request, client: Client) -> None:
            raise ValueError

        app.route("/waits", methods=["GET", "POST"])(waits)
        app.route("/streams")(streams)
        app.route("/breaks")(breaks)
        app.route("/open", auth="anonymous")(waits)
        return app

    async def until_served(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while self.served < number:
                await asyncio.sleep(0.005)


@pytest.mark.parametrize("path", ["/api/waits", "/api/streams"])
def test_the_apps_own_routes_serve_so_many_at_the_same_time(path: str) -> None:
    async def scenario() -> None:
        waiting = Waiting()
        async with waiting.app().host("memory://", config=HostConfig(http_routes_max=2)) as host:
            transport = httpx.ASGITransport(host.http_app("a key"))
            headers = {"x-functions-key": "a key"}
            async with httpx.AsyncClient(transport=transport, base_url=ORIGIN, headers=headers) as http:
                asked = [asyncio.ensure_future(http.get(path)) for _ in range(2)]
                await waiting.until_served(2)
                for other in ("/api/waits", "/api/streams", "/api/breaks"):
                    refused = await http.get(other)
                    assert (refused.status_code, "http_routes_max" in refused.text) == (429, True)
                    assert "retry-after" in refused.headers
                assert (await http.get(f"{BASE}/instances")).status_code == 200  # the rest of the host goes on
                asked.append(asyncio.ensure_future(http.get("/api/open")))
                await waiting.until_served(3)
                waiting.go_on.set()
                assert [(await each).status_code for each in asked] == [200, 200, 200]
                for _ in range(3):
                    assert (await http.get("/api/breaks")).status_code == 500
                assert (await http.post("/api/waits")).json() == "done"

    asyncio.run(scenario())


@pytest.mark.parametrize("name", ["http_waits_max", "http_routes_max"])
@pytest.mark.parametrize("number", [0, -1, True, "many"])
def test_a_bound_that_cannot_be_meant_is_refused(name: str, number: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        HostConfig(**{name: number})
