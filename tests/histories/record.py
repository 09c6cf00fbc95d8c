"""Records what has no golden history yet: `python tests/histories/record.py`. What is recorded is never rewritten."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import golden_app
from golden_app import app

from holdfast import Client, EntityId, HostConfig
from holdfast.model.history import CancelRequested, HistoryEvent, TaskCompleted, UpdateCompleted, UpdateRequested

FOLDER = Path(__file__).parent
ROOT = str(FOLDER.parents[1]) + "/"
SOON = timedelta(seconds=30)

Drive = Callable[[Client, str], Awaitable[object]]


def start(orchestrator: Any, *input: Any, **options: Any) -> Drive:
    """Start it, and let it go its way."""
    return lambda client, name: client.start_new(orchestrator, *input, instance_id=name, **options)


async def happened(client: Client, name: str, kind: type[HistoryEvent], times: int = 1) -> None:
    """Wait until the history has so many events of a kind."""
    async with asyncio.timeout(SOON.total_seconds()):
        while sum(type(event) is kind for event in await client.get_history(name)) < times:
            await asyncio.sleep(0.005)


async def began(client: Client, name: str) -> None:
    """Wait until the code has run to its first wait."""
    async with asyncio.timeout(SOON.total_seconds()):
        while not await client.get_history(name):
            await asyncio.sleep(0.005)


async def events(client: Client, name: str) -> None:
    run = await client.start_new(golden_app.events, instance_id=name)
    await run.raise_event(golden_app.ORDERED, golden_app.Order("plums"))


async def continues(client: Client, name: str) -> None:
    """Both events come at once: the second execution finds its own waiting."""
    run = await client.start_new(golden_app.continues, 2, instance_id=name)
    await run.raise_event("tick", "one")
    await run.raise_event("tick", "two")


async def cancelled(client: Client, name: str) -> None:
    await client.start_new(golden_app.cancelled, instance_id=name)
    await began(client, name)
    await cancel(client, name)


async def survives_cancellation(client: Client, name: str) -> None:
    await client.start_new(golden_app.survives_cancellation, instance_id=name)
    await began(client, name)
    await cancel(client, name)


async def cancelled_before_it_began(client: Client, name: str) -> None:
    """It never ran, so its code does not matter."""
    later = datetime.now(UTC) + timedelta(days=365)
    await client.start_new(golden_app.cancelled, instance_id=name, start_at=later)
    await cancel(client, name)


async def cancel(client: Client, name: str) -> None:
    event = CancelRequested(timestamp=datetime.now(UTC), reason='"enough"')
    await client._hub.send(name, event)  # pyright: ignore[reportPrivateUsage] - the events are what is recorded


async def terminated(client: Client, name: str) -> None:
    run = await client.start_new(golden_app.terminated, instance_id=name)
    await happened(client, name, TaskCompleted)
    await run.terminate("enough")


async def running(client: Client, name: str) -> None:
    await client.start_new(golden_app.running, instance_id=name)
    await happened(client, name, TaskCompleted)


async def updates(client: Client, name: str) -> None:
    run = await client.start_new(golden_app.updates, instance_id=name)
    await began(client, name)
    asked = [("add", "-1"), ("add", "13"), ("add", "21"), ("peek", None), ("unknown", None)]
    for number, (update, payload) in enumerate(asked):
        request = UpdateRequested(timestamp=datetime.now(UTC), update_id=f"u{number}", name=update, input=payload)
        await client._hub.send(name, request)  # pyright: ignore[reportPrivateUsage] - as above
        await happened(client, name, UpdateCompleted, number + 1)
    again = UpdateRequested(timestamp=datetime.now(UTC), update_id="u2", name="add", input="21")
    late = UpdateRequested(timestamp=datetime.now(UTC), update_id="late", name="late")
    for request in (again, late):
        await client._hub.send(name, request)  # pyright: ignore[reportPrivateUsage] - as above
    await run.raise_event("enough")


async def locks(client: Client, name: str) -> None:
    taken = EntityId(golden_app.Account, "taken")
    await client.start_new(golden_app.keeps_a_lock)
    while (found := await client.get_entity(taken)) is None or found.lock is None:
        await asyncio.sleep(0.01)
    await client.start_new(golden_app.locks, instance_id=name)


SCENARIOS: Mapping[str, Drive] = {
    "chain": start(golden_app.chain, 4),
    "fan_out": start(golden_app.fan_out, 5),
    "generator": start(golden_app.generator, 21),
    "retries": start(golden_app.retries),
    "sub_orchestrations": start(golden_app.sub_orchestrations, 3, tags={"team": "fruit"}),
    "timers": start(golden_app.timers),
    "events": events,
    "continues": continues,
    "entities": start(golden_app.entities),
    "locks": locks,
    "races": start(golden_app.races),
    "maps": start(golden_app.maps),
    "task_groups": start(golden_app.task_groups),
    "sagas": start(golden_app.sagas),
    "cancelled": cancelled,
    "survives_cancellation": survives_cancellation,
    "cancelled_before_it_began": cancelled_before_it_began,
    "terminated": terminated,
    "expired": start(golden_app.terminated, run_timeout=timedelta(milliseconds=300)),
    "failed": start(golden_app.fails, "pears"),
    "failed_with_a_cause": start(golden_app.catches),
    "running": running,
    "deterministic": start(golden_app.deterministic, tags={"team": "fruit"}, version="3"),
    "patched": start(golden_app.patched),
    "versioned": start("versioned", version="2.0"),
    "updates": updates,
}
"""Each with the name of its file; drives an instance of that id to where its history is taken."""
IN_FLIGHT = frozenset({"running"})


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.json"


async def record(name: str) -> str:
    """Return the history of one scenario, without the paths of this machine."""
    async with app.host("memory://", config=HostConfig(drain_s=0.1)) as host:
        await SCENARIOS[name](host.client, name)
        if name not in IN_FLIGHT:
            await host.client.wait_until_stopped(name, timeout=SOON)
        return (await host.client.export_history(name)).replace(ROOT, "")


def main() -> None:
    for name in SCENARIOS:
        if not path_of(name).exists():
            path_of(name).write_text(asyncio.run(record(name)), encoding="utf-8")
            print(f"recorded {name}")


if __name__ == "__main__":
    main()
