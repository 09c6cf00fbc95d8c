"""The commands that the documentation of the family shows, by the real curl, over a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import socket
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import uvicorn
from http_app import PATIENCE

from holdfast import App, Host, HostConfig, OrchestrationContext

START = 'curl -X POST https://myfunc.azurewebsites.net/api/orchestrators/DoWork -H "Content-Length: 0" -i'
STATUS = (
    "curl https://myfunc.azurewebsites.net/runtime/webhooks/durabletask/instances/b79baf67f717453ca9e86c5da21e03ec -i"
)
APPROVE = (
    'curl -d "true" http://localhost:7071/runtime/webhooks/durabletask/instances/{instanceId}/raiseEvent/ApprovalEvent '
    '-H "Content-Type: application/json"'
)


class Reply(NamedTuple):
    line: str
    headers: dict[str, str]
    body: Any


@contextlib.asynccontextmanager
async def served(config: HostConfig | None = None) -> AsyncIterator[tuple[Host, str]]:
    app = App()

    @app.orchestrator(name="DoWork")
    async def do_work(ctx: OrchestrationContext) -> Any:
        return await ctx.wait_for_external_event("ApprovalEvent")

    listener = socket.create_server(("127.0.0.1", 0))
    async with app.host("memory://", config=config) as host:
        server = uvicorn.Server(uvicorn.Config(host.http_app(loopback_only=True), lifespan="off", log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield host, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


async def run(command: str, origin: str, instance_id: str = "") -> str:
    """Run a command as it is written, but for the origin and the instance id."""
    for known in ("https://myfunc.azurewebsites.net", "http://localhost:7071"):
        command = command.replace(known, origin)
    for place in ("b79baf67f717453ca9e86c5da21e03ec", "{instanceId}"):
        command = command.replace(place, instance_id)
    program, *arguments = shlex.split(command)
    process = await asyncio.create_subprocess_exec(
        program, "-sS", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, complaints = await process.communicate()
    assert (process.returncode, complaints) == (0, b"")
    return out.decode()


def reply(text: str) -> Reply:
    head, _, body = text.replace("\r\n", "\n").partition("\n\n")
    line, *fields = head.split("\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return Reply(line, headers, json.loads(body))


def test_start_poll_approve_poll() -> None:
    async def scenario() -> None:
        async with served() as (host, origin):
            started = reply(await run(START, origin))
            assert started.line == "HTTP/1.1 202 Accepted"
            assert started.headers["content-type"] == "application/json"
            instance_id = started.body["id"]
            location = f"{origin}/runtime/webhooks/durabletask/instances/{instance_id}"
            assert started.headers["location"] == location

            running = reply(await run(STATUS, origin, instance_id))
            assert running.line == "HTTP/1.1 202 Accepted"
            assert running.headers["content-type"] == "application/json"
            assert running.headers["location"] == location
            assert running.body["runtimeStatus"] in ("Pending", "Running")
            assert running.body["lastUpdatedTime"].endswith("Z")

            assert await run(APPROVE, origin, instance_id) == ""
            await host.client.wait_until_stopped(instance_id, timeout=PATIENCE)

            done = reply(await run(STATUS, origin, instance_id))
            assert done.line == "HTTP/1.1 200 OK"
            assert done.headers["content-type"] == "application/json"
            assert int(done.headers["content-length"]) > 0
            assert "location" not in done.headers
            assert (done.body["runtimeStatus"], done.body["output"]) == ("Completed", True)

    asyncio.run(scenario())


def test_live_updates_arrive_while_they_happen() -> None:
    async def scenario() -> None:
        async with served() as (host, origin):
            started = reply(await run(START, origin))
            instance_id = started.body["id"]
            url = f"{started.headers['location']}/events"
            async with asyncio.timeout(PATIENCE.total_seconds()):
                watching, line = await watch(url)
                assert line == b"event: status\n"  # before anything is over
                await run(APPROVE, origin, instance_id)
                assert watching.stdout is not None
                rest = (await watching.stdout.read()).decode()
            assert await watching.wait() == 0
            last = rest.strip().split("\n\n")[-1]
            assert json.loads(last.rpartition("data: ")[2])["runtimeStatus"] == "Completed"

    asyncio.run(scenario())


def test_a_watcher_that_goes_away_gives_its_place_back() -> None:
    async def scenario() -> None:
        async with served(HostConfig(http_streams_max=1)) as (host, origin):
            await host.client.start_new("DoWork", instance_id="x")
            url = f"{origin}/runtime/webhooks/durabletask/instances/x/events"
            first, line = await watch(url)
            assert line == b"event: status\n"
            refused, line = await watch(url)
            assert b"http_streams_max" in line
            await refused.wait()
            first.kill()
            await first.wait()
            async with asyncio.timeout(PATIENCE.total_seconds()):
                while not line.startswith(b"event"):
                    again, line = await watch(url)
                    with contextlib.suppress(ProcessLookupError):  # it was refused, and is done
                        again.kill()
                    await again.wait()

    asyncio.run(scenario())


async def watch(url: str) -> tuple[asyncio.subprocess.Process, bytes]:
    """Start to follow a stream; return who does, and the first line."""
    watching = await asyncio.create_subprocess_exec("curl", "-sSN", url, stdout=asyncio.subprocess.PIPE)
    assert watching.stdout is not None
    return watching, await watching.stdout.readline()
