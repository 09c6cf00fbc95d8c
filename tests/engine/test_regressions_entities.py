"""What was once lost or doubled around entities: while they are read, while hosts stop, while nodes are replaced."""

from __future__ import annotations

import asyncio
import sqlite3
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_kit import SOON, FailingStore, Run, SlowStore, eventually, running, until
from entity_kit import MakeStore, Outside, entries, has_entries, ledger, make_entities, note, on
from test_entity_schedules import SetClock

from holdfast import (
    App,
    Entity,
    EntityId,
    EntitySignal,
    HostConfig,
    HostStoppedError,
    OrchestrationContext,
    StorageError,
    entity_context,
)
from holdfast.codec.history import encode_record
from holdfast.engine import culprits as culprits_module
from holdfast.engine import engine as engine_module
from holdfast.errors import CommitFailedError
from holdfast.hub.instance import LockHolder
from holdfast.storage.memory import MemoryData, MemoryStore
from holdfast.storage.open_store import open_store

PATIENT = HostConfig(drain_s=SOON.total_seconds())
"""A host that waits when it stops, until all that runs has ended."""


async def stop(run: Run, gate: asyncio.Event) -> None:
    """Stop a host, and open a gate only once that has begun."""
    stopping = asyncio.create_task(run.engine.stop())
    await until(lambda: not run.engine.is_ready)
    gate.set()
    await stopping


# Reading


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("answer", ["with the signal", "without it"])
def test_an_entity_that_is_called_and_signalled_before_it_exists_is_read_once(
    make_store: MakeStore, answer: str, key: str | None
) -> None:
    """What the call sent from within the read made it be read again, and what was stored by then came twice."""
    slow, held = SlowStore(make_store()), asyncio.Event()

    async def scenario(run: Run) -> None:
        node, reads = run.engine.node, slow.calls["load"]
        (slow.before if answer == "with the signal" else slow.after)["load"] = held
        call = asyncio.create_task(run.client.call_entity(ledger("a"), "note", "called", key="c"))
        await until(lambda: slow.calls["load"] > reads)
        await run.client.signal_entity(ledger("a"), "note", "signalled", key=key)
        held.set()
        assert await asyncio.wait_for(call, SOON.total_seconds()) == 2
        assert await run.client.call_entity(ledger("a"), "note", "end", timeout=SOON) == 3
        assert await entries(run, "a") == ["signalled", "called", "end"]
        assert run.engine.node is node
        assert slow.calls["load"] == reads + 1

    async def next_host(run: Run) -> None:
        found = await run.client.get_entity(ledger("a"))
        assert found is not None
        assert found.messages == 0
        assert await run.client.call_entity(ledger("a"), "note", "more", timeout=SOON) == 4

    on(slow, make_entities(), scenario)
    on(make_store(), make_entities(), next_host)


def test_a_timer_of_an_entity_that_is_gone_is_dropped() -> None:
    """Its row was read while it was there; it fires once the entity has no row any more."""
    clock, data, held = SetClock(), MemoryData(), asyncio.Event()
    tiny = HostConfig(cache_bytes_max=1, drain_s=0.2)

    async def schedules(run: Run) -> None:
        due = clock.time + timedelta(hours=1)
        await run.client.signal_many([EntitySignal(ledger("a"), "delete", due=due)])
        await until(lambda: len(data.timers) == 1)

    async def scenario(run: Run) -> None:
        node = run.engine.node
        await until(lambda: slow.calls["timers_due"] == 1)
        await run.client.signal_entity(ledger("a"), "note", 1)  # brings the entity into memory, with its timer
        await until(lambda: not data.timers)
        await eventually(lambda: is_cleaned(run))

        async def evicted() -> bool:
            await run.client.signal_entity(ledger("other"), "note", 1)
            return "@ledger@a" not in node.residents

        await eventually(evicted)
        reads = slow.calls["load"]
        held.set()
        await until(lambda: slow.calls["load"] > reads and node.loader.is_idle)
        assert run.engine.node is node
        assert await run.client.get_entity(ledger("a")) is None
        assert await run.client.call_entity(ledger("a"), "note", 1, timeout=SOON) == 1

    async def is_cleaned(run: Run) -> bool:
        return (await run.client.clean_entities(idle_for=timedelta(0))).empty_entities_removed == 1

    on(MemoryStore(data), make_entities(), schedules, clock=clock)
    clock.time += timedelta(hours=2)
    slow = SlowStore(MemoryStore(data))
    slow.after["timers_due"] = held
    on(slow, make_entities(), scenario, tiny, clock)


def test_cleaning_leaves_alone_what_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "hub.db"
    app = make_entities()

    @app.orchestrator
    async def keeper(ctx: OrchestrationContext) -> None:
        async with ctx.lock(ledger("held")):
            await ctx.wait_for_external_event("never")

    async def makes(run: Run) -> None:
        for key in ("bad", "good"):
            await run.client.call_entity(ledger(key), "delete")
        await run.client.start_new(keeper, instance_id="keeper")

        async def is_held() -> bool:
            found = await run.client.get_entity(ledger("held"))
            return found is not None and found.lock is not None

        await eventually(is_held)

    async def cleans(run: Run) -> None:
        cleaned = await run.client.clean_entities(idle_for=timedelta(0))
        assert (cleaned.empty_entities_removed, cleaned.orphaned_locks_released) == (1, 0)

    on(open_store(f"sqlite:///{file}"), app, makes)
    connection = sqlite3.connect(file)
    with connection:
        connection.execute("update instance set parked = '{bad' where instance_id = '@ledger@bad'")
        connection.execute("update instance set lock = '{bad' where instance_id = 'keeper'")
    connection.close()
    on(open_store(f"sqlite:///{file}"), app, cleans)


@pytest.mark.parametrize("column", ["lock", "parked"])
def test_one_damaged_record_does_not_hide_the_other_entities(tmp_path: Path, column: str) -> None:
    file = tmp_path / "hub.db"
    orphaned = encode_record(LockHolder("section", "nobody", datetime.now(UTC)))

    async def makes(run: Run) -> None:
        for key in "abc":
            await run.client.call_entity(ledger(key), "note", key)
        await run.client.call_entity(ledger("empty"), "delete")

    async def lists(run: Run) -> None:
        page = await run.client.list_entities()
        found = {each.entity_id.key: each for each in page.entities}
        assert {key: each.state["entries"] for key, each in found.items() if each.state} == {
            key: [key] for key in "abc"
        }
        assert [key for key, each in found.items() if each.parked] == ["b"]
        one = await run.client.get_entity(ledger("b"))
        assert one is not None
        assert one.parked is not None
        assert one.parked.error_type.endswith("CorruptRecordError")
        cleaned = await run.client.clean_entities(idle_for=timedelta(0))
        assert (cleaned.empty_entities_removed, cleaned.orphaned_locks_released) == (1, 1)
        assert await run.client.call_entity(ledger("c"), "note", "free", timeout=SOON) == 2

    on(open_store(f"sqlite:///{file}"), make_entities(), makes)
    connection = sqlite3.connect(file)
    with connection:
        connection.execute(f"update instance set {column} = '{{bad' where instance_id = '@ledger@b'")
        connection.execute("update instance set lock = ? where instance_id = '@ledger@c'", (orphaned,))
    connection.close()
    on(open_store(f"sqlite:///{file}"), make_entities(), lists)


# The host stops


@dataclass
class Dispatching:
    """What dispatchers did, and what they work with."""

    runs: list[Run] = field(default_factory=list)
    begun: list[Any] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)


def make_dispatchers(outside: Dispatching) -> App:
    app = make_entities()

    async def pass_on(what: str) -> None:
        outside.begun.append(what)
        await outside.gate.wait()
        await outside.runs[-1].client.signal_entity(ledger("target"), "note", what)

    @app.entity
    @dataclass
    class Dispatcher(Entity):
        done: list[str] = field(default_factory=list)

        def note(self, what: str) -> None:
            self.done.append(what)

        async def dispatch(self, what: str) -> None:
            self.done.append(what)
            await pass_on(what)

        async def refuse(self) -> None:
            raise HostStoppedError("another host, of which this one is a client")

    @app.activity
    async def dispatch(what: str) -> str:
        await pass_on(what)
        return what

    @app.orchestrator
    async def job(ctx: OrchestrationContext, what: str) -> str:
        return await ctx.call_activity(dispatch, what)

    _ = (Dispatcher, job)
    return app


def test_an_operation_that_cannot_use_the_client_while_the_host_stops_has_not_failed(make_store: MakeStore) -> None:
    """It runs on the next host; once it counted as failed, and its signal was gone."""
    first, second = Dispatching(), Dispatching()
    dispatcher = EntityId[Any]("dispatcher", "a")

    async def stops(run: Run) -> None:
        first.runs.append(run)
        await run.client.signal_many([
            EntitySignal(dispatcher, "note", "before"),
            *(EntitySignal(dispatcher, "dispatch", what) for what in ("one", "two")),
            EntitySignal(dispatcher, "note", "behind"),
        ])  # fmt: skip
        await until(lambda: first.begun == ["one"])
        await stop(run, first.gate)

    async def goes_on(run: Run) -> None:
        second.runs.append(run)
        second.gate.set()
        await has_entries(run, "target", ["one", "two"])
        await run.client.call_entity(dispatcher, "note", "end", timeout=SOON)
        state: Any = await run.client.read_entity_state(dispatcher)
        assert state["done"] == ["before", "one", "two", "behind", "end"]

    on(make_store(), make_dispatchers(first), stops, PATIENT)
    on(make_store(), make_dispatchers(second), goes_on)
    assert (first.begun, second.begun) == (["one"], ["one", "two"])


def test_an_activity_that_cannot_use_the_client_while_the_host_stops_has_not_failed(make_store: MakeStore) -> None:
    first, second = Dispatching(), Dispatching()

    async def stops(run: Run) -> None:
        first.runs.append(run)
        await run.client.start_new("job", "work", instance_id="j")
        await until(lambda: first.begun == ["work"])
        await stop(run, first.gate)

    async def goes_on(run: Run) -> None:
        second.runs.append(run)
        second.gate.set()
        assert await run.client.wait_for_completion("j", timeout=SOON) == "work"
        await has_entries(run, "target", ["work"])

    on(make_store(), make_dispatchers(first), stops, PATIENT)
    on(make_store(), make_dispatchers(second), goes_on)
    assert (first.begun, second.begun) == (["work"], ["work"])


def test_an_operation_that_hears_of_another_host_which_has_stopped_fails() -> None:
    """Only this host, and only while it stops, makes it run again."""

    async def scenario(run: Run) -> None:
        with pytest.raises(HostStoppedError, match="another host"):
            await run.client.call_entity(EntityId("dispatcher", "a"), "refuse", timeout=SOON)

    on(MemoryStore(), make_dispatchers(Dispatching()), scenario)


# A node is replaced


@pytest.mark.parametrize("ends", [True, False])
def test_an_operation_that_swallows_its_cancellation_is_waited_for_before_it_runs_again(
    monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """But not for ever: one that does not end at all does not keep the host from going on."""
    monkeypatch.setattr(culprits_module, "_BACK_OFF_S", (0.0,) * 4)
    if not ends:
        monkeypatch.setattr(engine_module, "LEAVE_S", 0.01)
    app, failing = make_entities(), FailingStore(MemoryStore())
    gate, may_end = asyncio.Event(), asyncio.Event()
    begun, swallowed, over = list[int](), list[int](), list[int]()

    @app.entity
    @dataclass
    class Stubborn(Entity):
        async def work(self) -> None:
            number = len(begun)
            begun.append(number)
            try:
                await gate.wait()
            except asyncio.CancelledError:
                swallowed.append(number)
                await may_end.wait()
            over.append(number)

        async def follow(self) -> None:
            begun.append(-1)

    async def scenario(run: Run) -> None:
        entity = EntityId(Stubborn, "a")
        await run.client.signal_many([EntitySignal(entity, "work"), EntitySignal(entity, "follow")])
        await until(lambda: begun == [0])
        failing.fail_at[failing.commits + 1] = "before"
        with pytest.raises(StorageError):
            await run.client.signal_many([note("b", "lost")])
        await until(lambda: swallowed == [0])
        if ends:
            for _ in range(200):
                await asyncio.sleep(0)
            assert begun == [0], "it ran beside itself"
            may_end.set()
        await until(lambda: begun == [0, 1])
        assert over == ([0] if ends else [])
        may_end.set()
        gate.set()
        await until(lambda: begun == [0, 1, -1])
        assert sorted(over) == [0, 1]

    on(failing, app, scenario)


# Contexts

WHO: ContextVar[str] = ContextVar("WHO", default="nobody")


def test_what_an_operation_begins_by_the_client_does_not_run_in_its_context(make_store: MakeStore) -> None:
    """An activity that ran because of it could call no entity for as long as the operation ran."""
    app, outside, runs = make_entities(), Outside(), list[Run]()

    @app.activity(speculative=True)
    async def ask(what: str) -> str:
        await runs[0].client.call_entity(ledger("asked"), "note", what)
        return WHO.get()

    @app.orchestrator
    async def asker(ctx: OrchestrationContext, what: str) -> str:
        return await ctx.call_activity(ask, what)

    @app.entity
    @dataclass
    class Begun(Entity):
        async def come(self, what: str) -> None:
            outside.seen.append((what, WHO.get()))
            entity_context().start_orchestration(asker, what, instance_id=what)

    @app.entity
    @dataclass
    class Beginner(Entity):
        async def begin(self) -> None:
            WHO.set("beginner")
            client, begun = runs[0].client, EntityId(Begun, "b")
            await client.start_new(asker, "started", instance_id="started")
            await client.signal_entity(begun, Begun.come, "signalled")
            await client.signal_entity(begun, Begun.come, "scheduled", due=timedelta(milliseconds=1))
            await outside.gate.wait()

    async def scenario(run: Run) -> None:
        runs.append(run)
        first = asyncio.create_task(run.client.call_entity(EntityId(Beginner, "a"), Beginner.begin, timeout=SOON))
        await until(lambda: len(outside.seen) == 2)
        for what in ("started", "signalled", "scheduled"):
            while await run.client.get_status(what) is None:  # the operation has run, but may not be stored yet
                await asyncio.sleep(0.01)
            assert await run.client.wait_for_completion(what, timeout=SOON) == "nobody"
        assert outside.seen == [("signalled", "nobody"), ("scheduled", "nobody")]
        assert sorted(await entries(run, "asked")) == ["scheduled", "signalled", "started"]
        assert not first.done()
        outside.gate.set()
        await first

    on(make_store(), app, scenario)


def test_a_signal_at_the_moment_of_a_failure_is_answered() -> None:
    """It was about to look for its entity in memory that had just been given up, and waited for ever."""

    async def main() -> None:
        async with running(make_entities(Outside()), MemoryStore()) as run:
            signal = asyncio.create_task(
                run.client.signal_entity(ledger("absent"), "note", "it", due=timedelta(days=1))
            )
            await asyncio.sleep(0)
            run.engine.node.fail(StorageError("planted"))
            with pytest.raises(CommitFailedError, match="nothing of this request was stored"):
                await asyncio.wait_for(signal, SOON.total_seconds())

    asyncio.run(main())


def test_what_is_sent_to_an_entity_that_is_held_back_is_found_once_it_is_stored() -> None:
    """The store was searched for it when the entity was let in again, while it was still on its way there."""

    async def main() -> None:
        app, store = make_entities(Outside()), SlowStore(MemoryStore())

        @app.orchestrator
        async def send(ctx: OrchestrationContext) -> None:
            ctx.signal_entity(ledger("x"), "note", "it")

        async with running(app, store) as run:
            node = run.engine.node
            await until(lambda: node.loader.is_idle)
            store.before["commit"] = stored = asyncio.Event()
            node.left_alone.add(ledger("x").instance_id)
            starting = asyncio.create_task(run.client.start_new(send))
            await until(lambda: store.calls["load"] > 0 and node.loader.is_idle)
            searched = store.calls["instances_with_messages"]
            run.engine._judge(node)  # pyright: ignore[reportPrivateUsage] - the moment after the search of the culprit
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert store.calls["instances_with_messages"] == searched, "what was sent cannot be found yet"
            stored.set()
            await (await starting).wait_for_completion(timeout=SOON)
            await has_entries(run, "x", ["it"])

    asyncio.run(main())
