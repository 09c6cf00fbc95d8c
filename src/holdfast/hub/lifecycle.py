"""The life of an instance: one table of transitions, and the one function that makes an instance terminal."""

from __future__ import annotations

import enum

import msgspec

from holdfast.errors import InstanceNotRunningError
from holdfast.hub.activities import replace_activity
from holdfast.hub.instance import Instance
from holdfast.hub.transition import InstanceStopped, StartActivity, Transition
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    EntityUnlockSent,
    EventRaised,
    ExecutionStarted,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
)
from holdfast.model.status import OrchestrationStatus as S


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


_T = Trigger
_ENDED = (S.COMPLETED, S.FAILED, S.TERMINATED, S.CANCELED)

TRANSITIONS: dict[tuple[S, Trigger], S] = {
    (S.PENDING, _T.RUN): S.RUNNING,
    (S.RUNNING, _T.RUN): S.RUNNING,
    (S.RUNNING, _T.COMPLETE): S.COMPLETED,
    (S.RUNNING, _T.FAIL): S.FAILED,
    (S.RUNNING, _T.CANCEL): S.CANCELED,
    (S.RUNNING, _T.CONTINUE_AS_NEW): S.RUNNING,
    **{(status, _T.TERMINATE): S.TERMINATED for status in (S.PENDING, S.RUNNING, S.SUSPENDED)},
    **{(status, _T.SUSPEND): S.SUSPENDED for status in (S.PENDING, S.RUNNING)},
    **{(status, _T.PARK): S.SUSPENDED for status in (S.PENDING, S.RUNNING, S.SUSPENDED)},
    (S.SUSPENDED, _T.RESUME): S.RUNNING,
    **{(status, _T.RESTART): S.PENDING for status in _ENDED},
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
    """Let an instance that is new, or has ended, begin its life with the execution that `started` describes."""
    if instance.revision > 0:
        transition.removed_execution = (instance.execution_id, instance.episodes)
        transition.is_new_execution = True
        move(instance, Trigger.RESTART)
        instance.created_at = transition.now
        instance.custom_status = None
    transition.change(instance)
    _reset(instance, started)


def _reset(instance: Instance, started: ExecutionStarted) -> None:
    instance.execution_id = started.execution_id
    instance.name = started.name
    instance.input = started.input
    instance.parent = started.parent
    instance.output = None
    instance.failure = None
    instance.parked = None
    instance.lock = None
    instance.episodes = 0
    instance.history_events = 0
    instance.deliveries = 0


def end_instance(
    transition: Transition,
    instance: Instance,
    trigger: Trigger,
    *,
    output: str | None = None,
    failure: FailureDetails | None = None,
) -> None:
    """Make an instance terminal. This is the only place that does.

    Whatever it still has is given back in the same transition: activities, timers, messages, locks; and whoever
    waits for it is told: the parent by a message, clients by an output.
    """
    move(instance, trigger)
    # What was asked for with the last breath has nobody who waits for it: it does not start.
    transition.outputs = [each for each in transition.outputs if not isinstance(each, StartActivity)]
    instance.output = output
    instance.failure = failure
    instance.parked = None
    transition.remove_all_work(instance)
    drop_messages(transition, instance)
    transition.consumed.extend(message.message_id for message in instance.controls if message.message_id is not None)
    instance.controls.clear()
    release_locks(transition, instance)
    _tell_parent(transition, instance)
    transition.outputs.append(InstanceStopped(instance.snapshot()))


def drop_messages(transition: Transition, instance: Instance) -> None:
    """Consume everything that waits for an instance, unread, except what would end or suspend it."""
    for queue in (instance.held, instance.inbox):
        transition.consumed.extend(message.message_id for message in queue if message.message_id is not None)
        queue.clear()


def release_locks(transition: Transition, instance: Instance) -> None:
    """Unlock what an orchestration has locked, or is waiting to lock."""
    section, instance.lock = instance.lock, None
    if section is None:
        return
    for target in section.lock_set:
        event = EntityUnlockSent(
            timestamp=transition.now, critical_section_id=section.section_id, target_instance_id=target
        )
        transition.send(target, event)


def _tell_parent(transition: Transition, instance: Instance) -> None:
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
                f"Sub-orchestration {instance.instance_id!r} ended as {instance.status.value}.",
            ),
        )
    transition.send(parent.instance_id, event, parent.execution_id)


def continue_as_new(
    transition: Transition,
    instance: Instance,
    execution_id: str,
    input: str | None,
    carryover_events: tuple[EventRaised, ...],
) -> None:
    """Replace the execution of an instance by a new one with an empty history.

    Messages that are bound to no execution are sent again, behind the start and the events carried over, so that
    their order is the order of their ids; the others can concern nobody any more.
    """
    move(instance, Trigger.CONTINUE_AS_NEW)
    transition.outputs = [each for each in transition.outputs if not isinstance(each, StartActivity)]
    release_locks(transition, instance)
    transition.remove_all_work(instance)
    transition.removed_execution = (instance.execution_id, instance.episodes)
    transition.is_new_execution = True
    waiting = [message for message in instance.inbox if message.execution_id is None]
    drop_messages(transition, instance)
    started = ExecutionStarted(
        timestamp=transition.now,
        name=instance.name,
        instance_id=instance.instance_id,
        execution_id=execution_id,
        input=input,
        parent=instance.parent,
    )
    _reset(instance, started)
    for event in (started, *carryover_events, *(message.event for message in waiting)):
        transition.send(instance.instance_id, event)


def park(transition: Transition, instance: Instance, details: FailureDetails) -> None:
    """Set an instance aside for an operator, unharmed: its messages, activities and timers stay as they are."""
    transition.change(instance)
    move(instance, Trigger.PARK)
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
    instance.parked = None
    instance.deliveries = 0
    for activity in list(instance.activities.values()):
        if activity.deliveries:
            replace_activity(transition, instance, msgspec.structs.replace(activity, deliveries=0))
