"""Groups of transitions to one write set: what is made and used up within the group is never written, nor encoded."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from holdfast.engine.rows import (
    activity_row,
    arrival_row,
    child_row,
    history_rows,
    inbox_row,
    instance_row,
    operation_key_row,
    timer_row,
)
from holdfast.errors import HoldfastError
from holdfast.hub.instance import DurableTimer, Instance, OpenChild, OperationKey, ScheduledActivity
from holdfast.hub.transition import Transition
from holdfast.model.ids import partition_of
from holdfast.model.messages import DurableKey, Message
from holdfast.storage.port import HistoryRow, InstanceRow, InstanceUpdate, WriteSet

_TRANSITION_BYTES: Final = 500
"""What a transition takes in memory besides its texts."""


class HasInstance(Protocol):
    @property
    def instance_id(self) -> str: ...


K = TypeVar("K")
V = TypeVar("V", bound=HasInstance)
R = TypeVar("R")


class UnstorableError(Exception):
    """An instance has what no store can hold; it got past all checks, so this is a bug of ours."""

    def __init__(self, instance_id: str, error: HoldfastError) -> None:
        super().__init__(f"Instance {instance_id!r} has what cannot be stored: {error}")
        self.instance_id = instance_id


class Entry:
    """A transition in the journal. Its history is encoded already; the rest is when a group is made of it."""

    __slots__ = ("history", "row", "size_bytes", "transition")

    def __init__(self, transition: Transition, partition_count: int, *, with_row: bool) -> None:
        """Encode what is written in any case.

        Args:
            with_row: also the row of the instance as it is now, since a group may end before its next change.

        Raises:
            UnstorableError: if that cannot be done.
        """
        self.transition = transition
        try:
            self.history = history_rows(transition, partition_count)
            self.row: InstanceRow | None = None
            if with_row and transition.instance is not None:
                self.row = instance_row(transition.instance, partition_count)
        except HoldfastError as error:
            raise UnstorableError(transition.instance_id, error) from error
        self.size_bytes = _TRANSITION_BYTES
        for episode in self.history:
            self.size_bytes += len(episode.events)
        for message in transition.sent:
            self.size_bytes += _TRANSITION_BYTES + _payload_chars(message)
        if transition.instance is not None:
            instance = transition.instance
            for text in (instance.state, instance.output, instance.custom_status):
                if text is not None:
                    self.size_bytes += len(text)


def _payload_chars(message: Message) -> int:
    return len(getattr(message.event, "input", None) or getattr(message.event, "output", None) or "")


class _Made(Generic[K, V]):
    """What a group makes of one kind, and what from before it removes, as (partition, key)."""

    def __init__(self) -> None:
        self.made: dict[K, V] = {}
        self.removed: list[tuple[int, K]] = []

    def remove(self, partition: int, keys: Sequence[K]) -> None:
        """Remove what is still in the group from it, else from the store."""
        for key in keys:
            if self.made.pop(key, None) is None:
                self.removed.append((partition, key))


class _Histories:
    """The episodes that a group appends, and the executions from before it that it replaces."""

    def __init__(self) -> None:
        self.made: dict[tuple[str, int], HistoryRow] = {}
        self.removed: list[tuple[int, str, int]] = []

    def remove(self, partition: int, execution_id: str, episodes: int) -> None:
        """Remove a replaced execution: the episodes of this very group from the group, the others from the store."""
        stored = episodes
        for episode in range(episodes - 1, -1, -1):
            if self.made.pop((execution_id, episode), None) is None:
                break
            stored -= 1
        if stored:
            self.removed.append((partition, execution_id, stored))


class _Changed:
    """An instance that a group changes; its row is the last one, or what it is now."""

    __slots__ = ("instance", "instance_id", "is_new_execution", "revision_before", "row")

    def __init__(self, instance: Instance, revision_before: int) -> None:
        self.instance = instance
        self.instance_id = instance.instance_id
        self.revision_before = revision_before
        """What is stored; 0 for an instance that is not."""
        self.is_new_execution = False
        self.row: InstanceRow | None = None


class _Group:
    """What a group changes, kind by kind, while its transitions are gone through."""

    def __init__(self, partition_count: int, owned: Container[int] | None) -> None:
        self._partition_count = partition_count
        self._owned = owned
        self._instances: dict[str, _Changed] = {}
        self._instances_removed: list[tuple[int, str, int]] = []
        self._histories = _Histories()
        self._messages: _Made[int, Message] = _Made()
        self._activities: _Made[DurableKey, ScheduledActivity] = _Made()
        self._activities_updated: dict[DurableKey, ScheduledActivity] = {}
        self._timers: _Made[DurableKey, DurableTimer] = _Made()
        self._children: _Made[DurableKey, OpenChild] = _Made()
        self._operation_keys: _Made[tuple[str, str], OperationKey] = _Made()
        self._sent_elsewhere: list[Message] = []
        self._arrivals_removed: list[tuple[int, int]] = []

    def add(self, entry: Entry) -> None:
        """Add the next transition: what it makes before what it removes, since it may do both to a message."""
        each = entry.transition
        partition = partition_of(each.instance_id, self._partition_count)
        for instance_id, revision in each.instances_removed:
            self._remove_instance(instance_id, revision)
        self._change_instance(entry)
        for instance_id, execution_id, episodes in each.executions_removed:
            self._histories.remove(self._partition(instance_id), execution_id, episodes)
        for row in entry.history:
            self._histories.made[row.execution_id, row.episode] = row
        for instance_id, arrival_id in each.arrivals_removed:
            self._arrivals_removed.append((self._partition(instance_id), arrival_id))
        for message in each.sent:
            self._send(message)
        for timer in each.timers_created:
            self._timers.made[timer.key] = timer
        for child in each.children_created:
            self._children.made[child.key] = child
        self._add_activities(each, partition)
        self._messages.remove(partition, each.consumed)
        self._timers.remove(partition, each.timers_removed)
        self._children.remove(partition, each.children_removed)
        if each.key_changes is not None:
            self._operation_keys.remove(partition, each.key_changes.removed)
            for key in each.key_changes.added:
                self._operation_keys.made[key.key] = key

    def _partition(self, instance_id: str) -> int:
        return partition_of(instance_id, self._partition_count)

    def _change_instance(self, entry: Entry) -> None:
        transition = entry.transition
        instance = transition.instance
        if instance is None:
            return
        changed = self._instances.get(instance.instance_id)
        if changed is None:
            changed = self._instances[instance.instance_id] = _Changed(instance, transition.revision_before)
        changed.instance, changed.row = instance, entry.row
        if transition.is_new_execution:
            changed.is_new_execution = True

    def _remove_instance(self, instance_id: str, revision: int) -> None:
        """Remove a row: from the group if that has made it, else from the store."""
        changed = self._instances.pop(instance_id, None)
        if changed is None:
            self._instances_removed.append((self._partition(instance_id), instance_id, revision))
        elif changed.revision_before:
            self._instances_removed.append((self._partition(instance_id), instance_id, changed.revision_before))

    def _send(self, message: Message) -> None:
        assert message.message_id is not None, "only messages that are sent have rows"
        if self._owned is None or self._partition(message.instance_id) in self._owned:
            self._messages.made[message.message_id] = message
        else:
            self._sent_elsewhere.append(message)

    def _add_activities(self, each: Transition, partition: int) -> None:
        for activity in each.activities_scheduled:
            self._activities.made[activity.key] = activity
        for activity in each.activities_updated:
            made, key = self._activities.made, activity.key
            (made if key in made else self._activities_updated)[key] = activity
        if self._activities_updated:
            for key in each.activities_removed:
                self._activities_updated.pop(key, None)
        self._activities.remove(partition, each.activities_removed)

    def _encoded(self, values: Iterable[V], encode: Callable[[V, int], R]) -> list[R]:
        rows: list[R] = []
        for value in values:
            try:
                rows.append(encode(value, self._partition_count))
            except HoldfastError as error:
                raise UnstorableError(value.instance_id, error) from error
        return rows

    def write_set(self, lsn_before: int, lsn: int) -> WriteSet:
        """Return all of it.

        Raises:
            UnstorableError: if something of it cannot be encoded.
        """
        new = [each for each in self._instances.values() if each.revision_before == 0]
        old = [each for each in self._instances.values() if each.revision_before]
        return WriteSet(
            lsn_before=lsn_before,
            lsn=lsn,
            instances_inserted=self._encoded(new, _row),
            instances_updated=self._encoded(old, _update),
            instances_removed=self._instances_removed,
            history_inserted=list(self._histories.made.values()),
            executions_removed=self._histories.removed,
            messages_inserted=self._encoded(self._messages.made.values(), inbox_row),
            messages_removed=self._messages.removed,
            arrivals_inserted=self._encoded(self._sent_elsewhere, arrival_row),
            arrivals_removed=self._arrivals_removed,
            activities_inserted=self._encoded(self._activities.made.values(), activity_row),
            activities_updated=self._encoded(self._activities_updated.values(), activity_row),
            activities_removed=[(partition, *key) for partition, key in self._activities.removed],
            timers_inserted=self._encoded(self._timers.made.values(), timer_row),
            timers_removed=[(partition, *key) for partition, key in self._timers.removed],
            children_inserted=self._encoded(self._children.made.values(), child_row),
            children_removed=[(partition, *key) for partition, key in self._children.removed],
            operation_keys_inserted=self._encoded(self._operation_keys.made.values(), operation_key_row),
            operation_keys_removed=[(partition, *key) for partition, key in self._operation_keys.removed],
        )


def _row(changed: _Changed, partition_count: int) -> InstanceRow:
    return changed.row or instance_row(changed.instance, partition_count)


def _update(changed: _Changed, partition_count: int) -> InstanceUpdate:
    return InstanceUpdate(_row(changed, partition_count), changed.revision_before, changed.is_new_execution)


def coalesce(
    lsn_before: int, entries: Sequence[Entry], partition_count: int, owned: Container[int] | None = None
) -> WriteSet:
    """Return what a group of transitions, consecutive in the journal, changes in the store as a whole.

    Args:
        owned: the partitions whose messages are delivered here; what is sent to others arrives there. None for all.

    Raises:
        UnstorableError: if something of it cannot be encoded.
    """
    group = _Group(partition_count, owned)
    for entry in entries:
        group.add(entry)
    return group.write_set(lsn_before, entries[-1].transition.lsn)
