"""Episodes: from the messages that wait for an orchestration to the transition that consumes them."""

from __future__ import annotations

import msgspec

from holdfast.hub.instance import CriticalSectionState, DurableTimer, Instance, ScheduledActivity
from holdfast.hub.lifecycle import Trigger, continue_as_new, end_instance, keep_answers, move, resume
from holdfast.hub.transition import StartActivity, Transition
from holdfast.model.actions import (
    CancelTimer,
    CompleteOrchestration,
    CreateSubOrchestration,
    CreateTimer,
    EntityMessage,
    OrchestratorAction,
    ScheduleTask,
    SendEntityMessage,
    SendEvent,
    scheduled_event,
)
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    EntityLockRequested,
    EntityUnlockSent,
    EventRaised,
    ExecutionCompleted,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    OrchestratorStarted,
    ParentInstance,
)
from holdfast.model.limits import Limits
from holdfast.model.messages import Message
from holdfast.model.status import OrchestrationStatus
from holdfast.model.work_items import Episode, OrchestrationWorkItem

CONTROL = (ExecutionTerminated, ExecutionSuspended, ExecutionResumed)


class PendingEpisode(msgspec.Struct, frozen=True):
    """A work item on its way, with the messages that it will have consumed once it is done."""

    work_item: OrchestrationWorkItem
    messages: tuple[Message, ...]


def apply_control(transition: Transition, instance: Instance, message: Message) -> None:
    """Terminate, suspend or resume, without running user code."""
    transition.change(instance)
    transition.consume(instance, (message,))
    started = OrchestratorStarted(timestamp=transition.now)
    match message.event:
        case ExecutionTerminated() as event:
            completed = ExecutionCompleted(
                timestamp=transition.now, status=OrchestrationStatus.TERMINATED, result=event.reason
            )
            _append_history(transition, instance, (started, event, completed))
            end_instance(transition, instance, Trigger.TERMINATE, output=event.reason)
        case ExecutionSuspended() as event:
            if instance.status is not OrchestrationStatus.SUSPENDED:
                move(instance, Trigger.SUSPEND)
                keep_answers(transition, instance)
        case ExecutionResumed() as event:
            if instance.status is OrchestrationStatus.SUSPENDED:
                resume(transition, instance)
        case _:
            raise AssertionError(f"{message.event!r} is no control message")


def next_episode(instance: Instance, started: OrchestratorStarted, limits: Limits) -> PendingEpisode | None:
    """Take what waits for an orchestration as one episode; None if nothing does, or if it may not run."""
    if instance.is_working or instance.status is OrchestrationStatus.SUSPENDED or instance.is_terminal:
        return None
    messages: list[Message] = []
    while instance.inbox and len(messages) < limits.episode_messages_max:
        messages.append(instance.inbox.popleft())
    if not messages:
        return None
    instance.is_working = True
    work_item = OrchestrationWorkItem(
        instance_id=instance.instance_id,
        execution_id=instance.execution_id,
        name=instance.name,
        past_episodes=instance.episodes,
        new_events=(started, *(message.event for message in messages)),
    )
    return PendingEpisode(work_item, tuple(messages))


def give_back(instance: Instance, pending: PendingEpisode) -> None:
    """Undo `next_episode` for an episode that could not be run."""
    instance.is_working = False
    instance.inbox.extendleft(reversed(pending.messages))


def complete_episode(
    transition: Transition,
    instance: Instance,
    pending: PendingEpisode,
    episode: Episode,
    limits: Limits,
    new_execution_id: str,
) -> None:
    """Apply what an episode asked for: append history, start work, send messages, and end the instance if it ended."""
    instance.is_working = False
    instance.deliveries = 0
    transition.change(instance)
    transition.consume(instance, pending.messages)
    move(instance, Trigger.RUN)
    if episode.custom_status is not None:
        instance.custom_status = episode.custom_status
    events: list[HistoryEvent] = list(pending.work_item.new_events)
    completion: CompleteOrchestration | None = None
    for action in episode.actions:
        if isinstance(action, CompleteOrchestration):
            completion = action
        else:
            _apply(transition, instance, action, events, new_execution_id)
    if completion is None and instance.history_events + len(events) > limits.history_events_max:
        completion = _too_long(instance, limits)
    if completion is not None and completion.status is OrchestrationStatus.CONTINUED_AS_NEW:
        continue_as_new(transition, instance, new_execution_id, completion.result, completion.carryover_events)
        return
    if completion is not None:
        events.append(
            ExecutionCompleted(
                timestamp=transition.now,
                status=completion.status,
                result=completion.result,
                failure=completion.failure,
            )
        )
    _append_history(transition, instance, tuple(events))
    if completion is not None:
        trigger = _COMPLETIONS[completion.status]
        end_instance(transition, instance, trigger, output=completion.result, failure=completion.failure)


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
    execution_id: str,
) -> None:
    now = transition.now
    match action:
        case ScheduleTask():
            _schedule_activity(transition, instance, action)
        case CreateSubOrchestration():
            _start_child(transition, instance, action, execution_id)
        case CreateTimer():
            timer = DurableTimer(instance.instance_id, instance.execution_id, action.id, action.fire_at)
            instance.timers[action.id] = timer
            transition.timers_created.append(timer)
        case CancelTimer():
            _cancel_timer(transition, instance, action.id)
            return
        case SendEvent():
            transition.send(action.instance_id, EventRaised(timestamp=now, name=action.name, input=action.input))
        case SendEntityMessage():
            transition.send(_target(action.event), action.event)
            _track_section(instance, action.event)
        case CompleteOrchestration():
            raise AssertionError("the completion is applied after everything else")
    # The clock of the episode, not of its completion: a replay compares the event as a whole.
    events.append(scheduled_event(action, events[0].timestamp))


def _schedule_activity(transition: Transition, instance: Instance, action: ScheduleTask) -> None:
    activity = ScheduledActivity(
        instance_id=instance.instance_id,
        execution_id=instance.execution_id,
        sequence=action.id,
        name=action.name,
        input=action.input,
        scheduled_at=transition.now,
        visible_at=transition.now,
        retry=action.retry,
        timeout=action.timeout,
        speculative=action.speculative,
    )
    instance.activities[action.id] = activity
    transition.activities_scheduled.append(activity)
    transition.outputs.append(StartActivity(activity))


def _start_child(transition: Transition, instance: Instance, action: CreateSubOrchestration, execution_id: str) -> None:
    started = ExecutionStarted(
        timestamp=transition.now,
        name=action.name,
        instance_id=action.instance_id,
        execution_id=f"{execution_id}.{action.id:x}",
        input=action.input,
        parent=ParentInstance(instance.instance_id, instance.execution_id, action.id),
    )
    transition.send(action.instance_id, started)


def _cancel_timer(transition: Transition, instance: Instance, sequence: int) -> None:
    """A timer that has fired already, but was not consumed, is taken out of the inbox too."""
    if sequence in instance.timers:
        key = instance.timers[sequence].key
        transition.remove_timer(instance, sequence)
        fired = next((message for message in instance.inbox if message.timer == key), None)
        if fired is not None:
            instance.inbox.remove(fired)


def _target(event: EntityMessage) -> str:
    return event.lock_set[0] if isinstance(event, EntityLockRequested) else event.target_instance_id


def _track_section(instance: Instance, event: EntityMessage) -> None:
    if isinstance(event, EntityLockRequested):
        instance.lock = CriticalSectionState(event.critical_section_id, event.parent_execution_id, event.lock_set)
    elif isinstance(event, EntityUnlockSent) and instance.lock is not None:
        left = tuple(target for target in instance.lock.lock_set if target != event.target_instance_id)
        instance.lock = msgspec.structs.replace(instance.lock, lock_set=left) if left else None
