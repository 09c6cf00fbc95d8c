"""Operations that are `async def`: when they run, how often, and what ends them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from engine_kit import SOON, FailingStore, Run, SlowStore, eventually, until
from entity_kit import MakeStore, Outside, entries, has_entries, ledger, make_entities, note, on

from holdfast import (
    App,
    CancelledError,
    Entity,
    EntityId,
    EntitySignal,
    HostConfig,
    OrchestratorMisuseError,
    TaskFailedError,
    WaitTimeoutError,
    entity_context,
)
from holdfast.model.failure import FailureDetails
from holdfast.storage.memory import MemoryStore


def test_an_operation_starts_only_once_its_cause_is_durable() -> None:
    outside, held = Outside(), asyncio.Event()
    outside.gate.set()
    slow = SlowStore(MemoryStore())

    async def scenario(run: Run) -> None:
        await run.client.call_entity(ledger("a"), "note", 0)
        slow.before["commit"] = held
        commits = slow.calls["commit"]
        call = asyncio.create_task(run.client.call_entity(ledger("a"), "wait", 1))
        try:
            await until(lambda: slow.calls["commit"] > commits)
            for _ in range(20):
                await asyncio.sleep(0)
            assert outside.seen == []
        finally:
            held.set()
        assert await call == 2
        assert [what for what, _ in outside.seen] == [1]

    on(slow, make_entities(outside), scenario)


def test_a_call_waits_no_longer_than_it_is_asked_to_whatever_the_store_does() -> None:
    slow, held = SlowStore(MemoryStore()), asyncio.Event()
    slow.before["commit"] = held

    async def scenario(run: Run) -> None:
        call = run.client.call_entity(ledger("a"), "note", 1, key="k", timeout=timedelta(milliseconds=20))
        waiting = asyncio.create_task(call)
        try:
            async with asyncio.timeout(SOON.total_seconds()):
                await asyncio.wait((waiting,))
        finally:
            held.set()
        with pytest.raises(WaitTimeoutError):
            await waiting
        assert await run.client.call_entity(ledger("a"), "note", 1, key="k", timeout=SOON) == 1

    on(slow, make_entities(), scenario)


def test_an_entity_runs_one_operation_at_a_time_and_the_others_wait() -> None:
    outside = Outside()

    async def scenario(run: Run) -> None:
        calls = [asyncio.create_task(run.client.call_entity(ledger("a"), "wait", n)) for n in range(3)]
        other = asyncio.create_task(run.client.call_entity(ledger("b"), "wait", "other"))
        await until(lambda: len(outside.seen) == 2)
        sync = asyncio.create_task(run.client.call_entity(ledger("a"), "note", 3))
        await run.client.call_entity(ledger("c"), "note", "not held up")
        assert [what for what, _ in outside.seen] == [0, "other"]
        outside.gate.set()
        assert await asyncio.gather(*calls, other, sync) == [1, 2, 3, 1, 4]

    on(MemoryStore(), make_entities(outside), scenario)


def test_the_timeout_fails_and_takes_back_the_operation() -> None:
    outside = Outside()

    async def scenario(run: Run) -> None:
        with pytest.raises(TimeoutError, match="operation_timeout_s") as failed:
            await run.client.call_entity(ledger("a"), "wait", "too long", timeout=SOON)
        assert outside.cancelled == ["too long"]
        assert isinstance(failed.value, TaskFailedError)
        assert await run.client.call_entity(ledger("a"), "note", 1, timeout=SOON) == 1
        assert await entries(run, "a") == [1]

    on(MemoryStore(), make_entities(outside), scenario, HostConfig(operation_timeout_s=0.02))


def test_a_failed_commit_makes_a_running_operation_run_again() -> None:
    """With the same request id, so that what it does outside can be recognized."""
    outside = Outside()
    failing = FailingStore(MemoryStore())

    async def scenario(run: Run) -> None:
        await run.client.signal_many([note("a", 0), EntitySignal(ledger("a"), "wait", 1), note("a", 2)])
        await until(lambda: len(outside.seen) == 1)
        failing.fail_at[failing.commits + 1] = "before"
        with pytest.raises(Exception, match="planted"):
            await run.client.signal_entity(ledger("b"), "note", "lost")
        await until(lambda: len(outside.seen) == 2)
        assert outside.seen[0] == outside.seen[1]
        assert outside.cancelled == [1]
        outside.gate.set()
        await has_entries(run, "a", [0, 1, 2])
        assert await entries(run, "b") == []

    on(failing, make_entities(outside), scenario)


def test_an_operation_that_runs_while_the_host_stops_runs_again_on_the_next(make_store: MakeStore) -> None:
    seen: list[Any] = []

    async def stops(run: Run) -> None:
        await run.client.signal_many([note("a", 0), EntitySignal(ledger("a"), "wait", 1), note("a", 2)])
        await until(lambda: len(outside.seen) == 1)

    async def starts(run: Run) -> None:
        await has_entries(run, "a", [0, 1, 2])

    outside = Outside(seen)
    on(make_store(), make_entities(outside), stops)
    outside = Outside(seen)
    outside.gate.set()
    on(make_store(), make_entities(outside), starts)
    assert len(seen) == 2
    assert seen[0] == seen[1]


def test_an_operation_that_runs_while_its_entity_is_parked_runs_again_once_that_goes_on() -> None:
    """What it has changed in memory does not count."""
    outside = Outside()

    async def scenario(run: Run) -> None:
        await run.client.call_entity(ledger("a"), "note", 0)
        await run.client.signal_entity(ledger("a"), "wait", 1)
        await until(lambda: len(outside.seen) == 1)
        run.engine.node.parking.park_by_id("@ledger@a", FailureDetails("x", "planted"))
        outside.gate.set()

        async def parked() -> bool:
            found = await run.client.get_entity(ledger("a"))
            return found is not None and found.parked is not None

        await eventually(parked)
        await run.client.resume("@ledger@a")
        await has_entries(run, "a", [0, 1])
        assert outside.seen[0] == outside.seen[1]

    on(MemoryStore(), make_entities(outside), scenario)


def rough_app() -> App:
    app = App()

    @app.entity
    @dataclass
    class Rough(Entity):
        done: list[str] = field(default_factory=list)

        def note(self, what: str) -> list[str]:
            self.done.append(what)
            return self.done

        async def anote(self, what: str) -> list[str]:
            await asyncio.sleep(0)
            return self.note(what)

        def fail(self, how: str) -> None:
            self.done.append(how)
            raise _ERRORS[how]

        async def afail(self, how: str) -> None:
            self.done.append(how)
            await asyncio.sleep(0)
            raise _ERRORS[how]

        async def cancel_task(self, how: str) -> None:
            """As code does that means to end itself."""
            self.done.append(how)
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            if how == "wait":
                await asyncio.sleep(0)

        async def await_cancelled(self) -> None:
            task = asyncio.create_task(asyncio.sleep(60))
            task.cancel()
            await task

    _ = Rough
    return app


_ERRORS: dict[str, BaseException] = {
    "exit": SystemExit(3),
    "ours": CancelledError("cancelled"),
    "asyncio's": asyncio.CancelledError("cancelled"),
    "generator's": GeneratorExit(),
}


@pytest.mark.parametrize("how", list(_ERRORS))
@pytest.mark.parametrize("with_async", [False, True])
def test_what_is_no_exception_fails_its_operation_only(how: str, with_async: bool) -> None:
    """In a batch of plain operations, and of plain and async ones."""
    rough = EntityId("rough", "a")

    async def scenario(run: Run) -> None:
        signals = [EntitySignal(rough, "note", "before"), EntitySignal(rough, "fail", how)]
        if with_async:
            signals += [EntitySignal(rough, "afail", how), EntitySignal(rough, "anote", "between")]
        await run.client.signal_many([*signals, EntitySignal(rough, "note", "behind")])
        expected = ["before", "between", "behind", "end"] if with_async else ["before", "behind", "end"]
        assert await run.client.call_entity(rough, "note", "end", timeout=SOON) == expected
        with pytest.raises(TaskFailedError):
            await run.client.call_entity(rough, "afail" if with_async else "fail", how, timeout=SOON)

    on(MemoryStore(), rough_app(), scenario)


@pytest.mark.parametrize("how", ["wait", "return"])
def test_an_operation_that_cancels_its_own_task_stops_neither_the_entity_nor_the_next_one(how: str) -> None:
    rough = EntityId("rough", "a")

    async def scenario(run: Run) -> None:
        await run.client.signal_many([
            EntitySignal(rough, "cancel_task", how),
            EntitySignal(rough, "anote", "next"),
            EntitySignal(rough, "await_cancelled"),
        ])  # fmt: skip
        done = await run.client.call_entity(rough, "anote", "end", timeout=SOON)
        assert [what for what in done if what != "return"] == ["next", "end"]
        assert await run.client.call_entity(rough, "note", "more", timeout=SOON)

    on(MemoryStore(), rough_app(), scenario)


def test_an_operation_cannot_call_but_what_it_leaves_behind_can() -> None:
    """A task outlives the operation that began it; it is no operation any more."""
    app, tasks = App(), list[asyncio.Task[Any]]()
    runs: list[Run] = []
    over = asyncio.Event()

    @app.entity
    @dataclass
    class Caller(Entity):
        async def call(self) -> None:
            await runs[0].client.call_entity(EntityId(Caller, "b"), Caller.nothing)

        def nothing(self) -> str:
            return "done"

        async def leave(self) -> None:
            async def later() -> Any:
                await over.wait()
                with pytest.raises(OrchestratorMisuseError):
                    entity_context()
                return await runs[0].client.call_entity(EntityId(Caller, "b"), Caller.nothing)

            tasks.append(asyncio.create_task(later()))

    async def scenario(run: Run) -> None:
        runs.append(run)
        with pytest.raises(OrchestratorMisuseError, match="cannot call an entity"):
            await run.client.call_entity(EntityId(Caller, "a"), Caller.call, timeout=SOON)
        await run.client.call_entity(EntityId(Caller, "a"), Caller.leave, timeout=SOON)
        over.set()
        assert await tasks[0] == "done"

    on(MemoryStore(), app, scenario)


def test_no_more_entities_than_allowed_run_async_operations_at_the_same_time() -> None:
    outside = Outside()

    async def scenario(run: Run) -> None:
        await run.client.signal_many([EntitySignal(ledger(key), "wait", key) for key in "ab"])
        await until(lambda: bool(outside.seen))
        await run.client.call_entity(ledger("c"), "note", "others go on", timeout=SOON)
        assert [what for what, _ in outside.seen] == ["a"]
        outside.gate.set()
        await has_entries(run, "b", ["b"])

    on(MemoryStore(), make_entities(outside), scenario, HostConfig(entity_batches_max=1))


def test_an_operation_that_goes_on_after_its_time_keeps_its_entity_waiting_and_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, gate = App(), asyncio.Event()

    @app.entity
    @dataclass
    class Stubborn(Entity):
        number: int = 0

        async def stay(self) -> None:
            while not gate.is_set():
                with suppress(asyncio.CancelledError):
                    await gate.wait()

        def add(self) -> int:
            self.number += 1
            return self.number

    async def scenario(run: Run) -> None:
        entity = EntityId(Stubborn, "a")
        await run.client.signal_entity(entity, Stubborn.stay)
        call = asyncio.create_task(run.client.call_entity(entity, Stubborn.add))
        await until(lambda: "@stubborn@a goes on" in caplog.text)
        assert not call.done()
        gate.set()
        assert await call == 1

    on(MemoryStore(), app, scenario, HostConfig(operation_timeout_s=0.01))
