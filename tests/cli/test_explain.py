"""What `explain` says, from literals."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast.cli.explain import Explanation, Stored, StoredActivity, Surroundings, explain, explain_entity
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    CancelRequested,
    CarriedTask,
    EntityLockGranted,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityUnlockSent,
    EventRaised,
    ExecutionStarted,
    ExecutionSuspended,
    HistoryEvent,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
    UpdateCompleted,
    UpdateRequested,
)
from holdfast.model.retry import RetryRule
from holdfast.model.status import EntityState, LockState, OrchestrationState, OrchestrationStatus
from holdfast.model.task_policy import TaskPolicy
from holdfast.registry.registry import declared_queues

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)
NOW = T0 + timedelta(hours=2)
BOOM = FailureDetails("builtins.ValueError", "boom")
STARTED = ExecutionStarted(timestamp=T0, name="flow", instance_id="a", execution_id="e")
CALL = TaskScheduled(timestamp=T0, event_id=0, name="double")
CHILD = SubOrchestrationInstanceCreated(timestamp=T0, event_id=1, name="part", instance_id="a:1")
TIMER = TimerCreated(timestamp=T0, event_id=2, fire_at=NOW + timedelta(hours=3))
OPERATION = EntityOperationCalled(
    timestamp=T0, event_id=3, request_id="r", target_instance_id="@counter@c", operation="add", parent_instance_id="a"
)
LOCK = EntityLockRequested(
    timestamp=T0,
    event_id=4,
    critical_section_id="s",
    lock_set=("@counter@c", "@counter@d"),
    parent_instance_id="a",
    parent_execution_id="e",
)
RETRY = TaskPolicy(
    retry=RetryRule(
        max_attempts=5,
        first_retry_interval=timedelta(seconds=1),
        backoff_coefficient=2,
        max_retry_interval=timedelta(hours=1),
    )
)


def state(status: OrchestrationStatus = OrchestrationStatus.RUNNING, **fields: Any) -> OrchestrationState:
    return OrchestrationState(
        instance_id="a",
        execution_id="e",
        name="flow",
        runtime_status=status,
        created_at=T0,
        last_updated_at=T0 + timedelta(hours=1),
        **fields,
    )


def entity(**fields: Any) -> EntityState:
    return EntityState(instance_id="@counter@c", created_at=T0, last_updated_at=T0, has_state=True, **fields)


def lock_of(instance_id: str) -> LockState:
    return LockState(instance_id=instance_id, critical_section_id="s", since=T0)


def explained(
    *events: HistoryEvent,
    stored: Stored | None = None,
    children: Mapping[str, OrchestrationState] | None = None,
    entities: Mapping[str, EntityState] | None = None,
) -> Explanation:
    around = Surroundings(now=NOW, stored=stored, children=children or {}, entities=entities or {})
    return explain(state(), (STARTED, *events), around)


def waits(found: Explanation) -> list[tuple[str, str]]:
    return [(each.kind, each.what) for each in found.waits_for]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ((CALL,), [("activity", "double (#0)")]),
        ((CHILD,), [("sub-orchestration", "part a:1")]),
        ((TIMER,), [("timer", "#2")]),
        ((OPERATION,), [("entity", "@counter@c, operation add")]),
        ((LOCK,), [("lock of entity", "@counter@c"), ("lock of entity", "@counter@d")]),
        ((CALL, TIMER), [("activity", "double (#0)"), ("timer", "#2")]),
    ],
)
def test_what_was_asked_for_is_waited_for(events: tuple[HistoryEvent, ...], expected: list[tuple[str, str]]) -> None:
    found = explained(*events)
    assert waits(found) == expected
    assert found.waits_for[0].since == T0
    assert "has not moved for 1h" in found.summary


@pytest.mark.parametrize(
    "events",
    [
        (),
        (CALL, TaskCompleted(timestamp=T0, task_scheduled_id=0)),
        (CALL, TaskFailed(timestamp=T0, task_scheduled_id=0, failure=BOOM)),
        (CALL, TaskCancelled(timestamp=T0, task_scheduled_id=0)),
        (CHILD, SubOrchestrationInstanceCompleted(timestamp=T0, task_scheduled_id=1)),
        (TIMER, TimerFired(timestamp=T0, timer_id=2, fire_at=T0)),
        (OPERATION, EntityOperationCompleted(timestamp=T0, request_id="r")),
        (LOCK, EntityLockGranted(timestamp=T0, critical_section_id="s", lock_set=LOCK.lock_set)),
        (SubOrchestrationInstanceCreated(timestamp=T0, event_id=7, name="x", instance_id="x", detached=True),),
        (TimerCreated(timestamp=T0, event_id=8, fire_at=T0),),
    ],
)
def test_what_was_answered_is_not_waited_for(events: tuple[HistoryEvent, ...]) -> None:
    assert explained(*events).waits_for == ()
    assert "nothing that it asked for is open" in explained(*events).summary


def test_events_are_told_by_name() -> None:
    waiting = state(events_awaited=("Approve", "Reject"))
    found = explain(waiting, (STARTED, EventRaised(timestamp=T0, name="Ping")), Surroundings(now=NOW))
    assert waits(found) == [("external event", "Approve"), ("external event", "Reject")]
    assert "Ping" in found.waits_for[0].detail
    assert found.advice == ("holdfast raise a Approve [DATA]", "holdfast raise a Reject [DATA]")


def test_activities_tell_their_attempts_where_the_store_is_read() -> None:
    call = TaskScheduled(timestamp=T0, event_id=0, name="double", policy=RETRY)
    assert explained(call).waits_for[0].detail == "at most 5 attempts"
    rows = {0: StoredActivity(attempt=3, deliveries=2, visible_at=NOW + timedelta(minutes=1))}
    detail = explained(call, stored=Stored(activities=rows, timers={}, messages=0)).waits_for[0].detail
    assert detail.startswith("attempt 3 of 5, next try at 2026-01-01")
    assert "started 2 times" in detail
    answered = explained(call, stored=Stored(activities={}, timers={}, messages=1))
    assert "has not taken its result" in answered.waits_for[0].detail
    assert "1 messages wait for it." in answered.notes


def test_activities_tell_their_queue_and_that_nobody_serves_it() -> None:
    call = TaskScheduled(timestamp=T0, event_id=0, name="double", policy=TaskPolicy(queue="gpu"))

    def detail(event: TaskScheduled, *declared: str) -> str:
        rows = {0: StoredActivity(attempt=1, deliveries=0, visible_at=T0)}
        stored = Stored(activities=rows, timers={}, messages=0, declared=frozenset(declared) if declared else None)
        return explained(event, stored=stored).waits_for[0].detail

    of_a_host = "in queue gpu, for a host that serves it"
    assert explained(call).waits_for[0].detail == of_a_host
    assert detail(call) == f"attempt 1 of 1, {of_a_host}"
    assert detail(call, *declared_queues(("gpu",))) == f"attempt 1 of 1, {of_a_host}"
    assert detail(call, *declared_queues(("default",))) == "attempt 1 of 1, in queue gpu, which no host serves"
    assert detail(CALL, *declared_queues(("gpu",))) == "attempt 1 of 1, in queue default, which no host serves"
    assert detail(CALL, *declared_queues(None)) == "attempt 1 of 1"


def test_timers_are_certain_where_the_store_is_read() -> None:
    assert "or it was cancelled" in explained(TIMER).waits_for[0].detail
    assert "due at" in explained(TIMER).waits_for[0].detail
    assert "(in 3h)" in explained(TIMER).waits_for[0].detail
    is_set = explained(TIMER, stored=Stored(activities={}, timers={2: TIMER.fire_at}, messages=0))
    assert "cancelled" not in is_set.waits_for[0].detail
    cancelled = explained(TIMER, stored=Stored(activities={}, timers={}, messages=0, run_until=NOW))
    assert cancelled.waits_for == ()
    assert "run_timeout" in cancelled.notes[0]


def test_sub_orchestrations_and_entities_tell_how_they_are() -> None:
    child = explained(CHILD, children={"a:1": state(OrchestrationStatus.SUSPENDED, parked=BOOM)})
    assert "it is parked" in child.waits_for[0].detail
    assert child.advice == ("holdfast explain a:1",)
    assert "no such instance" in explained(CHILD).waits_for[0].detail
    locked = explained(OPERATION, entities={"@counter@c": entity(lock=lock_of("b"), messages=4)})
    assert "locked by b since" in locked.waits_for[0].detail
    assert "4 messages" in locked.waits_for[0].detail
    assert locked.advice == ("holdfast explain b  holds the lock of @counter@c",)
    parked = explained(LOCK, entities={"@counter@c": entity(parked=BOOM, lock=lock_of("a"))})
    assert "locked by this orchestration" in parked.waits_for[0].detail
    assert "does not exist" in parked.waits_for[1].detail
    assert parked.advice == ("Mend the cause, then: holdfast parked retry @counter@c",)


def test_notes() -> None:
    granted = EntityLockGranted(timestamp=T0, critical_section_id="s", lock_set=LOCK.lock_set)
    update = UpdateRequested(timestamp=T0, update_id="u", name="add")
    found = explained(LOCK, granted, update, CancelRequested(timestamp=T0))
    assert "holds the locks of @counter@c, @counter@d" in found.notes[0]
    assert "Update add (u)" in found.notes[1]
    assert "asked to cancel" in found.notes[2]
    unlock = [
        EntityUnlockSent(timestamp=T0, critical_section_id="s", target_instance_id=each) for each in LOCK.lock_set
    ]
    assert explained(LOCK, granted, *unlock, update, UpdateCompleted(timestamp=T0, update_id="u")).notes == ()
    carried = ExecutionStarted(
        timestamp=T0, name="flow", instance_id="a", execution_id="e", carried=(CarriedTask("long", -10),)
    )
    assert [each.what for each in explained(carried).waits_for] == ["long"]


def test_parked_suspended_and_not_begun() -> None:
    around = Surroundings(now=NOW)
    parked = explain(state(OrchestrationStatus.SUSPENDED, parked=BOOM), (STARTED, CALL), around)
    assert (parked.status, "boom" in parked.summary) == ("Parked", True)
    assert parked.advice[0].endswith("holdfast parked retry a")
    suspended = ExecutionSuspended(timestamp=T0, reason='"lunch"')
    paused = explain(state(OrchestrationStatus.SUSPENDED), (STARTED, suspended), around)
    assert ("lunch" in paused.summary, paused.advice) == (True, ("holdfast resume a",))
    pending = explain(state(OrchestrationStatus.PENDING), (), around)
    assert ("has not begun" in pending.summary, pending.waits_for) == (True, ())
    stored = Stored(activities={}, timers={}, messages=1, start_at=NOW + timedelta(minutes=5))
    planned = explain(state(OrchestrationStatus.PENDING), (), Surroundings(now=NOW, stored=stored))
    assert "planned for" in planned.summary
    assert "(in 5m)" in planned.summary


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (OrchestrationStatus.COMPLETED, ()),
        (OrchestrationStatus.FAILED, ("holdfast rewind a", "holdfast restart a")),
        (OrchestrationStatus.TERMINATED, ("holdfast restart a",)),
        (OrchestrationStatus.CANCELED, ("holdfast restart a",)),
    ],
)
def test_what_has_ended_says_how_and_what_can_be_done(status: OrchestrationStatus, advice: tuple[str, ...]) -> None:
    failure = BOOM if status is OrchestrationStatus.FAILED else None
    found = explain(state(status, failure=failure), (), Surroundings(now=NOW))
    assert status.value in found.summary
    assert ("boom" in found.summary) == (failure is not None)
    assert tuple(" ".join(line.split()[:3]) for line in found.advice) == advice


def test_entities() -> None:
    locked = explain_entity(entity(lock=lock_of("b"), lock_requests=(lock_of("c"),), messages=3), NOW)
    assert (locked.status, locked.waits_for[0].what, locked.waits_for[0].detail) == ("Locked", "b", "held for 2h")
    assert "3 operations" in locked.notes[0]
    assert "c wants its lock" in locked.notes[1]
    parked = explain_entity(entity(parked=BOOM, scheduled_signals=2), NOW)
    assert (parked.status, parked.advice) == ("Parked", ("Mend the cause, then: holdfast parked retry @counter@c",))
    assert "2 signals" in parked.notes[0]
    assert "nothing waits for it" in explain_entity(entity(), NOW).summary
