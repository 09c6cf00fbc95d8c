"""The workloads of the simulator on a private PostgreSQL, in real time that goes fast, with the ledger beside it.

What a seed decides here is which commits fail and how, and when a host dies; not in which order things happen.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from workloads import make_world

from holdfast import Client, HostConfig, HostStoppedError, Limits, StorageError
from holdfast.codec.converter import JsonConverter
from holdfast.engine.clock import to_microseconds
from holdfast.engine.engine import Engine
from holdfast.engine.fleet import client_of
from holdfast.errors import CommitFailedError, OverloadedError
from holdfast.storage.open_store import open_store, open_whole
from holdfast.storage.port import Fence, Ownership, Store, WriteSet
from holdfast.testing.ledger import Ledger
from postgres_kit import drop, new_schema

SPEED = 20
SEEDS_SOAK = int(os.environ.get("HOLDFAST_POSTGRES_SEEDS", "100"))
COMMIT_FAILS = 0.1
CRASH_AFTER = (3, 25)
"""Commits that a host makes before it dies, at least and at most; the last one of three stays."""
ENDED = ("Completed", "Failed", "Terminated", "Canceled")
SOON_S = 100.0


class FastClock:
    """The time of all hosts of a world."""

    def __init__(self) -> None:
        self._began, self._began_at = time.monotonic(), datetime(2030, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self._began_at + timedelta(seconds=(time.monotonic() - self._began) * SPEED)


class FollowedStore:
    """Passes everything on to a store and tells the ledger; some commits fail, before or after they were applied."""

    def __init__(self, store: Store, world: World) -> None:
        self._store = store
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def acquire(self, now: int, **options: Any) -> Ownership:
        ownership = await self._store.acquire(now, **options)
        self._world.ledger.acquired(ownership)
        return ownership

    async def commit(self, fence: Fence, writes: WriteSet) -> None:
        dice, trouble = self._world.dice, self._world.count
        fails = dice.random() < COMMIT_FAILS
        is_applied = not fails or dice.random() < 0.5
        if is_applied:
            await self._store.commit(fence, writes)
            self._world.ledger.apply(fence, writes)
        self._world.commits += 1
        if fails:
            trouble("commits that failed")
            raise CommitFailedError("planted", outcome_unknown=is_applied or dice.random() < 0.5)


class World:
    """One host after the other on one hub, each until it dies."""

    def __init__(self, url: str, seed: int, count: Callable[[str], None]) -> None:
        self.app, self.workloads = make_world(seed, is_deadly=False)
        self.dice = random.Random(f"{seed}/postgres")
        self.clock = FastClock()
        self.ledger = Ledger(lambda: to_microseconds(self.clock.now()))
        self.count = count
        self.commits = 0
        self.client: Any = InsistingClient(self)
        self._url = url
        self._config = HostConfig(
            drain_s=0.1,
            clock_check_s=0.005,
            renew_s=0.5,
            poll_s=0.05,
            cache_bytes_max=self.dice.choice((1, 10_000_000)),
            activities_max=self.dice.choice((1, 1_000)),
            limits=Limits(deliveries_max=100),
        )
        self.is_over = False
        self.of_now: tuple[Client, asyncio.Event] | None = None
        """The client of the host that lives, and what is set when it dies: nobody hears then of what it was asked."""

    async def advance(self, **duration: float) -> None:
        await asyncio.sleep(timedelta(**duration).total_seconds() / SPEED)

    async def live(self) -> None:
        """Run hosts until all is over."""
        async with AsyncExitStack() as stack:
            for life in range(3):
                store = open_store(self._url)
                converter = JsonConverter(payload_bytes_max=self._config.limits.payload_bytes_max)
                followed: Any = FollowedStore(store, self)
                engine = Engine(self.app.registry, followed, converter, self._config, self.clock)
                client = client_of(engine, converter)
                await engine.start()
                stack.push_async_callback(engine.stop)
                death = asyncio.Event()
                self.of_now = client, death
                dies_at = self.commits + self.dice.randint(*CRASH_AFTER)
                while not self.is_over and (life == 2 or self.commits < dies_at):
                    await asyncio.sleep(0.002)
                if self.is_over:
                    return
                self.of_now = None
                self.count("hosts that died")
                death.set()
                await store.close()


class InsistingClient:
    """Asks the host of now, and asks again what has a key, or was certainly not done."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        async def ask(*values: Any, **options: Any) -> Any:
            has_key = options.get("key") or options.get("request_key") or name.startswith(("get_", "wait_"))
            while True:
                try:
                    client, death = await self._host()
                    answer = await _answered(getattr(client, name)(*values, **options), death)
                except (StorageError, OverloadedError, HostStoppedError) as error:
                    if not has_key and (getattr(error, "outcome_unknown", False) or name == "call_entity"):
                        raise
                    await asyncio.sleep(0.002)
                else:
                    return Handle(self._world, answer.instance_id) if name == "start_new" else answer

        return ask

    async def _host(self) -> tuple[Client, asyncio.Event]:
        while self._world.of_now is None:
            await asyncio.sleep(0.002)
        return self._world.of_now


async def _answered(asking: Coroutine[Any, Any, Any], death: asyncio.Event) -> Any:
    request, dying = asyncio.ensure_future(asking), asyncio.ensure_future(death.wait())
    await asyncio.wait({request, dying}, return_when=asyncio.FIRST_COMPLETED)
    dying.cancel()
    if request.done():
        return request.result()
    request.cancel()
    await asyncio.wait({request})
    raise CommitFailedError("the host died", outcome_unknown=True)


class Handle:
    """What was started, whichever host runs it."""

    def __init__(self, world: World, instance_id: str) -> None:
        self.instance_id = instance_id
        self._world = world

    async def wait_for_completion(self) -> Any:
        return await self._world.client.wait_for_completion(self.instance_id)


@pytest.fixture
def url(postgres_server: str) -> Iterator[str]:
    url = new_schema(postgres_server, partitions=4)
    yield url
    drop(url)


async def play(world: World) -> None:
    for workload in world.workloads:
        workload.outside.said = world.ledger.ever_said
    living = asyncio.create_task(world.live())
    playing = asyncio.gather(*(workload.play(world) for workload in world.workloads))  # type: ignore[arg-type]  # as far as they need it, it is a simulation
    try:
        async with asyncio.timeout(SOON_S):
            await asyncio.wait({living, playing}, return_when=asyncio.FIRST_COMPLETED)
            if living.done():
                living.result()
            await playing
            while goes_on(world.ledger):
                await asyncio.sleep(0.01)
    finally:
        world.is_over = True
        await living


def goes_on(ledger: Ledger) -> list[str]:
    """Return the instances that have not ended, and what was sent to entities and is still to come."""
    orchestrations = [each.instance_id for each in ledger.instances.values() if not each.instance_id.startswith("@")]
    waiting = [each.instance_id for each in (*ledger.messages.values(), *ledger.timers.values())]
    return [each for each in orchestrations if ledger.instances[each].status not in ENDED] + waiting


def check(world: World, url: str) -> None:
    ledger = world.ledger
    with open_whole(url).snapshot() as snapshot:
        stored = {table: list(snapshot.rows(table)) for table in ("instance", "inbox", "activity", "timer", "child")}
    assert uncounted(stored["instance"]) == uncounted(ledger.instances.values())
    assert (stored["inbox"], stored["activity"], stored["timer"], stored["child"]) == ([], [], [], [])
    states = {row.instance_id: json.loads(row.state) for row in ledger.instances.values() if row.state is not None}
    for workload in world.workloads:
        workload.check(states)


def uncounted(rows: Iterable[Any]) -> dict[str, Any]:
    """Return instances by id, without their deliveries: the store counts these when it is taken after a crash."""
    return {row.instance_id: msgspec.structs.replace(row, deliveries=0) for row in rows}


def survive(url: str, seed: int, survived: Callable[[str, int], None], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    happened: dict[str, int] = {}

    def count(what: str) -> None:
        happened[what] = happened.get(what, 0) + 1

    world = World(url, seed, count)
    asyncio.run(play(world))
    check(world, url)
    for what, times in happened.items():
        survived(f"{what} under the simulator's workloads on PostgreSQL", times)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_goes_wrong(
    url: str, seed: int, survived: Callable[[str, int], None], caplog: pytest.LogCaptureFixture
) -> None:
    survive(url, seed, survived, caplog)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3, 3 + SEEDS_SOAK))
def test_nothing_goes_wrong_in_more_worlds(
    url: str, seed: int, survived: Callable[[str, int], None], caplog: pytest.LogCaptureFixture
) -> None:
    survive(url, seed, survived, caplog)
