"""What an orchestration asks for: activities and sub-orchestrations, new ones or those that a rewind remembers."""

from __future__ import annotations

from holdfast.hub.instance import Instance, ScheduledActivity
from holdfast.hub.numbering import NewExecutions
from holdfast.hub.transition import StartActivity, Transition
from holdfast.model.actions import CreateSubOrchestration, ScheduleTask
from holdfast.model.history import (
    ExecutionRewound,
    ExecutionStarted,
    ParentInstance,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    TaskCompleted,
    TaskScheduled,
    WorkRemembered,
)
from holdfast.model.instants import after
from holdfast.model.messages import Message


def ask_for_activity(transition: Transition, instance: Instance, action: ScheduleTask) -> str | None:
    """Schedule an activity, unless a rewind remembers its result; return its name of then if it was asked for then."""
    known = _recall(transition, instance, TaskScheduled, action.name, action.input)
    if known is not None and known.is_completed:
        answer = TaskCompleted(timestamp=transition.now, task_scheduled_id=action.id, result=known.result)
        transition.send(instance.instance_id, answer, instance.execution_id)
        return known.call_id
    call_id = None if known is None else known.call_id
    schedule_activity(transition, instance, action, call_id)
    return call_id


def schedule_activity(
    transition: Transition, instance: Instance, action: ScheduleTask, call_id: str | None = None
) -> None:
    now, policy = transition.now, action.policy
    # By position, in the order of its fields: so many names would cost ten times as much, and each step makes one.
    activity = ScheduledActivity(
        instance.instance_id,
        instance.execution_id,
        action.id,
        action.name,
        action.input,
        1,
        0,
        policy,
        None if policy.start_timeout is None else after(now, policy.start_timeout),
        action.tags,
        None,
        action.version,
        call_id,
        scheduled_at=now,
        visible_at=now,
    )
    instance.activities[action.id] = activity
    transition.activities_scheduled.append(activity)
    transition.outputs.append(StartActivity(activity))


def ask_for_child(
    transition: Transition, instance: Instance, action: CreateSubOrchestration, new: NewExecutions
) -> str | None:
    """Start a sub-orchestration, unless a rewind remembers it; return its id if that is another than asked for."""
    known = None
    if not action.detached:
        known = _recall(transition, instance, SubOrchestrationInstanceCreated, action.name, action.input)
    if known is None or not isinstance(known.work, SubOrchestrationInstanceCreated):
        start_child(transition, instance, action, new)
        return None
    child = known.work.runs_as or known.work.instance_id
    transition.add_child(instance, action.id, child)
    if known.is_completed:
        answer = SubOrchestrationInstanceCompleted(
            timestamp=transition.now, task_scheduled_id=action.id, result=known.result
        )
        transition.send(instance.instance_id, answer, instance.execution_id)
    else:
        ask_child_again(transition, instance, action.id, child, asked_as=known.work.event_id)
    return child if child != action.instance_id else None


def start_child(transition: Transition, instance: Instance, action: CreateSubOrchestration, new: NewExecutions) -> None:
    started = ExecutionStarted(
        timestamp=transition.now,
        name=action.name,
        instance_id=action.instance_id,
        execution_id=f"{new.execution_id}.{action.id:x}",
        input=action.input,
        parent=None if action.detached else ParentInstance(instance.instance_id, instance.execution_id, action.id),
        version=action.version or new.default_version,
        tags=action.tags if action.detached else {**instance.tags, **action.tags},
        start_at=action.start_at,
    )
    transition.send(action.instance_id, started)
    if not action.detached:
        transition.add_child(instance, action.id, action.instance_id)


def ask_child_again(
    transition: Transition,
    instance: Instance,
    sequence: int,
    child_instance_id: str,
    *,
    asked_as: int,
    is_carried: bool = False,
) -> None:
    """Ask a sub-orchestration of an earlier execution for its answer: see `ExecutionRewound`."""
    event = ExecutionRewound(
        timestamp=transition.now,
        execution_id=instance.execution_id,
        parent=ParentInstance(instance.instance_id, instance.execution_id, sequence),
        task_scheduled_id=asked_as,
        is_carried=is_carried,
    )
    transition.send(child_instance_id, event)


def remember(instance: Instance, message: Message, event: WorkRemembered) -> None:
    """Keep what a rewind remembers for when the code asks for it again."""
    key = (type(event.work), event.work.name, event.work.input)
    instance.remembered.setdefault(key, []).append(message)


def _recall(
    transition: Transition,
    instance: Instance,
    kind: type[TaskScheduled | SubOrchestrationInstanceCreated],
    name: str,
    input: str | None,
) -> WorkRemembered | None:
    """Take what is remembered of a call, if anything; of several equal ones, the first that was made."""
    if not instance.remembered:
        return None
    key = (kind, name, input)
    waiting = instance.remembered.get(key)
    if waiting is None:
        return None
    message = waiting.pop(0)
    if not waiting:
        del instance.remembered[key]
    transition.consume(instance, (message,))
    assert isinstance(message.event, WorkRemembered)
    return message.event
