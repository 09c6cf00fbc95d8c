"""Purges and retention: what has ended goes whole, nothing else goes, and ids are free again at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_kit import SOON, FailingStore, Run, SlowStore, eventually, running, until

from holdfast import (
    App,
    ConfigurationError,
    Entity,
    EntityId,
    HostConfig,
    IdPolicy,
    InstanceNotEndedError,
    InstanceNotFoundError,
    InstanceQuery,
    InvalidInputError,
    OrchestrationContext,
    OrchestrationStatus,
)
from holdfast.engine import purging
from holdfast.errors import CommitFailedError
from holdfast.storage.memory import MemoryData, MemoryStore
from holdfast.storage.open_store import open_store
from holdfast.storage.port import Fence, Store, WriteSet
from holdfast.storage.selection import InstanceConditions
from holdfast.testing import Simulation

app = App()


@app.entity
@dataclass
class Count(Entity):
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


counter = EntityId(Count, "c")


@app.activity
def double(number: int) -> int:
    return 2 * number


@app.orchestrator
async def long(ctx: OrchestrationContext, steps: int) -> None:
    for _ in range(steps):
        await ctx.call_activity(double, 1)


@app.orchestrator
async def quick(ctx: OrchestrationContext, number: int) -> int:
    return await ctx.call_activity(double, number)


@app.orchestrator(retention=timedelta(hours=30))
async def kept(ctx: OrchestrationContext) -> None:
    ctx.set_custom_status("kept")


@app.orchestrator
async def failing(ctx: OrchestrationContext) -> None:
    raise ValueError("this is what it does")


@app.orchestrator
async def parent(ctx: OrchestrationContext) -> int:
    result = await ctx.call_sub_orchestrator(quick, 3)
    await ctx.wait_for_external_event("go")
    return result


@app.orchestrator
async def waiting(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_external_event("go")


@app.orchestrator
async def locking(ctx: OrchestrationContext) -> None:
    async with ctx.lock(counter):
        await ctx.wait_for_external_event("go")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else open_store(f"sqlite:///{tmp_path / 'hub.db'}")


def on(test: Callable[[Run], Any]) -> Callable[[Store], None]:
    def run(store: Store) -> None:
        async def main() -> None:
            async with running(app, store) as run:
                await test(run)

        asyncio.run(main())

    return run


async def end(run: Run, instance_id: str, number: int = 1) -> None:
    await (await run.client.start_new(quick, number, instance_id=instance_id)).wait_for_completion(timeout=SOON)


@pytest.mark.parametrize("cache_bytes_max", [1, 1 << 20])
def test_what_has_ended_goes_whole_and_its_id_is_free(store: Store, cache_bytes_max: int) -> None:
    async def main() -> None:
        async with running(app, store, HostConfig(drain_s=0.2, cache_bytes_max=cache_bytes_max)) as run:
            for number in range(3):
                await end(run, "i", number)
                row = await store.read_instance("i")
                assert row is not None
                await run.client.purge("i")
                assert await run.client.get_status("i") is None
                assert await store.load(["i"]) == []
                assert await store.load_history(row.instance_id, row.execution_id) == []
            with pytest.raises(InstanceNotFoundError):
                await run.client.purge("i")
            once = IdPolicy(replace=())
            again = await run.client.start_new(quick, 4, instance_id="i", id_policy=once)
            assert await again.wait_for_completion(timeout=SOON) == 8

    asyncio.run(main())


def test_a_start_that_overtakes_the_commit_of_a_purge_begins_anew() -> None:
    async def main() -> None:
        store = SlowStore(MemoryStore())
        async with running(app, store) as run:
            await end(run, "i")
            run.engine.node.residents.remove(next(iter(run.engine.node.residents)))
            store.before["commit"] = stored = asyncio.Event()
            purging = asyncio.create_task(run.client.purge("i"))
            await until(lambda: "i" not in run.engine.node.residents and store.calls["read_instance"] > 0)
            await asyncio.sleep(0.01)
            starting = asyncio.create_task(run.client.start_new(quick, 5, instance_id="i"))
            await asyncio.sleep(0.01)
            stored.set()
            await purging
            assert await (await starting).wait_for_completion(timeout=SOON) == 10
            assert run.engine.last_failure is None, "a commit was refused"

    asyncio.run(main())


@pytest.mark.parametrize("cache_bytes_max", [1, 1 << 20])
def test_two_purges_at_once_do_not_hurt_each_other(store: Store, cache_bytes_max: int) -> None:
    async def main() -> None:
        async with running(app, store, HostConfig(drain_s=0.2, cache_bytes_max=cache_bytes_max)) as run:
            client = run.client
            for number in range(30):
                await end(run, f"i{number}", number)
            pairs = [client.purge(f"i{number}") for number in range(10) for _ in range(2)]
            outcomes = await asyncio.gather(*pairs, return_exceptions=True)
            refused = [each for each in outcomes if each is not None]
            assert len(refused) == 10
            assert all(isinstance(each, InstanceNotFoundError) for each in refused)
            purged = await asyncio.gather(*(client.purge_instances(InstanceQuery(id_prefix="i")) for _ in range(3)))
            assert sum(purged) == 20
            assert await client.count_instances() == {}
            assert run.engine.last_failure is None, "a commit was refused"

    asyncio.run(main())


def test_what_was_purged_once_is_not_gone_for_ever() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with running(app, store, HostConfig(drain_s=0.2, cache_bytes_max=1)) as run:
            await end(run, "i")
            await run.client.purge("i")
            again = await run.client.start_new(waiting, instance_id="i")
            residents = run.engine.node.residents
            await until(lambda: residents.get("i") is None or _goes(run, "i"))
            await again.raise_event("go", "on")
            assert await again.wait_for_completion(timeout=SOON) == "on"

    asyncio.run(main())


def _goes(run: Run, instance_id: str) -> bool:
    """Let an instance leave memory, if it can."""
    node = run.engine.node
    resident = node.residents.get(instance_id)
    if resident is not None and resident.execution is not None and resident.is_idle(node.journal.durable_lsn):
        node.residents.remove(resident)
    return resident is None


def test_only_what_has_ended_goes(store: Store) -> None:
    @on
    async def check(run: Run) -> None:
        client = run.client
        handle = await client.start_new(parent, instance_id="p")
        await eventually(lambda: _has_ended_child(run, "p"))
        with pytest.raises(InstanceNotEndedError, match="'p' cannot be purged: it is Running") as caught:
            await client.purge("p")
        assert caught.value.status == "Running"
        assert await client.purge_instances(InstanceQuery()) == 1  # the child, whose result its parent has
        await handle.raise_event("go")
        assert await handle.wait_for_completion(timeout=SOON) == 6
        assert await client.purge_instances(InstanceQuery(name="quick")) == 0
        assert await client.purge_instances(InstanceQuery(name=parent, statuses=["Completed"])) == 1
        assert await client.count_instances() == {}

    check(store)


async def _has_ended_child(run: Run, instance_id: str) -> bool:
    found = await run.client.list_instances(InstanceQuery(parent_instance_id=instance_id, statuses=["Completed"]))
    return len(found.instances) == 1


def test_an_entity_goes_with_its_state_unless_somebody_relies_on_it(store: Store) -> None:
    @on
    async def check(run: Run) -> None:
        client = run.client
        assert await client.call_entity(counter, "add", 2, key="k", timeout=SOON) == 2
        await client.signal_entity(counter, "add", 1, due=timedelta(days=1))
        with pytest.raises(InstanceNotEndedError, match="operations that wait"):
            await client.purge("@count@c")
        other = EntityId(Count, "other")
        assert await client.call_entity(other, "add", 2, key="k", timeout=SOON) == 2
        await client.purge("@count@other")
        assert await client.get_entity(other) is None
        assert await client.call_entity(other, "add", 5, key="k", timeout=SOON) == 5, "a key goes with its entity"
        with pytest.raises(InstanceNotFoundError):
            await client.purge("@count@absent")

    check(store)


def test_a_locked_entity_stays(store: Store) -> None:
    @on
    async def check(run: Run) -> None:
        holder = await run.client.start_new(locking, instance_id="holder")
        await eventually(lambda: _is_locked(run))
        with pytest.raises(InstanceNotEndedError, match="is locked by 'holder'"):
            await run.client.purge("@count@c")
        await holder.raise_event("go")
        await holder.wait_for_completion(timeout=SOON)

    check(store)


async def _is_locked(run: Run) -> bool:
    found = await run.client.get_entity(counter)
    return found is not None and found.lock is not None


def test_instances_are_found_counted_and_paged(store: Store) -> None:
    @on
    async def check(run: Run) -> None:
        client = run.client
        for number in range(5):
            await client.start_new(quick, number, instance_id=f"q{number}", tags={"shop": str(number % 2)})
        await client.start_new(kept, instance_id="k")
        await client.start_new(failing, instance_id="f")
        for instance_id in ("k", "f", *(f"q{number}" for number in range(5))):
            await client.wait_until_stopped(instance_id, timeout=SOON)
        page = await client.list_instances(InstanceQuery(id_prefix="q"), limit=3)
        assert [each.instance_id for each in page.instances] == ["q0", "q1", "q2"]
        rest = await client.list_instances(InstanceQuery(id_prefix="q"), continuation_token=page.continuation_token)
        assert [each.instance_id for each in rest.instances] == ["q3", "q4"]
        assert rest.continuation_token is None
        tagged = [each async for each in client.iterate_instances(InstanceQuery(tags={"shop": "1"}))]
        assert [(each.instance_id, each.tags) for each in tagged] == [("q1", {"shop": "1"}), ("q3", {"shop": "1"})]
        by_status = await client.list_instances(InstanceQuery(custom_status="kept"))
        assert [each.instance_id for each in by_status.instances] == ["k"]
        assert await client.count_instances(InstanceQuery(name="quick")) == {OrchestrationStatus.COMPLETED: 5}
        assert await client.count_instances() == {OrchestrationStatus.COMPLETED: 6, OrchestrationStatus.FAILED: 1}

    check(store)


@pytest.mark.parametrize(
    "query",
    [
        {"statuses": ["Done"]},
        {"id_prefix": 3},
        {"created_from": timedelta(days=1)},
        {"parent_instance_id": ""},
        {"tags": {"a": 1}},
    ],
    ids=str,
)
def test_a_query_that_cannot_be_meant_is_refused(query: dict[str, Any]) -> None:
    @on
    async def check(run: Run) -> None:
        with pytest.raises(InvalidInputError):
            await run.client.list_instances(InstanceQuery(**query))

    check(MemoryStore())


def test_old_instances_go_by_themselves() -> None:
    """Each after its own time: by its function, by its status, by the setting of the host."""
    config = HostConfig(drain_s=0.2, retention_s=3_600, retention_failed_s=3 * 3_600)

    async def scenario(sim: Simulation) -> None:
        async def left() -> list[str]:
            return [each.instance_id async for each in sim.client.iterate_instances()]

        for number in range(250):
            await sim.client.start_new(quick, number, instance_id=f"q{number}")
        await sim.client.start_new(kept, instance_id="kept")
        await sim.client.start_new(failing, instance_id="failed")
        await sim.client.start_new(parent, instance_id="runs")
        await sim.advance(minutes=57)
        assert len(await left()) == 254
        await sim.advance(minutes=5)
        assert await left() == ["failed", "kept", "runs"]
        await sim.advance(hours=2)
        assert await left() == ["kept", "runs"]
        await sim.advance(hours=28)
        assert await left() == ["runs"]
        await sim.client.raise_event("runs", "go")

    Simulation(app, config=config, idle_s=3600).run(scenario)


def test_a_retention_must_be_a_time() -> None:
    with pytest.raises(ConfigurationError, match="retention"):
        App().orchestrator(retention=timedelta(0))(kept.function)
    for value in (0, "a week", True):
        with pytest.raises(ConfigurationError, match="retention_s"):
            HostConfig(retention_s=value)  # pyright: ignore[reportArgumentType] - what is tested


@pytest.mark.parametrize("how", ["before", "unknown, not applied", "unknown, applied"])
def test_a_purge_whose_commit_fails_is_whole_or_was_not(how: str) -> None:
    async def main() -> None:
        data = MemoryData()
        store = FailingStore(MemoryStore(data))
        async with running(app, store) as run:
            for number in range(4):
                await end(run, f"q{number}", number)
            store.fail_at = {store.commits + 1: how}
            with pytest.raises(CommitFailedError):
                await run.client.purge_instances(InstanceQuery(id_prefix="q"))
            await until(lambda: run.engine.is_ready)
            assert len(data.instances) == len(data.history) == (0 if how == "unknown, applied" else 4)
            await run.client.purge_instances(InstanceQuery(id_prefix="q"))
            assert not data.instances
            assert not data.history

    asyncio.run(main())


class Counting(MemoryStore):
    """A store that notes how many episodes each commit removes."""

    def __init__(self) -> None:
        super().__init__()
        self.removed: list[int] = []

    async def commit(self, fence: Fence, writes: WriteSet) -> None:
        await super().commit(fence, writes)
        if writes.executions_removed:
            self.removed.append(sum(episodes for _, _, episodes in writes.executions_removed))


def test_a_page_of_long_histories_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purging, "_EPISODES_PER_COMMIT", 10)
    store = Counting()

    @on
    async def check(run: Run) -> None:
        lengths = [1, 4, 12, 12, 2, 2, 1, 9, 3]
        for number, length in enumerate(lengths):
            handle = await run.client.start_new("long", length, instance_id=f"i{number}")
            await handle.wait_for_completion(timeout=SOON)
        after: str | None = ""
        purged: list[int] = []
        while after is not None:
            page = await purging.purge_instances(lambda: run.engine.node, store, InstanceConditions(), after, 100)
            purged.append(page.purged)
            after = page.next_after
        assert purged == [2, 1, 1, 3, 1, 1]
        assert store.removed == [2 + 5, 13, 13, 3 + 3 + 2, 10, 4]
        assert not await store.instances("", 10)

    check(store)


def test_a_position_that_no_page_has_given_is_refused() -> None:
    @on
    async def check(run: Run) -> None:
        from holdfast.engine.purging import purge_instances

        for after in ("x", "1" * 30, "-1/a", "/a"):
            with pytest.raises(InvalidInputError):
                await purge_instances(lambda: run.engine.node, run.store, InstanceConditions(), after, 1)

    check(MemoryStore())
