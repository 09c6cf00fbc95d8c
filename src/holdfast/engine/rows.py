"""The hub's values as rows of the store."""

from __future__ import annotations

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
from holdfast.model.messages import Message
from holdfast.model.task_policy import PLAIN, TaskPolicy
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


class ActivityOptions(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    policy: TaskPolicy = PLAIN
    tags: dict[str, str] = {}
    version: str | None = None
    call_id: str | None = None


def instance_row(instance: Instance, partition_count: int) -> InstanceRow:
    """Return an instance as it is now."""
    updated_at = to_microseconds(instance.updated_at)
    # By position, in the order of the columns: so many names would cost ten times as much as the row.
    return InstanceRow(
        partition_of(instance.instance_id, partition_count),
        instance.instance_id,
        instance.execution_id,
        instance.revision,
        instance.name,
        str(instance.status),
        updated_at if instance.created_at is instance.updated_at else to_microseconds(instance.created_at),
        updated_at,
        instance.input,
        instance.output,
        instance.custom_status,
        None if instance.failure is None else encode_record(instance.failure),
        None if instance.parked is None else encode_record(instance.parked),
        None if instance.parent is None else encode_record(instance.parent),
        instance.state,
        _encode_lock(instance),
        instance.episodes,
        instance.history_events,
        instance.deliveries,
        instance.version,
        encode_tags(instance.tags),
        instance.request_key,
        instance.events_buffered,
        encode_names(instance.events_awaited),
    )


def _encode_lock(instance: Instance) -> str | None:
    lock = instance.lock or instance.section
    return None if lock is None else encode_record(lock)


def inbox_row(message: Message, partition_count: int) -> InboxRow:
    assert message.message_id is not None, "only messages that are sent have rows"
    return InboxRow(
        partition_of(message.instance_id, partition_count),
        message.message_id,
        message.instance_id,
        message.execution_id,
        encode_message(message.event),
    )


def arrival_row(message: Message, partition_count: int) -> ArrivalRow:
    return ArrivalRow(
        partition_of(message.instance_id, partition_count),
        message.instance_id,
        message.execution_id,
        encode_message(message.event),
    )


def _encode_options(activity: ScheduledActivity) -> str | None:
    policy, tags, version, call_id = activity.policy, activity.tags, activity.version, activity.call_id
    if policy is PLAIN and not tags and version is None and call_id is None:
        return None
    return encode_record(ActivityOptions(policy, tags, version, call_id))


def activity_row(activity: ScheduledActivity, partition_count: int) -> ActivityRow:
    scheduled_at = to_microseconds(activity.scheduled_at)
    is_first = activity.visible_at is activity.scheduled_at
    return ActivityRow(
        partition_of(activity.instance_id, partition_count),
        activity.execution_id,
        activity.sequence,
        activity.instance_id,
        activity.name,
        activity.input,
        _encode_options(activity),
        activity.attempt,
        activity.deliveries,
        scheduled_at,
        scheduled_at if is_first else to_microseconds(activity.visible_at),
        activity.progress,
    )


def timer_row(timer: DurableTimer, partition_count: int) -> TimerRow:
    return TimerRow(
        partition_of(timer.instance_id, partition_count),
        timer.execution_id,
        timer.sequence,
        timer.instance_id,
        to_microseconds(timer.due_at),
        None if timer.event is None else encode_message(timer.event),
    )


def operation_key_row(key: OperationKey, partition_count: int) -> OperationKeyRow:
    answer = None if key.answer is None else encode_message(key.answer)
    return OperationKeyRow(
        partition_of(key.instance_id, partition_count), key.instance_id, key.operation_key, key.position, answer
    )


def child_row(child: OpenChild, partition_count: int) -> ChildRow:
    return ChildRow(
        partition_of(child.instance_id, partition_count),
        child.execution_id,
        child.sequence,
        child.instance_id,
        child.child_instance_id,
    )


def history_rows(transition: Transition, partition_count: int) -> list[HistoryRow]:
    """Return the episodes that a transition appends to the execution of its instance."""
    instance = transition.instance
    if instance is None or not (transition.history or transition.history_copied):
        return []
    partition, execution_id = partition_of(instance.instance_id, partition_count), instance.execution_id
    rows: list[HistoryRow] = []
    for events in transition.history_copied:
        rows.append(HistoryRow(partition, execution_id, len(rows), encode_events(events)))
    if transition.history:
        rows.append(HistoryRow(partition, execution_id, instance.episodes - 1, encode_events(transition.history)))
    return rows
