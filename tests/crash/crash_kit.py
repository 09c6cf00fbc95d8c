"""What the tests of crash points share: a workload with a bit of everything, asked for by a client that never gives up.

All of its requests can be repeated: after an error, or from the start by a client whose process died too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import engine_kit
from doctor_rows import findings
from engine_kit import SOON, World, eventually, make_app
from store_check import Rows, complaints, leftovers

from holdfast import (
    App,
    Client,
    EntityId,
    HostConfig,
    InstanceNotRunningError,
    OrchestrationContext,
    RetryPolicy,
    StorageError,
    activity_context,
)

T = TypeVar("T")

CONFIG = HostConfig(cache_bytes_max=1, drain_s=0.05, group_transitions_max=1, journal_transitions_max=1)
"""Each transition is a commit, and nothing stays in memory that can be read again: so there are many calls."""

WAIT_FOR_EVENTS = ("events", "countdown", "holder")
EXPECTED: dict[str, object] = {
    "chain": 16,
    "fan": 6,
    "parent": [1, 2],
    "sleepy": "awake",
    "stubborn": 3,
    "events": ["x", "y"],
    "countdown": "last 2",
    "transfer": 7,
    "paused": ["z"],
    "holder": "Terminated",
    "called": 5,
    "accounts": [{"balance": -7}, {"balance": 7}, {"balance": 13}],
}
EXPECTED_CALLS = {("double", n) for n in (1, 2, 4, 8, 0)} | {("stubborn", 3)}
"""What the activities are called with, at least once each."""


def account(key: str) -> EntityId[Any]:
    return EntityId("account", key)


def make_crash_app(world: World) -> App:
    app = make_app(world)

    @app.activity(retry=RetryPolicy(max_attempts=3, first_retry_interval=timedelta(milliseconds=1)))
    async def third_time_lucky(times: int) -> int:
        world.calls.append(("stubborn", times))
        if activity_context().attempt < times:
            raise ConnectionError("not yet")
        return times

    @app.orchestrator
    async def stubborn(ctx: OrchestrationContext, times: int) -> int:
        return await ctx.call_activity(third_time_lucky, times)

    @app.orchestrator
    async def holder(ctx: OrchestrationContext) -> None:
        async with ctx.lock(account("cyd"), account("held")):
            await ctx.wait_for_external_event("never")

    _ = (stubborn, holder)
    return app


async def insist(request: Callable[[], Awaitable[T]]) -> T | None:
    """Repeat a request until it is acknowledged; what comes too late for its instance has been there before."""
    try:
        return await engine_kit.insist(request)
    except InstanceNotRunningError:
        return None


class CarefulClient:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.acknowledged: Callable[[str], None] = lambda what: None
        """Is told of each request that was answered, at once."""
        self.trusted: set[str] = set()
        """Requests that were answered before: they are not repeated, so that their effect has to be there."""

    async def ask(self, what: str, request: Callable[[], Awaitable[T]]) -> T | None:
        if what in self.trusted:
            return None
        answer = await insist(request)
        self.acknowledged(what)
        return answer

    async def start(self, name: str, value: object, instance_id: str) -> None:
        await self.ask(
            f"start {instance_id}",
            lambda: self.client.start_new(name, value, instance_id=instance_id, request_key=instance_id),
        )

    async def result(self, instance_id: str) -> Any:
        return await insist(lambda: self.client.wait_for_completion(instance_id, timeout=SOON))

    async def send(self, instance_id: str, name: str, data: str) -> None:
        await self.ask(
            f"event {instance_id} {data}",
            lambda: self.client.raise_event(instance_id, name, data, key=f"{name} {data}"),
        )

    async def signal(self, entity: EntityId[Any], amount: int, key: str) -> None:
        await self.ask(f"signal {key}", lambda: self.client.signal_entity(entity, "add", amount, key=key))


async def workload(careful: CarefulClient) -> dict[str, object]:
    """Ask for everything at once; return what came of it."""
    results: dict[str, object] = {}

    async def orchestrate(name: str, value: object) -> None:
        await careful.start(name, value, name)
        results[name] = await careful.result(name)

    plain = [("chain", 4), ("fan", 3), ("parent", 2), ("sleepy", 2), ("stubborn", 3), ("transfer", ("ann", "bob", 7))]
    await asyncio.gather(
        *(orchestrate(*each) for each in plain),
        _events(careful, results),
        _countdown(careful, results),
        _suspend(careful, results),
        _terminate(careful, results),
        _operate(careful, results),
    )
    results["accounts"] = await _settled_accounts(careful.client)
    return results


async def _events(careful: CarefulClient, results: dict[str, object]) -> None:
    await careful.start("events", 2, "events")
    await careful.send("events", "e", "x")
    await careful.send("events", "e", "y")
    results["events"] = await careful.result("events")


async def _countdown(careful: CarefulClient, results: dict[str, object]) -> None:
    await careful.start("countdown", 2, "countdown")
    for tick in ("1", "2"):
        await careful.send("countdown", "tick", tick)
    results["countdown"] = await careful.result("countdown")


async def _suspend(careful: CarefulClient, results: dict[str, object]) -> None:
    await careful.start("events", 1, "paused")
    await careful.ask("suspend", lambda: careful.client.suspend("paused"))
    await careful.send("paused", "e", "z")
    await careful.ask("resume", lambda: careful.client.resume("paused"))
    results["paused"] = await careful.result("paused")


async def _terminate(careful: CarefulClient, results: dict[str, object]) -> None:
    await careful.start("holder", None, "holder")
    await careful.ask("terminate", lambda: careful.client.terminate("holder"))
    status = await insist(lambda: careful.client.wait_until_stopped("holder", timeout=SOON))
    results["holder"] = status and status.runtime_status.value


async def _operate(careful: CarefulClient, results: dict[str, object]) -> None:
    await careful.signal(account("cyd"), 1, "first")
    call = lambda: careful.client.call_entity(account("dan"), "add", 5, key="called", timeout=SOON)  # noqa: E731
    results["called"] = await insist(call)
    await careful.signal(account("cyd"), 12, "second")


async def _settled_accounts(client: Client) -> list[object]:
    """Wait until the signals have had their effect and nobody holds a lock; return the states."""
    states: list[object] = []

    async def settled() -> bool:
        try:
            entities = [each async for each in client.iterate_entities()]
        except StorageError:
            return False
        states[:] = [each.state for each in entities if each.entity_id.key in ("ann", "bob", "cyd")]
        return (
            len(states) == 3
            and not any(each.lock or each.messages for each in entities)
            and states[2] != {"balance": 1}
        )

    await eventually(settled)
    return states


def check_cold(rows: Rows) -> None:
    """Check what a process left behind when it died, at any moment."""
    assert complaints(rows, WAIT_FOR_EVENTS) == []
    assert findings(rows) == []


def check_finished(rows: Rows, world: World, results: dict[str, object]) -> None:
    """Check that all was done that was asked for, once, and that nothing is left."""
    assert results == EXPECTED
    assert set(world.calls) == EXPECTED_CALLS, "an activity ran that nobody asked for, or one did not run"
    assert leftovers(rows) == []


def store_url(path: Path) -> str:
    return f"sqlite:///{path}"
