"""Why an instance is not moving: from its state, its history and what surrounds it, to words.

What is waited for is what the history has asked for and no answer has come to. Two things it does not record: that a
timer was cancelled, and that an external event is waited for; the store's own rows, where they can be read, tell the
first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeAlias

import msgspec

from holdfast.cli.values import duration_text, instant_text
from holdfast.cli.views import failure_text
from holdfast.model.history import (
    CancelRequested,
    EntityLockGranted,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    EntityUnlockSent,
    EventRaised,
    ExecutionStarted,
    ExecutionSuspended,
    HistoryEvent,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
    UpdateCompleted,
    UpdateRequested,
)
from holdfast.model.queues import DEFAULT_QUEUE
from holdfast.model.status import EntityState, OrchestrationState, OrchestrationStatus
from holdfast.registry.registry import is_served

_ENDS: TypeAlias = (
    TaskCompleted | TaskFailed | TaskCancelled | SubOrchestrationInstanceCompleted | SubOrchestrationInstanceFailed
)

_EVENT: Final = "external event"


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that an instance waits for."""

    kind: str
    what: str
    since: datetime | None = None
    detail: str = ""
    instance_id: str | None = None
    """The other instance that it is up to."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why an instance is where it is, and what can be done about it."""

    instance_id: str
    status: str
    summary: str
    waits_for: tuple[Wait, ...] = ()
    notes: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()


class StoredActivity(msgspec.Struct, frozen=True, kw_only=True):
    """What only the store knows of an open activity."""

    attempt: int
    deliveries: int
    visible_at: datetime


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What only the store knows of an instance: by sequence number, its activities, and when its timers are due."""

    activities: Mapping[int, StoredActivity]
    timers: Mapping[int, datetime]
    messages: int
    start_at: datetime | None = None
    """When a planned start is due."""
    run_until: datetime | None = None
    """When its `run_timeout` ends it."""
    declared: frozenset[str] | None = None
    """What the hosts that live say that they can run; None of a store of which only one host knows what it can."""


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What else an explanation needs: the instances and entities that are waited for, and when it is."""

    now: datetime
    children: Mapping[str, OrchestrationState] = {}
    entities: Mapping[str, EntityState] = {}
    stored: Stored | None = None


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """What a history has asked for and not got."""

    activities: tuple[TaskScheduled, ...]
    children: tuple[SubOrchestrationInstanceCreated, ...]
    timers: tuple[TimerCreated, ...]
    calls: tuple[EntityOperationCalled, ...]
    locks: tuple[EntityLockRequested, ...]
    held: tuple[EntityLockRequested, ...]
    """Critical sections that it is in."""
    updates: tuple[UpdateRequested, ...]
    carried: tuple[str, ...]
    """The names of activities and sub-orchestrations of earlier executions that still go on."""

    @property
    def child_ids(self) -> list[str]:
        return [each.runs_as or each.instance_id for each in self.children]

    @property
    def entity_ids(self) -> list[str]:
        locked = [each for request in self.locks for each in request.lock_set]
        return list(dict.fromkeys([*(call.target_instance_id for call in self.calls), *locked]))


def open_of(history: Sequence[HistoryEvent]) -> Open:
    """Fold a history: what was asked for, and has no answer."""
    done = {event.task_scheduled_id for event in history if isinstance(event, _ENDS)}
    fired = {event.timer_id for event in history if isinstance(event, TimerFired)}
    answered = {
        event.request_id for event in history if isinstance(event, EntityOperationCompleted | EntityOperationFailed)
    }
    granted = {event.critical_section_id for event in history if isinstance(event, EntityLockGranted)}
    unlocked = {event.critical_section_id for event in history if isinstance(event, EntityUnlockSent)}
    updated = {event.update_id for event in history if isinstance(event, UpdateCompleted)}
    locks = [event for event in history if isinstance(event, EntityLockRequested)]
    return Open(
        activities=tuple(e for e in history if isinstance(e, TaskScheduled) and e.event_id not in done),
        children=tuple(
            e
            for e in history
            if isinstance(e, SubOrchestrationInstanceCreated) and not e.detached and e.event_id not in done
        ),
        timers=tuple(e for e in history if isinstance(e, TimerCreated) and e.event_id not in fired),
        calls=tuple(e for e in history if isinstance(e, EntityOperationCalled) and e.request_id not in answered),
        locks=tuple(e for e in locks if e.critical_section_id not in granted | unlocked),
        held=tuple(e for e in locks if e.critical_section_id in granted - unlocked),
        updates=tuple(e for e in history if isinstance(e, UpdateRequested) and e.update_id not in updated),
        carried=tuple(
            each.name
            for e in history
            if isinstance(e, ExecutionStarted)
            for each in e.carried
            if each.number not in done
        ),
    )


def explain(state: OrchestrationState, history: Sequence[HistoryEvent], around: Surroundings) -> Explanation:
    """Say what an orchestration waits for."""
    if state.runtime_status.is_terminal:
        return _explain_ended(state)
    found = open_of(history)
    waits = (*_waits(found, around), *_event_waits(state, history))
    return Explanation(
        instance_id=state.instance_id,
        status="Parked" if state.parked else state.runtime_status.value,
        summary=_summary(state, history, waits, around),
        waits_for=waits,
        notes=tuple(_notes(found, history, around)),
        advice=tuple(_advice(state, waits, around)),
    )


def _explain_ended(state: OrchestrationState) -> Explanation:
    status, id_ = state.runtime_status, state.instance_id
    why = failure_text(state.failure) or (state.output if status is not OrchestrationStatus.COMPLETED else None)
    advice = {
        OrchestrationStatus.FAILED: (
            f"holdfast rewind {id_}   runs again what failed, and goes on from there",
            f"holdfast restart {id_}  starts it again from its beginning",
        ),
        OrchestrationStatus.TERMINATED: (f"holdfast restart {id_}  starts it again from its beginning",),
        OrchestrationStatus.CANCELED: (f"holdfast restart {id_}  starts it again from its beginning",),
    }.get(status, ())
    summary = f"It has ended as {status.value}, at {instant_text(state.last_updated_at)}" + (f": {why}" if why else ".")
    return Explanation(instance_id=id_, status=status.value, summary=summary, advice=advice)


def _summary(
    state: OrchestrationState, history: Sequence[HistoryEvent], waits: Sequence[Wait], around: Surroundings
) -> str:
    if state.parked is not None:
        return f"It was set aside, unharmed, and needs an operator: {failure_text(state.parked)}"
    if state.runtime_status is OrchestrationStatus.SUSPENDED:
        suspended = next((each for each in reversed(history) if isinstance(each, ExecutionSuspended)), None)
        reason = f": {suspended.reason}" if suspended is not None and suspended.reason else "."
        return f"Somebody has suspended it{reason}"
    stored = around.stored
    if stored is not None and stored.start_at is not None:
        return f"Its start is planned for {instant_text(stored.start_at)}{_in(stored.start_at, around)}."
    if not history:
        return "It has not begun: its start is planned for later, or the host has not come to it yet."
    idle = duration_text(around.now - state.last_updated_at)
    return f"It is {state.runtime_status.value}, and has not moved for {idle}: {_counted(waits)}."


def _counted(waits: Sequence[Wait]) -> str:
    if len(waits) == 1:
        return f"it waits for {waits[0].kind} {waits[0].what}"
    if not waits:
        return "nothing that it asked for is open; it is about to run, or its code waits for an update"
    return f"it waits for any or all of {len(waits)} things"


def _waits(found: Open, around: Surroundings) -> Iterator[Wait]:
    for activity in found.activities:
        yield Wait(
            kind="activity",
            what=f"{activity.name} (#{activity.event_id})",
            since=activity.timestamp,
            detail=_activity_detail(activity, around),
        )
    for child, child_id in zip(found.children, found.child_ids, strict=True):
        yield Wait(
            kind="sub-orchestration",
            what=f"{child.name} {child_id}",
            since=child.timestamp,
            detail=_child_detail(child_id, around),
            instance_id=child_id,
        )
    for name in found.carried:
        yield Wait(kind="work of an earlier execution:", what=name)
    for call in found.calls:
        yield Wait(
            kind="entity",
            what=f"{call.target_instance_id}, operation {call.operation}",
            since=call.timestamp,
            detail=_entity_detail(call.target_instance_id, around, call.parent_instance_id),
            instance_id=call.target_instance_id,
        )
    for request in found.locks:
        yield from (
            Wait(
                kind="lock of entity",
                what=entity_id,
                since=request.timestamp,
                detail=_entity_detail(entity_id, around, request.parent_instance_id),
                instance_id=entity_id,
            )
            for entity_id in request.lock_set
        )
    yield from _timer_waits(found, around)


def _timer_waits(found: Open, around: Surroundings) -> Iterator[Wait]:
    """With the store's rows only the timers that are set; else those that are due later, which may be cancelled."""
    for timer in found.timers:
        stored = around.stored
        if timer.event_id in stored.timers if stored is not None else timer.fire_at > around.now:
            doubt = "" if stored is not None else "; or it was cancelled, which the history does not tell"
            yield Wait(
                kind="timer",
                what=f"#{timer.event_id}",
                since=timer.timestamp,
                detail=f"due at {instant_text(timer.fire_at)}{_in(timer.fire_at, around)}{doubt}",
            )


def _activity_detail(activity: TaskScheduled, around: Surroundings) -> str:
    policy = activity.policy
    attempts_max = policy.retry.max_attempts if policy is not None and policy.retry is not None else 1
    row = around.stored.activities.get(activity.event_id) if around.stored is not None else None
    if around.stored is not None and row is None:
        return "it has ended; the orchestration has not taken its result yet"
    queue = _queue_detail(None if policy is None else policy.queue, around)
    if row is None:
        return ", ".join(filter(None, (f"at most {attempts_max} attempts" if attempts_max > 1 else "", queue)))
    when = f", next try at {instant_text(row.visible_at)}" if row.visible_at > around.now else ""
    suspicion = f", started {row.deliveries} times without an answer" if row.deliveries > 1 else ""
    return f"attempt {row.attempt} of {attempts_max}{when}{suspicion}{queue and f', {queue}'}"


def _queue_detail(queue: str | None, around: Surroundings) -> str:
    """Say in which queue it is, if it names one, or nobody serves it; from that it may have been taken already."""
    declared = None if around.stored is None else around.stored.declared
    if declared is not None and not is_served(queue or DEFAULT_QUEUE, declared):
        return f"in queue {queue or DEFAULT_QUEUE}, which no host serves"
    return "" if queue is None else f"in queue {queue}, for a host that serves it"


def _child_detail(child_id: str, around: Surroundings) -> str:
    child = around.children.get(child_id)
    if child is None:
        return "there is no such instance yet"
    status = "parked" if child.parked is not None else child.runtime_status.value
    return f"it is {status}; see: holdfast explain {child_id}"


def _entity_detail(entity_id: str, around: Surroundings, own_id: str | None) -> str:
    entity = around.entities.get(entity_id)
    if entity is None:
        return "it does not exist yet"
    parts: list[str] = []
    if entity.parked is not None:
        parts.append(f"it is parked: {failure_text(entity.parked)}")
    if entity.lock is not None:
        holder = "this orchestration" if entity.lock.instance_id == own_id else entity.lock.instance_id
        parts.append(f"locked by {holder} since {instant_text(entity.lock.since)}")
    parts.append(f"{entity.messages} messages wait for it")
    return ", ".join(parts)


def _event_waits(state: OrchestrationState, history: Sequence[HistoryEvent]) -> Iterator[Wait]:
    raised = list(dict.fromkeys(event.name for event in history if isinstance(event, EventRaised)))
    received = f"it has received {', '.join(raised)}" if raised else ""
    for name in state.events_awaited:
        yield Wait(kind=_EVENT, what=name, since=history[-1].timestamp if history else None, detail=received)


def _notes(found: Open, history: Sequence[HistoryEvent], around: Surroundings) -> Iterator[str]:
    for section in found.held:
        yield f"It is in a critical section, and holds the locks of {', '.join(section.lock_set)}."
    for update in found.updates:
        yield f"Update {update.name} ({update.update_id}) has no answer yet."
    cancel = next((each for each in history if isinstance(each, CancelRequested)), None)
    if cancel is not None:
        yield f"It was asked to cancel itself at {instant_text(cancel.timestamp)}, and has not ended."
    if around.stored is not None and around.stored.messages:
        yield f"{around.stored.messages} messages wait for it."
    if around.stored is not None and around.stored.run_until is not None:
        yield f"Its run_timeout ends it at {instant_text(around.stored.run_until)}."


def _advice(state: OrchestrationState, waits: Sequence[Wait], around: Surroundings) -> Iterator[str]:
    id_ = state.instance_id
    if state.parked is not None:
        yield f"Mend the cause, then: holdfast parked retry {id_}"
        yield f"Or give it up: holdfast parked discard {id_}"
        return
    if state.runtime_status is OrchestrationStatus.SUSPENDED:
        yield f"holdfast resume {id_}"
        return
    for wait in waits:
        yield from _advice_on(wait, id_, around)


def _advice_on(wait: Wait, instance_id: str, around: Surroundings) -> Iterator[str]:
    if wait.kind == _EVENT:
        yield f"holdfast raise {instance_id} {wait.what} [DATA]"
    if wait.instance_id is None:
        return
    entity = around.entities.get(wait.instance_id)
    if wait.instance_id in around.children:
        yield f"holdfast explain {wait.instance_id}"
    if entity is not None and entity.parked is not None:
        yield f"Mend the cause, then: holdfast parked retry {wait.instance_id}"
    if entity is not None and entity.lock is not None and entity.lock.instance_id != instance_id:
        yield f"holdfast explain {entity.lock.instance_id}  holds the lock of {wait.instance_id}"


def _in(due_at: datetime, around: Surroundings) -> str:
    return f" (in {duration_text(due_at - around.now)})" if due_at > around.now else " (it is due)"


def explain_entity(state: EntityState, now: datetime) -> Explanation:
    """Say what keeps the operations of an entity waiting."""
    id_ = state.instance_id
    waits: tuple[Wait, ...] = ()
    if state.lock is not None:
        since = duration_text(now - state.lock.since)
        waits = (
            Wait(
                kind="unlock by",
                what=state.lock.instance_id,
                since=state.lock.since,
                detail=f"held for {since}",
                instance_id=state.lock.instance_id,
            ),
        )
    notes = [f"{state.messages} operations and lock requests wait for it."] if state.messages else []
    if state.scheduled_signals:
        notes.append(f"{state.scheduled_signals} signals wait for their time.")
    notes += [f"{each.instance_id} wants its lock since {instant_text(each.since)}." for each in state.lock_requests]
    if state.parked is not None:
        status, summary = "Parked", f"It was set aside, unharmed, and needs an operator: {failure_text(state.parked)}"
        advice = (f"Mend the cause, then: holdfast parked retry {id_}",)
    elif state.lock is not None:
        status, summary = "Locked", f"It is locked by {state.lock.instance_id}, so operations of others wait."
        advice = (f"holdfast explain {state.lock.instance_id}", f"holdfast entities unlock {id_}  breaks the lock")
    else:
        status, advice = "Free", ()
        summary = "It is neither locked nor parked" + ("." if state.messages else ", and nothing waits for it.")
    return Explanation(
        instance_id=id_, status=status, summary=summary, waits_for=waits, notes=tuple(notes), advice=advice
    )
