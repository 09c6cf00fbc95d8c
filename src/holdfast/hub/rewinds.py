"""Rewinds and forks as transitions: a new execution that takes over the beginning of an old one."""

from __future__ import annotations

from datetime import datetime

import msgspec

from holdfast.errors import InstanceNotRunningError, RewindRefusedError
from holdfast.hub.asking import ask_child_again, schedule_activity, start_child
from holdfast.hub.instance import RUN_TIMEOUT, Instance
from holdfast.hub.lifecycle import Trigger, move, tell_parent
from holdfast.hub.numbering import Numbering
from holdfast.hub.rewind import Asked, History, Plan, plan_fork, plan_rewind
from holdfast.hub.transition import Transition
from holdfast.model.actions import CreateSubOrchestration, ScheduleTask
from holdfast.model.failure import FailureDetails, failure_from_exception
from holdfast.model.history import (
    CancelRequested,
    EntityOperationCalled,
    EventRaised,
    ExecutionRewound,
    HistoryEvent,
    OrchestratorStarted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskScheduled,
    TimerCreated,
    UpdateRequested,
)
from holdfast.model.messages import Message
from holdfast.model.status import OrchestrationStatus
from holdfast.model.task_policy import PLAIN

_FOR_ANY_EXECUTION = EventRaised | CancelRequested | UpdateRequested
"""What is sent to an instance, not to one of its executions."""


class Rewinds(Numbering):
    """The part of the hub that goes back in histories."""

    def rewind(self, instance: Instance, history: History, reason: str | None, now: datetime) -> Transition:
        """Let an instance that has failed go on from just before what made it fail.

        Args:
            history: all of it, as it is durable.

        Raises:
            InstanceNotRunningError: if it has not failed.
            RewindRefusedError: if its history does not allow it.
        """
        if instance.status is not OrchestrationStatus.FAILED:
            raise InstanceNotRunningError(instance.instance_id, instance.status.value, Trigger.REWIND.value)
        plan = plan_rewind(instance.instance_id, history, instance.failure)
        transition = self._begin(instance.instance_id, now)
        _go_back(transition, instance, plan, self._new_executions(transition).execution_id, reason)
        return transition

    def rewind_child(self, instance: Instance, message: Message, history: History, now: datetime) -> Transition:
        """Let a sub-orchestration that has failed go on because its parent does, or tell the parent why it cannot."""
        event = message.event
        assert isinstance(event, ExecutionRewound), "nothing else asks a sub-orchestration to rewind"
        try:
            plan = plan_rewind(instance.instance_id, history, instance.failure)
        except RewindRefusedError as error:
            return self.refuse_parent(message, failure_from_exception(error), now)
        transition = self._begin(instance.instance_id, now)
        instance.parent = event.parent
        _go_back(transition, instance, plan, self._new_executions(transition).execution_id, event.reason)
        transition.consume(instance, (message,))
        return transition

    def refuse_parent(self, message: Message, details: FailureDetails, now: datetime) -> Transition:
        """Tell a parent that was rewound that it will have no other answer than this failure."""
        event = message.event
        assert isinstance(event, ExecutionRewound), "nothing else is answered like this"
        transition = self._begin(message.instance_id, now)
        if message.message_id is not None:
            transition.consumed.append(message.message_id)
        if event.parent is not None:
            failed = SubOrchestrationInstanceFailed(
                timestamp=now, task_scheduled_id=event.parent.task_scheduled_id, failure=details
            )
            transition.send(event.parent.instance_id, failed, event.parent.execution_id)
        return transition

    def _answer_again(
        self, instance: Instance | None, message: Message, event: ExecutionRewound, now: datetime
    ) -> Transition | None:
        """Let a sub-orchestration answer its parent's new execution; one that has failed waits for its history."""
        if instance is None or not _is_child(instance, event):
            what = "is gone" if instance is None else "belongs to somebody else by now"
            details = FailureDetails(
                "holdfast.errors.OrchestrationFailedError",
                f"Sub-orchestration {message.instance_id!r} {what}, so that it cannot be asked again.",
            )
            transition = self.refuse_parent(message, details, now)
            if instance is not None:
                transition.touch(instance)
            return transition
        if instance.status is OrchestrationStatus.FAILED and not event.is_carried:
            instance.is_working = True
            instance.controls.append(message)
            return None
        transition = self._begin(instance.instance_id, now)
        transition.change(instance)
        transition.consume(instance, (message,))
        transition.is_new_execution = True  # the parent is stored with what is fixed within an execution
        instance.parent = event.parent
        if instance.is_terminal:
            tell_parent(transition, instance)
        return transition

    def fork(
        self, source_id: str, instance_id: str, history: History, episodes: int | None, now: datetime
    ) -> tuple[Instance, Transition]:
        """Begin an instance that goes on from where another one was after some of its episodes.

        Raises:
            InvalidInputError: if it has not so many.
            RewindRefusedError: if it was in a critical section there.
        """
        plan = plan_fork(source_id, history, episodes)
        transition = self._begin(instance_id, now)
        new = self._new_executions(transition)
        execution_id = new.execution_id
        instance = Instance(instance_id, execution_id, plan.started.name, now)
        instance.input, instance.version, instance.tags = plan.started.input, plan.started.version, plan.started.tags
        transition.change(instance)
        if plan.episodes:
            move(instance, Trigger.RUN)
        plan = msgspec.structs.replace(plan, episodes=_with_own_children(plan, execution_id))
        mark = ExecutionRewound(timestamp=now, execution_id=execution_id, instance_id=instance_id)
        _take_over(transition, instance, plan, mark)
        for event in plan.open:
            if isinstance(event, SubOrchestrationInstanceCreated):
                start_child(transition, instance, _own_child(event, execution_id), new)
            else:
                _ask_again(transition, instance, event, {})
        return instance, transition


def _is_child(instance: Instance, event: ExecutionRewound) -> bool:
    """Whether an instance is the one that an earlier execution of its parent had asked for under that number."""
    old, new = instance.parent, event.parent
    if old is None or new is None:
        return False
    asked_as = new.task_scheduled_id if event.task_scheduled_id is None else event.task_scheduled_id
    return (old.instance_id, old.task_scheduled_id) == (new.instance_id, asked_as)


def _go_back(transition: Transition, instance: Instance, plan: Plan, execution_id: str, reason: str | None) -> None:
    transition.executions_removed = ((instance.instance_id, instance.execution_id, instance.episodes),)
    transition.is_new_execution = True
    transition.change(instance)
    move(instance, Trigger.REWIND)
    instance.execution_id = execution_id
    instance.output = instance.failure = instance.parked = instance.section = None
    instance.deliveries = instance.events_buffered = 0
    instance.events_awaited = ()
    _take_over(
        transition,
        instance,
        plan,
        ExecutionRewound(timestamp=transition.now, execution_id=execution_id, reason=reason),
    )
    for work in plan.remembered:
        transition.send(instance.instance_id, work, execution_id)
    for event in plan.open:
        if isinstance(event, SubOrchestrationInstanceCreated):
            transition.add_child(instance, event.event_id, _runs_as(event))
            ask_child_again(transition, instance, event.event_id, _runs_as(event), asked_as=event.event_id)
        else:
            _ask_again(transition, instance, event, plan.call_ids)
    for event in plan.answered_children:
        transition.add_child(instance, event.event_id, _runs_as(event))
    for event in plan.inputs:
        bound = None if isinstance(event, _FOR_ANY_EXECUTION) else execution_id
        transition.send(instance.instance_id, event, bound)


def _take_over(transition: Transition, instance: Instance, plan: Plan, mark: ExecutionRewound) -> None:
    """Give a new execution its history, which ends with the mark that it was taken over.

    The mark is part of the history, not a message, so that nothing can come in before it.
    """
    started = plan.started
    expires_at = started.expires_at
    if expires_at is not None and expires_at > transition.now:
        transition.add_timer(instance, RUN_TIMEOUT, expires_at)
    else:
        expires_at = None
    if plan.episodes:
        transition.history_copied = (*plan.episodes, (OrchestratorStarted(timestamp=transition.now), mark))
    else:
        again = msgspec.structs.replace(
            started,
            timestamp=transition.now,
            instance_id=instance.instance_id,
            execution_id=instance.execution_id,
            parent=instance.parent,
            start_at=None,
            expires_at=expires_at,
        )
        transition.send(instance.instance_id, again, instance.execution_id)
    instance.episodes = len(transition.history_copied)
    instance.history_events = sum(len(events) for events in transition.history_copied)


def _ask_again(transition: Transition, instance: Instance, event: Asked, call_ids: dict[int, str]) -> None:
    match event:
        case TaskScheduled():
            action = ScheduleTask(
                event.event_id, event.name, event.input, event.policy or PLAIN, event.tags, event.version
            )
            schedule_activity(transition, instance, action, call_ids.get(event.event_id))
        case TimerCreated():
            transition.add_timer(instance, event.event_id, event.fire_at)
        case EntityOperationCalled():
            # Its request id stays: by that the answer finds the task of the code that was asking.
            again = msgspec.structs.replace(
                event,
                timestamp=transition.now,
                parent_instance_id=instance.instance_id,
                parent_execution_id=instance.execution_id,
            )
            transition.send(event.target_instance_id, again)
        case SubOrchestrationInstanceCreated():
            raise AssertionError("a rewind and a fork ask for sub-orchestrations each in its own way")


def _runs_as(event: SubOrchestrationInstanceCreated) -> str:
    return event.runs_as or event.instance_id


# Sub-orchestrations of a fork


def _own_child(event: SubOrchestrationInstanceCreated, execution_id: str) -> CreateSubOrchestration:
    """A sub-orchestration that was going on is the original's; a fork has its own, under an id that is free."""
    return CreateSubOrchestration(
        event.event_id, event.name, f"{execution_id}:{event.event_id}", event.input, event.version, event.tags
    )


def _with_own_children(plan: Plan, execution_id: str) -> tuple[tuple[HistoryEvent, ...], ...]:
    going_on = {event.event_id for event in plan.open if isinstance(event, SubOrchestrationInstanceCreated)}

    def own(event: HistoryEvent) -> HistoryEvent:
        if isinstance(event, SubOrchestrationInstanceCreated) and event.event_id in going_on:
            return msgspec.structs.replace(event, runs_as=f"{execution_id}:{event.event_id}")
        return event

    return tuple(tuple(own(event) for event in episode) for episode in plan.episodes)
