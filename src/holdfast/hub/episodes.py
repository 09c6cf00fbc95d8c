"""Episodes: from the messages that wait for an orchestration to the transition that consumes them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from holdfast.hub.asking import ask_for_activity, ask_for_child
from holdfast.hub.carrying import Carrying
from holdfast.hub.instance import RUN_TIMEOUT, SCHEDULED_START, Instance
from holdfast.hub.lifecycle import (
    Trigger,
    continue_as_new,
    end_instance,
    first_event,
    keep_answers,
    move,
    resume,
    tell_child,
    tell_children,
    waits_for_start,
)
from holdfast.hub.numbering import NewExecutions
from holdfast.hub.sections import is_lease, lose_locks, track_section
from holdfast.hub.transition import HistoryWarning, Transition, UpdateAnswered
from holdfast.model.actions import (
    CancelTask,
    CancelTimer,
    CompleteOrchestration,
    CompleteUpdate,
    CreateSubOrchestration,
    CreateTimer,
    MarkPatch,
    OrchestratorAction,
    ScheduleTask,
    SendEntityMessage,
    SendEvent,
    scheduled_event,
)
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    CancelRequested,
    EventRaised,
    ExecutionCompleted,
    ExecutionResumed,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    OrchestratorStarted,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    TimerFired,
    UpdateCompleted,
)
from holdfast.model.limits import Limits
from holdfast.model.messages import Message
from holdfast.model.status import OrchestrationStatus
from holdfast.model.work_items import Episode, OrchestrationWorkItem

CONTROL = (ExecutionTerminated, ExecutionSuspended, ExecutionResumed)
"""Requests that do not queue behind other messages, and run no user code."""


class PendingEpisode(msgspec.Struct, frozen=True, gc=False):
    """A work item on its way, with the messages that it will have consumed once it is done."""

    work_item: OrchestrationWorkItem
    messages: Sequence[Message]


def apply_control(transition: Transition, instance: Instance, message: Message) -> None:
    """Start as planned, expire, lose locks, terminate, suspend, resume, or cancel what never ran: no user code runs."""
    transition.change(instance)
    transition.consume(instance, (message,))
    match message.event:
        case TimerFired(timer_id=timer_id) if timer_id == SCHEDULED_START:
            transition.send(instance.instance_id, first_event(instance, transition.now), instance.execution_id)
        case TimerFired(timer_id=timer_id) if is_lease(instance, timer_id):
            lose_locks(transition, instance)
        case TimerFired() as event:
            _expire(transition, instance, event)
        case ExecutionTerminated() as event:
            _append_last(transition, instance, event, OrchestrationStatus.TERMINATED, result=event.reason)
            to_children = event if event.recursive else None
            end_instance(transition, instance, Trigger.TERMINATE, output=event.reason, to_children=to_children)
        case CancelRequested() as event:
            _append_last(transition, instance, event, OrchestrationStatus.CANCELED, result=event.reason)
            end_instance(transition, instance, Trigger.CANCEL, output=event.reason)
        case ExecutionSuspended() as event:
            if event.recursive:
                tell_children(transition, instance, event)
            if instance.status is not OrchestrationStatus.SUSPENDED:
                move(instance, Trigger.SUSPEND)
                instance.output = event.reason
                keep_answers(transition, instance)
        case ExecutionResumed() as event:
            if event.recursive:
                tell_children(transition, instance, event)
            if instance.status is OrchestrationStatus.SUSPENDED:
                resume(transition, instance)
        case _:
            raise AssertionError(f"{message.event!r} is no control message")


def is_control(instance: Instance, message: Message) -> bool:
    """Whether a message is for the instance as a whole, and not for its code."""
    event = message.event
    if isinstance(event, CONTROL):
        return True
    if isinstance(event, TimerFired):
        return event.timer_id in (RUN_TIMEOUT, SCHEDULED_START) or is_lease(instance, event.timer_id)
    return isinstance(event, CancelRequested) and waits_for_start(instance)


def _expire(transition: Transition, instance: Instance, event: TimerFired) -> None:
    failure = FailureDetails(
        "builtins.TimeoutError",
        f"Instance {instance.instance_id!r} had not ended by {event.fire_at.isoformat()}: its run_timeout was over.",
        is_non_retriable=True,
    )
    _append_last(transition, instance, event, OrchestrationStatus.FAILED, failure=failure)
    cancel = CancelRequested(timestamp=transition.now, reason='"The run_timeout of the parent was over."')
    end_instance(transition, instance, Trigger.EXPIRE, failure=failure, to_children=cancel)


def _append_last(
    transition: Transition,
    instance: Instance,
    event: HistoryEvent,
    status: OrchestrationStatus,
    *,
    result: str | None = None,
    failure: FailureDetails | None = None,
) -> None:
    """Append the episode that ends an instance without its code."""
    completed = ExecutionCompleted(timestamp=transition.now, status=status, result=result, failure=failure)
    _append_history(transition, instance, (OrchestratorStarted(timestamp=transition.now), event, completed))


def has_episode(instance: Instance) -> bool:
    """Whether something waits for the code of an orchestration, which may run."""
    if instance.is_working or instance.status is OrchestrationStatus.SUSPENDED or instance.is_terminal:
        return False
    return bool(instance.inbox) and not waits_for_start(instance)


def next_episode(instance: Instance, now: datetime, limits: Limits) -> PendingEpisode:
    """Take what waits for an orchestration, if something does, as one episode.

    Its time is not before that of a timer which it hears of, also if the clock was set back since that fired.
    """
    inbox = instance.inbox
    messages = inbox[: limits.episode_messages_max]
    del inbox[: len(messages)]
    instance.is_working = True
    begins_at, events = now, list[HistoryEvent]()
    for message in messages:
        event = message.event
        events.append(event)
        if isinstance(event, TimerFired):
            begins_at = max(begins_at, event.fire_at)
    work_item = OrchestrationWorkItem(
        instance.instance_id,
        instance.execution_id,
        instance.name,
        instance.episodes,
        (OrchestratorStarted(timestamp=begins_at), *events),
        instance.version,
    )
    return PendingEpisode(work_item, messages)


def give_back(instance: Instance, pending: PendingEpisode) -> None:
    """Undo `next_episode` for an episode that could not be run."""
    instance.is_working = False
    instance.inbox[:0] = pending.messages


def complete_episode(
    transition: Transition,
    instance: Instance,
    pending: PendingEpisode,
    episode: Episode,
    limits: Limits,
    new: NewExecutions,
) -> None:
    """Apply what an episode asked for: append history, start work, send messages, and end the instance if it ended."""
    instance.is_working = False
    instance.deliveries = 0
    transition.change(instance)
    transition.consume(instance, pending.messages)
    _close_children(transition, instance, pending.messages)
    move(instance, Trigger.RUN)
    instance.events_buffered, instance.events_awaited = episode.events_buffered, episode.events_awaited
    if episode.custom_status is not None:
        instance.custom_status = episode.custom_status
    events: list[HistoryEvent] = list(pending.work_item.new_events)
    completion: CompleteOrchestration | None = None
    for action in episode.actions:
        if isinstance(action, CompleteOrchestration):
            completion = action
        else:
            _apply(transition, instance, action, events, new)
    if completion is None and instance.history_events + len(events) > limits.history_events_max:
        completion = _too_long(instance, limits)
    if completion is not None and completion.status is OrchestrationStatus.CONTINUED_AS_NEW:
        carrying = Carrying(transition, instance, completion.carried)
        continue_as_new(transition, instance, new.execution_id, completion, carrying.tasks)
        carrying.put_in(transition, instance)
        return
    if completion is not None:
        if completion.status is OrchestrationStatus.FAILED:  # the next rewind remembers it still
            events += [message.event for waiting in instance.remembered.values() for message in waiting]
        events.append(
            ExecutionCompleted(
                timestamp=transition.now,
                status=completion.status,
                result=completion.result,
                failure=completion.failure,
            )
        )
    _append_history(transition, instance, tuple(events))
    if completion is None:
        _warn_of_length(transition, instance, len(events), limits)
        return
    to_children: CancelRequested | None = None
    if completion.status is OrchestrationStatus.CANCELED:
        to_children = CancelRequested(timestamp=transition.now, reason=completion.result)
    end_instance(
        transition,
        instance,
        _COMPLETIONS[completion.status],
        output=completion.result,
        failure=completion.failure,
        to_children=to_children,
    )


def _close_children(transition: Transition, instance: Instance, messages: Sequence[Message]) -> None:
    if not instance.children:
        return
    for message in messages:
        event = message.event
        if isinstance(event, (SubOrchestrationInstanceCompleted, SubOrchestrationInstanceFailed)) and (
            event.task_scheduled_id in instance.children
        ):
            transition.remove_child(instance, event.task_scheduled_id)


def _warn_of_length(transition: Transition, instance: Instance, added: int, limits: Limits) -> None:
    """Warn when the history reaches a length, and again at each doubling of it."""
    before, after = instance.history_events - added, instance.history_events
    if after // limits.history_events_warning > 0:
        doublings = (after // limits.history_events_warning).bit_length()
        if (before // limits.history_events_warning).bit_length() < doublings:
            transition.outputs.append(HistoryWarning(instance.instance_id, instance.name, after))


_COMPLETIONS = {
    OrchestrationStatus.COMPLETED: Trigger.COMPLETE,
    OrchestrationStatus.FAILED: Trigger.FAIL,
    OrchestrationStatus.CANCELED: Trigger.CANCEL,
}


def _append_history(transition: Transition, instance: Instance, events: tuple[HistoryEvent, ...]) -> None:
    transition.history = events
    instance.episodes += 1
    instance.history_events += len(events)


def _too_long(instance: Instance, limits: Limits) -> CompleteOrchestration:
    return CompleteOrchestration(
        OrchestrationStatus.FAILED,
        failure=FailureDetails(
            "holdfast.errors.OrchestratorMisuseError",
            f"The history of {instance.instance_id!r} has more than {limits.history_events_max} events. "
            "Let the orchestrator call ctx.continue_as_new() from time to time.",
        ),
    )


def _apply(
    transition: Transition,
    instance: Instance,
    action: OrchestratorAction,
    events: list[HistoryEvent],
    new: NewExecutions,
) -> None:
    now = transition.now
    call_id = runs_as = None
    match action:
        case ScheduleTask():
            call_id = ask_for_activity(transition, instance, action)
        case CreateSubOrchestration():
            runs_as = ask_for_child(transition, instance, action, new)
        case CreateTimer():
            transition.add_timer(instance, action.id, action.fire_at)
        case CancelTimer():
            _cancel_timer(transition, instance, action.id)
            return
        case SendEvent():
            transition.send(action.instance_id, EventRaised(timestamp=now, name=action.name, input=action.input))
        case SendEntityMessage():
            transition.send(action.target_instance_id, action.event)
            track_section(transition, instance, action.event)
        case CancelTask():
            _cancel_task(transition, instance, action.id)
        case CompleteUpdate():
            answer = UpdateCompleted(
                timestamp=now, update_id=action.update_id, result=action.result, failure=action.failure
            )
            transition.outputs.append(UpdateAnswered(instance.instance_id, answer))
        case MarkPatch():
            pass
        case CompleteOrchestration():
            raise AssertionError("the completion is applied after everything else")
    # The clock of the episode, not of its completion: a replay compares the event as a whole.
    event = scheduled_event(action, events[0].timestamp)
    if call_id is not None:
        event = msgspec.structs.replace(event, call_id=call_id)
    if runs_as is not None:
        event = msgspec.structs.replace(event, runs_as=runs_as)
    events.append(event)


def _cancel_task(transition: Transition, instance: Instance, sequence: int) -> None:
    """Stop an activity, also one whose completion waits in the inbox; ask a sub-orchestration to cancel itself."""
    if sequence in instance.activities:
        answer = instance.answered.get(sequence)
        transition.stop_activity(instance, sequence)
        if answer is not None:
            instance.inbox.remove(answer)
    elif sequence in instance.children:
        cancel = CancelRequested(timestamp=transition.now, reason='"The parent cancelled this call."')
        tell_child(transition, instance, instance.children[sequence], cancel)
        transition.remove_child(instance, sequence)


def _cancel_timer(transition: Transition, instance: Instance, sequence: int) -> None:
    """A timer that has fired already, but was not consumed, is taken out of the inbox too."""
    if sequence in instance.timers:
        fired = instance.answered.get(sequence)
        transition.remove_timer(instance, sequence)
        if fired is not None:
            instance.inbox.remove(fired)
