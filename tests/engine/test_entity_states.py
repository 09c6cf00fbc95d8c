"""States of entities over their life: versions, sizes, reading, listing, cleaning, and leaving memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from engine_kit import SOON, Run, SlowStore, eventually
from entity_kit import MakeStore, cell, entries, has_entries, ledger, make_entities, note, on

from holdfast import (
    App,
    Entity,
    EntityContext,
    EntityId,
    EntityQuery,
    HostConfig,
    InstanceParkedError,
    InvalidInputError,
    Limits,
    VersionMismatchError,
    entity_context,
)
from holdfast.storage.memory import MemoryData, MemoryStore


def counters(version: int, upgrade: Any = None) -> tuple[App, EntityId[Any], EntityId[Any]]:
    """A class and a function, in an old version (a number) or a new one (a record)."""
    app = App()
    options: dict[str, Any] = {"state_version": version, "upgrade_state": upgrade}
    if version == 1:

        @app.entity(name="total")
        def old(ctx: EntityContext) -> None:
            ctx.set_state(ctx.get_state(int) + ctx.get_input(int))

        @app.entity(name="counter")
        @dataclass
        class Old(Entity):
            amount: int = 0

            def add(self, number: int) -> None:
                self.amount += number

        return app, EntityId(Old, "k"), EntityId(old, "k")

    @app.entity(name="total", **options)
    def new(ctx: EntityContext) -> None:
        ctx.set_state({"sum": ctx.get_state(lambda: {"sum": 0})["sum"] + ctx.get_input(int)})

    @app.entity(name="counter", **options)
    @dataclass
    class New(Entity):
        sum: int = 0

        def add(self, number: int) -> None:
            self.sum += number

    return app, EntityId(New, "k"), EntityId(new, "k")


def to_second(state: Any, version: int) -> Any:
    assert version == 1
    return {"sum": state if isinstance(state, int) else state["amount"]}


def broken(state: Any, version: int) -> Any:
    raise KeyError("amount")


def exits(state: Any, version: int) -> Any:
    raise SystemExit(3)


async def add(run: Run, ids: Sequence[EntityId[Any]], number: int) -> None:
    for entity in ids:
        await run.client.signal_entity(entity, "add", number)


async def sums(run: Run, ids: Sequence[EntityId[Any]]) -> list[Any]:
    states = [await run.client.read_entity_state(entity) for entity in ids]
    return [state["sum"] if isinstance(state, dict) else state.sum for state in states if state is not None]


async def parked(run: Run, ids: Sequence[EntityId[Any]]) -> None:
    async def all_parked() -> bool:
        found = [await run.client.get_entity(entity) for entity in ids]
        return all(each is not None and each.parked is not None for each in found)

    await eventually(all_parked)


def test_older_states_are_upgraded_when_they_are_read_or_used_next(make_store: MakeStore) -> None:
    async def old(run: Run) -> None:
        await add(run, ids, 5)
        await run.client.signal_entity(ids[0], "add", 0)

    async def new(run: Run) -> None:
        assert await sums(run, ids) == [5, 5]
        page = await run.client.list_entities(EntityQuery(entity="counter"))
        assert page.entities[0].state == {"amount": 5}, "a name says nothing about versions"
        await add(run, ids, 2)

        async def added() -> bool:
            return await sums(run, ids) == [7, 7]

        await eventually(added)
        found = await run.client.get_entity(ids[0])
        assert found is not None
        assert found.found.state_version == "2"

    app, *ids = counters(1)
    on(make_store(), app, old)
    app, *ids = counters(2, to_second)
    on(make_store(), app, new)
    on(make_store(), app, lambda run: add(run, ids, 1))
    assert on(make_store(), app, lambda run: sums(run, ids)) == [8, 8]


def keeps(state: Any, version: int) -> Any:
    return state


@pytest.mark.parametrize(
    ("stored", "version", "upgrade"),
    [(3, 1, None), (3, 2, keeps), (1, 3, broken), (1, 3, exits)],
    ids=["older code", "older upgrade", "broken upgrade", "upgrade that exits"],
)
def test_states_that_the_code_cannot_read_wait_for_code_that_can(
    make_store: MakeStore, stored: int, version: int, upgrade: Any
) -> None:
    """With all their messages; an operator lets them go on."""

    async def wrong(run: Run) -> None:
        await add(run, wrong_ids, 10)
        await parked(run, wrong_ids)
        await add(run, wrong_ids, 100)
        for entity in wrong_ids:
            with pytest.raises(InstanceParkedError):
                await run.client.call_entity(entity, "add", 1000, timeout=SOON)
            with pytest.raises(VersionMismatchError):
                await run.client.read_entity_state(entity)

    async def right(run: Run) -> None:
        await parked(run, right_ids)
        for entity in right_ids:
            await run.client.resume(entity.instance_id)

        async def done() -> bool:
            return await sums(run, right_ids) == [111, 111]

        await eventually(done)

    right_app, *right_ids = counters(3, to_second)
    first_app, *first_ids = (right_app, *right_ids) if stored == 3 else counters(1)
    on(make_store(), first_app, lambda run: add(run, first_ids, 1))
    wrong_app, *wrong_ids = counters(version, upgrade)
    on(make_store(), wrong_app, wrong)
    on(make_store(), right_app, right)


def test_states_of_any_size_up_to_the_limit_with_a_warning_at_each_doubling(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    config = HostConfig(limits=Limits(entity_state_bytes_warning=1_000))

    async def scenario(run: Run) -> None:
        for size in (900, 1_100, 1_200, 2_500, 9_000, 8_500, 500, 1_500):
            await run.client.call_entity(cell("a"), "set", "x" * size, timeout=SOON)
        await run.client.call_entity(cell("b"), "set", "ä" * 600, timeout=SOON)

    on(MemoryStore(), make_entities(), scenario, config)
    warned = [record.args for record in caplog.records if "The state of entity" in record.msg]
    assert warned == [
        ("@cell@a", 1_102),
        ("@cell@a", 2_502),
        ("@cell@a", 9_002),
        ("@cell@a", 1_502),
        ("@cell@b", 1_202),
    ]


def test_entities_that_leave_memory_keep_their_states(make_store: MakeStore) -> None:
    data_size, rounds = 300, 3

    async def scenario(run: Run) -> None:
        for number in range(rounds):
            await run.client.signal_many(
                [note(f"{n}", number) for n in range(data_size)]
                + [note(f"{n}", "later", due=timedelta(milliseconds=1), key="k") for n in range(data_size)]
            )
            assert await run.client.call_entity(ledger("end"), "note", 1, timeout=SOON) == number + 1
        for n in range(0, data_size, 7):
            await run.client.call_entity(ledger(f"{n}"), "note", "last", timeout=SOON)

            async def complete(n: int = n) -> bool:
                return len(await entries(run, f"{n}")) == rounds + 2

            await eventually(complete)
            found = await entries(run, f"{n}")
            assert sorted(found, key=str) == [0, 1, 2, "last", "later"]
            assert [each for each in found if isinstance(each, int)] == [0, 1, 2]
        residents = run.engine.node.residents
        assert sum(1 for _ in residents) < data_size

    config = HostConfig(cache_bytes_max=10_000, drain_s=0.2)
    on(make_store(), make_entities(), scenario, config)


def test_an_entity_stays_in_memory_until_the_store_knows_all_of_it() -> None:
    slow, held = SlowStore(MemoryStore()), asyncio.Event()

    async def scenario(run: Run) -> None:
        await run.client.call_entity(ledger("a"), "note", 0)
        slow.before["commit"] = held
        calls: list[asyncio.Task[Any]] = []
        try:
            for number in range(1, 4):
                calls.append(asyncio.create_task(run.client.call_entity(ledger("a"), "note", number)))
                for _ in range(20):
                    await asyncio.sleep(0)
        finally:
            held.set()
        assert await asyncio.gather(*calls) == [2, 3, 4]

    on(slow, make_entities(), scenario, HostConfig(cache_bytes_max=1, drain_s=0.2))


def test_lists_of_entities(make_store: MakeStore) -> None:
    app = make_entities()

    @app.entity
    @dataclass
    class Other(Entity):
        number: int = 0

        def set(self, number: int) -> None:
            self.number = number

    async def keys(run: Run, query: EntityQuery | None = None) -> list[str]:
        return [each.entity_id.key async for each in run.client.iterate_entities(query)]

    async def scenario(run: Run) -> None:
        client = run.client
        for key in ("a", "a%", "ab", "b_", "b"):
            await client.call_entity(ledger(key), "note", 1)
        await client.call_entity(ledger("deleted"), "delete")
        begun = datetime.now(UTC)
        await client.call_entity(EntityId(Other, "a"), Other.set, 5)
        await client.call_entity(cell("z"), "set", 0)
        assert await keys(run, EntityQuery(entity="LEDGER")) == ["a", "a%", "ab", "b", "b_"]
        assert await keys(run, EntityQuery(entity="ledger", with_empty=True)) == ["a", "a%", "ab", "b", "b_", "deleted"]
        assert await keys(run, EntityQuery(entity="ledger", key_prefix="a%")) == ["a%"]
        assert await keys(run, EntityQuery(entity="ledger", key_prefix="b_")) == ["b_"]
        assert await keys(run, EntityQuery(entity="ledge")) == []
        assert await keys(run) == ["z", "a", "a%", "ab", "b", "b_", "a"]
        assert await keys(run, EntityQuery(updated_from=begun)) == ["z", "a"]
        assert await keys(run, EntityQuery(updated_until=begun)) == ["a", "a%", "ab", "b", "b_"]
        page = await client.list_entities(EntityQuery(entity=Other))
        assert [(each.exists, each.state) for each in page.entities] == [(True, Other(5))]
        page = await client.list_entities(EntityQuery(entity=Other, with_state=False))
        assert [(each.exists, each.state) for each in page.entities] == [(True, None)]
        assert await client.get_entity(ledger("nobody")) is None
        refused: list[dict[str, Any]] = [{"limit": 0}, {"limit": 1_001}, {"limit": True}, {"continuation_token": "x"}]
        refused += [{"continuation_token": "@\ud800"}, {"query": EntityQuery(key_prefix="a")}]
        refused += [{"query": EntityQuery(entity="ledger", key_prefix="\ud800")}, {"query": EntityQuery(entity=5)}]
        refused += [{"query": EntityQuery(updated_from=datetime(2026, 1, 1))}]  # noqa: DTZ001 - it is refused
        for options in refused:
            with pytest.raises(InvalidInputError):
                await client.list_entities(**options)

    on(make_store(), app, scenario)


def test_pages_neither_skip_nor_repeat_what_was_there_while_others_come_and_go(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        await run.client.signal_many([note(f"{n:02}", 1) for n in range(20)])
        await run.client.call_entity(ledger("19"), "note", 2)
        found, token = list[str](), None
        for turn in range(50):
            page = await run.client.list_entities(limit=3, continuation_token=token)
            found += [each.entity_id.key for each in page.entities]
            await run.client.call_entity(ledger(f"{turn:02}+"), "note", "new", timeout=SOON)
            token = page.continuation_token
            if token is None:
                break
        assert [key for key in found if not key.endswith("+")] == [f"{n:02}" for n in range(20)]
        assert len(found) == len(set(found))

    on(make_store(), make_entities(), scenario)


def test_cleaning_removes_what_is_empty_and_idle_and_nothing_else(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        client = run.client
        for key in ("empty", "used", "scheduled", "also empty"):
            await client.call_entity(ledger(key), "delete")
        await client.call_entity(cell("zero"), "set", 0)
        await client.signal_entity(ledger("scheduled"), "note", "later", due=timedelta(hours=1))
        await client.call_entity(ledger("used"), "note", 1)
        assert (await client.clean_entities()).empty_entities_removed == 0, "they were used just now"
        assert (await client.clean_entities(idle_for=timedelta(0), remove_empty=False)).empty_entities_removed == 0
        assert (await client.clean_entities(idle_for=timedelta(0))).empty_entities_removed == 2
        left = [each.entity_id.key async for each in client.iterate_entities(EntityQuery(with_empty=True))]
        assert left == ["zero", "scheduled", "used"]
        assert await client.get_entity(ledger("empty")) is None
        for idle_for in (timedelta(-1), 5):
            with pytest.raises(InvalidInputError):
                await client.clean_entities(idle_for=idle_for)  # pyright: ignore[reportArgumentType] - it is refused

    on(make_store(), make_entities(), scenario)


def test_an_entity_can_be_used_in_the_moment_in_which_it_is_cleaned_away(make_store: MakeStore) -> None:
    """Again and again, also with scheduled signals, and on a host that starts again."""

    async def scenario(run: Run) -> None:
        for number in range(8):
            await run.client.call_entity(ledger("a"), "delete", timeout=SOON)
            cleaning = asyncio.create_task(run.client.clean_entities(idle_for=timedelta(0)))
            for _ in range(number):
                await asyncio.sleep(0)
            await run.client.signal_many([note("a", number), note("a", "later", due=timedelta(milliseconds=1))])
            await cleaning
            await has_entries(run, "a", [number, "later"])

    on(make_store(), make_entities(), scenario)
    on(make_store(), make_entities(), scenario)


def test_what_a_cleaned_entity_starts_has_ids_of_its_own() -> None:
    """Each life of an entity names what it starts and sends differently from all others."""
    app = App()

    @app.entity
    @dataclass
    class Starter(Entity):
        ids: list[str] = field(default_factory=list)

        def start(self) -> str:
            return entity_context().start_orchestration("unknown")

    data = MemoryData()

    async def scenario(run: Run) -> None:
        starter, ids = EntityId(Starter, "a"), set[str]()
        for _ in range(3):
            ids.add(await run.client.call_entity(starter, Starter.start))
            await run.client.call_entity(starter, "delete")
            assert (await run.client.clean_entities(idle_for=timedelta(0))).empty_entities_removed == 1
        assert len(ids) == 3

    on(MemoryStore(data), app, scenario)
