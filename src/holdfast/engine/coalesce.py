"""Groups of transitions to one write set: what is made and used up within the group is never written."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Generic, Protocol, TypeVar

from holdfast.engine.rows import EncodedTransition
from holdfast.model.messages import DurableKey
from holdfast.storage.port import (
    ActivityRow,
    ArrivalRow,
    ChildRow,
    HistoryRow,
    InboxRow,
    InstanceUpdate,
    OperationKeyRow,
    TimerRow,
    WriteSet,
)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Keyed(Protocol):
    @property
    def key(self) -> DurableKey: ...


W = TypeVar("W", bound=_Keyed)


class _Rows(Generic[K, V]):
    """The rows of one kind that a group makes, and those from before it that it removes, with their partitions."""

    def __init__(self) -> None:
        self.made: dict[K, V] = {}
        self.removed: list[tuple[int, K]] = []

    def remove(self, partition: int, keys: Sequence[K]) -> None:
        """Remove rows from the group where they are still in it, else from the store."""
        for key in keys:
            if self.made.pop(key, None) is None:
                self.removed.append((partition, key))

    def inserted(self) -> list[V]:
        return list(self.made.values())


class _Histories:
    """The episodes that a group appends, and the executions from before it that it replaces."""

    def __init__(self) -> None:
        self.made: dict[tuple[str, int], HistoryRow] = {}
        self.removed: list[tuple[int, str, int]] = []

    def add(self, each: EncodedTransition) -> None:
        for partition, execution_id, episodes in each.executions_removed:
            self._remove(partition, execution_id, episodes)
        for copied in each.history_copied:
            self.made[copied.execution_id, copied.episode] = copied
        if each.history is not None:
            self.made[each.history.execution_id, each.history.episode] = each.history

    def _remove(self, partition: int, execution_id: str, episodes: int) -> None:
        """Remove a replaced execution: the episodes of this very group from the group, the others from the store."""
        stored = episodes
        for episode in range(episodes - 1, -1, -1):
            if self.made.pop((execution_id, episode), None) is None:
                break
            stored -= 1
        if stored:
            self.removed.append((partition, execution_id, stored))


class _Instances:
    """The latest image of each instance row that a group changes."""

    def __init__(self) -> None:
        self.updates: dict[str, InstanceUpdate] = {}
        self.inserted: set[str] = set()
        self.removed: list[tuple[int, str, int]] = []

    def add(self, each: EncodedTransition) -> None:
        for partition, instance_id, revision in each.instances_removed:
            self._remove(partition, instance_id, revision)
        row = each.instance
        if row is None:
            return
        known = self.updates.get(row.instance_id)
        if known is None:
            self.updates[row.instance_id] = InstanceUpdate(row, each.revision_before, each.is_new_execution)
            if each.revision_before == 0:
                self.inserted.add(row.instance_id)
        else:
            changed = known.new_execution or each.is_new_execution
            self.updates[row.instance_id] = InstanceUpdate(row, known.revision_before, changed)

    def _remove(self, partition: int, instance_id: str, revision: int) -> None:
        """Remove a row: from the group if that has made it, else from the store."""
        known = self.updates.pop(instance_id, None)
        if instance_id in self.inserted:
            self.inserted.discard(instance_id)
            return
        self.removed.append((partition, instance_id, revision if known is None else known.revision_before))


def coalesce(lsn_before: int, transitions: Sequence[EncodedTransition]) -> WriteSet:
    """Return what a group of transitions, consecutive in the journal, changes in the store as a whole."""
    instances, histories = _Instances(), _Histories()
    messages: _Rows[int, InboxRow] = _Rows()
    activities: _Rows[DurableKey, ActivityRow] = _Rows()
    timers: _Rows[DurableKey, TimerRow] = _Rows()
    children: _Rows[DurableKey, ChildRow] = _Rows()
    operation_keys: _Rows[tuple[str, str], OperationKeyRow] = _Rows()
    updated: dict[DurableKey, ActivityRow] = {}
    elsewhere: list[ArrivalRow] = []
    arrived: list[tuple[int, int]] = []
    for each in transitions:
        instances.add(each)
        histories.add(each)
        for message in each.sent:
            messages.made[message.message_id] = message
        elsewhere.extend(each.sent_elsewhere)
        arrived.extend(each.arrivals_removed)
        _add(activities, each.activities_scheduled)
        for activity in each.activities_updated:
            (activities.made if activity.key in activities.made else updated)[activity.key] = activity
        for key in each.activities_removed:
            updated.pop(key, None)
        _add(timers, each.timers_created)
        _add(children, each.children_created)
        messages.remove(each.partition, each.consumed)
        activities.remove(each.partition, each.activities_removed)
        timers.remove(each.partition, each.timers_removed)
        children.remove(each.partition, each.children_removed)
        operation_keys.remove(each.partition, each.operation_keys_removed)
        for key in each.operation_keys_added:
            operation_keys.made[key.key] = key
    return WriteSet(
        lsn_before=lsn_before,
        lsn=transitions[-1].lsn,
        instances_inserted=[
            update.row for instance_id, update in instances.updates.items() if instance_id in instances.inserted
        ],
        instances_updated=[
            update for instance_id, update in instances.updates.items() if instance_id not in instances.inserted
        ],
        history_inserted=list(histories.made.values()),
        executions_removed=histories.removed,
        messages_inserted=messages.inserted(),
        messages_removed=messages.removed,
        arrivals_inserted=elsewhere,
        arrivals_removed=arrived,
        activities_inserted=activities.inserted(),
        activities_updated=list(updated.values()),
        activities_removed=[(partition, *key) for partition, key in activities.removed],
        timers_inserted=timers.inserted(),
        timers_removed=[(partition, *key) for partition, key in timers.removed],
        children_inserted=children.inserted(),
        children_removed=[(partition, *key) for partition, key in children.removed],
        instances_removed=instances.removed,
        operation_keys_inserted=operation_keys.inserted(),
        operation_keys_removed=[(partition, *key) for partition, key in operation_keys.removed],
    )


def _add(rows: _Rows[DurableKey, W], made: Sequence[W]) -> None:
    for row in made:
        rows.made[row.key] = row
