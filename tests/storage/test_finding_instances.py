"""Which orchestrations a query finds: the same in each store, for random rows and random conditions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from storage_builders import NOW, Hub, Owner, in_loop, instance, own

from holdfast.storage.selection import EndedInstance, InstanceConditions
from postgres_kit import drop, new_schema

KINDS = ("memory", "sqlite", "postgres")

times = st.integers(NOW - 2, NOW + 2)
bounds = st.none() | times
statuses = st.sampled_from(["Pending", "Running", "Suspended", "Completed", "Failed", "Terminated", "Canceled", "Odd"])
texts = st.sampled_from([None, "1", '"done"'])
records = st.sampled_from([None, "{}", "damaged"])
parents = st.sampled_from([None, '{"instance_id":"a","execution_id":"a-e","task_scheduled_id":1}', "damaged"])
tags = st.sampled_from([None, '{"x":"1"}', '{"x":"1","y\\"":"%"}', '{"x":"2"}', "damaged"])
rows = st.lists(
    st.builds(
        instance,
        st.sampled_from(["a", "b", "ab", "Ab", "é", "a%", "a_", "@log@a", "\U0001f980"]),
        name=st.sampled_from(["hello", "Hello", "other"]),
        status=statuses,
        created_at=times,
        updated_at=times,
        parent=parents,
        tags=tags,
        custom_status=texts,
        parked=texts,
        failure=records,
        lock=records,
        events_awaited=records,
        revision=st.integers(1, 3),
        episodes=st.integers(0, 3),
    ),
    max_size=9,
    unique_by=lambda row: row.instance_id,
)
conditions = st.builds(
    InstanceConditions,
    prefix=st.sampled_from(["", "a", "a%", "é", "zz"]),
    name=st.sampled_from([None, "hello"]),
    names_excluded=st.sampled_from([(), ("other",), ("hello", "other")]),
    statuses=st.lists(statuses, max_size=2).map(tuple),
    created_from=bounds,
    created_until=bounds,
    updated_from=bounds,
    updated_until=bounds,
    parent_instance_id=st.sampled_from([None, "a", "absent"]),
    tags=st.sampled_from([{}, {"x": "1"}, {"x": "1", 'y"': "%"}]),
    custom_status=texts,
    parked=st.sampled_from([None, True, False]),
)


def plain(rarely: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Let most queries have few conditions, so that they find something."""
    return st.fixed_dictionaries(
        {"all": rarely, "kept": st.sets(st.sampled_from(InstanceConditions.__struct_fields__))}
    )


def test_the_adapters_find_the_same(postgres_server: str, tmp_path: Path) -> None:
    url = new_schema(postgres_server)
    hubs = [Hub(kind, tmp_path / "hub.db", url) for kind in KINDS]
    with asyncio.Runner() as runner:
        owners = [runner.run(own(hub)) for hub in hubs]

        @settings(max_examples=300, deadline=None)
        @given(rows, plain(conditions), st.integers(1, 4))
        def agree(found: list[Any], chosen: Any, limit: int) -> None:
            wanted = InstanceConditions(**{name: getattr(chosen["all"], name) for name in chosen["kept"]})
            answers = {
                kind: runner.run(ask(owner, found, wanted, limit)) for kind, owner in zip(KINDS, owners, strict=True)
            }
            for kind in KINDS:
                assert answers[kind] == answers["memory"], kind
            everything, counts, _ = answers["memory"]
            assert [row.instance_id for row in everything] == sorted(row.instance_id for row in everything)
            assert sum(counts.values()) == len(everything)

        try:
            agree()
        finally:
            for hub in hubs:
                runner.run(hub.close())
            drop(url)


async def ask(owner: Owner, found: list[Any], wanted: InstanceConditions, limit: int) -> tuple[Any, ...]:
    """Return all pages of both lists, and the counts, while there are some rows and no others."""
    await owner.commit(instances_inserted=found)
    try:
        rows: list[Any] = []
        while page := await owner.store.find_instances(wanted, rows[-1].instance_id if rows else "", limit):
            rows += page
        ended: list[EndedInstance] = []
        after = (-1, "")
        while last := await owner.store.ended_instances(wanted, after, limit):
            ended += last
            after = (last[-1].updated_at, last[-1].instance_id)
        return rows, await owner.store.count_instances(wanted), ended
    finally:
        await owner.commit(instances_removed=[(row.instance_id, row.revision) for row in found])


@in_loop
async def test_what_has_ended_comes_in_the_order_of_its_ends(hub: Hub) -> None:
    owner = await own(hub)
    ends = {"b": 3, "a": 9, "c": 3, "d": 1}
    await owner.commit(
        instances_inserted=[
            instance("@e@x", status="Completed", updated_at=0),
            instance("runs", status="Running", updated_at=2),
            *(instance(each, status="Failed", updated_at=at) for each, at in ends.items()),
        ]
    )
    found = await owner.store.ended_instances(InstanceConditions(updated_until=8), (1, "d"), 9)
    assert found == [EndedInstance(3, each, 1, f"{each}-e", 0) for each in ("b", "c")]
