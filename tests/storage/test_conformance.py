"""What the port promises, asked of every adapter."""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import Any

import msgspec
import pytest
from storage_builders import (
    NOW,
    Hub,
    Owner,
    activity,
    child,
    contents,
    entity_row,
    group,
    history,
    in_loop,
    instance,
    message,
    operation_key,
    own,
    timer,
    update,
)

from holdfast.errors import CommitFailedError, OwnershipLostError, StorageError, StoreInUseError
from holdfast.storage.port import ArrivalRow, Fence, Store
from holdfast.storage.selection import EntityRow


async def everything(store: Store) -> object:
    return await contents(store, ["a", "b", "i", "new", "@c@i", "@c@new"], ["i-e", "i-f", "a-e", "new-e"])


async def stocked(hub: Hub) -> Owner:
    """An owner of a hub in which instance `i` has two of everything, and entity `@c@i` remembers two keys."""
    owner = await own(hub)
    await owner.commit(
        instances_inserted=[instance(), instance("@c@i", revision=3)],
        history_inserted=[history(episode=0), history(episode=1, events='["x"]')],
        messages_inserted=[message(1), message(2)],
        activities_inserted=[activity(0), activity(1)],
        timers_inserted=[timer(2), timer(3)],
        children_inserted=[child(4), child(5)],
        operation_keys_inserted=[operation_key("k", 6), operation_key("l", 7)],
    )
    return owner


# Ownership


@in_loop
async def test_a_new_hub_starts_at_the_beginning(hub: Hub) -> None:
    ownership = (await own(hub)).ownership
    assert (ownership.lsn, ownership.partition_count) == (0, 1)
    assert ownership.fence.incarnation == 1
    assert ownership.fence.epochs == {0: 1}


@in_loop
async def test_each_acquisition_is_a_new_incarnation_with_new_epochs_and_the_same_watermark(hub: Hub) -> None:
    first = await own(hub)
    await first.commit(instances_inserted=[instance()])
    again = await first.store.acquire(NOW)
    assert again.fence == Fence(first.fence.node_id, 2, {0: 2})
    assert again.lsn == 1
    await first.store.close()
    assert (await own(hub)).ownership == msgspec.structs.replace(again, fence=Fence(again.fence.node_id, 3, {0: 3}))


@in_loop
async def test_a_living_owner_is_not_robbed(hub: Hub) -> None:
    owner = await own(hub)
    other = hub.connect()
    with pytest.raises(StoreInUseError):
        await other.acquire(NOW)
    await owner.commit(instances_inserted=[instance()])
    await owner.store.close()
    assert (await other.acquire(NOW)).lsn == 1


@in_loop
async def test_release_lets_another_store_acquire_and_ends_the_right_to_write(hub: Hub) -> None:
    first = await own(hub)
    await first.store.release(first.fence)
    with pytest.raises(OwnershipLostError):
        await first.commit(instances_inserted=[instance()])
    with pytest.raises(OwnershipLostError):
        await first.store.release(first.fence)
    second = await own(hub)
    await second.commit(instances_inserted=[instance()])
    assert await first.store.read_instance("i") == instance()


@in_loop
async def test_an_owner_that_was_replaced_writes_nothing_more(hub: Hub) -> None:
    paused = await stocked(hub)
    await hub.lose_lock()
    taker = await own(hub)
    before = await everything(taker.store)
    with pytest.raises(OwnershipLostError):
        await paused.commit(instances_updated=[update()])
    with pytest.raises(OwnershipLostError):
        await paused.store.renew(paused.fence)
    with pytest.raises(OwnershipLostError):
        await paused.store.release(paused.fence)
    assert await everything(taker.store) == before
    await taker.commit(instances_updated=[update()])
    assert (await taker.load_one()).row.revision == 2


@in_loop
async def test_a_fence_from_before_a_new_acquisition_is_refused(hub: Hub) -> None:
    owner = await own(hub)
    await owner.store.acquire(NOW)
    with pytest.raises(OwnershipLostError):
        await owner.commit(instances_inserted=[instance()])


@in_loop
@pytest.mark.parametrize(
    "change", [{"incarnation": 2}, {"incarnation": 0}, {"epochs": {0: 2}}, {"epochs": {}}, {"epochs": {1: 1}}]
)
async def test_a_fence_that_does_not_hold_is_refused(hub: Hub, change: dict[str, Any]) -> None:
    owner = await own(hub)
    await owner.store.renew(owner.fence)
    with pytest.raises(OwnershipLostError):
        await owner.store.renew(msgspec.structs.replace(owner.fence, **change))
    with pytest.raises(OwnershipLostError):
        await owner.store.commit(
            msgspec.structs.replace(owner.fence, **change), group(0, 1, instances_inserted=[instance()])
        )
    assert await owner.store.load(["i"]) == []
    await owner.commit(instances_inserted=[instance()])


@in_loop
async def test_rows_of_a_partition_that_is_not_owned_are_refused(hub: Hub) -> None:
    owner = await own(hub)
    with pytest.raises(OwnershipLostError):
        await owner.commit(instances_inserted=[instance(partition=1)])
    with pytest.raises(OwnershipLostError):
        await owner.commit(operation_keys_inserted=[msgspec.structs.replace(operation_key(), partition=1)])
    assert await owner.store.load(["i"]) == []


@in_loop
async def test_a_closed_store_says_so_and_closes_twice(hub: Hub) -> None:
    owner = await own(hub)
    await owner.store.close()
    await owner.store.close()
    with pytest.raises(StorageError, match="closed"):
        await owner.store.acquire(NOW)
    with pytest.raises(StorageError, match="closed"):
        await owner.store.read_instance("i")
    with pytest.raises(StorageError, match="closed"):
        await owner.commit()


# Counting deliveries


async def deliveries_after(hub: Hub, owner: Owner, now: int = NOW, **options: Any) -> dict[str, int]:
    await owner.store.close()
    store = hub.connect()
    await store.acquire(now, **options)
    stored = await store.load(["a", "b", "c", "i"])
    counts = {each.row.instance_id: each.row.deliveries for each in stored}
    return counts | {f"{row.instance_id}{row.sequence}": row.deliveries for each in stored for row in each.activities}


@in_loop
async def test_after_a_crash_the_deliveries_of_what_may_have_run_are_counted(hub: Hub) -> None:
    owner = await own(hub)
    await owner.commit(
        instances_inserted=[instance("a"), instance("b"), instance("c"), instance("i")],
        messages_inserted=[message(1, "a"), message(2, "a"), message(3, "stranger")],
        timers_inserted=[timer(0, "b", due_at=NOW), timer(0, "c", due_at=NOW + 1)],
        activities_inserted=[activity(1, visible_at=NOW), activity(2, visible_at=NOW + 1)],
    )
    assert await deliveries_after(hub, owner) == {"a": 1, "b": 1, "c": 0, "i": 0, "i1": 1, "i2": 0}


@in_loop
async def test_counting_is_no_transition(hub: Hub) -> None:
    owner = await own(hub)
    await owner.commit(instances_inserted=[instance("a")], messages_inserted=[message(1, "a")])
    await owner.store.close()
    successor = await own(hub)
    assert (await successor.load_one("a")).row == instance("a", deliveries=1)
    await successor.commit(instances_updated=[update("a", deliveries=0)])


@in_loop
async def test_after_a_release_nothing_is_counted(hub: Hub) -> None:
    owner = await own(hub)
    await owner.commit(
        instances_inserted=[instance()], messages_inserted=[message()], activities_inserted=[activity(1)]
    )
    await owner.store.release(owner.fence)
    assert await deliveries_after(hub, owner) == {"i": 0, "i1": 0}


@in_loop
@pytest.mark.parametrize(("released", "after_crash", "counted"), [(False, False, 0), (True, True, 1)])
async def test_after_crash_overrules_what_the_store_knows(
    hub: Hub, released: bool, after_crash: bool, counted: int
) -> None:
    owner = await own(hub)
    await owner.commit(
        instances_inserted=[instance()], messages_inserted=[message()], activities_inserted=[activity(1)]
    )
    if released:
        await owner.store.release(owner.fence)
    assert await deliveries_after(hub, owner, after_crash=after_crash) == {"i": counted, "i1": counted}


@in_loop
async def test_suspended_instances_are_not_counted_but_their_activities_are(hub: Hub) -> None:
    owner = await own(hub)
    await owner.commit(
        instances_inserted=[instance(status="Suspended")],
        messages_inserted=[message()],
        timers_inserted=[timer(0)],
        activities_inserted=[activity(1)],
    )
    assert await deliveries_after(hub, owner) == {"i": 0, "i1": 1}


@in_loop
async def test_suspects_are_left_to_the_engine(hub: Hub) -> None:
    owner = await own(hub)
    await owner.commit(
        instances_inserted=[instance("a", deliveries=2), instance("b", deliveries=1)],
        messages_inserted=[message(1, "a"), message(2, "b")],
        activities_inserted=[activity(1, "a", deliveries=2), activity(2, "a", deliveries=1)],
    )
    assert await deliveries_after(hub, owner, suspect_deliveries=2) == {"a": 2, "b": 2, "a1": 2, "a2": 2}


# Commits


@in_loop
async def test_a_group_is_applied_whole(hub: Hub) -> None:
    owner = await stocked(hub)
    assert (await owner.store.acquire(NOW, after_crash=False)).lsn == 1
    stored = await owner.load_one()
    assert stored.row == instance()
    assert stored.messages == [message(1), message(2)]
    assert sorted(stored.activities, key=lambda row: row.key) == [activity(0), activity(1)]
    assert sorted(stored.timers, key=lambda row: row.key) == [timer(2), timer(3)]
    assert sorted(stored.children, key=lambda row: row.key) == [child(4), child(5)]
    assert await owner.store.load_history("i", "i-e") == ["[]", '["x"]']
    assert (await owner.load_one("@c@i")).operation_keys == [operation_key("k", 6), operation_key("l", 7)]


@in_loop
async def test_every_field_of_a_row_is_kept(hub: Hub) -> None:
    owner = await own(hub)
    texts = ("input", "output", "custom_status", "failure", "parked", "parent", "state", "lock", "version", "tags")
    full = instance(
        "ñ \U0001f980 'q\"",
        revision=7,
        status="Completed",
        episodes=3,
        history_events=11,
        deliveries=2,
        request_key="k é",
        events_buffered=4,
        events_awaited="e é",
        created_at=-5,
        updated_at=2**62,
        **{name: f'"{name} é"' for name in texts},
    )
    await owner.commit(instances_inserted=[full, instance("bare")])
    assert await owner.store.read_instance(full.instance_id) == full
    assert await owner.store.read_instance("bare") == instance("bare")
    assert await owner.store.read_instance("absent") is None


@in_loop
async def test_an_update_gives_the_new_image(hub: Hub) -> None:
    owner = await stocked(hub)
    image = update(
        status="Completed", output="1", custom_status="2", failure="3", parked="4", state="5", lock="6", updated_at=9,
        episodes=2, history_events=3, deliveries=1, events_buffered=5, events_awaited="8",
    )  # fmt: skip
    await owner.commit(
        instances_updated=[image], activities_updated=[activity(0, attempt=2, deliveries=1, visible_at=9, progress="7")]
    )
    stored = await owner.load_one()
    assert stored.row == image.row
    assert activity(0, attempt=2, deliveries=1, visible_at=9, progress="7") in stored.activities
    assert activity(1) in stored.activities


@in_loop
async def test_a_new_execution_replaces_everything_of_the_old_one(hub: Hub) -> None:
    owner = await stocked(hub)
    image = update(
        new_execution=True, execution_id="i-f", name="other", input="9", created_at=NOW + 5, parent='"p"', output=None,
        version="2", tags="{}", request_key="k",
    )  # fmt: skip
    await owner.commit(
        instances_updated=[image],
        executions_removed=[("i-e", 2)],
        history_inserted=[history("i-f")],
        activities_removed=[activity(0).key, activity(1).key],
        timers_removed=[timer(2).key, timer(3).key],
        children_removed=[child(4).key, child(5).key],
    )
    stored = await owner.load_one()
    assert (stored.row, stored.activities, stored.timers, stored.children) == (image.row, [], [], [])
    assert stored.messages == [message(1), message(2)]
    assert await owner.store.load_history("i", "i-e") == []
    assert await owner.store.load_history("i", "i-f") == ["[]"]


@in_loop
async def test_what_is_removed_is_gone_and_nothing_else(hub: Hub) -> None:
    owner = await stocked(hub)
    await owner.commit(
        messages_removed=[1],
        activities_removed=[("i-e", 1)],
        timers_removed=[("i-e", 2)],
        children_removed=[("i-e", 4)],
    )
    stored = await owner.load_one()
    assert (stored.messages, stored.activities, stored.timers) == ([message(2)], [activity(0)], [timer(3)])
    assert stored.children == [child(5)]


@in_loop
async def test_a_timer_keeps_the_message_that_it_delivers(hub: Hub) -> None:
    owner = await own(hub)
    rows = [timer(1, "@c@i"), timer(2, "@c@i", due_at=NOW + 1, event='{"signal":"\U0001f980 \'"}')]
    await owner.commit(instances_inserted=[instance("@c@i")], timers_inserted=rows)
    assert sorted((await owner.load_one("@c@i")).timers, key=lambda row: row.key) == rows
    assert await owner.store.timers_due(NOW + 1, 10) == rows


@in_loop
async def test_an_entity_that_holds_nothing_is_removed_and_may_begin_anew(hub: Hub) -> None:
    owner = await stocked(hub)
    await owner.commit(instances_removed=[("@c@i", 3)], operation_keys_removed=[("@c@i", "k"), ("@c@i", "l")])
    assert await owner.store.read_instance("@c@i") is None
    assert await owner.store.load(["@c@i"]) == []
    assert await owner.store.instances("", 10) == [instance()]
    await owner.commit(instances_inserted=[instance("@c@i")])
    assert (await owner.load_one("@c@i")).operation_keys == []


@in_loop
async def test_messages_outlive_the_row_of_their_entity(hub: Hub) -> None:
    owner = await own(hub)
    await owner.commit(instances_inserted=[instance("@c@i")], messages_inserted=[message(1, "@c@i")])
    await owner.commit(instances_removed=[("@c@i", 1)])
    stored = await owner.load_one("@c@i")
    assert (stored.row, stored.messages) == (None, [message(1, "@c@i")])


@in_loop
async def test_an_instance_and_a_key_are_removed_and_inserted_in_one_group(hub: Hub) -> None:
    owner = await stocked(hub)
    row, key = instance("@c@i", 1, execution_id="other", state="1"), operation_key("k", 9, answer='"again"')
    await owner.commit(
        instances_removed=[("@c@i", 3)],
        instances_inserted=[row],
        operation_keys_removed=[key.key],
        operation_keys_inserted=[key],
    )
    stored = await owner.load_one("@c@i")
    assert (stored.row, stored.operation_keys) == (row, [operation_key("l", 7), key])
    await owner.commit(instances_removed=[("@c@i", 1)], operation_keys_removed=[key.key])


ODD_KEYS = [
    "", " ", "'", '"', "\\", "%", "k", "K", "é", "e\u0301", "\n\t", "\x7f", "\U0001f511", "\uffff", "[1]", "1", "01",
]  # fmt: skip


@in_loop
async def test_operation_keys_are_told_apart_by_every_character(hub: Hub) -> None:
    owner = await own(hub)
    ids = ["@c@1", "@c@01", "@c@\U0001f980'\""]
    rows = {id_: [operation_key(key, n, id_, answer=key) for n, key in enumerate(ODD_KEYS)] for id_ in ids}
    await owner.commit(
        instances_inserted=[instance(id_) for id_ in ids], operation_keys_inserted=[*chain.from_iterable(rows.values())]
    )
    assert {each.instance_id: each.operation_keys for each in await owner.store.load(ids)} == rows
    for key in ODD_KEYS:
        with pytest.raises(CommitFailedError):
            await owner.commit(operation_keys_inserted=[operation_key(key, 100, ids[2])])
    await owner.commit(operation_keys_removed=[(ids[2], key) for key in ODD_KEYS[:-1]])
    assert (await owner.load_one(ids[2])).operation_keys == rows[ids[2]][-1:]
    assert (await owner.load_one(ids[0])).operation_keys == rows[ids[0]]


@in_loop
async def test_a_group_may_only_move_the_watermark(hub: Hub) -> None:
    owner = await own(hub)
    await owner.store.commit(owner.fence, group(0, 41))
    assert (await owner.store.acquire(NOW)).lsn == 41


@in_loop
async def test_a_group_of_many_rows(hub: Hub) -> None:
    owner = await own(hub)
    count = 3000
    await owner.commit(
        instances_inserted=[instance(f"i{n}") for n in range(count)],
        messages_inserted=[message(n, f"i{n}") for n in range(count)],
    )
    assert len(await owner.store.load([f"i{n}" for n in range(count)])) == count
    await owner.commit(messages_removed=list(range(count)))
    assert await owner.store.instances_with_messages("", 10) == []


REFUSED: dict[str, dict[str, list[Any]]] = {
    "an instance with another revision": {"instances_updated": [update(revision_before=2)]},
    "an instance with another revision, in a new execution": {
        "instances_updated": [update(revision_before=0, new_execution=True)]
    },
    "an update of an instance that is not there": {"instances_updated": [update("absent")]},
    "an instance that is there": {"instances_inserted": [instance()]},
    "the removal of an instance with another revision": {"instances_removed": [("@c@i", 2)]},
    "the removal of an instance that is not there": {"instances_removed": [("@c@absent", 1)]},
    "an instance removed twice": {"instances_removed": [("@c@i", 3), ("@c@i", 3)]},
    "an instance removed and updated": {
        "instances_removed": [("@c@i", 3)],
        "instances_updated": [update("@c@i", revision_before=3)],
    },
    "an instance removed, inserted and updated": {
        "instances_removed": [("@c@i", 3)],
        "instances_inserted": [instance("@c@i", revision=3)],
        "instances_updated": [update("@c@i", revision_before=3)],
    },
    "an instance removed with another revision and inserted": {
        "instances_removed": [("@c@i", 2)],
        "instances_inserted": [instance("@c@i")],
    },
    "a new instance inserted and removed": {
        "instances_inserted": [instance("@c@z")],
        "instances_removed": [("@c@z", 1)],
    },
    "an event key that is there": {"operation_keys_inserted": [operation_key("l", 9)]},
    "the removal of an event key that is not there": {"operation_keys_removed": [("@c@i", "l"), ("@c@i", "m")]},
    "the removal of an event key of another entity": {"operation_keys_removed": [("@c@other", "k")]},
    "an event key removed twice": {"operation_keys_removed": [("@c@i", "l"), ("@c@i", "l")]},
    "a new event key inserted and removed": {
        "operation_keys_inserted": [operation_key("z", 9)],
        "operation_keys_removed": [("@c@i", "z")],
    },
    "an episode that is there": {"history_inserted": [history(episode=1)]},
    "a message that is there": {"messages_inserted": [message(2)]},
    "an activity that is there": {"activities_inserted": [activity(1)]},
    "a timer that is there": {"timers_inserted": [timer(3)]},
    "a child that is there": {"children_inserted": [child(4)]},
    "an update of an activity that is not there": {"activities_updated": [activity(7)]},
    "the removal of a message that is not there": {"messages_removed": [1, 7]},
    "the removal of an activity that is not there": {"activities_removed": [("i-e", 0), ("i-e", 7)]},
    "the removal of an activity of another execution": {"activities_removed": [("i-f", 0)]},
    "the removal of a timer that is not there": {"timers_removed": [("i-e", 7)]},
    "the removal of a child that is not there": {"children_removed": [("i-e", 7)]},
    "the removal of fewer episodes than are there": {"executions_removed": [("i-e", 1)]},
    "the removal of more episodes than are there": {"executions_removed": [("i-e", 3)]},
    "the removal of an execution that is not there": {"executions_removed": [("i-f", 1)]},
    "a message removed and inserted": {"messages_removed": [1], "messages_inserted": [message(1)]},
    "a new message removed and inserted": {"messages_removed": [9], "messages_inserted": [message(9)]},
    "an activity removed and inserted": {"activities_removed": [("i-e", 0)], "activities_inserted": [activity(0)]},
    "an activity removed and updated": {"activities_removed": [("i-e", 0)], "activities_updated": [activity(0)]},
    "a timer removed and inserted": {"timers_removed": [("i-e", 2)], "timers_inserted": [timer(2)]},
    "a child removed and inserted": {"children_removed": [("i-e", 4)], "children_inserted": [child(4)]},
    "an episode removed and inserted": {"executions_removed": [("i-e", 2)], "history_inserted": [history()]},
    "an instance inserted and updated": {"instances_inserted": [instance("z")], "instances_updated": [update("z")]},
}


@in_loop
@pytest.mark.parametrize("name", REFUSED)
async def test_a_group_that_is_not_exact_leaves_nothing_behind(hub: Hub, name: str) -> None:
    owner = await stocked(hub)
    before = await everything(owner.store)
    harmless: dict[str, list[Any]] = {
        "instances_inserted": [instance("new")],
        "history_inserted": [history("new-e")],
        "messages_inserted": [message(100, "new")],
        "messages_removed": [2],
        "activities_inserted": [activity(50, "new")],
        "timers_inserted": [timer(51, "new")],
        "timers_removed": [("i-e", 3)],
        "children_inserted": [child(52, "new")],
        "children_removed": [("i-e", 5)],
        "operation_keys_inserted": [operation_key("new", 8)],
        "operation_keys_removed": [("@c@i", "k")],
    }
    bad = REFUSED[name]
    with pytest.raises(CommitFailedError) as caught:
        await owner.commit(**{key: harmless.get(key, []) + bad.get(key, []) for key in harmless.keys() | bad.keys()})
    assert not caught.value.outcome_unknown
    assert await everything(owner.store) == before
    await owner.commit(**harmless)


@in_loop
@pytest.mark.parametrize("lsn_before", [0, 2])
async def test_a_group_that_does_not_follow_the_watermark_is_refused(hub: Hub, lsn_before: int) -> None:
    owner = await stocked(hub)
    before = await everything(owner.store)
    with pytest.raises(CommitFailedError, match="lsn"):
        await owner.store.commit(owner.fence, group(lsn_before, 3, instances_inserted=[instance("new")]))
    assert await everything(owner.store) == before
    await owner.commit(instances_inserted=[instance("new")])


# Reads


@in_loop
async def test_load_returns_what_exists_with_messages_in_order(hub: Hub) -> None:
    owner = await own(hub)
    await owner.commit(
        instances_inserted=[instance("a"), instance("b"), instance("i")],
        messages_inserted=[message(30, "a"), message(4, "a"), message(100, "a"), message(5, "b")],
        activities_inserted=[activity(0, "a"), activity(0, "i")],
        timers_inserted=[timer(1, "b")],
    )
    stored = {each.row.instance_id: each for each in await owner.store.load(["b", "absent", "a"])}
    assert stored.keys() == {"a", "b"}
    assert [row.message_id for row in stored["a"].messages] == [4, 30, 100]
    assert (stored["a"].activities, stored["a"].timers) == ([activity(0, "a")], [])
    assert (stored["b"].activities, stored["b"].timers) == ([], [timer(1, "b")])
    assert await owner.store.load([]) == []


@in_loop
async def test_history_comes_in_the_order_of_episodes(hub: Hub) -> None:
    owner = await own(hub)
    await owner.commit(history_inserted=[history(episode=n, events=str(n)) for n in (10, 2, 0, 1)])
    await owner.commit(history_inserted=[history(episode=3, events="3"), history("i-e2", events="other")])
    assert await owner.store.load_history("i", "i-e") == ["0", "1", "2", "3", "10"]
    assert await owner.store.load_history("i", "i-e", 1) == ["1", "2", "3", "10"]
    assert await owner.store.load_history("i", "i-e", 1, 2) == ["1", "2"]
    assert await owner.store.load_history("i", "i-e", limit=1) == ["0"]
    assert await owner.store.load_history("i", "i-e", 11, 2) == []
    assert await owner.store.load_history("i", "absent") == []


@in_loop
async def test_instances_are_paged_orchestrations_and_entities_alike(hub: Hub) -> None:
    owner = await own(hub)
    ids = ["b", "a", "é", "@counter@clicks", "Z", "a1"]
    await owner.commit(instances_inserted=[instance(each) for each in ids], messages_inserted=[message(1, "nobody")])
    pages = [await owner.store.instances(after, 3) for after in ("", "a", "é")]
    assert pages == [
        [instance(each) for each in page] for page in (["@counter@clicks", "Z", "a"], ["a1", "b", "é"], [])
    ]
    await owner.commit(instances_updated=[update("b")])
    assert await owner.store.instances("a1", 1) == [update("b").row]


@in_loop
async def test_operation_keys_come_in_the_order_of_positions_and_only_with_entities(hub: Hub) -> None:
    owner = await own(hub)
    positions = {"b": 10, "c": 2, "a": 30, "d": -1}
    await owner.commit(
        instances_inserted=[instance(), instance("@c@i"), instance("@c@bare")],
        messages_inserted=[message(1, "@c@waiting")],
        operation_keys_inserted=[
            *(operation_key(key, position) for key, position in positions.items()),
            operation_key("x", 1, "i"),
            operation_key("x", 1, "@c@waiting"),
            operation_key("x", 1, "@c@alone"),
        ],
    )
    stored = {each.instance_id: each for each in await owner.store.load(["i", "@c@i", "@c@bare", "@c@waiting"])}
    assert [row.operation_key for row in stored["@c@i"].operation_keys] == ["d", "c", "b", "a"]
    assert stored["@c@waiting"].operation_keys == [operation_key("x", 1, "@c@waiting")]
    assert (stored["i"].operation_keys, stored["@c@bare"].operation_keys) == ([], [])
    assert await owner.store.load(["@c@alone"]) == []


async def with_entities(hub: Hub, *ids: str, **fields: Any) -> Owner:
    """An owner of a hub with entities that have a state, among orchestrations that have both a state and a lock."""
    owner = await own(hub)
    others = [instance(each, state="1", lock="2") for each in ("", "!", "?z", "A@c@1", "c@1", "\U0001f980")]
    fields = {"state": "0"} | fields
    await owner.commit(instances_inserted=[*(instance(each, **fields) for each in ids), *others])
    return owner


def names(rows: list[EntityRow]) -> list[str]:
    return [row.instance_id for row in rows]


@in_loop
async def test_an_entity_is_listed_with_what_waits_for_it(hub: Hub) -> None:
    owner = await with_entities(hub, "@c@bare")
    full = instance(
        "@c@full",
        created_at=5,
        updated_at=7,
        status="Suspended",
        version="2",
        state='{"é":1}',
        lock='"l"',
        parked='"p"',
    )
    await owner.commit(
        instances_inserted=[full],
        timers_inserted=[timer(1, "@c@full"), timer(2, "@c@bare")],
        messages_inserted=[message(1, "@c@full"), message(2, "@c@full"), message(3, "@c@unborn")],
    )
    shown = entity_row(
        "@c@full",
        '{"é":1}',
        2,
        created_at=5,
        updated_at=7,
        status="Suspended",
        version="2",
        lock='"l"',
        parked='"p"',
        timers=1,
    )
    rows = await owner.store.entities("@c@", "", 10)
    assert rows == [entity_row("@c@bare", timers=1), shown]
    assert rows[0].has_state is True
    without = [msgspec.structs.replace(row, state=None) for row in rows]
    assert await owner.store.entities("@", "", 10, with_state=False) == without
    assert await owner.store.entities_locked("", 10) == without[1:]


@in_loop
async def test_entities_without_state_or_lock_are_listed_when_asked_for(hub: Hub) -> None:
    owner = await with_entities(hub, "@c@b")
    await owner.commit(
        instances_inserted=[instance("@c@a"), instance("@c@c", lock='"l"'), instance("@c@d", state="null")]
    )
    assert names(await owner.store.entities("@c@", "", 10)) == ["@c@b", "@c@c", "@c@d"]
    rows = await owner.store.entities("@c@", "", 10, with_empty=True)
    assert [(row.instance_id, row.has_state) for row in rows] == [
        ("@c@a", False), ("@c@b", True), ("@c@c", False), ("@c@d", True)
    ]  # fmt: skip
    assert names(await owner.store.entities("@c@", "", 2)) == ["@c@b", "@c@c"]
    assert await owner.store.entities("@c@", "", 1, with_state=False, with_empty=True) == [entity_row("@c@a", None)]


@in_loop
async def test_entities_come_in_the_order_of_code_points(hub: Hub) -> None:
    ordered = ["@c@", "@c@ ", "@c@1", "@c@10", "@c@2", "@c@A", "@c@a", "@c@é", "@c@\uffee", "@c@\U0001f980"]
    owner = await with_entities(hub, *reversed(ordered))
    assert names(await owner.store.entities("@c@", "", 100)) == ordered
    assert names(await owner.store.entities("@c@", "@c@\uffee", 100)) == ordered[-1:]


@in_loop
async def test_a_prefix_has_no_wildcards(hub: Hub) -> None:
    odd = ["%", "%b", "*", "*b", "?", "[a]", "_", "_b", "\\", "'", "a", "ab", "\U0001f980", "\U0001f980b"]
    owner = await with_entities(hub, *(f"@c@{key}" for key in odd), "@", "@b@%", "@cc@%", "@C@a")
    for key in odd:
        wanted = [f"@c@{each}" for each in sorted(odd) if each.startswith(key)]
        assert names(await owner.store.entities(f"@c@{key}", "", 100)) == wanted
    assert len(await owner.store.entities("@c@", "", 100)) == len(odd)
    assert names(await owner.store.entities("@c", "@c@\U0001f980", 100)) == ["@c@\U0001f980b", "@cc@%"]
    assert len(await owner.store.entities("@", "", 100)) == len(odd) + 4
    assert await owner.store.entities("@absent@", "", 100) == []


@in_loop
async def test_a_page_begins_after_an_id_wherever_that_lies(hub: Hub) -> None:
    owner = await with_entities(hub, "@a@1", "@c@1", "@c@2", "@d@1")
    for after in ("", "@", "@a@1", "@c", "@c@"):
        assert names(await owner.store.entities("@c@", after, 100)) == ["@c@1", "@c@2"]
    assert names(await owner.store.entities("@c@", "@c@1", 100)) == ["@c@2"]
    assert names(await owner.store.entities("@c@", "@c@10", 100)) == ["@c@2"]
    for after in ("@c@2", "@d@", "z"):
        assert await owner.store.entities("@c@", after, 100) == []


@in_loop
async def test_entities_are_paged_while_others_come_and_go(hub: Hub) -> None:
    owner = await with_entities(hub, *(f"@c@{n}" for n in range(1, 6)), "@b@1", "@d@1")
    pages = [names(await owner.store.entities("@c@", "", 2))]
    await owner.commit(instances_inserted=[instance("@c@0", state="0"), instance("@c@25", state="0")])
    pages.append(names(await owner.store.entities("@c@", pages[-1][-1], 2)))
    await owner.commit(instances_removed=[("@c@3", 1)])
    while pages[-1]:
        pages.append(names(await owner.store.entities("@c@", pages[-1][-1], 2)))
    assert pages == [["@c@1", "@c@2"], ["@c@25", "@c@3"], ["@c@4", "@c@5"], []]


@in_loop
async def test_entities_are_chosen_by_the_time_of_their_last_change(hub: Hub) -> None:
    owner = await with_entities(hub)
    await owner.commit(instances_inserted=[instance(f"@c@{n}", state="0", updated_at=NOW + n) for n in (3, 1, 2, 0)])

    async def updated(updated_from: int | None, updated_until: int | None, limit: int = 9) -> list[str]:
        rows = await owner.store.entities("@c@", "", limit, updated_from=updated_from, updated_until=updated_until)
        return [row.instance_id.removeprefix("@c@") for row in rows]

    assert await updated(NOW + 1, None) == ["1", "2", "3"]
    assert await updated(None, NOW + 1) == ["0", "1"]
    assert await updated(NOW + 1, NOW + 2) == ["1", "2"]
    assert await updated(NOW + 2, NOW + 1) == []
    assert await updated(NOW + 1, None, limit=2) == ["1", "2"]


@in_loop
async def test_locked_entities_are_paged(hub: Hub) -> None:
    ids = ["@b@2", "@b@1", "@é@1", "@c@1"]
    owner = await with_entities(hub, *ids, lock='"l"', state=None)
    await owner.commit(instances_inserted=[instance("@a@free", state="0")], messages_inserted=[message(1, "@c@1")])
    pages = [names(await owner.store.entities_locked(after, 3)) for after in ("", "@c@1", "@é@1", "z")]
    assert pages == [["@b@1", "@b@2", "@c@1"], ["@é@1"], [], []]
    assert await owner.store.entities_locked("@b@2", 1) == [entity_row("@c@1", None, 1, lock='"l"')]
    await owner.commit(instances_updated=[update("@b@2", lock=None)])
    assert names(await owner.store.entities_locked("", 2)) == ["@b@1", "@c@1"]


@in_loop
async def test_instances_with_messages_are_paged(hub: Hub) -> None:
    owner = await own(hub)
    ids = ["b", "a", "é", "Z", "a1"]
    await owner.commit(messages_inserted=[message(n, name) for n, name in enumerate([*ids, *ids])])
    assert await owner.store.instances_with_messages("", 3) == ["Z", "a", "a1"]
    assert await owner.store.instances_with_messages("a1", 3) == ["b", "é"]
    assert await owner.store.instances_with_messages("é", 3) == []


@in_loop
async def test_activities_are_paged_by_time(hub: Hub) -> None:
    owner = await own(hub)
    times = {0: 30, 1: 10, 2: 20, 3: 20, 4: 99, 10: 20}
    await owner.commit(
        activities_inserted=[activity(n, visible_at=at) for n, at in times.items()] + [activity(7, "a", visible_at=20)]
    )
    keys = [("i-e", 1), ("a-e", 7), ("i-e", 2), ("i-e", 3), ("i-e", 10), ("i-e", 0)]
    assert [row.key for row in await owner.store.activities_visible(30, 100)] == keys
    assert [row.key for row in await owner.store.activities_visible(30, 2, (10, *keys[0]))] == keys[1:3]
    assert await owner.store.activities_visible(30, 2, (30, *keys[5])) == []
    assert await owner.store.activities_visible(9, 2) == []


@in_loop
async def test_timers_are_paged_by_time(hub: Hub) -> None:
    owner = await own(hub)
    times = {0: 30, 1: 10, 2: 20, 3: 20, 4: 99, 10: 20}
    await owner.commit(timers_inserted=[timer(n, due_at=at) for n, at in times.items()] + [timer(7, "a", due_at=20)])
    keys = [("i-e", 1), ("a-e", 7), ("i-e", 2), ("i-e", 3), ("i-e", 10), ("i-e", 0)]
    assert [row.key for row in await owner.store.timers_due(30, 100)] == keys
    assert [row.key for row in await owner.store.timers_due(30, 2, (10, *keys[0]))] == keys[1:3]
    assert await owner.store.timers_due(30, 2, (30, *keys[5])) == []
    assert await owner.store.timers_due(9, 2) == []


@in_loop
async def test_reads_beside_commits_see_whole_groups(hub: Hub) -> None:
    owner = await own(hub)
    await owner.commit(instances_inserted=[instance(n) for n in "ab"])

    async def write() -> None:
        for version in range(1, 50):
            await owner.commit(instances_updated=[update(n, version) for n in "ab"])

    writing = asyncio.create_task(write())
    seen = 0
    while not writing.done():
        versions = {each.row.revision for each in await owner.store.load(["a", "b"])}
        assert len(versions) == 1
        assert min(versions) >= seen
        seen = versions.pop()
        await asyncio.sleep(0)
    await writing


# What arrives from outside


def arrival(event: str, instance_id: str = "i", partition: int = 0) -> ArrivalRow:
    return ArrivalRow(partition, instance_id, None, event)


@in_loop
async def test_what_arrives_is_read_in_the_order_in_which_it_was_sent(hub: Hub) -> None:
    owner = await own(hub)
    await owner.commit(arrivals_inserted=[arrival("a"), arrival("b", "j")])
    await owner.commit(arrivals_inserted=[arrival("c")])
    rows = await owner.store.arrivals(0, 10)
    assert [(row.instance_id, row.event) for row in rows] == [("i", "a"), ("j", "b"), ("i", "c")]
    assert [row.arrival_id for row in rows] == sorted({row.arrival_id for row in rows})
    assert await owner.store.arrivals(rows[0].arrival_id, 1) == rows[1:2]


@in_loop
async def test_what_has_arrived_is_taken_in_once(hub: Hub) -> None:
    owner = await own(hub)
    await owner.commit(arrivals_inserted=[arrival("a"), arrival("b")])
    first, second = (row.arrival_id for row in await owner.store.arrivals(0, 10))
    await owner.commit(arrivals_removed=[first], messages_inserted=[message(1)])
    for again in ([first], [first, second], [second, second + 10]):
        with pytest.raises(CommitFailedError):
            await owner.commit(arrivals_removed=again, messages_inserted=[message(2)])
    assert [row.event for row in await owner.store.arrivals(0, 10)] == ["b"]
    await owner.commit(arrivals_inserted=[arrival("c")])
    assert (await owner.store.arrivals(second, 10))[0].arrival_id > second, "an id is not given twice"
    assert len((await owner.load_one()).messages) == 1


@in_loop
async def test_messages_may_be_sent_to_partitions_that_the_writer_does_not_own(hub: Hub) -> None:
    owner = await own(hub)
    await owner.commit(arrivals_inserted=[arrival("far", partition=1)])
    with pytest.raises(OwnershipLostError):
        await owner.store.commit(
            owner.fence, msgspec.structs.replace(group(owner.lsn, owner.lsn + 1), arrivals_removed=[(1, 1)])
        )
