"""What operations once left behind, held up, or took in memory, and must not again."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from engine_kit import SOON, Run, SlowStore, until
from entity_kit import MakeStore, has_entries, ledger, make_entities, on
from test_entity_schedules import SetClock

from holdfast import (
    App,
    Entity,
    EntityId,
    EntitySignal,
    HostConfig,
    Limits,
    OrchestrationContext,
    OrchestratorMisuseError,
    OverloadedError,
    PayloadError,
    entity_context,
)
from holdfast.engine import batches
from holdfast.engine.timers import DueTimes
from holdfast.model.messages import DurableKey
from holdfast.storage.memory import MemoryStore

# What an operation leaves behind


@pytest.mark.parametrize(("add", "put"), [("add", "put"), ("aadd", "aput"), ("add", "aput"), ("aadd", "put")])
def test_a_state_that_its_class_cannot_be_made_of_fails_its_operation_only(
    make_store: MakeStore, add: str, put: str
) -> None:
    """It was stored, and the entity could not be read any more; the others of its batch have run once."""
    app, counter = make_entities(), EntityId[Any]("counter", "a")

    @app.entity
    @dataclass
    class Counter(Entity):
        number: int = 0

        def add(self, amount: int) -> int:
            self.number += amount
            entity_context().signal_entity(ledger("log"), "note", f"add {amount}")
            return self.number

        async def aadd(self, amount: int) -> int:
            return self.add(amount)

        def put(self, value: Any) -> None:
            self.number = value
            entity_context().signal_entity(ledger("log"), "note", f"put {value}")

        async def aput(self, value: Any) -> None:
            self.put(value)

    async def scenario(run: Run) -> None:
        client = run.client
        await client.call_entity(counter, add, 1, timeout=SOON)
        batch = [(add, 10), (put, 0.5), (add, 100), (put, "much"), (add, 1)]
        calls = (client.call_entity(counter, operation, value, timeout=SOON) for operation, value in batch)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [answers[0], answers[2], answers[4]] == [11, 111, 112]
        for answer in (answers[1], answers[3]):
            assert isinstance(answer, PayloadError)
        ends_with_it = ((add, 1), (put, [1]))
        calls = (client.call_entity(counter, operation, value, timeout=SOON) for operation, value in ends_with_it)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert answers[0] == 113
        assert isinstance(answers[1], PayloadError)
        await has_entries(run, "log", ["add 1", "add 10", "add 100", "add 1", "add 1"])

    async def next_host(run: Run) -> None:
        found = await run.client.get_entity(counter)
        assert found is not None
        assert (found.parked, found.messages) == (None, 0)
        assert await run.client.call_entity(counter, add, 1, timeout=SOON) == 114
        await has_entries(run, "log", ["add 1", "add 10", "add 100", "add 1", "add 1", "add 1"])

    on(make_store(), app, scenario)
    on(make_store(), app, next_host)


def test_what_user_code_keeps_hold_of_cannot_change_a_state_later() -> None:
    """Only what is in the JSON that was stored is there for the next operation, as it is after a restart."""
    app, kept, tasks, over = App(), list[list[str]](), list[asyncio.Task[None]](), asyncio.Event()

    @app.entity
    @dataclass
    class Basket(Entity):
        items: list[str] = field(default_factory=list)

        def add(self, item: str) -> list[str]:
            self.items.append(item)
            kept.append(self.items)
            self.secret = f"{item} is not a field"
            return self.items

        async def aadd(self, item: str) -> list[str]:
            tasks.append(asyncio.create_task(self._later()))
            return self.add(item)

        async def _later(self) -> None:
            await over.wait()
            self.items = ["by the task"]

        def look(self) -> tuple[list[str], str]:
            return self.items, getattr(self, "secret", "none")

        async def alook(self) -> tuple[list[str], str]:
            return self.look()

    async def scenario(run: Run) -> None:
        basket, client = EntityId(Basket, "a"), run.client
        expected = list[str]()
        for number, add in enumerate((Basket.add, Basket.aadd, Basket.add)):
            expected.append(f"{number}")
            assert await client.call_entity(basket, add, f"{number}", timeout=SOON) == expected
            if tasks:
                over.set()
                await tasks[0]
            kept[-1].append("by the list")
            for look in (Basket.look, Basket.alook):
                assert await client.call_entity(basket, look, timeout=SOON) == (expected, "none")
            state = await client.read_entity_state(basket)
            assert state is not None
            assert state.items == expected

    on(MemoryStore(), app, scenario)


def _wrapped(as_future: bool) -> Callable[[Callable[[Any], Any]], Callable[[Any], Awaitable[int]]]:
    """A decorator that makes a plain function of an `async def`."""

    def decorate(function: Callable[[Any], Any]) -> Callable[[Any], Awaitable[int]]:
        @functools.wraps(function)
        def call(self: Any) -> Any:
            return asyncio.ensure_future(function(self)) if as_future else function(self)

        return call

    return decorate


@pytest.mark.parametrize("wrapped", ["add_coroutine", "add_future"])
def test_a_plain_operation_that_returns_an_awaitable_fails_whatever_it_stands_beside(wrapped: str) -> None:
    """It worked in a batch with one that was `async def`, and failed alone."""
    app, counter = App(), EntityId[Any]("counter", "a")

    @app.entity
    @dataclass
    class Counter(Entity):
        number: int = 0

        @_wrapped(as_future=False)
        async def add_coroutine(self) -> int:
            self.number += 1
            return self.number

        @_wrapped(as_future=True)
        async def add_future(self) -> int:
            return 1

        async def asynchronous(self) -> int:
            return self.number

        def plain(self) -> int:
            return self.number

    async def scenario(run: Run) -> None:
        async def call(operation: str) -> Any:
            return await run.client.call_entity(counter, operation, timeout=SOON)

        for batch in ([wrapped], [wrapped, "plain"], [wrapped, "asynchronous"], ["asynchronous", wrapped]):
            answers = await asyncio.gather(*(call(each) for each in batch), return_exceptions=True)
            for operation, answer in zip(batch, answers, strict=True):
                if operation == wrapped:
                    assert isinstance(answer, OrchestratorMisuseError)
                    assert "is no `async def`" in str(answer)
                else:
                    assert answer == 0

    _ = Counter
    on(MemoryStore(), app, scenario)


# What an operation holds up


@pytest.mark.parametrize("is_slow", [True, False])
def test_a_batch_of_slow_operations_ends_early_and_the_rest_runs_later_in_order(
    monkeypatch: pytest.MonkeyPatch, make_store: MakeStore, is_slow: bool
) -> None:
    monkeypatch.setattr(batches, "_BATCH_S", 0.0 if is_slow else SOON.total_seconds())
    app, seen = App(), list[str]()

    @app.entity
    @dataclass
    class Slow(Entity):
        done: list[str] = field(default_factory=list)

        def work(self, what: str) -> list[str]:
            seen.append(what)
            self.done.append(what)
            return self.done

    async def scenario(run: Run) -> None:
        entities = {key: EntityId(Slow, key) for key in "ab"}
        for key in entities:
            await run.client.call_entity(entities[key], Slow.work, f"{key}0")
        seen.clear()
        signals = [EntitySignal(entities[key], Slow.work, f"{key}{n}") for key in entities for n in (1, 2, 3)]
        await run.client.signal_many(signals)
        for key in entities:
            expected = [f"{key}{n}" for n in (0, 1, 2, 3, 4)]
            assert await run.client.call_entity(entities[key], Slow.work, f"{key}4", timeout=SOON) == expected
        assert seen[:6] == (["a1", "b1", "a2", "b2", "a3", "b3"] if is_slow else ["a1", "a2", "a3", "b1", "b2", "b3"])

    on(make_store(), app, scenario)


def test_steps_leave_the_loop_to_others_after_their_time() -> None:
    """By the clock of the loop: 50 ms, of which each of these takes 20. Whoever has no time left has its step later."""
    app, passed_s, began = App(), 0.0, list[int]()

    @app.orchestrator
    async def slow(ctx: OrchestrationContext, number: int) -> int:
        nonlocal passed_s
        passed_s += 0.02
        began.append(number)
        return number

    async def scenario(run: Run) -> None:
        loop = asyncio.get_running_loop()
        real_time, seen = loop.time, list[int]()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(loop, "time", lambda: real_time() + passed_s)
            starting = asyncio.gather(*(run.client.start_new(slow, number) for number in range(7)))
            while len(began) < 7:
                seen.append(len(began))
                await asyncio.sleep(0)
            results = [await each.wait_for_completion(timeout=SOON) for each in await starting]
        assert results == [*range(7)]
        assert began == [*range(7)]
        assert max(after - before for before, after in itertools.pairwise([*seen, len(began)])) <= 3

    on(MemoryStore(), app, scenario)


# What it takes in memory


def test_states_count_as_what_the_journal_holds() -> None:
    """Each change of an entity waits there with its whole state while the store is slow."""
    app, held = App(), asyncio.Event()
    slow = SlowStore(MemoryStore())

    @app.entity
    @dataclass
    class Large(Entity):
        text: str = ""
        number: int = 0

        def fill(self) -> None:
            self.text = "x" * 30_000

        def add(self) -> int:
            self.number += 1
            return self.number

    async def scenario(run: Run) -> None:
        large, journal = EntityId(Large, "a"), run.engine.node.journal
        await run.client.call_entity(large, Large.fill)
        slow.before["commit"] = held
        calls = list[asyncio.Task[int]]()
        try:
            while not journal.is_full and len(calls) < 20:
                calls.append(asyncio.create_task(run.client.call_entity(large, Large.add, timeout=SOON)))
                for _ in range(20):
                    await asyncio.sleep(0)
            with pytest.raises(OverloadedError):
                await run.client.call_entity(large, Large.add, timeout=SOON)
        finally:
            held.set()
        assert len(calls) <= 4
        assert await asyncio.gather(*calls) == list(range(1, len(calls) + 1))
        await until(lambda: not journal.is_full)
        assert await run.client.call_entity(large, Large.add, timeout=SOON) == len(calls) + 1

    on(slow, app, scenario, HostConfig(drain_s=0.2, journal_bytes_max=100_000))


def test_remembered_answers_count_as_what_an_entity_takes_until_they_are_forgotten(make_store: MakeStore) -> None:
    app, answer = App(), 10_000

    @app.entity
    @dataclass
    class Reporter(Entity):
        number: int = 0

        def report(self, size: int) -> str:
            return "x" * size

    async def size_after(run: Run, key: str, size: int, due: timedelta | None = None) -> int:
        reporter = EntityId(Reporter, "a")
        if due is not None:
            await run.client.signal_entity(reporter, Reporter.report, size, key=key, due=due)
        assert len(await run.client.call_entity(reporter, Reporter.report, size, key=key, timeout=SOON)) == size
        residents = run.engine.node.residents
        assert residents.size_bytes == sum(resident.size_bytes for resident in residents)
        return residents.size_bytes

    async def scenario(run: Run) -> None:
        size = await size_after(run, "a", 1)
        with_one = await size_after(run, "b", answer)
        assert answer <= with_one - size < 2 * answer
        with_two = await size_after(run, "c", answer, timedelta(milliseconds=1))
        assert answer <= with_two - with_one < 2 * answer
        assert await size_after(run, "c", answer) == with_two, "it was counted again"

    async def next_host(run: Run) -> None:
        assert 2 * answer <= await size_after(run, "c", answer) < 3 * answer
        assert answer <= await size_after(run, "d", 1) < 2 * answer + 10_000, "none is forgotten yet"
        await size_after(run, "e", 1)
        await size_after(run, "f", 1)
        assert await size_after(run, "g", 1) < answer
        assert await size_after(run, "h", answer) >= answer
        await run.client.call_entity(EntityId(Reporter, "a"), "delete")
        await run.client.clean_entities(idle_for=timedelta(0))
        assert await size_after(run, "i", 1) < answer

    config = HostConfig(drain_s=0.2, limits=Limits(entity_keys_max=3))
    on(make_store(), app, scenario, config)
    on(make_store(), app, next_host, config)


def test_times_that_are_added_again_take_no_more_room_and_come_once() -> None:
    """As they are each time their entity comes into memory."""
    clock, fired = SetClock(), list[str]()

    async def main() -> None:
        times = DueTimes[str](clock, 7_200, 100, 1.0, fired.append)
        begin, keys = clock.time, [("e", number) for number in range(5)]

        def add_all() -> None:
            for key in keys:
                times.add(key, begin + timedelta(minutes=60 - key[1]), f"item {key[1]}")

        for _ in range(100):
            add_all()
        assert len(times._heap) == len(keys)
        late: DurableKey = ("e", 0)
        times.add(late, begin + timedelta(minutes=90), "item 0, later")
        times.discard(("e", 1))
        clock.time += timedelta(minutes=60)
        times.add(("e", 9), begin, "first")
        await until(lambda: "item 2" in fired)
        assert fired == ["first", "item 4", "item 3", "item 2"]
        clock.time += timedelta(minutes=30)
        times.add(("e", 9), begin, "first again")
        await until(lambda: "item 0, later" in fired)
        assert fired[4:] == ["first again", "item 0, later"]
        times.clear()

    asyncio.run(main())
