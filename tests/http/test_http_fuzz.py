"""Requests that nobody thought of: made of the OpenAPI document, and answered as it says."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Final

import pytest
import schemathesis
from http_app import BASE, make_app
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast import Host
from holdfast.http.openapi import openapi_document
from holdfast.http.table import OPERATIONS

EXAMPLES: Final = 15
KNOWN_IDS: Final = ("done", "failed", "waiting")
CHECKS: Final = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
KNOWN_NAMES: Final = ("echo", "WaitForApproval", "items", "counter")


class OtherLoop:
    """An ASGI app that runs on the loop of its host, wherever a request comes from."""

    def __init__(self, app: ASGIApp, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._loop = loop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        here = asyncio.get_running_loop()

        async def receive_there() -> Message:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_awaited(receive()), here))

        async def send_there(message: Message) -> None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_awaited(send(message)), here))

        if scope["type"] != "http":
            raise AssertionError("only requests are sent here")
        there = asyncio.run_coroutine_threadsafe(_awaited(self._app(scope, receive_there, send_there)), self._loop)
        await asyncio.wrap_future(there)


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


async def populate(host: Host) -> None:
    client = host.client
    await client.start_new("echo", 1, instance_id="done")
    await client.start_new("failing", "no", instance_id="failed")
    await client.start_new("WaitForApproval", instance_id="waiting")
    for instance_id in ("done", "failed"):
        await client.wait_until_stopped(instance_id)


@pytest.fixture
def app() -> Iterator[ASGIApp]:
    """The app of a host that lives on a thread of its own: the requests come from loops that come and go."""
    loop = asyncio.new_event_loop()
    started: Future[Host] = Future()
    stop = asyncio.Event()

    async def live() -> None:
        async with make_app().host("memory://") as host:
            await populate(host)
            started.set_result(host)
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(live()))
    thread.start()
    host = started.result(timeout=30)
    yield OtherLoop(host.http_app(), loop)
    loop.call_soon_threadsafe(stop.set)
    thread.join(timeout=30)
    loop.close()


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", [operation.name for operation in OPERATIONS])
def test_what_the_document_allows_or_forbids_is_answered_as_it_says(
    app: ASGIApp, name: str, mode: GenerationMode
) -> None:
    operation = schemathesis.openapi.from_dict(openapi_document(BASE)).find_operation_by_id(name)
    # A stream about what waits goes on for ever.
    ids = [each for each in KNOWN_IDS if name != "events" or each != "waiting"]

    @given(
        case=operation.as_strategy(generation_mode=mode),
        known=st.sampled_from([None, *ids]),
        named=st.sampled_from(KNOWN_NAMES),
    )
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def ask(case: Any, known: str | None, named: str) -> None:
        if known is not None:  # what is there gets further than what is not
            case.path_parameters = {key: known if key == "instanceId" else named for key in case.path_parameters or {}}
        case.query = shortened(name, case.query or {})
        response = case.call(app=app)
        case.validate_response(response, checks=CHECKS)
        if response.status_code == 500:  # known to the protocol, and no accident
            told = response.json()
            assert "runtimeStatus" in told or told["ExceptionType"] == "holdfast.errors.InstanceNotRunningError"

    ask()


def shortened(name: str, query: dict[str, Any]) -> dict[str, Any]:
    """Return a query whose waits are short: they are as long as a day else."""
    waits = {"timeout", "pollingInterval"} & query.keys() | ({"timeout"} if name == "update" else set())
    return {**query, **dict.fromkeys(waits, 0.01)}
