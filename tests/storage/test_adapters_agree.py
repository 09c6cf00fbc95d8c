"""Random groups, right and wrong, and random questions: SQLite and PostgreSQL must do and answer what memory does."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
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
    operation_key,
    own,
    timer,
    update,
)

from holdfast.errors import StorageError
from holdfast.storage.port import InstanceRow, OperationKeyRow
from postgres_kit import execute, new_schema, schema_of

IDS = ["a", "@c@b", "@c@\U0001f980"]
EXECUTIONS = [f"{name}-e" for name in IDS]

ids = st.sampled_from(IDS)
small = st.integers(0, 2)
keys = st.tuples(st.sampled_from(EXECUTIONS), small)
deliveries = st.integers(0, 3)
times = st.integers(NOW - 1, NOW + 1)
texts = st.sampled_from([None, "1"])
records = st.sampled_from([None, "1", "damaged"])
EVENT_KEYS = ["", "k", "K", "'\U0001f511\""]
operation_keys = st.sampled_from(EVENT_KEYS)
statuses = st.sampled_from(["Running", "Suspended"])


def remembered(key: str, turn: int, instance_id: str, answer: str | None) -> OperationKeyRow:
    """A key at a position that no other key of the entity can have."""
    return operation_key(key, turn * len(EVENT_KEYS) + EVENT_KEYS.index(key), instance_id, answer=answer)


def some(rows: st.SearchStrategy[Any], key: Any = None) -> st.SearchStrategy[list[Any]]:
    return st.lists(rows, max_size=2, unique_by=key)


groups = st.fixed_dictionaries(
    {},
    optional={
        "instances_inserted": some(
            st.builds(instance, ids, status=statuses, deliveries=deliveries, state=texts, lock=texts),
            lambda row: row.instance_id,
        ),
        "instances_updated": some(
            st.builds(update, ids, st.integers(1, 3), status=statuses, deliveries=deliveries),
            lambda each: each.row.instance_id,
        ),
        "instances_removed": some(st.tuples(ids, st.integers(1, 2)), lambda pair: pair[0]),
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
        "timers_inserted": some(st.builds(timer, small, ids, due_at=times, event=texts), lambda row: row.key),
        "timers_removed": some(keys, lambda key: key),
        "children_inserted": some(st.builds(child, small, ids), lambda row: row.key),
        "children_removed": some(keys, lambda key: key),
        "operation_keys_inserted": some(st.builds(remembered, operation_keys, small, ids, texts), lambda row: row.key),
        "operation_keys_removed": some(st.tuples(ids, operation_keys), lambda key: key),
    },
)


async def attempt(owner: Owner, lists: dict[str, list[Any]]) -> str:
    try:
        await owner.commit(**lists)
    except StorageError as error:
        return type(error).__name__
    return "applied"


def what_is_given(owner: Owner) -> tuple[object, ...]:
    """What a store gives its owner, but the name of the node, which is the store's own affair."""
    fence = owner.fence
    return fence.incarnation, fence.epochs, owner.ownership.lsn, owner.ownership.partition_count


@asynccontextmanager
async def two_hubs(kind: str, url: str) -> AsyncGenerator[list[Hub]]:
    """One in memory, and one of another kind, both without anything in them."""
    with tempfile.TemporaryDirectory() as folder:
        hubs = [Hub("memory", Path(folder)), Hub(kind, Path(folder) / "hub.db", url)]
        try:
            yield hubs
        finally:
            for hub in hubs:
                await hub.close()
            if url:
                await execute(url, f"DROP SCHEMA IF EXISTS {schema_of(url)} CASCADE")


async def compare(steps: list[dict[str, list[Any]] | None], kind: str, url: str = "") -> None:
    async with two_hubs(kind, url) as hubs:
        owners = [await own(hub) for hub in hubs]
        for step in steps:
            if step is None:
                for owner in owners:
                    owner.ownership = await owner.store.acquire(NOW)
                assert what_is_given(owners[0]) == what_is_given(owners[1])
            else:
                outcomes = [await attempt(owner, step) for owner in owners]
                assert outcomes[0] == outcomes[1]
        views = [await contents(owner.store, IDS, EXECUTIONS) for owner in owners]
        assert views[0] == views[1]


some_steps = st.lists(st.one_of(groups, groups, groups, st.none()), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(some_steps)
def test_sqlite_does_what_memory_does(steps: list[dict[str, list[Any]] | None]) -> None:
    asyncio.run(compare(steps, "sqlite"))


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(steps=some_steps)
def test_postgres_does_what_memory_does(postgres_server: str, steps: list[dict[str, list[Any]] | None]) -> None:
    asyncio.run(compare(steps, "postgres", new_schema(postgres_server)))


@pytest.mark.soak
@pytest.mark.timeout(1800)
@settings(max_examples=600, deadline=None, database=None)
@given(steps=some_steps)
def test_postgres_does_more_of_what_memory_does(postgres_server: str, steps: list[dict[str, list[Any]] | None]) -> None:
    asyncio.run(compare(steps, "postgres", new_schema(postgres_server)))


# Letters on both sides of "@" and of each other, in UTF-16 as well, and what a pattern would take for a wildcard.
LETTERS = "0A%_*?[]~\x7fé\uffee\U0001f980"
words = st.text(LETTERS, max_size=2)
entity_ids = st.builds("@{}@{}".format, words, words)
prefixes = st.builds("@{}".format, words) | entity_ids
bounds = st.none() | times
questions = st.tuples(
    prefixes,
    words | entity_ids,
    st.integers(0, 5),
    st.fixed_dictionaries(
        {},
        optional={
            "updated_from": bounds,
            "updated_until": bounds,
            "with_state": st.booleans(),
            "with_empty": st.booleans(),
            "only_parked": st.booleans(),
        },
    ),
)


async def ask(
    rows: list[InstanceRow], asked: list[tuple[str, str, int, dict[str, Any]]], kind: str, url: str = ""
) -> None:
    async with two_hubs(kind, url) as hubs:
        owners = [await own(hub) for hub in hubs]
        for owner in owners:
            await owner.commit(instances_inserted=rows)
        for prefix, after, limit, options in asked:
            answers = [await owner.store.entities(prefix, after, limit, **options) for owner in owners]
            assert answers[0] == answers[1]
            locked = [await owner.store.entities_locked(after, limit) for owner in owners]
            assert locked[0] == locked[1]


some_rows = st.lists(
    st.builds(instance, words | entity_ids, updated_at=times, state=texts, lock=records, parked=texts),
    max_size=20,
    unique_by=lambda row: row.instance_id,
)
some_questions = st.lists(questions, min_size=1, max_size=20)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(some_rows, some_questions)
def test_sqlite_lists_the_entities_that_memory_does(
    rows: list[InstanceRow], asked: list[tuple[str, str, int, dict[str, Any]]]
) -> None:
    asyncio.run(ask(rows, asked, "sqlite"))


@settings(max_examples=15, deadline=None, derandomize=True, database=None)
@given(rows=some_rows, asked=some_questions)
def test_postgres_lists_the_entities_that_memory_does(
    postgres_server: str, rows: list[InstanceRow], asked: list[tuple[str, str, int, dict[str, Any]]]
) -> None:
    asyncio.run(ask(rows, asked, "postgres", new_schema(postgres_server)))
