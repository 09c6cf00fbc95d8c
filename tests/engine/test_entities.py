"""What entities can rely on: their operations, what these send, and what of it stands if they fail."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from engine_kit import SOON, FailingStore, Run, eventually, until
from entity_kit import (
    SHELF,
    MakeStore,
    OutOfStockError,
    Outside,
    cell,
    entries,
    has_entries,
    ledger,
    make_entities,
    note,
    on,
    shop,
)

from holdfast import (
    App,
    Entity,
    EntityContext,
    EntityId,
    EntitySignal,
    HostConfig,
    InvalidInputError,
    Limits,
    OrchestrationContext,
    OrchestrationStatus,
    OrchestratorMisuseError,
    OverloadedError,
    PayloadError,
    PayloadTooLargeError,
    StorageError,
    TaskFailedError,
    entity_context,
)
from holdfast.errors import InvalidInstanceIdError
from holdfast.storage.memory import MemoryStore


async def until_all(run: Run, key: str, expected: list[str]) -> None:
    """Wait until a ledger has what several senders send, in any order."""

    async def there() -> bool:
        return len(await entries(run, key)) >= len(expected)

    await eventually(there)
    assert sorted(await entries(run, key)) == expected


def test_a_failed_operation_takes_back_what_it_did_and_nothing_else(make_store: MakeStore) -> None:
    """Its change, its signals and its starts; what came before and after it in the same batch stands."""

    async def scenario(run: Run) -> None:
        def passes(what: str, *, fails: bool) -> EntitySignal:
            return EntitySignal(ledger("a"), "pass_on", ["b", what, fails])

        await run.client.signal_many([
            note("a", 1), passes("first", fails=False), passes("second", fails=True),
            EntitySignal(ledger("a"), "note_and_fail", 2), passes("third", fails=False), note("a", 3),
        ])  # fmt: skip
        assert await run.client.call_entity(ledger("a"), "note", "end", timeout=SOON) == 5
        assert await entries(run, "a") == [1, "first", "third", 3, "end"]
        await until_all(run, "b", ["first", "started by first", "started by third", "third"])
        assert await run.client.get_status("of second") is None

    on(make_store(), make_entities(), scenario)


def test_what_cannot_be_encoded_fails_its_operation_only(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        assert await run.client.call_entity(SHELF, "add", 1) == "a: [1]"
        for operation in ("return_what_is_no_json", "become_what_is_no_json"):
            with pytest.raises(PayloadError):
                await run.client.call_entity(SHELF, operation, timeout=SOON)
        with pytest.raises(PayloadTooLargeError, match="the limit is 1,000"):
            await run.client.call_entity(SHELF, "become_too_large", timeout=SOON)
        await run.client.signal_many([
            EntitySignal(SHELF, "add", 2), EntitySignal(SHELF, "become_too_large"), EntitySignal(SHELF, "add", 3)
        ])  # fmt: skip
        assert await run.client.call_entity(SHELF, "MAYBE", timeout=SOON) == "a: [1, 2, 3, 7]"

    config = HostConfig(drain_s=0.2, limits=Limits(payload_bytes_max=1_000))
    on(make_store(), shop(), scenario, config)


def test_what_does_not_fit_into_one_batch_is_left_for_the_next() -> None:
    """And an operation that asks for too much by itself fails."""

    async def scenario(run: Run) -> None:
        def passes(what: str) -> EntitySignal:
            return EntitySignal(ledger("a"), "pass_on", ["b", what, False])

        await run.client.signal_many([passes("1"), passes("2"), note("a", "3"), passes("4"), note("a", "5")])
        await has_entries(run, "a", ["1", "2", "3", "4", "5"])
        with pytest.raises(InvalidInputError, match="more than 2"):
            await run.client.call_entity(EntityId("greedy", "a"), "any", timeout=SOON)

    app = make_entities()

    @app.entity
    def greedy(ctx: EntityContext) -> None:
        for _ in range(3):
            ctx.signal_entity(ledger("b"), "note", "too much")

    _ = greedy
    on(MemoryStore(), app, scenario, HostConfig(drain_s=0.2, limits=Limits(actions_max=2, episode_messages_max=3)))


def test_errors_keep_their_class_on_the_way_to_the_caller() -> None:
    async def scenario(run: Run) -> None:
        with pytest.raises(OutOfStockError, match="no pears left") as failed:
            await run.client.call_entity(SHELF, "take")
        assert isinstance(failed.value, TaskFailedError)
        handle = await run.client.start_new("shopping")
        said = await handle.wait_for_completion(timeout=SOON)
        assert said == ["OutOfStockError", "PayloadError", "InvalidInputError"]
        with pytest.raises(OrchestratorMisuseError, match="cannot call an entity"):
            await run.client.call_entity(SHELF, "call", "a", timeout=SOON)

    on(MemoryStore(), shop(), scenario)


def test_an_entity_comes_into_being_goes_away_and_comes_again(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        for _ in range(2):
            assert await run.client.read_entity_state(SHELF) is None
            assert await run.client.call_entity(SHELF, "add", 1, timeout=SOON) == "a: [1]"
            assert await run.client.read_entity_state(SHELF) == {"owner": "a", "items": [1]}
            assert await run.client.call_entity(SHELF, "Delete", timeout=SOON) is None
        with pytest.raises(OutOfStockError):
            await run.client.call_entity(SHELF, "take", timeout=SOON)
        assert await run.client.read_entity_state(SHELF) is None, "a failed operation made it"

    on(make_store(), shop(), scenario)


def test_an_entity_signals_itself_and_starts_orchestrations_with_all_options() -> None:
    app = App()

    @app.entity
    @dataclass
    class Boss(Entity):
        left: int = 3

        def count_down(self) -> None:
            self.left -= 1
            me = entity_context()
            if self.left:
                me.signal_entity(me.entity_id, "count_down")

        def start(self) -> list[str]:
            me = entity_context()
            return [
                me.start_orchestration(worker, 1),
                me.start_orchestration("worker", 2, instance_id="mine", version="7", tags={"a": "b"}),
                me.start_orchestration(worker, 3, start_at=timedelta(hours=1)),
                me.start_orchestration(worker, 4, instance_id="mine"),
            ]

        def start_wrongly(self) -> None:
            entity_context().start_orchestration(worker, 1, instance_id="@no")

    @app.orchestrator
    async def worker(ctx: OrchestrationContext, number: int) -> int:
        await ctx.wait_for_external_event("go")
        return number

    async def scenario(run: Run) -> None:
        boss = EntityId(Boss, "b")
        await run.client.signal_entity(boss, Boss.count_down)

        async def done() -> bool:
            state = await run.client.read_entity_state(boss)
            return state is not None and state.left == 0

        await eventually(done)
        first, mine, later, again = await run.client.call_entity(boss, Boss.start)
        assert mine == again == "mine"
        for instance_id, expected in ((first, 1), (mine, 2)):
            await run.client.raise_event(instance_id, "go")
            assert await run.client.wait_for_completion(instance_id, timeout=SOON) == expected
        status, waiting = await run.client.get_status("mine"), await run.client.get_status(later)
        assert status is not None
        assert (status.state.version, status.state.tags) == ("7", {"a": "b"})
        assert waiting is not None
        assert waiting.runtime_status is OrchestrationStatus.PENDING
        with pytest.raises(InvalidInstanceIdError):
            await run.client.call_entity(boss, Boss.start_wrongly, timeout=SOON)

    on(MemoryStore(), app, scenario, HostConfig(drain_s=0.2, version_match="none"))


def test_falsy_states_are_states(make_store: MakeStore) -> None:
    """Only None deletes. They are the same in memory, in what clients read, and on the next host."""
    values = [0, "", [], {}, False, 0.0]

    async def sets(run: Run) -> None:
        for number, value in enumerate(values):
            await run.client.signal_entity(cell(str(number)), "set", value)
            assert await run.client.call_entity(cell(str(number)), "get", timeout=SOON) == [True, value]
            for what in (value, None):
                await run.client.signal_entity(cell("gone"), "set", what)
            assert await run.client.call_entity(cell("gone"), "get", timeout=SOON) == [False, "nothing"]

    async def gets(run: Run) -> None:
        for number, value in enumerate(values):
            found = await run.client.get_entity(cell(str(number)))
            assert found is not None
            assert (found.exists, found.state, type(found.state)) == (True, value, type(value))
            assert await run.client.call_entity(cell(str(number)), "get", timeout=SOON) == [True, value]
            await run.client.call_entity(cell(str(number)), "delete", timeout=SOON)
            assert await run.client.call_entity(cell(str(number)), "get", timeout=SOON) == [False, "nothing"]
            assert await run.client.read_entity_state(cell(str(number))) is None
        assert await run.client.read_entity_state(cell("gone")) is None

    on(make_store(), make_entities(), sets)
    on(make_store(), make_entities(), gets)


def test_an_input_with_a_default_may_be_left_out() -> None:
    async def scenario(run: Run) -> None:
        counter = EntityId[Any]("counter", "a")
        assert await run.client.call_entity(counter, "any", timeout=SOON) == 1
        assert await run.client.call_entity(counter, "any", 5, timeout=SOON) == 6

    on(MemoryStore(), shop(), scenario)


def test_many_signals_are_stored_together_or_not_at_all(make_store: MakeStore) -> None:
    failing = FailingStore(make_store())

    async def scenario(run: Run) -> None:
        await run.client.signal_many([])
        failing.fail_at[failing.commits + 2] = "before"  # of what they do, while all of them are in the one before
        await run.client.signal_many([note("ab"[n % 2], n) for n in range(40)])
        await until(lambda: not failing.fail_at and run.engine.is_ready)
        await has_entries(run, "a", list(range(0, 40, 2)))
        await has_entries(run, "b", list(range(1, 40, 2)))
        with pytest.raises(InvalidInputError, match="at most 50"):
            await run.client.signal_many([note("a", "one of too many")] * 51)
        failing.fail_at[failing.commits + 1] = "before"
        with pytest.raises(StorageError):
            await run.client.signal_many([note("a", "lost"), note("b", "lost")])
        await until(lambda: run.engine.is_ready)
        for key, length in (("a", 21), ("b", 21)):
            assert await run.client.call_entity(ledger(key), "note", "end", timeout=SOON) == length

    on(failing, make_entities(), scenario, HostConfig(drain_s=0.2, limits=Limits(signals_max=50)))


def test_too_much_for_one_target_stores_nothing_for_any() -> None:
    outside = Outside()

    async def scenario(run: Run) -> None:
        await run.client.signal_entity(ledger("a"), "wait", 0)
        await until(lambda: bool(outside.seen))
        await run.client.signal_many([note("a", n) for n in (1, 2)] + [note("a", 9, due=timedelta(hours=1))])
        with pytest.raises(OverloadedError, match="@ledger@a"):
            await run.client.signal_many([note("b", 1), note("a", 3), note("c", 1), note("a", 4)])
        await run.client.signal_entity(ledger("a"), "note", 3)
        outside.gate.set()
        await has_entries(run, "a", [0, 1, 2, 3])
        assert await entries(run, "b") == await entries(run, "c") == []

    on(MemoryStore(), make_entities(outside), scenario, HostConfig(limits=Limits(inbox_messages_max=4)))


def test_senders_keep_their_order(make_store: MakeStore) -> None:
    """Clients, orchestrators and entities, each to one entity, while commits fail."""
    failing, app = FailingStore(make_store()), make_entities()

    @app.orchestrator
    async def sends(ctx: OrchestrationContext) -> int:
        for number in range(20):
            ctx.signal_entity(ledger("by orchestrator"), "note", number)
            if number % 5 == 4:
                ctx.signal_entity(ledger("relay"), "pass_on", ["by entity", number, False])
                await ctx.call_entity(ledger("other"), "note", number)
        return await ctx.call_entity(ledger("by orchestrator"), "note", 20)

    async def scenario(run: Run) -> None:
        failing.fail_at = {failing.commits + n: "before" for n in (3, 6, 9, 14)}
        handle = await run.client.start_new("sends")
        for number in range(10):
            while True:
                try:
                    await run.client.signal_entity(ledger("by client"), "note", number, key=str(number))
                    break
                except (StorageError, OverloadedError):
                    await asyncio.sleep(0.001)
        assert await handle.wait_for_completion(timeout=SOON) == 21
        await has_entries(run, "by orchestrator", list(range(21)))
        await has_entries(run, "by client", list(range(10)))

        async def relayed() -> bool:
            notes = [each for each in await entries(run, "by entity") if isinstance(each, int)]
            return notes == [4, 9, 14, 19]

        await eventually(relayed)

    on(failing, app, scenario, HostConfig(group_transitions_max=3, drain_s=0.2))
