"""Critical sections under whatever may happen to them: they exclude each other, and no lock is left behind.

Drawn from a seed, for hosts one after the other on one store: orchestrations that lock one to three of four entities,
again and again, with a timeout or a lease or without, and wait in their sections for an activity, a timer or an event,
continue as new, or fail; what is asked of them and of the entities meanwhile; how slow the store is; which commits
fail, and how; and whether instances stay in memory. In a calm world orchestrations are only suspended and resumed, so
nobody loses a lock; in a rough one they are also cancelled, terminated and rewound, leases end, locks are broken, and
entities are removed. How the tasks of a host take turns is not drawn, so a seed that has failed may have to be run
again.

Checked, after a last host on which nothing fails: every orchestration ends, none parked, no entity is locked, and
nothing waits for one. In a calm world all of them complete, which they do not if there were two in one section.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from engine_kit import SOON, FailingStore, Run, SlowStore, running

from holdfast import (
    App,
    Entity,
    EntityId,
    HoldfastError,
    HostConfig,
    LockLostError,
    OrchestrationContext,
    OrchestrationStatus,
    entity_context,
)
from holdfast.storage.memory import MemoryData, MemoryStore

KEYS = "abcd"
MODES = ["before", "unknown, not applied", "unknown, applied"]

CALM = {"start": 10, "signal": 4, "suspend": 4, "resume": 2}
ROUGH = {
    "start": 10,
    "signal": 1,
    "suspend": 1,
    "resume": 1,
    "cancel": 1,
    "terminate": 2,
    "rewind": 1,
    "break_lock": 1,
    "clean": 1,
    "remove": 1,
}
"""What is asked for, and how often."""


@dataclass
class Room(Entity):
    visitor: str | None = None
    visits: int = 0

    def enter(self, visitor: str) -> None:
        if self.visitor is not None:
            raise ValueError(f"{visitor} meets {self.visitor}")
        self.visitor = visitor

    async def leave(self, visitor: str) -> None:
        await asyncio.sleep(0.001)
        if self.visitor != visitor:
            raise ValueError(f"{visitor} finds {self.visitor}")
        self.visitor = None

    def count(self) -> None:
        self.visits += 1

    def remove(self) -> None:
        entity_context().delete_state()


@dataclass
class Plan:
    """What an orchestration does: in which rooms, how often, and what it waits for in there."""

    keys: list[str]
    rounds: int
    continuations: int
    timeout_ms: int | None
    lease_ms: int | None
    inside: str
    is_calm: bool


def make_app() -> App:
    app = App()
    app.entity(Room)

    @app.activity
    async def rest() -> None:
        await asyncio.sleep(0.002)

    async def stay(ctx: OrchestrationContext, inside: str) -> None:
        match inside:
            case "activity":
                await ctx.call_activity(rest)
            case "timer":
                await ctx.create_timer(timedelta(milliseconds=5))
            case "event":
                with contextlib.suppress(TimeoutError):
                    await ctx.wait_for_external_event("never", timeout=timedelta(milliseconds=100))
            case "fail":
                raise RuntimeError("in the section")
            case _:
                pass

    @app.orchestrator
    async def visit(ctx: OrchestrationContext, plan: Plan) -> None:
        rooms = [EntityId(Room, key) for key in plan.keys]
        for number in range(plan.rounds):
            visitor = f"{ctx.instance_id}, visit {number}, before {plan.continuations} continuations"
            with contextlib.suppress(TimeoutError, LockLostError):
                async with ctx.lock(*rooms, timeout=_ms(plan.timeout_ms), lease=_ms(plan.lease_ms)):
                    if plan.is_calm:
                        for room in rooms:
                            await ctx.call_entity(room, Room.enter, visitor)
                    await stay(ctx, plan.inside)
                    for room in rooms:
                        if plan.is_calm:
                            await ctx.call_entity(room, Room.leave, visitor)
                        else:
                            await ctx.call_entity(room, Room.count)
                    if plan.inside == "continue" and plan.continuations:
                        ctx.continue_as_new(replace(plan, continuations=plan.continuations - 1))
                        return

    _ = visit
    return app


def _ms(milliseconds: int | None) -> timedelta | None:
    return None if milliseconds is None else timedelta(milliseconds=milliseconds)


class Fuzz:
    """A world, and what is drawn for it."""

    def __init__(self, seed: int, *, is_calm: bool) -> None:
        self._rng = random.Random(seed)
        self._is_calm = is_calm
        self._data = MemoryData()
        self._started: list[str] = []
        self._requests: set[asyncio.Task[None]] = set()

    async def run(self, hosts: int, steps: int) -> None:
        for host in range(hosts):
            await self._disturb(host, steps)
            async with asyncio.timeout(SOON.total_seconds()):
                await asyncio.gather(*self._requests)
            self._requests.clear()
        async with running(make_app(), MemoryStore(self._data), HostConfig(drain_s=0.05)) as run:
            await self._check(run)

    async def _disturb(self, host: int, steps: int) -> None:
        rng, failing = self._rng, FailingStore(MemoryStore(self._data))
        failing.fail_at = {rng.randrange(1, 120): rng.choice(MODES) for _ in range(6)}
        store = SlowStore(failing)
        store.before = {"load": rng.choice([0, 0.002]), "commit": rng.choice([0, 0.003])}
        config = HostConfig(drain_s=0.05, cache_bytes_max=rng.choice([1, 10**8]))
        weights = CALM if self._is_calm else ROUGH
        async with running(make_app(), store, config) as run:
            for step in range(steps):
                (kind,) = rng.choices(list(weights), list(weights.values()))
                task = asyncio.create_task(_attempt(self._request(run, kind, f"{host}.{step}")))
                self._requests.add(task)
                if kind not in ("start", "signal"):
                    await task
                await asyncio.sleep(rng.choice([0, 0, 0.002, 0.01]))
            await asyncio.sleep(0.05)

    def _request(self, run: Run, kind: str, name: str) -> Coroutine[Any, Any, Any]:
        client, room = run.client, EntityId(Room, self._rng.choice(KEYS))
        somebody = self._rng.choice(self._started or ["nobody"])
        match kind:
            case "start":
                self._started.append(name)
                return client.start_new("visit", self._plan(), instance_id=name)
            case "signal":
                return client.signal_entity(room, Room.count)
            case "suspend":
                return client.suspend(somebody)
            case "resume":
                return client.resume(somebody)
            case "cancel":
                return client.cancel(somebody)
            case "terminate":
                return client.terminate(somebody)
            case "rewind":
                return client.rewind(somebody)
            case "break_lock":
                return client.break_lock(room)
            case "clean":
                return client.clean_entities(idle_for=timedelta(0))
            case _:
                return client.signal_entity(room, Room.remove)

    def _plan(self) -> Plan:
        rng = self._rng
        return Plan(
            keys=rng.sample(KEYS, rng.randint(1, 3)),
            rounds=rng.randint(1, 3),
            continuations=rng.randint(0, 2),
            timeout_ms=rng.choice([None, None, 1, 5, 20]),
            lease_ms=None if self._is_calm else rng.choice([None, None, 1, 10]),
            inside=rng.choice(["activity", "timer", "event", "continue", "nothing"] + ["fail"] * (not self._is_calm)),
            is_calm=self._is_calm,
        )

    async def _check(self, run: Run) -> None:
        for instance_id in self._started:
            await _attempt(run.client.resume(instance_id))
        left: list[str] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SOON.total_seconds()):
                while left := await self._left_behind(run):
                    await asyncio.sleep(0.02)
        assert left == []
        expected = [OrchestrationStatus.COMPLETED] if self._is_calm else list(OrchestrationStatus)
        for instance_id in self._started:
            status = await run.client.get_status(instance_id)
            if status is not None:
                assert status.runtime_status in expected, status.failure
                assert status.failure is None or status.failure.error_type == "builtins.RuntimeError"

    async def _left_behind(self, run: Run) -> list[str]:
        """Return what has not ended yet, and what is locked, waited for or parked."""
        left: list[str] = []
        for instance_id in self._started:
            status = await run.client.get_status(instance_id)
            if status is not None and not status.runtime_status.is_terminal:
                left.append(f"{instance_id} is {status.runtime_status}: {status.parked}")
        entities = [each async for each in run.client.iterate_entities()]
        return left + [
            f"{each.entity_id}: {each.lock}, {each.messages} messages, {each.parked}"
            for each in entities
            if each.lock or each.messages or each.parked
        ]


async def _attempt(request: Coroutine[Any, Any, Any]) -> None:
    """Ask for something, which may be refused or not be known to have been done; but it has to be answered."""
    async with asyncio.timeout(SOON.total_seconds()):
        with contextlib.suppress(HoldfastError):
            await request


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("is_calm", [True, False])
def test_no_lock_is_left_behind(seed: int, is_calm: bool) -> None:
    asyncio.run(Fuzz(seed, is_calm=is_calm).run(hosts=2, steps=15))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("is_calm", [True, False])
def test_no_lock_is_left_behind_of_many_more(seed: int, is_calm: bool) -> None:
    asyncio.run(Fuzz(seed, is_calm=is_calm).run(hosts=3, steps=25))
