"""What runs in a simulated world: each workload adds its functions to the app, plays its part as a client, and says at
the end whether what came of it is possible."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from programs import ENTITIES, Grammar, Outside, called, check, make_app, tokens_of, waits

from holdfast import (
    App,
    Entity,
    EntityId,
    HostStoppedError,
    InstanceNotFoundError,
    InstanceNotRunningError,
    InstanceQuery,
    OrchestrationContext,
    OrchestrationFailedError,
    StorageError,
)
from holdfast.errors import CommitFailedError
from holdfast.testing.simulation import Simulation

T = TypeVar("T")


class Workload(Protocol):
    outside: Outside

    async def play(self, sim: Simulation) -> None:
        """Do what clients do, and wait for what must end."""
        ...

    def check(self, states: dict[str, Any]) -> None:
        """Hold the states of all entities, after everything has ended, against what was played."""
        ...


async def insist(request: Callable[[], Awaitable[object]]) -> bool:
    """Repeat a request until it is answered; return whether it was accepted, as far as one can know."""
    while True:
        try:
            await request()
        except (InstanceNotRunningError, InstanceNotFoundError):
            return False
        except (StorageError, HostStoppedError):
            await asyncio.sleep(0.05)
        else:
            return True


async def resume(sim: Simulation, instance_id: str) -> None:
    """Resume until it is not suspended any more: a reply may have been lost, or a child been missed."""
    while True:
        await insist(lambda: sim.client.resume(instance_id, recursive=True))
        status = await sim.client.get_status(instance_id)
        if status is None or status.runtime_status != "Suspended":
            return
        await sim.advance(seconds=0.1)


class Programs:
    """Random programs, disturbed by their clients: suspended, resumed, cancelled, terminated."""

    def __init__(self, app: App, outside: Outside, seed: object, count: int) -> None:
        self.outside = outside
        self._dice = random.Random(f"{seed}/disturb")
        self._purge_dice = random.Random(f"{seed}/purge")
        self._grammar = Grammar(seed, "p")
        self._steps = [self._grammar.program() for _ in range(count)]
        self._completed: list[list[Any]] = []
        self._tokens = [token for steps in self._steps for token in _all_tokens(steps)]

    async def play(self, sim: Simulation) -> None:
        await asyncio.gather(*(self._play(sim, number, steps) for number, steps in enumerate(self._steps)))

    async def _play(self, sim: Simulation, number: int, steps: list[Any]) -> None:
        dice = self._dice
        given = {"steps": steps, "at": 0, "results": []}
        run = await sim.client.start_new("program", given, request_key=f"p{number}")
        instance_id = run.instance_id
        ends_early = dice.random() < 0.3

        async def send() -> None:
            for event in range(waits(steps)):
                await sim.advance(seconds=dice.choice((0, 0.5, 3)))
                try:
                    await sim.client.raise_event(instance_id, "e", event, key=f"e{event}")
                except InstanceNotRunningError:
                    return

        async def disturb() -> None:
            while dice.random() < 0.3:
                await sim.advance(seconds=dice.choice((0, 0.01, 1, 4)))
                await insist(lambda: sim.client.suspend(instance_id, recursive=dice.random() < 0.5))
                await sim.advance(seconds=dice.choice((0, 0.01, 2)))
                await resume(sim, instance_id)
            if ends_early:
                await sim.advance(seconds=dice.choice((0, 0.01, 1, 4)))
                if dice.random() < 0.5:
                    await insist(lambda: sim.client.terminate(instance_id, recursive=dice.random() < 0.5))
                else:
                    await insist(lambda: sim.client.cancel(instance_id))

        await asyncio.gather(send(), disturb())
        try:
            results = await run.wait_for_completion()
        except OrchestrationFailedError as error:
            if ends_early and error.status in ("Canceled", "Terminated"):
                await self._purge(sim, instance_id, number)
                return
            raise
        await self._purge(sim, instance_id, number)
        check(steps, results)
        events = [result for step, result in zip(steps, results, strict=True) if step[0] == "event"]
        taken = [event for event in events if event != "late"]
        assert taken == list(range(len(taken))), f"events came as {events}"
        self._completed.append(steps)

    async def _purge(self, sim: Simulation, instance_id: str, number: int) -> None:
        """Purge some of what has ended, also sub-orchestrations; and start something else in its place."""
        dice = self._purge_dice
        if dice.random() < 0.5:
            return
        await sim.advance(seconds=dice.choice((0, 0, 0.01, 5)))
        children = InstanceQuery(parent_instance_id=instance_id)
        at_once = dice.choice((1, 1, 2))
        await asyncio.gather(*(insist(lambda: sim.client.purge_instances(children)) for _ in range(at_once)))
        await insist(lambda: sim.client.purge(instance_id))
        if dice.random() < 0.5:
            again = {"steps": [["call", f"z{number}.", 3]], "at": 0, "results": []}
            key = f"again{number}"
            run = await sim.client.start_new("program", again, instance_id=instance_id, request_key=key)
            assert await run.wait_for_completion() == [6]

    def check(self, states: dict[str, Any]) -> None:
        added = Counter(token for key in ENTITIES for token in states.get(f"@log@{key}", {"tokens": []})["tokens"])
        for steps in self._completed:
            for key, token in tokens_of(steps, "entity", "signal", "lock"):
                assert token in states[f"@log@{key}"]["tokens"], f"{token} of a completed program is not in {key!r}"
        assert max(added.values(), default=1) == 1, added
        _check_activities(self.outside, self._completed)


def _all_tokens(steps: list[Any]) -> list[str]:
    return [token for _, token in tokens_of(steps, "entity", "signal", "lock")]


def _check_activities(outside: Outside, completed: list[list[Any]]) -> None:
    keys: dict[str, set[str]] = {}
    for token, key in outside.done:
        keys.setdefault(token, set()).add(key)
    for steps in completed:
        for token in called(steps):
            assert token in keys, f"activity {token} of a completed program has not run"
    doubled = {token: found for token, found in keys.items() if len(found) > 1}
    assert doubled == {}, f"calls were made twice: {doubled}"


class Careful:
    """Programs that fail, and are rewound once the cause is mended."""

    def __init__(self, app: App, outside: Outside, seed: object, count: int) -> None:
        grammar, dice = Grammar(seed, "q"), random.Random(f"{seed}/careful")
        self.outside = outside
        self._programs = [
            [
                ["call", f"c{number}.", 1],
                *grammar.program(depth=1, is_root=False),
                [dice.choice(("pair", "salvage")), f"e{number}.", 7, f"b{number}."],
                ["call", f"d{number}.", 2],
            ]
            for number in range(count)
        ]

    async def play(self, sim: Simulation) -> None:
        for number, steps in enumerate(self._programs):
            run = await sim.client.start_new("careful", steps, request_key=f"careful{number}")
            stopped = await sim.client.wait_until_stopped(run.instance_id)
            if stopped.runtime_status == "Failed":
                self.outside.is_mended = True
                await self._rewind(sim, run.instance_id)
            results = await run.wait_for_completion()
            check(steps, results)
            assert results[-1] == 4

    async def _rewind(self, sim: Simulation, instance_id: str) -> None:
        while True:
            await insist(lambda: sim.client.rewind(instance_id))
            status = await sim.client.get_status(instance_id)
            if status is not None and status.runtime_status != "Failed":
                return

    def check(self, states: dict[str, Any]) -> None:
        _check_activities(self.outside, self._programs)


class Bank:
    """Transfers under locks between accounts that start with 100 each: no money is made or lost."""

    def __init__(self, app: App, outside: Outside, seed: object, count: int) -> None:
        self.outside = outside
        self._dice = random.Random(f"{seed}/bank")
        self._count = count

        @app.entity
        @dataclass
        class Account(Entity):
            balance: int = 100

            def add(self, amount: int) -> int:
                self.balance += amount
                if self.balance < 0:
                    raise ValueError("there is not so much")
                return self.balance

            def get(self) -> int:
                return self.balance

        @app.orchestrator
        async def transfer(ctx: OrchestrationContext, order: tuple[str, str, int]) -> bool:
            source, target = EntityId(Account, order[0]), EntityId(Account, order[1])
            async with ctx.lock(source, target):
                if await ctx.call_entity(source, Account.get) < order[2]:
                    return False
                await ctx.call_entity(source, Account.add, -order[2])
                await ctx.call_entity(target, Account.add, order[2])
                return True

        _ = transfer

    async def play(self, sim: Simulation) -> None:
        dice = self._dice
        orders = [(*dice.sample("xyz", 2), dice.randint(1, 120)) for _ in range(self._count)]
        runs = [
            await sim.client.start_new("transfer", order, request_key=f"transfer{number}")
            for number, order in enumerate(orders)
        ]
        self._expected = Counter({"x": 100, "y": 100, "z": 100})
        for run, (source, target, amount) in zip(runs, orders, strict=True):
            if await run.wait_for_completion():
                self._expected[source] -= amount
                self._expected[target] += amount

    def check(self, states: dict[str, Any]) -> None:
        found = {key: states.get(f"@account@{key}", {"balance": 100})["balance"] for key in "xyz"}
        assert found == dict(self._expected), (found, self._expected)


class Consumer:
    """One producer numbers its events; the consumer, which continues as new, sees each once and in order."""

    def __init__(self, app: App, outside: Outside, seed: object, count: int) -> None:
        self.outside = outside
        self._count = 2 * count
        self._dice = random.Random(f"{seed}/consumer")

        @app.orchestrator
        async def consume(ctx: OrchestrationContext, input: dict[str, Any]) -> int:
            at = input["at"]
            for _ in range(input["batch"]):
                if at == input["count"]:
                    return at
                number = await ctx.wait_for_external_event("number")
                assert number == at, f"{number} came instead of {at}"
                if input["works"]:
                    await ctx.call_activity("double", (f"n{number}.", number))
                at += 1
            ctx.continue_as_new({**input, "at": at})
            return 0

        _ = consume

    async def play(self, sim: Simulation) -> None:
        piles_up = self._dice.random() < 0.5
        given = {"at": 0, "count": self._count, "batch": self._dice.randint(1, 3), "works": not piles_up}
        run = await sim.client.start_new("consume", given, request_key="consume")
        if piles_up:
            await insist(lambda: sim.client.suspend(run.instance_id))
        for number in range(self._count):
            # One that is repeated for a lost reply may find that the consumer had it, and has ended.
            with contextlib.suppress(InstanceNotRunningError):
                await sim.client.raise_event(run.instance_id, "number", number, key=f"n{number}")
        if piles_up:
            await resume(sim, run.instance_id)
        assert await run.wait_for_completion() == self._count

    def check(self, states: dict[str, Any]) -> None:
        pass


class Ticker:
    """An orchestration that lives on timers alone, over many generations: none of them is lost or early."""

    def __init__(self, app: App, outside: Outside, seed: object, count: int) -> None:
        self.outside = outside
        self._count = count + 1

        @app.orchestrator
        async def tick(ctx: OrchestrationContext, left: int) -> str:
            await ctx.create_timer(timedelta(seconds=1))
            if left == 0:
                return "done"
            ctx.continue_as_new(left - 1)
            return ""

        _ = tick

    async def play(self, sim: Simulation) -> None:
        run = await sim.client.start_new("tick", self._count, request_key="tick")
        assert await run.wait_for_completion() == "done"

    def check(self, states: dict[str, Any]) -> None:
        pass


class Signals:
    """Clients signal and call entities, with keys and without: what is acknowledged happens once, the rest at most."""

    def __init__(self, app: App, outside: Outside, seed: object, count: int) -> None:
        self.outside = outside
        self._dice = random.Random(f"{seed}/signals")
        self._count = 2 * count
        self._surely: list[tuple[str, str]] = []
        self._perhaps: list[tuple[str, str]] = []

    async def play(self, sim: Simulation) -> None:
        await asyncio.gather(*(self._one(sim, number) for number in range(self._count)))

    async def _one(self, sim: Simulation, number: int) -> None:
        dice, client = self._dice, sim.client
        key, token = dice.choice(ENTITIES), f"s{number}."
        entity = EntityId("log", key)
        operation = dice.choice(("add", "add_slowly"))
        way = dice.choice(("call", "keyed call", "signal", "keyed signal"))
        try:
            match way:
                case "call":
                    assert await client.call_entity(entity, operation, token) > 0
                case "keyed call":
                    first = await client.call_entity(entity, operation, token, key=token)
                    again = await client.call_entity(entity, operation, token, key=token)
                    assert first == again, f"{token} was answered {first}, and then {again}"
                case "signal":
                    await client.signal_entity(entity, operation, token)
                case _:
                    due = timedelta(seconds=2) if dice.random() < 0.3 else None
                    for _ in range(2):
                        await client.signal_entity(entity, operation, token, key=token, due=due)
        except (CommitFailedError, StorageError, HostStoppedError):
            assert "keyed" not in way
            self._perhaps.append((key, token))
        else:
            self._surely.append((key, token))
            said = sim.ledger.ever_said(f'"{token}"') or sim.ledger.ever_said(token)
            assert said, f"{token} was acknowledged and is nowhere"

    def check(self, states: dict[str, Any]) -> None:
        for key, token in self._surely:
            assert states[f"@log@{key}"]["tokens"].count(token) == 1, f"{token} is not in {key!r} once"
        for key, token in self._perhaps:
            assert states.get(f"@log@{key}", {"tokens": []})["tokens"].count(token) <= 1


class Deadly:
    """One orchestration whose activity kills every host that runs it: it is parked, and nobody else is."""

    def __init__(self, app: App, outside: Outside, seed: object, count: int) -> None:
        self.outside = outside

        @app.activity
        async def deadly() -> None:
            outside.crash()
            await asyncio.Event().wait()

        @app.orchestrator
        async def doomed(ctx: OrchestrationContext) -> None:
            await ctx.call_activity(deadly)

        _ = doomed

    async def play(self, sim: Simulation) -> None:
        self.outside.crash = sim.crash
        run = await sim.client.start_new("doomed", request_key="doomed")
        stopped = await sim.client.wait_until_stopped(run.instance_id)
        assert stopped.parked is not None, f"it is {stopped.runtime_status}"
        while await insist(lambda: sim.client.terminate(run.instance_id)):
            status = await sim.client.get_status(run.instance_id)
            if status is not None and status.runtime_status == "Terminated":
                break

    def check(self, states: dict[str, Any]) -> None:
        pass


KINDS: tuple[Callable[[App, Outside, object, int], Workload], ...] = (
    Programs,
    Careful,
    Bank,
    Consumer,
    Ticker,
    Signals,
)


def make_world(seed: object, *, is_deadly: bool) -> tuple[App, list[Workload]]:
    """Return an app and what is played on it: for each seed another mixture of small workloads."""
    dice = random.Random(f"{seed}/world")
    outside = Outside()
    app = make_app(outside)
    chosen = dice.sample(KINDS[1:], dice.choice((0, 1, 1, 2)))
    if len(chosen) < 2 or dice.random() < 0.5:
        chosen.append(Programs)
    if is_deadly:
        chosen.append(Deadly)
    return app, [kind(app, outside, seed, dice.randint(1, 3)) for kind in chosen]
