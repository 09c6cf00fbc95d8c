"""Between the hub's values and the store's rows: transitions to rows, groups of rows to one write set, rows back."""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import timedelta
from typing import Final, TypeVar

import msgspec

from holdfast.codec.history import (
    encode_events,
    encode_message,
    encode_names,
    encode_record,
    encode_tags,
)
from holdfast.engine.clock import to_microseconds
from holdfast.hub.instance import (
    DurableTimer,
    Instance,
    OpenChild,
    OperationKey,
    ScheduledActivity,
)
from holdfast.hub.transition import Transition
from holdfast.model.ids import partition_of
from holdfast.model.messages import DurableKey, Message
from holdfast.model.retry import RetryRule
from holdfast.storage.port import (
    ActivityRow,
    ArrivalRow,
    ChildRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    OperationKeyRow,
    TimerRow,
)

_TRANSITION_BYTES = 500  # what a transition takes in memory besides its texts
_NOTHING: Final = ()  # most transitions lack most kinds of rows, and making empty lists adds up

K = TypeVar("K")
V = TypeVar("V")


class ActivityOptions(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    retry: RetryRule | None = None
    timeout: timedelta | None = None
    speculative: bool = False
    start_timeout: timedelta | None = None
    heartbeat_timeout: timedelta | None = None
    tags: dict[str, str] = {}
    version: str | None = None
    call_id: str | None = None
    queue: str | None = None


_PLAIN: Final = ActivityOptions()


class EncodedTransition(msgspec.Struct, frozen=True, gc=False):
    """A transition as rows. Made when it enters the journal: what cannot be stored is found out before that."""

    lsn: int
    instance_id: str
    partition: int
    size_bytes: int
    instance: InstanceRow | None
    revision_before: int
    is_new_execution: bool
    history: HistoryRow | None
    executions_removed: Sequence[tuple[int, str, int]]
    sent: Sequence[InboxRow]
    sent_elsewhere: Sequence[ArrivalRow]
    consumed: Sequence[int]
    arrivals_removed: Sequence[tuple[int, int]]
    activities_scheduled: Sequence[ActivityRow]
    activities_updated: Sequence[ActivityRow]
    activities_removed: Sequence[DurableKey]
    timers_created: Sequence[TimerRow]
    timers_removed: Sequence[DurableKey]
    children_created: Sequence[ChildRow]
    children_removed: Sequence[DurableKey]
    history_copied: Sequence[HistoryRow]
    instances_removed: Sequence[tuple[int, str, int]]
    operation_keys_added: Sequence[OperationKeyRow]
    operation_keys_removed: Sequence[tuple[str, str]]


def encode_transition(
    transition: Transition, partition_count: int, owned: Container[int] | None = None
) -> EncodedTransition:
    """Return the rows of a transition, as its instance is now.

    Args:
        owned: the partitions whose messages are delivered here; what is sent to others arrives there. None for all.
    """
    partition = partition_of(transition.instance_id, partition_count)
    instance = transition.instance
    history = None
    size = _TRANSITION_BYTES
    if instance is not None and transition.history:
        history = HistoryRow(partition, instance.execution_id, instance.episodes - 1, encode_events(transition.history))
        size += len(history.events)
    if instance is not None:
        size += len(instance.state or "") + len(instance.output or "") + len(instance.custom_status or "")
    sent = [_inbox_row(message, partition_count) for message in transition.sent] if transition.sent else _NOTHING
    elsewhere: Sequence[ArrivalRow] = _NOTHING
    for row in sent:
        size += len(row.event)
    if sent and owned is not None:
        elsewhere = [_arrival_row(row) for row in sent if row.partition not in owned]
        sent = [row for row in sent if row.partition in owned]
    keys = transition.key_changes
    removed, purged = transition.executions_removed, transition.instances_removed
    scheduled, updated = transition.activities_scheduled, transition.activities_updated
    timers = transition.timers_created
    return EncodedTransition(
        transition.lsn,
        transition.instance_id,
        partition,
        size,
        None if instance is None else _instance_row(instance, partition),
        transition.revision_before,
        transition.is_new_execution,
        history,
        [(partition_of(of, partition_count), execution, episodes) for of, execution, episodes in removed]
        if removed
        else _NOTHING,
        sent,
        elsewhere,
        transition.consumed,
        [(partition_of(to, partition_count), arrival_id) for to, arrival_id in transition.arrivals_removed]
        if transition.arrivals_removed
        else _NOTHING,
        [_activity_row(activity, partition) for activity in scheduled] if scheduled else _NOTHING,
        [_activity_row(activity, partition) for activity in updated] if updated else _NOTHING,
        transition.activities_removed,
        [_timer_row(timer, partition) for timer in timers] if timers else _NOTHING,
        transition.timers_removed,
        [_child_row(child, partition) for child in transition.children_created]
        if transition.children_created
        else _NOTHING,
        transition.children_removed,
        _copied_rows(transition, partition) if transition.history_copied else _NOTHING,
        [(partition_of(id_, partition_count), id_, revision) for id_, revision in purged] if purged else _NOTHING,
        _NOTHING if keys is None else [_operation_key_row(key, partition) for key in keys.added],
        _NOTHING if keys is None else keys.removed,
    )


def _copied_rows(transition: Transition, partition: int) -> list[HistoryRow]:
    assert transition.instance is not None, "history is copied into an execution"
    execution_id = transition.instance.execution_id
    return [
        HistoryRow(partition, execution_id, episode, encode_events(events))
        for episode, events in enumerate(transition.history_copied)
    ]


def _instance_row(instance: Instance, partition: int) -> InstanceRow:
    return InstanceRow(
        partition=partition,
        instance_id=instance.instance_id,
        execution_id=instance.execution_id,
        revision=instance.revision,
        name=instance.name,
        status=instance.status.value,
        created_at=to_microseconds(instance.created_at),
        updated_at=to_microseconds(instance.updated_at),
        input=instance.input,
        output=instance.output,
        custom_status=instance.custom_status,
        failure=None if instance.failure is None else encode_record(instance.failure),
        parked=None if instance.parked is None else encode_record(instance.parked),
        parent=None if instance.parent is None else encode_record(instance.parent),
        state=instance.state,
        lock=_encode_lock(instance),
        episodes=instance.episodes,
        history_events=instance.history_events,
        deliveries=instance.deliveries,
        version=instance.version,
        tags=encode_tags(instance.tags),
        request_key=instance.request_key,
        events_buffered=instance.events_buffered,
        events_awaited=encode_names(instance.events_awaited),
    )


def _encode_lock(instance: Instance) -> str | None:
    lock = instance.lock or instance.section
    return None if lock is None else encode_record(lock)


def _inbox_row(message: Message, partition_count: int) -> InboxRow:
    assert message.message_id is not None, "only messages that are sent have rows"
    return InboxRow(
        partition_of(message.instance_id, partition_count),
        message.message_id,
        message.instance_id,
        message.execution_id,
        encode_message(message.event),
    )


def _arrival_row(row: InboxRow) -> ArrivalRow:
    return ArrivalRow(row.partition, row.instance_id, row.execution_id, row.event)


def _activity_row(activity: ScheduledActivity, partition: int) -> ActivityRow:
    options = ActivityOptions(
        activity.retry,
        activity.timeout,
        activity.speculative,
        activity.start_timeout,
        activity.heartbeat_timeout,
        activity.tags,
        activity.version,
        activity.call_id,
        activity.queue,
    )
    return ActivityRow(
        partition,
        activity.execution_id,
        activity.sequence,
        activity.instance_id,
        activity.name,
        activity.input,
        None if options == _PLAIN else encode_record(options),
        activity.attempt,
        activity.deliveries,
        to_microseconds(activity.scheduled_at),
        to_microseconds(activity.visible_at),
        activity.progress,
    )


def _timer_row(timer: DurableTimer, partition: int) -> TimerRow:
    return TimerRow(
        partition,
        timer.execution_id,
        timer.sequence,
        timer.instance_id,
        to_microseconds(timer.due_at),
        None if timer.event is None else encode_message(timer.event),
    )


def _operation_key_row(key: OperationKey, partition: int) -> OperationKeyRow:
    answer = None if key.answer is None else encode_message(key.answer)
    return OperationKeyRow(partition, key.instance_id, key.operation_key, key.position, answer)


def _child_row(child: OpenChild, partition: int) -> ChildRow:
    return ChildRow(partition, child.execution_id, child.sequence, child.instance_id, child.child_instance_id)
