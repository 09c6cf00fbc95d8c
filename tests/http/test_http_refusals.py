"""What is refused, with which status, and what a client is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from http_app import BASE, Served, make_app, serve
from starlette.applications import Starlette
from starlette.requests import Request

from holdfast import HostConfig, Limits
from holdfast.client.client import Client
from holdfast.errors import (
    CommitFailedError,
    ConfigurationError,
    CorruptRecordError,
    HoldfastError,
    HostStoppedError,
    InstanceNotRunningError,
    OverloadedError,
    WaitTimeoutError,
)
from holdfast.http import check_status_response
from holdfast.http.errors import status_of

JSON = {"Content-Type": "application/json"}
START = f"{BASE}/orchestrators"
EVENT = f"{BASE}/instances/there/raiseEvent/ApprovalEvent"


@pytest.mark.parametrize(
    ("method", "url", "body", "headers", "status", "message", "explanation"),
    [
        ("POST", f"{START}/ecko", b"", {}, 400, "One or more of the arguments", "Did you mean 'echo'?"),
        ("POST", "/api/orchestrators/ecko", b"", {}, 400, "One or more of the arguments", "Did you mean 'echo'?"),
        ("POST", f"{START}/echo/there", b"", {}, 409, "does not allow this", "exists already"),
        ("POST", f"{START}/echo/", b"", {}, 400, "One or more", "is empty"),
        ("POST", f"{START}/echo/{'x' * 300}", b"", {}, 400, "One or more", "300 characters"),
        ("POST", f"{START}/echo/a%07b", b"", {}, 400, "One or more", "'\\x07'"),
        ("POST", f"{START}/echo/a%2Fb", b"", {}, 400, "One or more", "contains '/'"),
        ("POST", f"{START}/echo/%40counter%40x", b"", {}, 400, "One or more", "kept for entities"),
        ("POST", f"{START}/echo", b"{", {}, 400, "Invalid JSON content", "no JSON"),
        ("POST", f"{START}/echo", b"NaN", {}, 400, "Invalid JSON content", "no JSON"),
        ("POST", f"{START}/echo", b'"\\ud800"', {}, 400, "Invalid JSON content", "no JSON"),
        ("POST", f"{START}/echo", b'"\xff"', {}, 400, "Invalid JSON content", "no JSON"),
        ("POST", f"{START}/echo", b"[" * 50_000, {}, 400, "Invalid JSON content", "no JSON"),
        ("POST", f"{START}/echo?timeout=1&pollingInterval=2", b"", {}, 400, "pollingInterval is 2 s", "timeout"),
        ("POST", f"{START}/echo?timeout=x&pollingInterval=2", b"", {}, 400, "timeout is 'x'", "number"),
        ("POST", f"{START}/echo?timeout=nan&pollingInterval=0", b"", {}, 400, "timeout is 'nan'", "number"),
        ("POST", f"{START}/echo?timeout=1e300&pollingInterval=1", b"", {}, 400, "timeout is '1e300'", "number"),
        ("GET", f"{BASE}/instances/nobody", b"", {}, 404, "no such instance", "'nobody'"),
        ("GET", f"{BASE}/instances/{'x' * 300}", b"", {}, 404, "no such instance", "xxx"),
        ("POST", EVENT, b"1", {"Content-Type": "text/plain"}, 400, "Only application/json request content", ""),
        ("POST", EVENT, b"1", {}, 400, "Only application/json request content is supported", ""),
        ("POST", EVENT, b"{", JSON, 400, "Invalid JSON content", "no JSON"),
        ("POST", f"{BASE}/instances/there/raiseEvent/a%00", b"1", JSON, 400, "One or more", "cannot name"),
        ("POST", f"{BASE}/instances/nobody/raiseEvent/E", b"1", JSON, 404, "no such instance", "'nobody'"),
        ("POST", f"{BASE}/instances/nobody/terminate", b"", {}, 404, "no such instance", "'nobody'"),
        ("POST", f"{BASE}/instances/nobody/suspend", b"", {}, 404, "no such instance", "'nobody'"),
        ("POST", f"{BASE}/instances/nobody/resume", b"", {}, 404, "no such instance", "'nobody'"),
    ],
)
def test_a_bad_request_is_explained(
    method: str, url: str, body: bytes, headers: dict[str, str], status: int, message: str, explanation: str
) -> None:
    async def scenario(served: Served) -> None:
        await served.start("WaitForApproval", "there")
        response = await served.http.request(method, url, content=body, headers=headers)
        assert response.status_code == status
        answer = response.json()
        assert set(answer) == {"Message", "ExceptionMessage", "ExceptionType"}
        assert message in answer["Message"]
        assert explanation in answer["ExceptionMessage"]
        assert "Traceback" not in response.text

    serve(scenario)


@pytest.mark.parametrize(
    ("method", "url"),
    [
        ("GET", "/"),
        ("GET", "/nothing"),
        ("POST", "/healthz"),
        ("GET", f"{START}/echo"),
        ("POST", f"{START}"),
        ("POST", f"{BASE}/instances/x"),
        ("DELETE", f"{BASE}/instances/x/history"),
        ("GET", f"{BASE}/instances/x/terminate"),
        ("POST", f"{BASE}/instances/x/explode"),
        ("POST", f"{BASE}/instances/x/raiseEvent/"),
        ("POST", f"{BASE}/instances/"),
        ("GET", f"{BASE}/instances//"),
        ("GET", f"{BASE}/parked/"),
        ("PUT", f"{BASE}/entities/counter/x"),
        ("GET", "/api/orders/1"),
        ("POST", "/api/value"),
    ],
)
def test_what_is_not_there_is_a_404(method: str, url: str) -> None:
    async def scenario(served: Served) -> None:
        response = await served.http.request(method, url)
        assert response.status_code == 404
        assert response.json() == {"Message": "There is nothing here"}

    serve(scenario)


SMALL = HostConfig(limits=Limits(payload_bytes_max=1000))


@pytest.mark.parametrize("url", [f"{START}/echo", f"{BASE}/entities/counter/x?op=note", "/api/orders/1", EVENT])
def test_a_body_over_the_limit_is_a_413(url: str) -> None:
    async def scenario(served: Served) -> None:
        await served.start("WaitForApproval", "there")
        response = await served.http.post(url, content=b'"' + b"x" * 2000 + b'"', headers=JSON)
        assert response.status_code == 413
        assert "1,000 bytes" in response.json()["ExceptionMessage"]

    serve(scenario, config=SMALL)


@pytest.mark.parametrize("url", [f"{START}/echo", "/api/orders/1"])
def test_a_body_without_a_length_is_read_up_to_the_limit_only(url: str) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 500
            yield b" " * 500

    async def scenario(served: Served) -> None:
        response = await served.http.post(url, content=endless(), headers=JSON)
        assert response.status_code == 413
        assert sent == 1500

    serve(scenario, config=SMALL)


def test_a_stopped_host_says_so() -> None:
    async def run() -> None:
        async with make_app().host("memory://") as host:
            transport = httpx.ASGITransport(host.asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                healthy = await http.get("/healthz")
                assert (healthy.status_code, healthy.json()) == (200, {"ready": True})
                await host.stop()
                assert (await http.get("/healthz")).status_code == 503
                refused = await http.post(f"{START}/echo")
                assert refused.status_code == 503
                assert "retry-after" in refused.headers
                assert refused.json()["ExceptionType"] == "holdfast.errors.HostStoppedError"

    asyncio.run(run())


class HostState:
    def __init__(self, is_ready: bool) -> None:
        self.is_ready = is_ready


@pytest.mark.parametrize(
    ("error", "is_ready", "status"),
    [
        (OverloadedError("full"), True, 429),
        (OverloadedError("starting again"), False, 503),
        (HostStoppedError("over"), False, 503),
        (CommitFailedError("disk full"), True, 503),
        (CorruptRecordError("unreadable"), True, 500),
        (WaitTimeoutError("late"), True, 504),
        (InstanceNotRunningError("x", "Completed", "resume"), True, 410),
        (InstanceNotRunningError("x", "Running", "resume"), True, 500),
        (ConfigurationError("wrong"), True, 500),
        (HoldfastError("other"), True, 500),
    ],
)
def test_each_error_has_its_status(error: HoldfastError, is_ready: bool, status: int) -> None:
    assert status_of(error, HostState(is_ready)) == status


def test_user_routes() -> None:
    async def scenario(served: Served) -> None:
        order = await served.http.post("/api/orders/a%20b", json={"total": 0})
        assert order.status_code == 202
        assert order.headers["retry-after"] == "10"
        assert order.json()["id"] == "a b"
        assert (await served.ended("a b"))["output"] == {"total": 0}

        value = await served.http.get("/api/value")
        assert value.headers["content-type"] == "application/json"
        assert value.json() == {"moment": "PT1S", "nothing": None}
        assert (await served.http.get("/api/text")).text == "plain"
        assert (await served.http.get("/api/missing")).status_code == 404
        busy = await served.http.get("/api/busy")
        assert (busy.status_code, busy.headers["retry-after"]) == (429, "1")
        teapot = await served.http.get("/api/teapot")
        assert (teapot.status_code, teapot.headers["x-spout"]) == (418, "yes")
        assert teapot.json() == {"Message": "short and stout"}

    serve(scenario)


def test_a_broken_handler_tells_its_log_only(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(served: Served) -> None:
        response = await served.http.get("/api/broken?code=key-in-url")
        assert response.status_code == 500
        assert response.json() == {"Message": "Something went wrong while processing your request"}
        unsendable = await served.http.get("/api/unsendable")
        assert unsendable.status_code == 500

    with caplog.at_level(logging.ERROR, "holdfast.http"):
        serve(scenario)
    assert "swordfish" in caplog.text
    assert "key-in-url" not in caplog.text


def test_a_route_of_the_app_replaces_the_built_in_start() -> None:
    app = make_app()

    @app.route("/orchestrators/{name}", methods=["POST"])
    async def guarded_start(request: Request, client: Client) -> str:
        return "mine"

    async def run() -> None:
        async with app.host("memory://") as host:
            transport = httpx.ASGITransport(host.asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                assert (await http.post("/api/orchestrators/echo")).json() == "mine"
                assert (await http.post(f"{START}/echo")).status_code == 202

    asyncio.run(run())


def test_check_status_response_needs_a_request_of_a_host() -> None:
    request = Request({"type": "http", "app": Starlette(), "headers": [], "path": "/", "query_string": b""})
    with pytest.raises(ConfigurationError, match=r"app\.route"):
        check_status_response(request, "x")


def test_servers_may_ask_whether_the_app_has_a_life_of_its_own_and_has_websockets() -> None:
    async def scenario(served: Served) -> None:
        asked = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        told = list[Any]()

        async def receive() -> Any:
            return next(asked)

        async def send(message: Any) -> None:
            told.append(message)

        await served.host.asgi({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
        socket = {"type": "websocket", "path": "/healthz", "headers": [], "query_string": b""}
        await served.host.asgi(socket, receive, send)
        assert [message["type"] for message in told] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
            "websocket.close",
        ]

    serve(scenario)
