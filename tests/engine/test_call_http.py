"""Durable HTTP from an orchestrator, against a server of our own: polling, retries, what is refused, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from engine_kit import SOON, running
from test_orchestrations import MakeStore

from holdfast import (
    App,
    DurableHttpError,
    DurableHttpResponse,
    HostConfig,
    HttpCallPolicy,
    InvalidInputError,
    OrchestrationContext,
    RetryPolicy,
    TaskFailedError,
)

Answer = tuple[int, dict[str, str], str]


@asynccontextmanager
async def serving(answer: Callable[[str, str, int], Answer]) -> AsyncIterator[tuple[str, list[str]]]:
    """Serve on a port of our own; `answer` gets method, path and the number of the request, from 1."""
    requests: list[str] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split("\r\n")[0].split(" ")
        requests.append(f"{method} {path}")
        status, headers, body = answer(method, path, len(requests))
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}", requests
    finally:
        server.close()


def make_app(**options: Any) -> App:
    app = App()

    @app.orchestrator
    async def call(ctx: OrchestrationContext, url: str) -> list[Any]:
        try:
            response = await ctx.call_http("POST", url, content="x", **options)
        except DurableHttpError as error:
            return [type(error).__name__, str(error), isinstance(error, TaskFailedError)]
        return [response.status_code, response.content]

    return app


async def outcome(app: App, make_store: MakeStore, authority: str, config: HostConfig | None = None) -> list[Any]:
    config = config or HostConfig(drain_s=0.2, cache_bytes_max=1, http_calls=HttpCallPolicy(allowed_hosts=(authority,)))
    async with running(app, make_store(), config) as run:
        handle = await run.client.start_new("call", f"http://{authority}/jobs")
        return await handle.wait_for_completion(timeout=SOON)


def test_a_202_is_polled_and_bad_answers_are_tried_again(make_store: MakeStore) -> None:
    answers: list[Answer] = [
        (503, {}, "busy"),
        (202, {"Location": "/jobs/1", "Retry-After": "0"}, ""),
        (500, {}, "oops"),
        (202, {"Location": "/jobs/2", "Retry-After": "0"}, ""),
        (200, {}, "done"),
    ]
    retry = RetryPolicy(max_attempts=3, first_retry_interval=timedelta(milliseconds=1))

    async def main() -> None:
        async with serving(lambda _, __, n: answers[n - 1]) as (authority, requests):
            assert await outcome(make_app(retry=retry), make_store, authority) == [200, "done"]
            assert requests == ["POST /jobs", "POST /jobs", "GET /jobs/1", "GET /jobs/1", "GET /jobs/2"]

    asyncio.run(main())


def test_the_last_answer_counts_when_retries_are_used_up(make_store: MakeStore) -> None:
    retry = RetryPolicy(max_attempts=2, first_retry_interval=timedelta(milliseconds=1))

    async def main() -> None:
        async with serving(lambda _, __, n: (503, {}, f"busy {n}")) as (authority, _):
            assert await outcome(make_app(retry=retry), make_store, authority) == [503, "busy 2"]
        async with serving(lambda _, __, n: (202, {"Location": "/x"}, "")) as (authority, requests):
            app = make_app(asynchronous_pattern_enabled=False)
            assert await outcome(app, make_store, authority) == [202, None]
            assert len(requests) == 1

    asyncio.run(main())


def test_internal_addresses_are_refused_by_default_and_nothing_is_sent(make_store: MakeStore) -> None:
    async def main() -> None:
        async with serving(lambda _, __, n: (200, {}, "secret")) as (authority, requests):
            kind, message, is_task_failure = await outcome(make_app(), make_store, authority, HostConfig(drain_s=0.2))
            assert (kind, is_task_failure, requests) == ("ForbiddenAddressError", True, [])
            assert "internal" in message

    asyncio.run(main())


def test_what_cannot_be_sent_is_refused_at_the_call(make_store: MakeStore) -> None:
    app = App()
    refused: list[str] = []

    @app.orchestrator
    async def bad(ctx: OrchestrationContext) -> None:
        for method, uri, options in (
            ("GET", "file:///etc/passwd", {}),
            ("GET", "http://user:password@example.com/", {}),
            ("GET", "http://example.com/", {"headers": {"a": "b\r\nc: d"}}),
            ("G ET", "http://example.com/", {}),
            ("GET", "http://example.com/", {"timeout": timedelta(0)}),
            ("GET", "http://example.com/", {"retry": 3}),
        ):
            with pytest.raises(InvalidInputError):
                ctx.call_http(method, uri, **options)  # type: ignore[arg-type]  # it is the point
            refused.append(uri)

    async def main() -> None:
        async with running(app, make_store()) as run:
            await (await run.client.start_new(bad)).wait_for_completion(timeout=SOON)

    asyncio.run(main())
    assert len(refused) == 6


def test_a_response_can_be_read_in_any_case() -> None:
    response = DurableHttpResponse(status_code=200, headers={"Content-Type": "a/b"}, content='{"a":1}')
    assert response.header("CONTENT-TYPE") == "a/b"
    assert response.json() == {"a": 1}
