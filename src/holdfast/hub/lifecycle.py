"""The life of an instance: one table of transitions, and the one function that makes an instance terminal."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import TypeAlias

import msgspec

from holdfast.errors import InstanceNotRunningError
from holdfast.hub.activities import replace_activity
from holdfast.hub.instance import RUN_TIMEOUT, SCHEDULED_START, Instance, OpenChild
from holdfast.hub.sections import lose_locks, release_locks
from holdfast.hub.transition import InstanceStopped, Transition
from holdfast.model.actions import CompleteOrchestration
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    CancelRequested,
    CarriedTask,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    ParentInstance,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
)
from holdfast.model.status import OrchestrationStatus as S

ChildEvent: TypeAlias = ExecutionTerminated | ExecutionSuspended | ExecutionResumed | CancelRequested
"""What a parent sends on to its sub-orchestrations."""


class Trigger(enum.Enum):
    """What can move an instance from one status to another."""

    RUN = "run"
    COMPLETE = "complete"
    FAIL = "fail"
    TERMINATE = "terminate"
    CANCEL = "cancel"
    CONTINUE_AS_NEW = "continue as new"
    SUSPEND = "suspend"
    PARK = "park"
    RESUME = "resume"
    RESTART = "start again"
    EXPIRE = "expire"
    REWIND = "rewind"

    __hash__ = object.__hash__  # each step looks one up; that of `Enum` is no C


_T = Trigger
_ENDED = (S.COMPLETED, S.FAILED, S.TERMINATED, S.CANCELED)

TRANSITIONS: dict[tuple[S, Trigger], S] = {
    (S.PENDING, _T.RUN): S.RUNNING,
    (S.RUNNING, _T.RUN): S.RUNNING,
    (S.RUNNING, _T.COMPLETE): S.COMPLETED,
    (S.RUNNING, _T.FAIL): S.FAILED,
    **{(status, _T.CANCEL): S.CANCELED for status in (S.PENDING, S.RUNNING, S.SUSPENDED)},
    (S.RUNNING, _T.CONTINUE_AS_NEW): S.RUNNING,
    **{(status, _T.TERMINATE): S.TERMINATED for status in (S.PENDING, S.RUNNING, S.SUSPENDED)},
    **{(status, _T.EXPIRE): S.FAILED for status in (S.PENDING, S.RUNNING, S.SUSPENDED)},
    **{(status, _T.SUSPEND): S.SUSPENDED for status in (S.PENDING, S.RUNNING)},
    **{(status, _T.PARK): S.SUSPENDED for status in (S.PENDING, S.RUNNING, S.SUSPENDED)},
    (S.SUSPENDED, _T.RESUME): S.RUNNING,
    **{(status, _T.RESTART): S.PENDING for status in _ENDED},
    (S.FAILED, _T.REWIND): S.RUNNING,
}
"""Every way in which the status of an instance changes; what is not here is an error.

The status `ContinuedAsNew` is only ever an action's: the instance itself goes on as `Running`.
"""


def move(instance: Instance, trigger: Trigger) -> None:
    """Change the status of an instance.

    Raises:
        InstanceNotRunningError: if the table has no such transition.
    """
    after = TRANSITIONS.get((instance.status, trigger))
    if after is None:
        raise InstanceNotRunningError(instance.instance_id, instance.status.value, trigger.value)
    instance.status = after


def begin_execution(transition: Transition, instance: Instance, started: ExecutionStarted) -> None:
    """Let an instance that is new, or has ended, begin its life with the execution that `started` describes.

    One whose start is planned for later waits for its timer; `run_timeout` becomes a timer too.
    """
    if instance.revision > 0:
        transition.executions_removed = ((instance.instance_id, instance.execution_id, instance.episodes),)
        transition.is_new_execution = True
        move(instance, Trigger.RESTART)
        instance.created_at = transition.now
        instance.custom_status = None
    transition.change(instance)
    _reset(instance, started)
    set_timers(transition, instance, started)


def waits_for_start(instance: Instance) -> bool:
    """Whether the start of an instance is planned for later."""
    return SCHEDULED_START in instance.timers


def first_event(instance: Instance, now: datetime) -> ExecutionStarted:
    """Return the event that starts the current execution, made of what is stored of the instance."""
    expiry = instance.timers.get(RUN_TIMEOUT)
    return ExecutionStarted(
        timestamp=now,
        name=instance.name,
        instance_id=instance.instance_id,
        execution_id=instance.execution_id,
        input=instance.input,
        parent=instance.parent,
        version=instance.version,
        tags=instance.tags,
        expires_at=expiry.due_at if expiry else None,
    )


def set_timers(transition: Transition, instance: Instance, started: ExecutionStarted) -> None:
    if started.expires_at is not None:
        transition.add_timer(instance, RUN_TIMEOUT, started.expires_at)
    if started.start_at is not None and started.start_at > transition.now:
        transition.add_timer(instance, SCHEDULED_START, started.start_at)


def _reset(instance: Instance, started: ExecutionStarted) -> None:
    instance.execution_id = started.execution_id
    instance.name = started.name
    instance.input = started.input
    instance.parent = started.parent
    instance.version = started.version
    instance.tags = started.tags
    instance.output = None
    instance.failure = None
    instance.parked = None
    instance.section = None
    instance.episodes = 0
    instance.history_events = 0
    instance.deliveries = 0
    instance.events_buffered, instance.events_awaited = 0, ()


def end_instance(
    transition: Transition,
    instance: Instance,
    trigger: Trigger,
    *,
    output: str | None = None,
    failure: FailureDetails | None = None,
    to_children: ChildEvent | None = None,
) -> None:
    """Make an instance terminal. This is the only place that does.

    Whatever it still has is given back in the same transition: activities are stopped, or do not start, if they were
    asked for with the last breath; timers, messages and locks go; and whoever waits for it is told: the parent by a
    message, clients by an output.

    Args:
        to_children: sent to each sub-orchestration that is still open; None lets them go on by themselves.
    """
    move(instance, trigger)
    if to_children is not None:
        tell_children(transition, instance, to_children)
    instance.output = output
    instance.failure = failure
    instance.parked = None
    release_locks(transition, instance)
    transition.remove_all_work(instance)
    drop_messages(transition, instance)
    transition.consumed.extend(message.message_id for message in instance.controls if message.message_id is not None)
    instance.controls.clear()
    tell_parent(transition, instance)
    transition.outputs.append(InstanceStopped(instance.snapshot()))


def tell_children(transition: Transition, instance: Instance, event: ChildEvent) -> None:
    """Send a request on to every open sub-orchestration."""
    for child in instance.children.values():
        tell_child(transition, instance, child, event)


def tell_child(transition: Transition, instance: Instance, child: OpenChild, event: ChildEvent) -> None:
    me = ParentInstance(instance.instance_id, instance.execution_id, child.sequence)
    transition.send(child.child_instance_id, msgspec.structs.replace(event, timestamp=transition.now, sent_by=me))


def drop_messages(transition: Transition, instance: Instance) -> None:
    """Consume everything that waits for an instance, unread, except what would end or suspend it."""
    for queue in (instance.held, instance.inbox, *instance.remembered.values()):
        transition.consumed.extend(message.message_id for message in queue if message.message_id is not None)
        queue.clear()
    instance.remembered.clear()


def tell_parent(transition: Transition, instance: Instance) -> None:
    parent = instance.parent
    if parent is None:
        return
    if instance.status is S.COMPLETED:
        event = SubOrchestrationInstanceCompleted(
            timestamp=transition.now, task_scheduled_id=parent.task_scheduled_id, result=instance.output
        )
    else:
        event = SubOrchestrationInstanceFailed(
            timestamp=transition.now,
            task_scheduled_id=parent.task_scheduled_id,
            failure=instance.failure
            or FailureDetails(
                "holdfast.errors.OrchestrationFailedError",
                f"Sub-orchestration {instance.instance_id!r} ended as {instance.status.value}."
                + (f" Reason: {instance.output}" if instance.output else ""),
            ),
        )
    transition.send(parent.instance_id, event, parent.execution_id)


def continue_as_new(
    transition: Transition,
    instance: Instance,
    execution_id: str,
    completion: CompleteOrchestration,
    carried: tuple[CarriedTask, ...],
) -> None:
    """Replace the execution of an instance by a new one with an empty history.

    Messages that are bound to no execution are sent again, behind the start and the events carried over, so that
    their order is the order of their ids; the others can concern nobody any more.
    """
    move(instance, Trigger.CONTINUE_AS_NEW)
    release_locks(transition, instance)
    started = msgspec.structs.replace(
        first_event(instance, transition.now),
        execution_id=execution_id,
        input=completion.result,
        version=completion.version or instance.version,
        event_keys=completion.event_keys,
        carried=carried,
    )
    transition.remove_all_work(instance)
    transition.executions_removed = ((instance.instance_id, instance.execution_id, instance.episodes),)
    transition.is_new_execution = True
    waiting = [message for message in instance.inbox if message.execution_id is None]
    drop_messages(transition, instance)
    _reset(instance, started)
    set_timers(transition, instance, started)
    for event in (started, *completion.carryover_events, *(message.event for message in waiting)):
        transition.send(instance.instance_id, event)


def park(transition: Transition, instance: Instance, details: FailureDetails) -> None:
    """Set an instance aside for an operator: its messages, activities and timers stay, but it may not hold locks."""
    transition.change(instance)
    move(instance, Trigger.PARK)
    lose_locks(transition, instance)
    keep_answers(transition, instance)
    instance.parked = details
    transition.outputs.append(InstanceStopped(instance.snapshot()))


def keep_answers(transition: Transition, instance: Instance) -> None:
    """Store the results of activities that wait for an instance: it may not run for long, and they must not run again.

    Until now they are in memory only, with the rows of their activities to fall back on.
    """
    for message in [message for message in instance.inbox if message.activity is not None]:
        instance.inbox.remove(message)
        transition.consume(instance, (message,))
        transition.send(instance.instance_id, message.event, message.execution_id)


def resume(transition: Transition, instance: Instance) -> None:
    """Let a suspended or parked instance go on; what was counted against its activities is forgiven."""
    move(instance, Trigger.RESUME)
    instance.output = instance.parked = None
    instance.deliveries = 0
    for activity in list(instance.activities.values()):
        if activity.deliveries:
            replace_activity(transition, instance, msgspec.structs.replace(activity, deliveries=0))
