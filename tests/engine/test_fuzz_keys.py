"""Operations with idempotency keys, sent again and again: each has one effect, equal answers, and its place in line.

Drawn from a seed: what each of four senders sends to eight entities, one operation after the other (signals, calls,
signals that are scheduled, many signals at once with one key twice among them; operations that wait, that fail, and
that signal another entity); on each of four hosts, one after the other on one store, how slow the store is, which of
its commits fail and how, whether instances stay in memory, how soon timers are read, and when the host is stopped. A
sender repeats what was not acknowledged, and now and then also what was. Orchestrations lock the entities meanwhile.
How the tasks of a host take turns is not drawn, so a seed that has failed may have to be run again.

Checked: each answer is the same each time; in the end each entity has seen each operation once, in the order of its
sender unless it was scheduled, and nothing of those that failed; and nothing is locked, waits or is parked.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from engine_kit import SOON, FailingStore, Run, SlowStore, eventually, running

from holdfast import (
    App,
    Entity,
    EntityId,
    EntitySignal,
    HoldfastError,
    HostConfig,
    OrchestrationContext,
    TaskFailedError,
    entity_context,
)
from holdfast.storage.memory import MemoryData, MemoryStore

KEYS = "abcdefgh"
SENDERS, OPERATIONS, HOSTS = 4, 12, 4
KINDS = ["add", "slow", "fail", "fail, called", "called", "scheduled", "many", "relay", "fail to relay"]
MODES = ["before", "unknown, not applied", "unknown, applied"]


@dataclass
class Log(Entity):
    seen: list[str] = field(default_factory=list)

    def add(self, key: str) -> int:
        self.seen.append(key)
        return len(self.seen)

    async def slow(self, key: str) -> int:
        self.seen.append(key)
        await asyncio.sleep(0.002)
        return len(self.seen)

    def fail(self, key: str) -> int:
        self.seen.append(f"the failed {key}")
        raise ValueError(key)

    def relay(self, key: str) -> None:
        for part in _relayed(key):
            entity_context().signal_entity(EntityId(Log, "relayed"), Log.add, part)

    def fail_to_relay(self, key: str) -> None:
        self.relay(f"the failed {key}")
        raise ValueError(key)


def _relayed(key: str) -> list[str]:
    return [f"first of {key}", f"second of {key}"]


def make_app() -> App:
    app = App()
    app.entity(Log)

    @app.orchestrator
    async def lock(ctx: OrchestrationContext, key: str) -> None:
        async with ctx.lock(EntityId(Log, key)):
            await ctx.create_timer(timedelta(milliseconds=3))

    _ = lock
    return app


@dataclass(frozen=True)
class Operation:
    entity: str
    kind: str
    key: str
    due: timedelta

    async def send(self, run: Run) -> Any:
        """Return the answer, if there is one."""
        client, entity, key = run.client, EntityId(Log, self.entity), self.key
        match self.kind:
            case "called":
                return await client.call_entity(entity, Log.add, key, key=key, timeout=SOON)
            case "fail, called":
                with pytest.raises(ValueError, match=key) as failed:
                    await client.call_entity(entity, Log.fail, key, key=key, timeout=SOON)
                if not isinstance(failed.value, TaskFailedError):
                    raise failed.value
            case "scheduled":
                await client.signal_entity(entity, Log.add, key, key=key, due=self.due)
            case "many":
                await client.signal_many([EntitySignal(entity, Log.add, each, key=each) for each in self.seen * 2])
            case _:
                await client.signal_entity(entity, self.kind.replace(" ", "_"), key, key=key)
        return None

    @property
    def seen(self) -> list[str]:
        """What the entity will have seen of it."""
        match self.kind:
            case "many":
                return [self.key, f"{self.key}, too"]
            case "add" | "slow" | "called" | "scheduled":
                return [self.key]
            case _:
                return []


class Fuzz:
    """A world, and what is drawn for it."""

    def __init__(self, seed: int) -> None:
        self._rng = rng = random.Random(seed)
        self._data = MemoryData()
        self._operations = [
            [
                Operation(rng.choice(KEYS), rng.choice(KINDS), f"{sender}.{number}", _due(rng))
                for number in range(OPERATIONS)
            ]
            for sender in range(SENDERS)
        ]
        self._acknowledged = [0] * SENDERS
        self._answers: dict[str, Any] = {}

    async def run(self) -> None:
        for host in range(HOSTS):
            is_last, rng = host == HOSTS - 1, self._rng
            failing = FailingStore(MemoryStore(self._data))
            store = SlowStore(failing)
            store.before = {"load": rng.choice([0, 0.002]), "commit": rng.choice([0, 0.003])}
            if not is_last:
                failing.fail_at = {rng.randrange(1, 60): rng.choice(MODES) for _ in range(6)}
            config = HostConfig(
                drain_s=0.05, cache_bytes_max=rng.choice([1, 10**8]), timer_horizon_s=rng.choice([1, 600])
            )
            async with running(make_app(), store, config) as run:
                await self._use(run, None if is_last else rng.choice([0.02, 0.1, 0.3]))
                if is_last:
                    await self._check(run)

    async def _use(self, run: Run, seconds: float | None) -> None:
        """Send what is left to be sent, on the last host; or for some time."""
        tasks = [asyncio.create_task(self._send(run, sender, seconds is None)) for sender in range(SENDERS)]
        tasks.append(asyncio.create_task(self._lock(run)))
        done, pending = await asyncio.wait(tasks, timeout=SOON.total_seconds() if seconds is None else seconds)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()
        assert seconds is not None or not pending

    async def _send(self, run: Run, sender: int, must_succeed: bool) -> None:
        operations = self._operations[sender]
        while self._acknowledged[sender] < OPERATIONS:
            operation = operations[self._acknowledged[sender]]
            try:
                answer = await operation.send(run)
            except HoldfastError:
                if must_succeed:
                    raise
                await asyncio.sleep(0.003)
                continue
            assert self._answers.setdefault(operation.key, answer) == answer
            self._acknowledged[sender] += self._rng.random() < 0.8
            await asyncio.sleep(self._rng.choice([0, 0.001]))

    async def _lock(self, run: Run) -> None:
        for _ in range(10):
            with contextlib.suppress(HoldfastError):  # others will be started
                await run.client.start_new("lock", self._rng.choice([*KEYS, "relayed"]))
            await asyncio.sleep(0.01)

    async def _check(self, run: Run) -> None:
        async def settled() -> bool:
            return run.engine.node.is_quiet and not self._data.messages and not self._data.timers

        await eventually(settled)
        found = {each.entity_id.key: each async for each in run.client.iterate_entities()}
        for each in found.values():
            assert (each.lock, each.messages, each.parked) == (None, 0, None)
        seen = {key: each.state["seen"] if each.exists else [] for key, each in found.items()}
        for entity in KEYS:
            assert sorted(seen.get(entity, [])) == sorted(self._expected(entity))
            for sender in range(SENDERS):
                in_order = list(self._expected(entity, sender, is_ordered=True))
                assert [each for each in seen.get(entity, []) if each in in_order] == in_order
        relays = [each for operations in self._operations for each in operations if each.kind == "relay"]
        assert sorted(seen.get("relayed", [])) == sorted(part for each in relays for part in _relayed(each.key))

    def _expected(self, entity: str, sender: int | None = None, *, is_ordered: bool = False) -> Iterator[str]:
        for number, operations in enumerate(self._operations):
            for each in operations:
                is_wanted = each.entity == entity and sender in (None, number)
                if is_wanted and not (is_ordered and each.kind == "scheduled"):
                    yield from each.seen


def _due(rng: random.Random) -> timedelta:
    return timedelta(milliseconds=rng.choice([1, 20, 200]))


@pytest.mark.parametrize("seed", range(4))
def test_each_operation_has_one_effect(seed: int) -> None:
    asyncio.run(Fuzz(seed).run())


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4, 64))
def test_each_of_many_more_operations_has_one_effect(seed: int) -> None:
    asyncio.run(Fuzz(seed).run())
