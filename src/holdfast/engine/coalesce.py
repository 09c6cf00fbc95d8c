"""Groups of transitions to one write set: what is made and used up within the group is never written."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

from holdfast.engine.rows import EncodedTransition
from holdfast.model.messages import DurableKey
from holdfast.storage.port import (
    ActivityRow,
    ArrivalRow,
    ChildRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    InstanceUpdate,
    OperationKeyRow,
    TimerRow,
    WriteSet,
)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


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
        self.inserted: dict[str, InstanceRow] = {}
        self.updated: dict[str, InstanceUpdate] = {}
        self.removed: list[tuple[int, str, int]] = []

    def add(self, each: EncodedTransition) -> None:
        for partition, instance_id, revision in each.instances_removed:
            self._remove(partition, instance_id, revision)
        row = each.instance
        if row is None:
            return
        if each.revision_before == 0 or row.instance_id in self.inserted:
            self.inserted[row.instance_id] = row
            return
        known = self.updated.get(row.instance_id)
        if known is None:
            self.updated[row.instance_id] = InstanceUpdate(row, each.revision_before, each.is_new_execution)
        else:
            changed = known.new_execution or each.is_new_execution
            self.updated[row.instance_id] = InstanceUpdate(row, known.revision_before, changed)

    def _remove(self, partition: int, instance_id: str, revision: int) -> None:
        """Remove a row: from the group if that has made it, else from the store."""
        if self.inserted.pop(instance_id, None) is None:
            known = self.updated.pop(instance_id, None)
            self.removed.append((partition, instance_id, revision if known is None else known.revision_before))


class _Group:
    """What a group changes, kind by kind, while its transitions are gone through."""

    def __init__(self) -> None:
        self.instances = _Instances()
        self.histories = _Histories()
        self.messages: _Rows[int, InboxRow] = _Rows()
        self.activities: _Rows[DurableKey, ActivityRow] = _Rows()
        self.activities_updated: dict[DurableKey, ActivityRow] = {}
        self.timers: _Rows[DurableKey, TimerRow] = _Rows()
        self.children: _Rows[DurableKey, ChildRow] = _Rows()
        self.operation_keys: _Rows[tuple[str, str], OperationKeyRow] = _Rows()
        self.sent_elsewhere: list[ArrivalRow] = []
        self.arrivals_removed: list[tuple[int, int]] = []

    def add(self, each: EncodedTransition) -> None:
        """Add the next transition: what it makes before what it removes, since it may do both to a message."""
        self.instances.add(each)
        self.histories.add(each)
        self.sent_elsewhere += each.sent_elsewhere
        self.arrivals_removed += each.arrivals_removed
        for message in each.sent:
            self.messages.made[message.message_id] = message
        for timer in each.timers_created:
            self.timers.made[timer.key] = timer
        for child in each.children_created:
            self.children.made[child.key] = child
        self._add_activities(each)
        self.messages.remove(each.partition, each.consumed)
        self.timers.remove(each.partition, each.timers_removed)
        self.children.remove(each.partition, each.children_removed)
        self.operation_keys.remove(each.partition, each.operation_keys_removed)
        for key in each.operation_keys_added:
            self.operation_keys.made[key.key] = key

    def _add_activities(self, each: EncodedTransition) -> None:
        for activity in each.activities_scheduled:
            self.activities.made[activity.key] = activity
        for activity in each.activities_updated:
            made = self.activities.made
            (made if activity.key in made else self.activities_updated)[activity.key] = activity
        for key in each.activities_removed:
            self.activities_updated.pop(key, None)
        self.activities.remove(each.partition, each.activities_removed)


def coalesce(lsn_before: int, transitions: Sequence[EncodedTransition]) -> WriteSet:
    """Return what a group of transitions, consecutive in the journal, changes in the store as a whole."""
    group = _Group()
    for each in transitions:
        group.add(each)
    return WriteSet(
        lsn_before=lsn_before,
        lsn=transitions[-1].lsn,
        instances_inserted=list(group.instances.inserted.values()),
        instances_updated=list(group.instances.updated.values()),
        instances_removed=group.instances.removed,
        history_inserted=list(group.histories.made.values()),
        executions_removed=group.histories.removed,
        messages_inserted=group.messages.inserted(),
        messages_removed=group.messages.removed,
        arrivals_inserted=group.sent_elsewhere,
        arrivals_removed=group.arrivals_removed,
        activities_inserted=group.activities.inserted(),
        activities_updated=list(group.activities_updated.values()),
        activities_removed=[(partition, *key) for partition, key in group.activities.removed],
        timers_inserted=group.timers.inserted(),
        timers_removed=[(partition, *key) for partition, key in group.timers.removed],
        children_inserted=group.children.inserted(),
        children_removed=[(partition, *key) for partition, key in group.children.removed],
        operation_keys_inserted=group.operation_keys.inserted(),
        operation_keys_removed=[(partition, *key) for partition, key in group.operation_keys.removed],
    )
