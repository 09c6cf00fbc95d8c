"""Between the hub's values and the store's rows: transitions to rows, groups of rows to one write set, rows back."""

from __future__ import annotations

from collections.abc import Container, Sequence
from datetime import timedelta
from typing import Final, TypeVar

import msgspec

from holdfast.codec.history import (
    decode_message,
    decode_names,
    decode_record,
    decode_tags,
    encode_events,
    encode_message,
    encode_names,
    encode_record,
    encode_tags,
)
from holdfast.engine.clock import from_microseconds, to_microseconds
from holdfast.errors import CorruptRecordError
from holdfast.hub.instance import (
    CriticalSectionState,
    DurableTimer,
    Instance,
    LockHolder,
    OpenChild,
    OperationKey,
    ScheduledActivity,
)
from holdfast.hub.transition import Transition
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    EntityOperationCompleted,
    EntityOperationFailed,
    EntityOperationSignaled,
    ParentInstance,
)
from holdfast.model.ids import partition_of
from holdfast.model.messages import Arrival, DurableKey, Message
from holdfast.model.retry import RetryRule
from holdfast.model.status import OrchestrationState, OrchestrationStatus
from holdfast.model.work_items import ActivityWorkItem, Failed, Outcome, Succeeded
from holdfast.storage.port import (
    ActivityRow,
    ArrivalRow,
    ChildRow,
    EntityRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    OperationKeyRow,
    StoredInstance,
    TimerRow,
)

_TRANSITION_BYTES = 500  # what a transition takes in memory besides its texts
_NOTHING: Final = ()  # most transitions lack most kinds of rows, and making empty lists adds up

K = TypeVar("K")
V = TypeVar("V")


class _ActivityOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    retry: RetryRule | None = None
    timeout: timedelta | None = None
    speculative: bool = False
    start_timeout: timedelta | None = None
    heartbeat_timeout: timedelta | None = None
    tags: dict[str, str] = {}
    version: str | None = None
    call_id: str | None = None


_PLAIN: Final = _ActivityOptions()


class EncodedTransition(msgspec.Struct, frozen=True):
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
    scheduled, updated, timers = (
        transition.activities_scheduled,
        transition.activities_updated,
        transition.timers_created,
    )
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
    options = _ActivityOptions(
        activity.retry,
        activity.timeout,
        activity.speculative,
        activity.start_timeout,
        activity.heartbeat_timeout,
        activity.tags,
        activity.version,
        activity.call_id,
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


# Back from the store


def decode_instance(stored: StoredInstance) -> Instance:
    """Return an instance as the hub holds it, without its messages, activities and timers.

    Raises:
        CorruptRecordError: if one of its rows cannot be read.
    """
    row = stored.row
    assert row is not None, "an instance without a row is made by its first message"
    instance = Instance(row.instance_id, row.execution_id, row.name, from_microseconds(row.created_at))
    instance.status = check_status(row)
    instance.updated_at = from_microseconds(row.updated_at)
    instance.revision = row.revision
    instance.input, instance.output, instance.custom_status = row.input, row.output, row.custom_status
    instance.failure = None if row.failure is None else decode_record(row.failure, FailureDetails)
    instance.parked = None if row.parked is None else decode_record(row.parked, FailureDetails)
    instance.parent = None if row.parent is None else decode_record(row.parent, ParentInstance)
    if instance.is_entity:
        instance.lock = decode_instance_lock(row)
    else:
        instance.section = decode_section(row)
    for key in stored.operation_keys:
        instance.remember(_decode_operation_key(key))
    instance.state = row.state
    instance.version, instance.tags, instance.request_key = row.version, decode_tags(row.tags), row.request_key
    instance.events_buffered, instance.events_awaited = row.events_buffered, decode_names(row.events_awaited)
    instance.episodes, instance.history_events, instance.deliveries = row.episodes, row.history_events, row.deliveries
    return instance


def decode_instance_lock(row: InstanceRow | EntityRow) -> LockHolder | None:
    """Return who holds the lock of an entity."""
    return None if row.lock is None else decode_record(row.lock, LockHolder)


def decode_section(row: InstanceRow) -> CriticalSectionState | None:
    """Return the critical section that an orchestration has asked for."""
    return None if row.lock is None else decode_record(row.lock, CriticalSectionState)


def decode_work(stored: StoredInstance, instance: Instance) -> list[CorruptRecordError]:
    """Give an instance its open activities and timers; return an error for each that cannot be read."""
    errors: list[CorruptRecordError] = []
    for row in stored.activities:
        try:
            instance.activities[row.sequence] = decode_activity(row)
        except CorruptRecordError as error:
            errors.append(CorruptRecordError(f"Activity {row.sequence} cannot be read: {error}"))
    for row in stored.timers:
        try:
            instance.timers[row.sequence] = decode_timer(row)
        except CorruptRecordError as error:
            errors.append(CorruptRecordError(f"Timer {row.sequence} cannot be read: {error}"))
    for row in stored.children:
        child = OpenChild(row.instance_id, row.execution_id, row.sequence, row.child_instance_id)
        instance.children[row.sequence] = child
    return errors


def decode_messages(stored: StoredInstance) -> tuple[list[Message], list[CorruptRecordError]]:
    """Return the messages that wait for an instance, in order, and an error for each that cannot be read."""
    messages: list[Message] = []
    errors: list[CorruptRecordError] = []
    for row in stored.messages:
        try:
            messages.append(Message(row.instance_id, decode_message(row.event), row.execution_id, row.message_id))
        except CorruptRecordError as error:
            errors.append(CorruptRecordError(f"Message {row.message_id} cannot be read: {error}"))
    return messages, errors


class _Report(msgspec.Struct, frozen=True, tag_field="type", tag="ActivityReported", omit_defaults=True):
    """The outcome of an attempt of which another host hears; it is no message, since the activity is durable itself."""

    sequence: int
    attempt: int
    result: str | None = None
    failure: FailureDetails | None = None
    progress: str | None = None


_REPORT_BEGINS: Final = '{"type":"ActivityReported"'


def encode_report(work_item: ActivityWorkItem, outcome: Outcome) -> str:
    """Return an outcome as the event of an arrival."""
    match outcome:
        case Succeeded(result):
            return encode_record(_Report(work_item.sequence, work_item.attempt, result=result))
        case Failed(details, progress):
            return encode_record(_Report(work_item.sequence, work_item.attempt, failure=details, progress=progress))


def decode_arrival(row: ArrivalRow) -> Arrival | tuple[ActivityWorkItem, Outcome]:
    """Return what has come from outside, a message or an outcome.

    Raises:
        CorruptRecordError: if it cannot be read.
    """
    if row.event.startswith(_REPORT_BEGINS):
        report = decode_record(row.event, _Report)
        attempt = ActivityWorkItem(
            row.instance_id, row.execution_id or "", report.sequence, "", None, attempt=report.attempt
        )
        failed = None if report.failure is None else Failed(report.failure, report.progress)
        return attempt, failed or Succeeded(report.result)
    return Arrival(row.arrival_id, row.instance_id, decode_message(row.event), row.execution_id)


def check_status(row: InstanceRow | EntityRow) -> OrchestrationStatus:
    """Return the status of an instance; raise CorruptRecordError if there is none of that name."""
    try:
        return OrchestrationStatus(row.status)
    except ValueError as error:
        raise CorruptRecordError(f"Instance {row.instance_id!r} is stored with the status {row.status!r}.") from error


def decode_activity(row: ActivityRow) -> ScheduledActivity:
    options = _ActivityOptions() if row.options is None else decode_record(row.options, _ActivityOptions)
    return ScheduledActivity(
        instance_id=row.instance_id,
        execution_id=row.execution_id,
        sequence=row.sequence,
        name=row.name,
        input=row.input,
        scheduled_at=from_microseconds(row.scheduled_at),
        visible_at=from_microseconds(row.visible_at),
        attempt=row.attempt,
        deliveries=row.deliveries,
        retry=options.retry,
        timeout=options.timeout,
        speculative=options.speculative,
        start_timeout=options.start_timeout,
        heartbeat_timeout=options.heartbeat_timeout,
        tags=options.tags,
        progress=row.progress,
        version=options.version,
        call_id=options.call_id,
    )


def decode_timer(row: TimerRow) -> DurableTimer:
    event = None if row.event is None else decode_message(row.event)
    if event is not None and not isinstance(event, EntityOperationSignaled):
        raise CorruptRecordError(f"The timer stands for a {type(event).__name__}, which is no signal.")
    return DurableTimer(row.instance_id, row.execution_id, row.sequence, from_microseconds(row.due_at), event)


def _decode_operation_key(row: OperationKeyRow) -> OperationKey:
    answer = None if row.answer is None else decode_message(row.answer)
    if answer is not None and not isinstance(answer, EntityOperationCompleted | EntityOperationFailed):
        raise CorruptRecordError(
            f"Key {row.operation_key!r} of {row.instance_id!r} is kept with something else than an answer."
        )
    return OperationKey(row.instance_id, row.operation_key, row.position, answer)


def decode_state(row: InstanceRow) -> OrchestrationState:
    """Return what a client may see of a stored instance."""
    parent = None if row.parent is None else decode_record(row.parent, ParentInstance)
    return OrchestrationState(
        instance_id=row.instance_id,
        execution_id=row.execution_id,
        name=row.name,
        runtime_status=check_status(row),
        created_at=from_microseconds(row.created_at),
        last_updated_at=from_microseconds(row.updated_at),
        input=row.input,
        output=row.output,
        custom_status=row.custom_status,
        failure=None if row.failure is None else decode_record(row.failure, FailureDetails),
        parked=None if row.parked is None else decode_record(row.parked, FailureDetails),
        parent_instance_id=parent.instance_id if parent else None,
        version=row.version,
        tags=decode_tags(row.tags),
        events_awaited=decode_names(row.events_awaited),
    )
