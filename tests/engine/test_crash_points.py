"""Every commit of a workload fails once, in each way in which a commit can fail: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from engine_kit import SOON, FailingStore, Run, World, eventually, make_app, running

from holdfast import EntityId, HostConfig, OverloadedError, StorageError
from holdfast.storage.memory import MemoryStore
from holdfast.storage.open_store import open_store
from holdfast.storage.port import Store


async def insist(request: Callable[[], Awaitable[None]]) -> None:
    """Repeat an idempotent request until it is acknowledged, as a careful client does."""
    while True:
        try:
            await request()
        except (StorageError, OverloadedError):
            await asyncio.sleep(0.001)
        else:
            return


async def start(run: Run, name: str, value: object, instance_id: str) -> None:
    async def request() -> None:
        if await run.client.get_status(instance_id) is None:
            await run.client.start_new(name, value, instance_id=instance_id)

    await insist(request)


async def workload(run: Run) -> dict[str, object]:
    await start(run, "chain", 4, "chain")
    await start(run, "fan", 5, "fan")
    await start(run, "parent", 3, "parent")
    await start(run, "sleepy", 10, "sleepy")
    await start(run, "transfer", ("ann", "bob", 7), "transfer")
    results: dict[str, object] = {}
    for instance_id in ("chain", "fan", "parent", "sleepy", "transfer"):
        results[instance_id] = await run.client.wait_for_completion(instance_id, timeout=SOON)
    return results


EXPECTED = {"chain": 16, "fan": 20, "parent": [1, 2, 4], "sleepy": "awake", "transfer": 7}


async def run_with_failure(store: Store, commit: int, how: str) -> bool:
    """Run the workload with a commit for each transition; return whether the one that was to fail was reached."""
    failing = FailingStore(store)
    failing.fail_at = {commit: how}
    config = HostConfig(group_transitions_max=1, drain_s=0.2)
    async with running(make_app(World()), failing, config) as run:
        assert await workload(run) == EXPECTED

        async def settled() -> bool:
            ann = await run.client.read_entity_state(EntityId("account", "ann"))
            bob = await run.client.read_entity_state(EntityId("account", "bob"))
            return (ann, bob) == ({"balance": -7}, {"balance": 7})

        await eventually(settled)
    return not failing.fail_at


@pytest.mark.parametrize("how", ["before", "unknown, not applied", "unknown, applied"])
def test_each_commit_fails_once(how: str) -> None:
    """One after the other, until the workload finishes without reaching the commit that would fail."""
    commit = 1
    while asyncio.run(run_with_failure(MemoryStore(), commit, how)):
        commit += 1
    assert commit > 35, "the workload has become too small to test anything"


@pytest.mark.parametrize("how", ["before", "unknown, applied"])
def test_commits_fail_on_sqlite(how: str, tmp_path: Path) -> None:
    for commit in range(1, 40, 5):
        store = open_store(f"sqlite:///{tmp_path / f'{commit}.db'}")
        assert asyncio.run(run_with_failure(store, commit, how))
