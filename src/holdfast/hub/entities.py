"""Entities: the queue of operations, and the locks that orchestrations hold.

A lock request visits the entities of its set in order: each, once free, is locked and passes the request on; the last
one answers the orchestration. So nobody waits in a circle, and every chain ends: in an answer, which a dead
orchestration's hub turns into unlocks, or where the request is taken back, in unlocks of what it has locked so far. A
call from inside a section names it: if that has lost its lock, it is refused.
"""

from __future__ import annotations

import itertools
from datetime import datetime
from functools import partial

import msgspec

from holdfast.errors import InstanceNotEndedError
from holdfast.hub.asking import start_child
from holdfast.hub.instance import DurableTimer, Instance, LockHolder, OperationKey
from holdfast.hub.lifecycle import Trigger, move
from holdfast.hub.numbering import NewExecutions
from holdfast.hub.operation_keys import forget_oldest_keys, remember_key
from holdfast.hub.sections import unlock_all
from holdfast.hub.transition import OperationAnswered, StateWarning, Transition
from holdfast.model.actions import CreateSubOrchestration, EntityAction, SendEntityMessage
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    EntityLockGranted,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    EntityOperationSignaled,
    EntityUnlockSent,
    OperationAnswer,
)
from holdfast.model.ids import EntityId
from holdfast.model.limits import Limits
from holdfast.model.messages import Message
from holdfast.model.status import OrchestrationStatus
from holdfast.model.work_items import EntityBatch, EntityOperation, EntityWorkItem, Failed, OperationOutcome


class PendingBatch(msgspec.Struct, frozen=True, gc=False):
    """A work item on its way, with the messages that it will have consumed once it is done."""

    work_item: EntityWorkItem
    messages: tuple[Message, ...]


# Arrivals


def is_early(message: Message, now: datetime) -> bool:
    """Whether a message is a signal that is to be delivered later."""
    event = message.event
    is_due = not isinstance(event, EntityOperationSignaled) or event.due_at is None or event.due_at <= now
    return not is_due and message.timer is None


def schedule(transition: Transition, instance: Instance, message: Message) -> None:
    """Keep a signal with a timer until it is due. The number of its message, which is unique, names the timer."""
    event = message.event
    assert isinstance(event, EntityOperationSignaled), "only signals are scheduled"
    assert event.due_at is not None, "it is early"
    assert message.message_id is not None, "it was sent"
    if instance.revision == 0:
        instance.created_at = transition.now
        transition.change(instance)
    else:
        transition.touch(instance)
    transition.consume(instance, (message,))
    transition.set_timer(
        instance,
        DurableTimer(instance.instance_id, instance.execution_id, message.message_id, event.due_at, event),
    )
    if event.key is not None:
        remember_key(transition, instance, OperationKey(instance.instance_id, event.key, message.message_id))


# Locks


def next_lock_change(instance: Instance) -> Message | None:
    """Take the message at the head of the queue if it locks, unlocks, or comes from a section that has lost its lock.

    Sets aside what a lock makes wait.
    """
    if instance.is_working or instance.status is OrchestrationStatus.SUSPENDED:
        return None
    queue = _queue(instance)
    waiting = list(itertools.takewhile(partial(_waits_for_lock, instance), queue))
    instance.held += waiting
    del queue[: len(waiting)]
    return queue.pop(0) if queue and _changes_lock(instance, queue[0]) else None


def _changes_lock(instance: Instance, message: Message) -> bool:
    match message.event:
        case EntityUnlockSent():
            return True
        case EntityLockRequested():
            return instance.lock is None
        case EntityOperationCalled() as event:
            return _has_lost_lock(instance, event)
        case _:
            return False


def _waits_for_lock(instance: Instance, message: Message) -> bool:
    return not _changes_lock(instance, message) and _operation_to_run(instance, message) is None


def _queue(instance: Instance) -> list[Message]:
    """Return where the next message is: what was made to wait by a lock comes first, once that is gone."""
    return instance.held if instance.held and instance.lock is None else instance.inbox


def _has_lost_lock(instance: Instance, event: EntityOperationCalled) -> bool:
    section_id = event.critical_section_id
    return section_id is not None and (instance.lock is None or instance.lock.section_id != section_id)


def _may_run(instance: Instance, event: EntityOperation) -> bool:
    section_id = event.critical_section_id if isinstance(event, EntityOperationCalled) else None
    return section_id == (None if instance.lock is None else instance.lock.section_id)


def apply_lock_changes(transition: Transition, instance: Instance, first: Message, messages_max: int) -> None:
    """Lock or unlock an entity, or refuse calls, for as long as such a message is at the head of the queue."""
    transition.change(instance)
    _apply_lock_change(transition, instance, first)
    for _ in range(messages_max - 1):
        following = next_lock_change(instance)
        if following is None:
            return
        _apply_lock_change(transition, instance, following)


def _apply_lock_change(transition: Transition, instance: Instance, message: Message) -> None:
    transition.consume(instance, (message,))
    match message.event:
        case EntityLockRequested() as request:
            _lock(transition, instance, request)
        case EntityUnlockSent() as event if (
            instance.lock is not None and instance.lock.section_id == event.critical_section_id
        ):
            instance.lock = None
        case EntityUnlockSent() as event:
            _forget_request(transition, instance, event.critical_section_id)
        case EntityOperationCalled() as event:
            _refuse(transition, instance, event)
        case _:
            raise AssertionError(f"{message.event!r} neither locks nor unlocks")


def _lock(transition: Transition, instance: Instance, request: EntityLockRequested) -> None:
    instance.lock = LockHolder(request.critical_section_id, request.parent_instance_id, transition.now)
    following = request.position + 1
    if following < len(request.lock_set):
        transition.send(request.lock_set[following], msgspec.structs.replace(request, position=following))
    else:
        granted = EntityLockGranted(
            timestamp=transition.now, critical_section_id=request.critical_section_id, lock_set=request.lock_set
        )
        transition.send(request.parent_instance_id, granted, request.parent_execution_id)


def _refuse(transition: Transition, instance: Instance, event: EntityOperationCalled) -> None:
    failure = FailureDetails(
        "holdfast.errors.LockLostError",
        f"Entity {instance.instance_id} is not locked by this critical section any more: its lease was over, an "
        "operator broke the lock, or the orchestration was parked. Others may have changed the entity.",
        is_non_retriable=True,
    )
    _answer(transition, instance, event, Failed(failure))


def _forget_request(transition: Transition, instance: Instance, section_id: str) -> None:
    """An orchestration takes its request back, which waits here.

    The entities before this one are unlocked once more: where the request was late, the unlock came before it.
    """
    for queue in (instance.held, instance.inbox):
        requests = [message for message in queue if _is_request_of(message, section_id)]
        if not requests:
            continue
        kept = [message for message in queue if not _is_request_of(message, section_id)]
        queue.clear()
        queue.extend(kept)
        transition.consume(instance, requests)
        for message in requests:
            assert isinstance(message.event, EntityLockRequested)
            unlock_all(transition, section_id, message.event.lock_set[: message.event.position])


def _is_request_of(message: Message, section_id: str) -> bool:
    event = message.event
    return isinstance(event, EntityLockRequested) and event.critical_section_id == section_id


# Operations


def has_batch(instance: Instance) -> bool:
    """Whether an operation waits for an entity, and may run."""
    if instance.is_working or instance.status is OrchestrationStatus.SUSPENDED:
        return False
    queue = _queue(instance)
    return bool(queue) and _operation_to_run(instance, queue[0]) is not None


def _operation_to_run(instance: Instance, message: Message) -> EntityOperation | None:
    event = message.event
    if isinstance(event, (EntityOperationCalled, EntityOperationSignaled)) and _may_run(instance, event):
        return event
    return None


def next_batch(instance: Instance, limits: Limits, now: datetime) -> PendingBatch:
    """Take the operations at the head of the queue, if there are some, up to the next lock change."""
    messages: list[Message] = []
    operations: list[EntityOperation] = []
    queue = _queue(instance)
    for message in itertools.islice(queue, limits.episode_messages_max):
        operation = _operation_to_run(instance, message)
        if operation is None:
            break
        messages.append(message)
        operations.append(operation)
    del queue[: len(messages)]
    instance.is_working = True
    entity_id = EntityId.parse(instance.instance_id)
    work_item = EntityWorkItem(
        instance_id=instance.instance_id,
        name=entity_id.name,
        key=entity_id.key,
        state=instance.state,
        state_version=instance.version,
        operations=tuple(operations),
        now=now,
        identity=f"{instance.execution_id}:{instance.revision:x}",
    )
    return PendingBatch(work_item, tuple(messages))


def give_back_batch(instance: Instance, pending: PendingBatch, done: int = 0) -> None:
    """Undo `next_batch` for what could not be run of a batch."""
    instance.is_working = False
    _queue(instance)[:0] = pending.messages[done:]


def complete_batch(
    transition: Transition,
    instance: Instance,
    pending: PendingBatch,
    batch: EntityBatch,
    limits: Limits,
    new: NewExecutions,
) -> None:
    """Apply a batch: the new state, what the operations send, and an answer to each caller."""
    give_back_batch(instance, pending, len(batch.outcomes))
    instance.deliveries = 0
    transition.change(instance)
    transition.consume(instance, pending.messages[: len(batch.outcomes)])
    move(instance, Trigger.RUN)
    _warn_of_size(transition, instance, batch.state, limits)
    instance.state = batch.state
    if batch.state_version != instance.version:
        instance.version = batch.state_version
        transition.is_new_execution = True
    started = 0
    for message, operation, outcome in zip(
        pending.messages, pending.work_item.operations, batch.outcomes, strict=False
    ):
        if not isinstance(outcome, Failed):
            for action in outcome.actions:
                _act(transition, instance, action, started, new)
                started += isinstance(action, CreateSubOrchestration)
        answer = _answer(transition, instance, operation, outcome)
        position = message.message_id if message.timer is None else message.timer[1]
        if operation.key is not None and position is not None:
            remember_key(transition, instance, OperationKey(instance.instance_id, operation.key, position, answer))
    forget_oldest_keys(transition, instance, limits)


def _act(transition: Transition, instance: Instance, action: EntityAction, started: int, new: NewExecutions) -> None:
    match action:
        case CreateSubOrchestration():
            start_child(transition, instance, msgspec.structs.replace(action, id=started), new)
        case SendEntityMessage():
            transition.send(action.target_instance_id, action.event)


def _answer(
    transition: Transition, instance: Instance, operation: EntityOperation, outcome: OperationOutcome
) -> OperationAnswer | None:
    """Tell whoever called what came of it: an orchestration by a message, a client by an output.

    That of a signal with a key is for calls with the same key.
    """
    if isinstance(operation, EntityOperationSignaled) and operation.key is None:
        return None
    answer = (
        EntityOperationFailed(timestamp=transition.now, request_id=operation.request_id, failure=outcome.details)
        if isinstance(outcome, Failed)
        else EntityOperationCompleted(timestamp=transition.now, request_id=operation.request_id, output=outcome.result)
    )
    if isinstance(operation, EntityOperationCalled) and operation.parent_instance_id is not None:
        transition.send(operation.parent_instance_id, answer, operation.parent_execution_id)
    else:
        transition.outputs.append(OperationAnswered(instance.instance_id, operation.request_id, answer))
    return answer


def _warn_of_size(transition: Transition, instance: Instance, state: str | None, limits: Limits) -> None:
    """Warn when the state reaches a size, and again at each doubling of it."""
    if state is None or 4 * len(state) < limits.entity_state_bytes_warning:
        return
    size, before = _bytes(state), _bytes(instance.state or "")
    if (size // limits.entity_state_bytes_warning).bit_length() > (
        before // limits.entity_state_bytes_warning
    ).bit_length():
        transition.outputs.append(StateWarning(instance.instance_id, size))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


# The end


def is_empty(instance: Instance) -> bool:
    """Whether an entity holds nothing, and nothing waits for it."""
    has_work = instance.is_working or instance.inbox or instance.held or instance.controls or instance.timers
    return not has_work and instance.state is None and instance.lock is None and instance.parked is None


def check_may_go(instance: Instance) -> None:
    """Refuse to purge an entity that somebody relies on.

    Raises:
        InstanceNotEndedError.
    """
    id_, status = instance.instance_id, instance.status.value
    if instance.lock is not None:
        raise InstanceNotEndedError(id_, status, f"is locked by {instance.lock.instance_id!r}")
    has_work = instance.inbox or instance.held or instance.timers
    if instance.is_working or (has_work and instance.parked is None):
        raise InstanceNotEndedError(id_, status, "has operations that wait")


def remove_entity(transition: Transition, instance: Instance, execution_id: str) -> None:
    """Remove the row of an entity, and what it remembers; what is left in memory is as if it had never been stored.

    Args:
        execution_id: for what comes after that, since revisions, by which it names what it sends, begin again.
    """
    transition.touch(instance)
    transition.instances_removed = ((instance.instance_id, instance.revision),)
    remembered = [key.key for key in instance.operation_keys.values() if key is not None]
    if remembered:
        transition.change_keys().removed.extend(remembered)
    instance.operation_keys.clear()
    instance.operation_keys_bytes = 0
    instance.execution_id = execution_id
    instance.revision = 0
    instance.version = None
