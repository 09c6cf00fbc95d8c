"""Back from the store: rows to the values of the hub, and what arrives from other hosts."""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.codec.history import (
    decode_message,
    decode_names,
    decode_record,
    decode_tags,
    encode_record,
)
from holdfast.engine.clock import from_microseconds
from holdfast.engine.rows import ActivityOptions
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
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    EntityOperationCompleted,
    EntityOperationFailed,
    EntityOperationSignaled,
    ParentInstance,
)
from holdfast.model.instants import after
from holdfast.model.messages import Arrival, Message
from holdfast.model.status import OrchestrationState, OrchestrationStatus
from holdfast.model.work_items import ActivityWorkItem, Failed, Outcome, Succeeded
from holdfast.storage.port import (
    ActivityRow,
    ArrivalRow,
    InstanceRow,
    OperationKeyRow,
    StoredInstance,
    TimerRow,
)
from holdfast.storage.selection import EntityRow


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
    options = ActivityOptions() if row.options is None else decode_record(row.options, ActivityOptions)
    visible_at, start_timeout = from_microseconds(row.visible_at), options.policy.start_timeout
    return ScheduledActivity(
        instance_id=row.instance_id,
        execution_id=row.execution_id,
        sequence=row.sequence,
        name=row.name,
        input=row.input,
        attempt=row.attempt,
        deliveries=row.deliveries,
        policy=options.policy,
        start_by=None if start_timeout is None else after(visible_at, start_timeout),
        tags=options.tags,
        progress=row.progress,
        version=options.version,
        call_id=options.call_id,
        scheduled_at=from_microseconds(row.scheduled_at),
        visible_at=visible_at,
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
