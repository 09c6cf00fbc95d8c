"""Entities: the queue of operations, and the locks that orchestrations hold.

A lock request visits the entities of its set in order: each, once free, is locked and passes the request on; the last
one answers the orchestration. So nobody waits in a circle, and every chain ends in an answer, which a dead
orchestration's hub turns into unlocks.
"""

from __future__ import annotations

from collections import deque

import msgspec

from holdfast.hub.instance import CriticalSectionState, Instance
from holdfast.hub.lifecycle import Trigger, move
from holdfast.hub.transition import Transition
from holdfast.model.history import (
    EntityLockGranted,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    EntityOperationSignaled,
    EntityUnlockSent,
)
from holdfast.model.ids import EntityId
from holdfast.model.limits import Limits
from holdfast.model.messages import Message
from holdfast.model.status import OrchestrationStatus
from holdfast.model.work_items import EntityBatch, EntityOperation, EntityWorkItem, Failed


class PendingBatch(msgspec.Struct, frozen=True):
    """A work item on its way, with the messages that it will have consumed once it is done."""

    work_item: EntityWorkItem
    messages: tuple[Message, ...]


def next_lock_change(instance: Instance) -> Message | None:
    """Take the message at the head of the queue if it locks or unlocks; set aside what a lock makes wait."""
    if instance.is_working or instance.status is OrchestrationStatus.SUSPENDED:
        return None
    while instance.inbox:
        message = instance.inbox[0]
        match message.event:
            case EntityUnlockSent():
                return instance.inbox.popleft()
            case EntityLockRequested() if instance.lock is None:
                return instance.inbox.popleft()
            case EntityOperationCalled() | EntityOperationSignaled() if _may_run(instance, message):
                return None
            case _:
                instance.held.append(instance.inbox.popleft())
    return None


def _may_run(instance: Instance, message: Message) -> bool:
    holder = instance.lock
    if holder is None:
        return True
    return isinstance(message.event, EntityOperationCalled) and (
        message.event.parent_execution_id == holder.execution_id
    )


def apply_lock_change(transition: Transition, instance: Instance, message: Message) -> None:
    """Lock or unlock an entity."""
    transition.change(instance)
    transition.consume(instance, (message,))
    match message.event:
        case EntityLockRequested() as request:
            _lock(transition, instance, request)
        case EntityUnlockSent() as event if (
            instance.lock is not None and instance.lock.section_id == event.critical_section_id
        ):
            instance.lock = None
            instance.inbox.extendleft(reversed(instance.held))
            instance.held.clear()
        case EntityUnlockSent() as event:
            _forget_request(transition, instance, event.critical_section_id)
        case _:
            raise AssertionError(f"{message.event!r} neither locks nor unlocks")


def _lock(transition: Transition, instance: Instance, request: EntityLockRequested) -> None:
    instance.lock = CriticalSectionState(
        request.critical_section_id, request.parent_execution_id, (request.parent_instance_id,)
    )
    following = request.position + 1
    if following < len(request.lock_set):
        transition.send(request.lock_set[following], msgspec.structs.replace(request, position=following))
    else:
        granted = EntityLockGranted(
            timestamp=transition.now, critical_section_id=request.critical_section_id, lock_set=request.lock_set
        )
        transition.send(request.parent_instance_id, granted, request.parent_execution_id)


def _forget_request(transition: Transition, instance: Instance, section_id: str) -> None:
    """An orchestration that ended while its request was waiting here takes the request back."""
    for queue in (instance.held, instance.inbox):
        for message in list(queue):
            event = message.event
            if isinstance(event, EntityLockRequested) and event.critical_section_id == section_id:
                queue.remove(message)
                transition.consume(instance, (message,))


def next_batch(instance: Instance, limits: Limits) -> PendingBatch | None:
    """Take the operations at the head of the queue, up to the next lock change."""
    if instance.is_working or instance.status is OrchestrationStatus.SUSPENDED:
        return None
    messages: list[Message] = []
    operations: list[EntityOperation] = []
    inbox: deque[Message] = instance.inbox
    while inbox and len(messages) < limits.episode_messages_max and _may_run(instance, inbox[0]):
        event = inbox[0].event
        if not isinstance(event, EntityOperationCalled | EntityOperationSignaled):
            break
        operations.append(event)
        messages.append(inbox.popleft())
    if not messages:
        return None
    instance.is_working = True
    entity_id = EntityId.parse(instance.instance_id)
    work_item = EntityWorkItem(
        instance_id=instance.instance_id,
        name=entity_id.name,
        key=entity_id.key,
        state=instance.state,
        operations=tuple(operations),
    )
    return PendingBatch(work_item, tuple(messages))


def give_back_batch(instance: Instance, pending: PendingBatch) -> None:
    """Undo `next_batch` for a batch that could not be run."""
    instance.is_working = False
    instance.inbox.extendleft(reversed(pending.messages))


def complete_batch(transition: Transition, instance: Instance, pending: PendingBatch, batch: EntityBatch) -> None:
    """Apply a batch: the new state, and an answer to each caller."""
    instance.is_working = False
    instance.deliveries = 0
    transition.change(instance)
    transition.consume(instance, pending.messages)
    move(instance, Trigger.RUN)
    instance.state = batch.state
    for operation, outcome in zip(pending.work_item.operations, batch.outcomes, strict=True):
        if not isinstance(operation, EntityOperationCalled):
            continue
        answer = (
            EntityOperationFailed(timestamp=transition.now, request_id=operation.request_id, failure=outcome.details)
            if isinstance(outcome, Failed)
            else EntityOperationCompleted(
                timestamp=transition.now, request_id=operation.request_id, output=outcome.result
            )
        )
        transition.send(operation.parent_instance_id, answer, operation.parent_execution_id)
