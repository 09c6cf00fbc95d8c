"""Going back in a history: which episodes a new execution takes over, and what it must ask for or be told again.

A history is cut between two episodes. What was asked for before the cut stays asked for: its answers are kept, apart
from the failures that are to be undone, and what has no answer is asked for again. What was asked for after the cut is
forgotten, since the code will ask again; but what it had achieved is remembered, so that it is not done twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import msgspec

from holdfast.errors import InvalidInputError, RewindRefusedError
from holdfast.hub.instance import RUN_TIMEOUT
from holdfast.model.failure import FailureDetails, origin_of
from holdfast.model.history import (
    ContinueAsNew,
    EntityLockGranted,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    EntityUnlockSent,
    ExecutionCompleted,
    ExecutionRewound,
    ExecutionStarted,
    ExecutionTerminated,
    HistoryEvent,
    MessageEvent,
    OrchestratorStarted,
    ScheduledEvent,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
    WorkRemembered,
)

History: TypeAlias = Sequence[tuple[HistoryEvent, ...]]
"""One tuple for each episode: what began it and came in, then what the code asked for, then how it ended, if it did."""

Asked: TypeAlias = TaskScheduled | SubOrchestrationInstanceCreated | TimerCreated | EntityOperationCalled
"""What has an answer."""

_Failure = TaskFailed | SubOrchestrationInstanceFailed | EntityOperationFailed
_NOT_SENT_AGAIN = (
    ScheduledEvent
    | OrchestratorStarted
    | ExecutionStarted
    | ExecutionRewound
    | ExecutionCompleted
    | ExecutionTerminated
    | ContinueAsNew
    | WorkRemembered
)


class Plan(msgspec.Struct, frozen=True, gc=False):
    """What a new execution takes over from an old one."""

    started: ExecutionStarted
    episodes: tuple[tuple[HistoryEvent, ...], ...]
    open: tuple[Asked, ...] = ()
    """Asked for in the episodes, and not answered: to be asked for again, in this order."""
    inputs: tuple[MessageEvent, ...] = ()
    """What came in after the episodes, and is to come in again."""
    answered_children: tuple[SubOrchestrationInstanceCreated, ...] = ()
    """Those asked for in the episodes whose answer is among the inputs."""
    call_ids: dict[int, str] = {}
    """What activities asked for in the episodes are known as outside."""
    remembered: tuple[WorkRemembered, ...] = ()


def plan_rewind(instance_id: str, history: History, failure: FailureDetails | None) -> Plan:
    """Say how an instance that has failed goes back to just before what made it fail.

    Args:
        failure: that of the instance.

    Raises:
        RewindRefusedError: if it was in a critical section there, or waited for an entity.
    """
    started = _started(instance_id, history)
    cut, undoes_failures = _cut(history, failure)
    kept, undone = tuple(history[:cut]), history[cut:]
    _check_sections(instance_id, kept)
    _check_carried(instance_id, started, kept)
    asked, answered = _asked(kept), _answered(kept)
    inputs = tuple(_inputs(undone, asked, without_failures=undoes_failures))
    answered_later = _answered([inputs])
    still_open = tuple(event for key, event in asked.items() if key not in answered and key not in answered_later)
    answered_once = _answered(undone)
    for event in still_open:
        if isinstance(event, EntityOperationCalled) and event.request_id not in answered_once:
            raise RewindRefusedError(
                instance_id,
                f"Instance {instance_id!r} cannot be rewound: it ended while {event.operation!r} of entity "
                f"{event.target_instance_id} was going on, and whether that took effect is not known. "
                "Start it anew, or fork it from before that call.",
            )
    return Plan(
        started=started,
        episodes=kept,
        open=still_open,
        inputs=inputs,
        answered_children=tuple(
            event
            for key, event in asked.items()
            if key in answered_later and isinstance(event, SubOrchestrationInstanceCreated)
        ),
        call_ids=_call_ids(kept),
        remembered=(*_left_over(undone), *_remembered(undone, _call_ids(history))),
    )


def plan_fork(instance_id: str, history: History, episodes: int | None) -> Plan:
    """Say how another instance goes on from where one was after some of its episodes.

    Args:
        episodes: how many; None for all but the one that ended it.

    Raises:
        InvalidInputError: if there are not so many.
        RewindRefusedError: if it was in a critical section there.
    """
    most = len(history)
    if most and any(isinstance(event, ExecutionCompleted) for event in history[-1]):
        most -= 1
    if episodes is None:
        episodes = most
    if not 0 <= episodes <= most:
        raise InvalidInputError(
            f"episode={episodes!r}: instance {instance_id!r} has {most} episodes from which it can be forked."
        )
    kept = tuple(history[:episodes])
    started = _started(instance_id, history)
    _check_sections(instance_id, kept)
    _check_carried(instance_id, started, kept)
    answered = _answered(kept)
    still_open = tuple(event for key, event in _asked(kept).items() if key not in answered)
    return Plan(started=started, episodes=kept, open=still_open)


# Where to cut


def _cut(history: History, failure: FailureDetails | None) -> tuple[int, bool]:
    """Return how many episodes stay, and whether the failures that came after them are undone."""
    events = [(episode, event) for episode, each in enumerate(history) for event in each]
    cause = _cause(history, [event for _, event in events], failure)
    if cause is None:
        return len(history) - 1, False
    # Failures with nothing asked for between them and the cause have led to it together, as those of one fan-out do.
    since = max((index for index in range(cause) if isinstance(events[index][1], ScheduledEvent)), default=0)
    return next(episode for episode, event in events[since:] if isinstance(event, _Failure)), True


def _cause(history: History, events: Sequence[HistoryEvent], failure: FailureDetails | None) -> int | None:
    """Return the position of the failure that became that of the instance; None if its own code is to blame.

    Of equal failures it is the first: what succeeded after it is remembered, but one that is left in the history
    would fail the instance again. A failure whose link to that of the instance was cut is still taken for the cause if
    the code did nothing more after it.
    """
    if any(isinstance(event, TimerFired) and event.timer_id == RUN_TIMEOUT for event in history[-1]):
        return None
    failures = {index: event.failure for index, event in enumerate(events) if isinstance(event, _Failure)}
    while failure is not None:
        for index, found in failures.items():
            if failure in (found, origin_of(found)):
                return index
        failure = failure.inner_failure
    if not failures:
        return None
    last = max(failures)
    before_the_end = len(events) - len(history[-1])
    if any(isinstance(event, ScheduledEvent) for event in events[last:before_the_end]):
        return None
    return last


# What was asked for, and what was answered


def _asked(episodes: History) -> dict[int | str, Asked]:
    """Return what has or awaits an answer, by what its answer will name; not what was given up."""
    found: dict[int | str, Asked] = {}
    for event in _events(episodes):
        match event:
            case TaskScheduled() | TimerCreated():
                found[event.event_id] = event
            case SubOrchestrationInstanceCreated() if not event.detached:
                found[event.event_id] = event
            case EntityOperationCalled():
                found[event.request_id] = event
            case TaskCancelled():
                found.pop(event.task_scheduled_id, None)
            case _:
                pass
    return found


def _answers(event: HistoryEvent) -> int | str | None:
    match event:
        case TaskCompleted() | TaskFailed() | SubOrchestrationInstanceCompleted() | SubOrchestrationInstanceFailed():
            return event.task_scheduled_id
        case TimerFired():
            return event.timer_id
        case EntityOperationCompleted() | EntityOperationFailed():
            return event.request_id
        case EntityLockGranted():
            return event.critical_section_id
        case _:
            return None


def _answered(episodes: History) -> set[int | str]:
    return {key for event in _events(episodes) if (key := _answers(event)) is not None}


def _events(episodes: History) -> Iterator[HistoryEvent]:
    return (event for episode in episodes for event in episode)


def _inputs(undone: History, asked: dict[int | str, Asked], *, without_failures: bool) -> Iterator[MessageEvent]:
    for event in _events(undone):
        if isinstance(event, _NOT_SENT_AGAIN) or (without_failures and isinstance(event, _Failure)):
            continue
        key = _answers(event)
        if key is None or key in asked:
            yield event


def _call_ids(history: History) -> dict[int, str]:
    """Return what each activity is known as outside: by the execution that asked for it first, or by its fork."""
    known: dict[int, str] = {}
    execution_id = ""
    for event in _events(history):
        if isinstance(event, ExecutionStarted | ExecutionRewound):
            execution_id = event.execution_id
            if isinstance(event, ExecutionRewound) and event.instance_id is not None:
                known = {sequence: f"{execution_id}:{sequence}" for sequence in known}
        elif isinstance(event, TaskScheduled):
            known[event.event_id] = event.call_id or f"{execution_id}:{event.event_id}"
    return known


def _remembered(undone: History, call_ids: dict[int, str]) -> Iterator[WorkRemembered]:
    """What was asked for after the cut: the results of what succeeded, and what to know the rest by."""
    results = {
        event.task_scheduled_id: event.result
        for event in _events(undone)
        if isinstance(event, TaskCompleted | SubOrchestrationInstanceCompleted)
    }
    for key, event in _asked(undone).items():
        if isinstance(event, TaskScheduled | SubOrchestrationInstanceCreated):
            yield WorkRemembered(
                timestamp=event.timestamp,
                work=event,
                is_completed=key in results,
                result=results.get(event.event_id),
                call_id=call_ids.get(event.event_id),
            )


def _left_over(undone: History) -> Iterator[WorkRemembered]:
    """What an earlier rewind remembered, and the code had not asked for again when it failed."""
    return (event for event in _events(undone) if isinstance(event, WorkRemembered))


def _started(instance_id: str, history: History) -> ExecutionStarted:
    for event in _events(history):
        if isinstance(event, ExecutionStarted):
            return event
    raise RewindRefusedError(
        instance_id,
        f"The code of instance {instance_id!r} has never run; there is nothing to go back to. Start it anew.",
    )


def _check_carried(instance_id: str, started: ExecutionStarted, episodes: History) -> None:
    """Refuse to go back to where work of an earlier execution was going on: its handles are not in this history."""
    answered = _answered(episodes)
    waiting = [task.name for task in started.carried if task.number not in answered]
    if waiting:
        raise RewindRefusedError(
            instance_id,
            f"Instance {instance_id!r} cannot be taken back: the carried tasks {', '.join(waiting)} were open there. "
            "Start it anew.",
        )


def _check_sections(instance_id: str, episodes: History) -> None:
    """Refuse to go back into a critical section: its locks were given back when the instance ended."""
    held: dict[str, set[str]] = {}
    for event in _events(episodes):
        if isinstance(event, EntityLockRequested):
            held[event.critical_section_id] = set(event.lock_set)
        elif isinstance(event, EntityUnlockSent) and event.critical_section_id in held:
            held[event.critical_section_id].discard(event.target_instance_id)
    entities = sorted({target for targets in held.values() for target in targets})
    if entities:
        raise RewindRefusedError(
            instance_id,
            f"Instance {instance_id!r} cannot be taken back to where it was in a critical section over "
            f"{', '.join(entities)}: others may have used these entities since. "
            "Start it anew, or fork it from before the section.",
        )
