"""Every commit of a workload of entities fails once, in each way: the results are those of a run without failures."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from engine_kit import SOON, FailingStore, Run, eventually, insist, running
from entity_kit import Outside, cell, entries, ledger, make_entities, note

from holdfast import EntitySignal, HostConfig
from holdfast.storage.memory import MemoryData, MemoryStore
from holdfast.storage.open_store import open_store
from holdfast.storage.port import Store


async def workload(run: Run) -> list[Any]:
    """Ask for something of everything; return what the calls have answered."""
    client = run.client

    async def call(key: str, operation: str, *inputs: Any) -> Any:
        entity, request_key = ledger(key), f"{key} {operation} {inputs}"
        return await insist(lambda: client.call_entity(entity, operation, *inputs, key=request_key, timeout=SOON))

    later = timedelta(milliseconds=3)
    signals = [
        note("a", 1, key="s1"),
        note("a", "later", due=later, key="s2"),
        note("b", 1, key="s3"),
        EntitySignal(ledger("a"), "note_and_fail", "no", key="s4"),
        EntitySignal(ledger("a"), "pass_on", ["b", "passed on", False], key="s5"),
        EntitySignal(ledger("a"), "pass_on", ["b", "not passed on", True], key="s6"),
        note("cleaned", 1, key="s7"),
        EntitySignal(ledger("cleaned"), "delete", key="s8"),
    ]
    await insist(lambda: client.signal_many(signals))
    answers = [await call("a", "note", 2), await call("a", "wait", 3)]
    await insist(lambda: client.call_entity(cell("c"), "set", 0, timeout=SOON))
    await call("cleaned", "delete")
    await insist(lambda: client.clean_entities(idle_for=timedelta(0)))
    answers.append(await call("cleaned", "note", "again"))
    answers.append(await call("a", "note", 2))
    return answers


async def check(run: Run, answers: list[Any]) -> None:
    expected_b = ["passed on", "started by passed on", 1]

    async def settled() -> bool:
        return len(await entries(run, "b")) >= 3 and "later" in await entries(run, "a")

    await eventually(settled)
    found = await entries(run, "a")
    assert [each for each in found if each != "later"] == [1, "passed on", 2, 3]
    assert len(found) == 5
    assert answers[0] == answers[3]
    assert [found[answer - 1] for answer in answers[:2]] == [2, 3]
    assert answers[2] == 1
    assert sorted(await entries(run, "b"), key=lambda each: (isinstance(each, int), each)) == expected_b
    assert await entries(run, "cleaned") == ["again"]
    assert await run.client.read_entity_state(cell("c")) == 0
    assert await run.client.get_status("of not passed on") is None


async def run_with_failure(store: Store, commit: int, how: str) -> bool:
    """Run the workload with a commit for each transition; return whether the one that was to fail was reached."""
    failing = FailingStore(store)
    failing.fail_at = {commit: how}
    outside = Outside()
    outside.gate.set()
    config = HostConfig(group_transitions_max=1, drain_s=0.2)
    async with running(make_entities(outside), failing, config) as run:
        await check(run, await workload(run))
        has_failed = not failing.fail_at
        failing.fail_at.clear()
    return has_failed


@pytest.mark.parametrize("how", ["before", "unknown, not applied", "unknown, applied"])
def test_each_commit_of_entities_fails_once(how: str) -> None:
    """One after the other, until the workload finishes without reaching the commit that would fail."""
    commit, goes_on = 1, True
    while goes_on:
        data = MemoryData()
        goes_on = asyncio.run(run_with_failure(MemoryStore(data), commit, how))
        assert not data.messages, "something was left behind"
        assert not data.timers
        commit += 1
    assert commit > 15, "the workload has become too small to test anything"


@pytest.mark.parametrize("how", ["before", "unknown, applied"])
def test_commits_of_entities_fail_on_sqlite(how: str, tmp_path: Path) -> None:
    for commit in range(1, 16, 3):
        store = open_store(f"sqlite:///{tmp_path / f'{commit}.db'}")
        assert asyncio.run(run_with_failure(store, commit, how))
