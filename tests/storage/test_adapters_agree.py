"""Random groups, right and wrong: SQLite must take and refuse what memory does, and look the same after."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from storage_builders import (
    NOW,
    Hub,
    Owner,
    activity,
    child,
    contents,
    history,
    instance,
    message,
    own,
    timer,
    update,
)

from holdfast.errors import StorageError

IDS = ["a", "b", "c"]
EXECUTIONS = [f"{name}-e" for name in IDS]

ids = st.sampled_from(IDS)
small = st.integers(0, 2)
keys = st.tuples(st.sampled_from(EXECUTIONS), small)
deliveries = st.integers(0, 3)
times = st.integers(NOW - 1, NOW + 1)
statuses = st.sampled_from(["Running", "Suspended"])


def some(rows: st.SearchStrategy[Any], key: Any = None) -> st.SearchStrategy[list[Any]]:
    return st.lists(rows, max_size=2, unique_by=key)


groups = st.fixed_dictionaries(
    {},
    optional={
        "instances_inserted": some(
            st.builds(instance, ids, status=statuses, deliveries=deliveries), lambda row: row.instance_id
        ),
        "instances_updated": some(
            st.builds(update, ids, st.integers(1, 3), status=statuses, deliveries=deliveries),
            lambda each: each.row.instance_id,
        ),
        "history_inserted": some(
            st.builds(history, st.sampled_from(EXECUTIONS), small), lambda row: (row.execution_id, row.episode)
        ),
        "executions_removed": some(st.tuples(st.sampled_from(EXECUTIONS), st.integers(1, 2)), lambda pair: pair[0]),
        "messages_inserted": some(st.builds(message, st.integers(0, 5), ids), lambda row: row.message_id),
        "messages_removed": some(st.integers(0, 5), lambda message_id: message_id),
        "activities_inserted": some(
            st.builds(activity, small, ids, deliveries=deliveries, visible_at=times), lambda row: row.key
        ),
        "activities_removed": some(keys, lambda key: key),
        "timers_inserted": some(st.builds(timer, small, ids, due_at=times), lambda row: row.key),
        "timers_removed": some(keys, lambda key: key),
        "children_inserted": some(st.builds(child, small, ids), lambda row: row.key),
        "children_removed": some(keys, lambda key: key),
    },
)


async def attempt(owner: Owner, lists: dict[str, list[Any]]) -> str:
    try:
        await owner.commit(**lists)
    except StorageError as error:
        return type(error).__name__
    return "applied"


async def compare(steps: list[dict[str, list[Any]] | None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        hubs = [Hub(kind, Path(folder) / "hub.db") for kind in ("memory", "sqlite")]
        try:
            owners = [await own(hub) for hub in hubs]
            for step in steps:
                if step is None:
                    for owner in owners:
                        owner.ownership = await owner.store.acquire(NOW)
                    assert owners[0].ownership == owners[1].ownership
                else:
                    outcomes = [await attempt(owner, step) for owner in owners]
                    assert outcomes[0] == outcomes[1]
            views = [await contents(owner.store, IDS, EXECUTIONS) for owner in owners]
            assert views[0] == views[1]
        finally:
            for hub in hubs:
                await hub.close()


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.lists(st.one_of(groups, groups, groups, st.none()), min_size=1, max_size=12))
def test_sqlite_does_what_memory_does(steps: list[dict[str, list[Any]] | None]) -> None:
    asyncio.run(compare(steps))
