"""Rewinds and forks, literally: a history goes in, a transition comes out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from holdfast.errors import InstanceNotRunningError, InvalidInputError, RewindRefusedError
from holdfast.hub.episodes import PendingEpisode
from holdfast.hub.hub import Hub
from holdfast.hub.instance import RUN_TIMEOUT, Instance, OpenChild
from holdfast.hub.transition import StartActivity, Transition
from holdfast.model.actions import CreateSubOrchestration, OrchestratorAction, ScheduleTask
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    CancelRequested,
    EntityLockGranted,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    EntityUnlockSent,
    EventRaised,
    EventSent,
    ExecutionCompleted,
    ExecutionRewound,
    ExecutionStarted,
    HistoryEvent,
    MessageEvent,
    OrchestratorStarted,
    ParentInstance,
    PatchMarked,
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
    WorkRemembered,
)
from holdfast.model.limits import Limits
from holdfast.model.messages import Message
from holdfast.model.retry import RetryPolicy
from holdfast.model.status import OrchestrationStatus
from holdfast.model.task_policy import TaskPolicy
from holdfast.model.work_items import Episode

T0 = datetime(2026, 11, 22, tzinfo=UTC)
NOW = T0 + timedelta(hours=1)
NEW = "0000000000008-n.1"
"""The execution that the first transition of these hubs begins."""
LATER = NOW + timedelta(days=1)
BROKEN = FailureDetails("builtins.ConnectionError", "broken")
OTHER = FailureDetails("builtins.ConnectionError", "broken, too")
BUG = FailureDetails("builtins.ValueError", "a bug")
STARTED = ExecutionStarted(timestamp=T0, name="o", instance_id="i", execution_id="old", input="1", tags={"k": "v"})
BEGIN = OrchestratorStarted(timestamp=T0)


def task(number: int, **options: Any) -> TaskScheduled:
    return TaskScheduled(timestamp=T0, event_id=number, name=f"t{number}", **options)


def done(number: int) -> TaskCompleted:
    return TaskCompleted(timestamp=T0, task_scheduled_id=number, result=f'"{number}"')


def failed(number: int, failure: FailureDetails = BROKEN) -> TaskFailed:
    return TaskFailed(timestamp=T0, task_scheduled_id=number, failure=failure)


def cancelled(number: int) -> TaskCancelled:
    return TaskCancelled(timestamp=T0, task_scheduled_id=number)


def child(number: int, **options: Any) -> SubOrchestrationInstanceCreated:
    return SubOrchestrationInstanceCreated(
        timestamp=T0, event_id=number, name="c", instance_id=f"old:{number}", **options
    )


def child_done(number: int) -> SubOrchestrationInstanceCompleted:
    return SubOrchestrationInstanceCompleted(timestamp=T0, task_scheduled_id=number, result='"c"')


def child_failed(number: int, failure: FailureDetails = BROKEN) -> SubOrchestrationInstanceFailed:
    return SubOrchestrationInstanceFailed(timestamp=T0, task_scheduled_id=number, failure=failure)


def timer(number: int) -> TimerCreated:
    return TimerCreated(timestamp=T0, event_id=number, fire_at=LATER)


def fired(number: int) -> TimerFired:
    return TimerFired(timestamp=T0, timer_id=number, fire_at=T0)


def call(number: int) -> EntityOperationCalled:
    return EntityOperationCalled(
        timestamp=T0,
        event_id=number,
        request_id=f"old:{number}",
        target_instance_id="@e@k",
        operation="add",
        parent_instance_id="i",
        parent_execution_id="old",
    )


def answer(number: int) -> EntityOperationCompleted:
    return EntityOperationCompleted(timestamp=T0, request_id=f"old:{number}", output="1")


def call_failed(number: int) -> EntityOperationFailed:
    return EntityOperationFailed(timestamp=T0, request_id=f"old:{number}", failure=BROKEN)


def event(value: int) -> EventRaised:
    return EventRaised(timestamp=T0, name="e", input=str(value))


def the_end(failure: FailureDetails = BROKEN) -> ExecutionCompleted:
    return ExecutionCompleted(timestamp=T0, status=OrchestrationStatus.FAILED, failure=failure)


def episodes(*lists: list[HistoryEvent]) -> list[tuple[HistoryEvent, ...]]:
    return [(BEGIN, *events) for events in lists]


def instance_of(
    history: list[tuple[HistoryEvent, ...]], status: OrchestrationStatus = OrchestrationStatus.FAILED
) -> Instance:
    instance = Instance("i", "old", "o", T0)
    instance.status = status
    instance.revision = 3
    instance.episodes = len(history)
    instance.tags = {"k": "v"}
    completed = [each for events in history for each in events if isinstance(each, ExecutionCompleted)]
    instance.failure = completed[-1].failure if completed else None
    return instance


def hub() -> Hub:
    return Hub(7, "n", 1, Limits())


def rewind(history: list[tuple[HistoryEvent, ...]]) -> tuple[Instance, Transition]:
    instance = instance_of(history)
    return instance, hub().rewind(instance, history, '"why"', NOW)


def inputs(transition: Transition) -> list[MessageEvent]:
    """What the instance is told again, in order, but for what it is to remember."""
    return [
        message.event
        for message in transition.sent
        if message.instance_id == "i" and not isinstance(message.event, WorkRemembered)
    ]


def remembered(transition: Transition) -> list[WorkRemembered]:
    return [message.event for message in transition.sent if isinstance(message.event, WorkRemembered)]


def started_again(transition: Transition) -> list[int]:
    started = [each.activity for each in transition.outputs if isinstance(each, StartActivity)]
    assert started == transition.activities_scheduled
    assert all(each.execution_id == NEW for each in started)
    return [each.sequence for each in started]


MARK = (
    OrchestratorStarted(timestamp=NOW),
    ExecutionRewound(timestamp=NOW, execution_id=NEW, reason='"why"'),
)


# What is kept, and what is done again


def test_a_failed_activity_is_asked_for_again() -> None:
    policy = TaskPolicy(retry=RetryPolicy(max_attempts=3).rule(), timeout=timedelta(seconds=5))
    history = episodes(
        [STARTED, task(0)],
        [done(0), task(1, input="7", tags={"a": "b"}, policy=policy)],
        [failed(1), the_end()],
    )
    instance, transition = rewind(history)
    assert transition.history_copied == (*history[:2], MARK)
    assert (instance.episodes, instance.history_events) == (3, 8)
    assert instance.status is OrchestrationStatus.RUNNING
    assert (instance.execution_id, instance.failure, instance.output) == (NEW, None, None)
    assert transition.executions_removed == (("i", "old", 3),)
    assert transition.is_new_execution
    assert (transition.revision_before, instance.revision) == (3, 4)
    assert transition.sent == []
    assert started_again(transition) == [1]
    [again] = transition.activities_scheduled
    assert (again.name, again.input, again.tags, again.attempt) == ("t1", "7", {"a": "b"}, 1)
    assert (again.policy, again.scheduled_at) == (policy, NOW)
    assert again.call_id == "old:1", "to the outside world it is the same call"


def test_all_failures_of_a_fan_out_are_undone() -> None:
    """Also one that came before that which became the instance's, as long as nothing was asked for in between."""
    history = episodes(
        [STARTED, task(0), task(1), task(2), task(3)],
        [done(0), failed(1, OTHER), event(1)],
        [failed(2)],
        [done(3), the_end()],
    )
    _, transition = rewind(history)
    assert transition.history_copied == (history[0], MARK)
    assert inputs(transition) == [done(0), event(1), done(3)]
    assert [message.execution_id for message in transition.sent] == [NEW, None, NEW]
    assert started_again(transition) == [1, 2]


def test_a_failure_after_which_something_was_asked_for_was_dealt_with() -> None:
    history = episodes(
        [STARTED, task(0)],
        [failed(0, OTHER), task(1)],
        [failed(1), the_end()],
    )
    _, transition = rewind(history)
    assert transition.history_copied == (*history[:2], MARK)
    assert started_again(transition) == [1]


def test_the_cause_is_found_behind_other_failures() -> None:
    """An error raised `from` it; what came after is undone, and remembered as far as it had succeeded."""
    wrapped = FailureDetails("app.Wrapped", "sorry", inner_failure=FailureDetails("x", "y", inner_failure=BROKEN))
    history = episodes(
        [STARTED, task(0)],
        [failed(0), task(1), task(2), child(3), child(4), child(5, detached=True), timer(6)],
        [done(1), child_done(3), failed(2, OTHER), the_end(wrapped)],
    )
    _, transition = rewind(history)
    assert transition.history_copied == (history[0], MARK)
    assert started_again(transition) == [0]
    assert inputs(transition) == []
    assert remembered(transition) == [
        WorkRemembered(timestamp=T0, work=task(1), is_completed=True, result='"1"', call_id="old:1"),
        WorkRemembered(timestamp=T0, work=task(2), is_completed=False, call_id="old:2"),
        WorkRemembered(timestamp=T0, work=child(3), is_completed=True, result='"c"'),
        WorkRemembered(timestamp=T0, work=child(4), is_completed=False),
    ]
    assert {message.execution_id for message in transition.sent} == {NEW}


def test_of_equal_failures_the_first_is_the_cause() -> None:
    history = episodes(
        [STARTED, task(0), task(1)],
        [failed(0), task(2)],
        [failed(1), done(2), the_end()],
    )
    _, transition = rewind(history)
    assert transition.history_copied == (history[0], MARK)
    assert started_again(transition) == [0, 1]


def test_a_failure_of_the_code_undoes_the_last_episode() -> None:
    history = episodes(
        [STARTED, task(0)],
        [failed(0, OTHER), task(1)],
        [done(1), event(1), task(2), EventSent(timestamp=T0, event_id=3, instance_id="x", name="e"), the_end(BUG)],
    )
    _, transition = rewind(history)
    assert transition.history_copied == (*history[:2], MARK)
    assert inputs(transition) == [done(1), event(1)]
    assert started_again(transition) == []


def test_a_failure_that_was_raised_as_another_one_is_undone_if_nothing_followed() -> None:
    history = episodes([STARTED, task(0), task(1)], [failed(0, OTHER)], [done(1), the_end(BUG)])
    _, transition = rewind(history)
    assert started_again(transition) == [0]
    assert inputs(transition) == [done(1)]


def test_code_that_failed_at_once_starts_again_under_its_new_execution() -> None:
    expires_at = NOW + timedelta(hours=1)
    started = msgspec.structs.replace(STARTED, expires_at=expires_at, start_at=T0)
    instance, transition = rewind(episodes([started, event(1), task(0), the_end(BUG)]))
    assert transition.history_copied == ()
    assert (instance.episodes, instance.history_events) == (0, 0)
    again = msgspec.structs.replace(started, timestamp=NOW, execution_id=NEW, start_at=None)
    assert inputs(transition) == [again, event(1)]
    assert instance.timers[RUN_TIMEOUT].due_at == expires_at


def test_open_work_is_asked_for_again_and_what_was_given_up_is_not() -> None:
    history = episodes(
        [STARTED, task(0), task(1), task(2), timer(3), timer(4), child(5), child(6), child(7), child(8, detached=True)],
        [
            fired(3),
            done(0),
            TaskCancelled(timestamp=T0, task_scheduled_id=1),
            TaskCancelled(timestamp=T0, task_scheduled_id=6),
        ],
        [child_failed(5), child_done(7), the_end()],
    )
    instance, transition = rewind(history)
    assert transition.history_copied == (*history[:2], MARK)
    assert started_again(transition) == [2]
    assert [(each.sequence, each.due_at, each.execution_id) for each in transition.timers_created] == [(4, LATER, NEW)]
    assert transition.children_created == [OpenChild("i", NEW, 5, "old:5"), OpenChild("i", NEW, 7, "old:7")]
    assert set(instance.children) == {5, 7}
    [to_child] = [message for message in transition.sent if message.instance_id != "i"]
    assert to_child.instance_id == "old:5"
    assert to_child.event == ExecutionRewound(
        timestamp=NOW, execution_id=NEW, parent=ParentInstance("i", NEW, 5), task_scheduled_id=5
    )
    assert inputs(transition) == [child_done(7)]


def test_requests_of_clients_come_in_again_and_marks_do_not() -> None:
    update = UpdateRequested(timestamp=T0, update_id="u", name="n")
    cancel = CancelRequested(timestamp=T0)
    mark = ExecutionRewound(timestamp=T0, execution_id="old", reason=None)
    history = episodes(
        [STARTED, task(0), task(1)],
        [mark],
        [failed(0), update, cancel, UpdateCompleted(timestamp=T0, update_id="u"), PatchMarked(timestamp=T0, name="p")],
        [mark],
        [done(1), the_end()],
    )
    _, transition = rewind(history)
    assert transition.history_copied == (*history[:2], MARK)
    assert inputs(transition) == [update, cancel, done(1)]
    assert [message.execution_id for message in transition.sent] == [None, None, NEW]


def test_time_that_was_over_is_not_limited_again() -> None:
    started = msgspec.structs.replace(STARTED, expires_at=T0)
    history = episodes(
        [started, task(0), timer(1)], [failed(0, OTHER)], [fired(RUN_TIMEOUT), the_end(FailureDetails("t", "over"))]
    )
    instance, transition = rewind(history)
    assert transition.history_copied == (*history[:2], MARK)
    assert inputs(transition) == []
    assert set(instance.timers) == {1}


# Entities


def test_a_failed_call_of_an_entity_is_sent_again_under_its_id() -> None:
    """The code that waits for it knows it by that id; the answer goes to the new execution."""
    history = episodes([STARTED, call(0)], [answer(0), call(1)], [call_failed(1), the_end()])
    _, transition = rewind(history)
    [message] = transition.sent
    assert message.instance_id == "@e@k"
    assert message.event == msgspec.structs.replace(call(1), timestamp=NOW, parent_execution_id=NEW)


def test_an_answer_of_an_entity_is_kept() -> None:
    history = episodes([STARTED, call(0), task(1)], [failed(1), answer(0), the_end()])
    _, transition = rewind(history)
    assert inputs(transition) == [answer(0)]
    assert started_again(transition) == [1]


def test_a_call_of_an_entity_without_an_answer_is_in_the_way() -> None:
    history = episodes([STARTED, call(0), task(1)], [failed(1), the_end()])
    instance, engine = instance_of(history), hub()
    with pytest.raises(RewindRefusedError, match="'i' cannot be rewound: it ended while 'add' of entity @e@k"):
        engine.rewind(instance, history, None, NOW)
    assert engine.lsn == 7, "a refusal has no number"
    assert (instance.status, instance.revision) == (OrchestrationStatus.FAILED, 3)


LOCK = EntityLockRequested(
    timestamp=T0,
    event_id=0,
    critical_section_id="s",
    lock_set=("@e@a", "@e@b"),
    parent_instance_id="i",
    parent_execution_id="old",
)
GRANTED = EntityLockGranted(timestamp=T0, critical_section_id="s", lock_set=LOCK.lock_set)
UNLOCK_A = EntityUnlockSent(timestamp=T0, critical_section_id="s", target_instance_id="@e@a", event_id=2)
UNLOCK_B = EntityUnlockSent(timestamp=T0, critical_section_id="s", target_instance_id="@e@b", event_id=3)


@pytest.mark.parametrize(
    "history",
    [
        episodes([STARTED, LOCK, task(1)], [failed(1), the_end()]),
        episodes([STARTED, LOCK], [GRANTED, task(1)], [failed(1), UNLOCK_A, UNLOCK_B, the_end()]),
        episodes([STARTED, LOCK], [GRANTED, UNLOCK_A, task(1)], [failed(1), UNLOCK_B, the_end()]),
    ],
    ids=["requested", "granted", "given back in part"],
)
def test_a_critical_section_is_in_the_way(history: list[tuple[HistoryEvent, ...]]) -> None:
    with pytest.raises(RewindRefusedError, match=r"critical section over .*@e@b"):
        rewind(history)
    with pytest.raises(RewindRefusedError, match="critical section"):
        hub().fork("i", "f", history, None, NOW)


def test_a_critical_section_that_was_left_is_not_in_the_way() -> None:
    history = episodes([STARTED, LOCK], [GRANTED, UNLOCK_A, UNLOCK_B, task(4)], [failed(4), the_end()])
    _, transition = rewind(history)
    assert started_again(transition) == [4]


# Refusals


@pytest.mark.parametrize("status", [each for each in OrchestrationStatus if each is not OrchestrationStatus.FAILED])
def test_only_what_has_failed_is_rewound(status: OrchestrationStatus) -> None:
    engine = hub()
    with pytest.raises(InstanceNotRunningError, match="Cannot rewind instance 'i'"):
        engine.rewind(instance_of([], status), [], None, NOW)
    assert engine.lsn == 7


def test_what_never_ran_cannot_go_back() -> None:
    with pytest.raises(RewindRefusedError, match="'i' has never run"):
        rewind(episodes([fired(RUN_TIMEOUT), the_end()]))


# What is remembered


def remembering(*works: WorkRemembered) -> tuple[Hub, Instance]:
    engine = hub()
    instance = Instance("i", "x", "o", T0)
    instance.status = OrchestrationStatus.RUNNING
    for number, work in enumerate(works):
        message = Message("i", work, "x", message_id=number)
        assert engine.deliver(instance, message, NOW) == (instance, None)
    assert engine.deliver(instance, Message("i", event(0), message_id=99), NOW) == (instance, None)
    return engine, instance


def ask(engine: Hub, instance: Instance, *actions: OrchestratorAction) -> Transition:
    pending = engine.next_work(instance, NOW)
    assert isinstance(pending, PendingEpisode)
    return engine.complete_episode(instance, pending, Episode(actions), NOW)


def test_what_is_remembered_is_not_done_again() -> None:
    """The first of two equal calls gets the first result; a call with another input is a call."""
    works = [WorkRemembered(timestamp=T0, work=task(1, input="1"), is_completed=True, result=result) for result in "78"]
    engine, instance = remembering(*works)
    transition = ask(engine, instance, ScheduleTask(4, "t1", "1"), ScheduleTask(5, "t1", "2"))
    assert started_again_in(transition) == [5]
    [message] = transition.sent
    assert message.event == TaskCompleted(timestamp=NOW, task_scheduled_id=4, result="7")
    assert message.execution_id == "x"
    assert sorted(transition.consumed) == [0, 99]
    transition = ask_more(engine, instance, message, ScheduleTask(6, "t1", "1"), ScheduleTask(7, "t1", "1"))
    assert started_again_in(transition) == [7]
    assert [each.event for each in transition.sent] == [TaskCompleted(timestamp=NOW, task_scheduled_id=6, result="8")]
    assert instance.remembered == {}


def started_again_in(transition: Transition) -> list[int]:
    return [each.sequence for each in transition.activities_scheduled]


def ask_more(engine: Hub, instance: Instance, message: Message, *actions: OrchestratorAction) -> Transition:
    engine.deliver(instance, message, NOW)
    return ask(engine, instance, *actions)


def test_an_activity_that_had_not_succeeded_keeps_its_name() -> None:
    engine, instance = remembering(WorkRemembered(timestamp=T0, work=task(1), is_completed=False, call_id="old:1"))
    transition = ask(engine, instance, ScheduleTask(4, "t1", None), ScheduleTask(5, "t1", None))
    assert [each.call_id for each in transition.activities_scheduled] == ["old:1", None]
    assert [each.call_id for each in transition.history if isinstance(each, TaskScheduled)] == ["old:1", None]


def test_names_of_calls_survive_rewinds_but_not_a_fork() -> None:
    rewound = ExecutionRewound(timestamp=T0, execution_id="second")
    forked = ExecutionRewound(timestamp=T0, execution_id="fork", instance_id="i")
    first: list[HistoryEvent] = [STARTED, task(0), task(1)]
    history = episodes(first, [rewound], [done(0), task(2), task(3, call_id="old:9")], [failed(2), the_end()])
    _, transition = rewind(history)
    assert {each.sequence: each.call_id for each in transition.activities_scheduled} == {
        1: "old:1",
        2: "second:2",
        3: "old:9",
    }
    _, transition = rewind(episodes(*[list(each[1:]) for each in history[:3]], [forked], [failed(2), the_end()]))
    assert {each.sequence: each.call_id for each in transition.activities_scheduled} == {
        1: "fork:1",
        2: "fork:2",
        3: "fork:3",
    }


def test_a_sub_orchestration_that_is_remembered_is_waited_for_again() -> None:
    works = [
        WorkRemembered(timestamp=T0, work=child(1), is_completed=True, result='"c"'),
        WorkRemembered(timestamp=T0, work=child(2, runs_as="older:2"), is_completed=False),
    ]
    engine, instance = remembering(*works)
    transition = ask(
        engine,
        instance,
        CreateSubOrchestration(3, "c", "x:3", None, detached=True),
        CreateSubOrchestration(4, "c", "x:4", None),
        CreateSubOrchestration(5, "c", "x:5", None),
        CreateSubOrchestration(6, "c", "x:6", None),
    )
    assert [each.child_instance_id for each in transition.children_created] == ["old:1", "older:2", "x:6"]
    created = [each for each in transition.history if isinstance(each, SubOrchestrationInstanceCreated)]
    assert [each.runs_as for each in created] == [None, "old:1", "older:2", None]
    sent = {message.instance_id: message.event for message in transition.sent}
    assert sent["i"] == SubOrchestrationInstanceCompleted(timestamp=NOW, task_scheduled_id=4, result='"c"')
    assert sent["older:2"] == ExecutionRewound(
        timestamp=NOW, execution_id="x", parent=ParentInstance("i", "x", 5), task_scheduled_id=2
    )
    assert isinstance(sent["x:3"], ExecutionStarted)
    assert isinstance(sent["x:6"], ExecutionStarted)


def test_an_end_forgets_what_was_remembered() -> None:
    engine, instance = remembering(WorkRemembered(timestamp=T0, work=task(1), is_completed=True))
    transition = engine.make_way(instance, NOW)
    assert sorted(transition.consumed) == [0, 99]
    assert instance.remembered == {}


# Sub-orchestrations that are asked by their parent


def asked_by_parent(status: OrchestrationStatus) -> tuple[Hub, Instance, Message]:
    instance = instance_of([], status)
    instance.parent = ParentInstance("p", "p-old", 5)
    if status is OrchestrationStatus.COMPLETED:
        instance.output = "7"
    again = ExecutionRewound(timestamp=T0, execution_id="p-new", parent=ParentInstance("p", "p-new", 5))
    return hub(), instance, Message("i", again, message_id=1)


@pytest.mark.parametrize("status", [OrchestrationStatus.RUNNING, OrchestrationStatus.SUSPENDED])
def test_a_child_that_runs_answers_the_new_execution(status: OrchestrationStatus) -> None:
    engine, instance, message = asked_by_parent(status)
    _, transition = engine.deliver(instance, message, NOW)
    assert transition is not None
    assert instance.parent == ParentInstance("p", "p-new", 5)
    assert (transition.instance, transition.consumed, transition.sent) == (instance, [1], [])
    assert transition.is_new_execution, "else the parent would not be stored"


def test_a_child_that_has_completed_tells_its_result_again() -> None:
    engine, instance, message = asked_by_parent(OrchestrationStatus.COMPLETED)
    _, transition = engine.deliver(instance, message, NOW)
    assert transition is not None
    [told] = transition.sent
    assert (told.instance_id, told.execution_id) == ("p", "p-new")
    assert told.event == SubOrchestrationInstanceCompleted(timestamp=NOW, task_scheduled_id=5, result="7")


@pytest.mark.parametrize("status", [OrchestrationStatus.TERMINATED, OrchestrationStatus.CANCELED])
def test_a_child_that_was_stopped_has_failed(status: OrchestrationStatus) -> None:
    engine, instance, message = asked_by_parent(status)
    _, transition = engine.deliver(instance, message, NOW)
    assert transition is not None
    [told] = transition.sent
    assert isinstance(told.event, SubOrchestrationInstanceFailed)
    assert f"'i' ended as {status.value}" in told.event.failure.error_message


@pytest.mark.parametrize(
    "parent", [None, ParentInstance("q", "p-old", 5), ParentInstance("p", "p-old", 6)], ids=["none", "other", "number"]
)
@pytest.mark.parametrize("status", [OrchestrationStatus.RUNNING, OrchestrationStatus.FAILED])
def test_an_instance_of_somebody_else_does_not_answer(
    status: OrchestrationStatus, parent: ParentInstance | None
) -> None:
    engine, instance, message = asked_by_parent(status)
    instance.parent = parent
    _, transition = engine.deliver(instance, message, NOW)
    assert transition is not None
    assert (transition.instance, instance.parent, transition.consumed) == (None, parent, [1])
    [told] = transition.sent
    assert (told.instance_id, told.execution_id) == ("p", "p-new")
    assert isinstance(told.event, SubOrchestrationInstanceFailed)
    assert "'i' belongs to somebody else by now" in told.event.failure.error_message


def test_a_child_that_is_gone_has_failed() -> None:
    engine, _, message = asked_by_parent(OrchestrationStatus.FAILED)
    known, transition = engine.deliver(None, message, NOW)
    assert known is None
    assert transition is not None
    [told] = transition.sent
    assert isinstance(told.event, SubOrchestrationInstanceFailed)
    assert "'i' is gone" in told.event.failure.error_message


def test_a_child_that_has_failed_waits_for_its_history_and_rewinds() -> None:
    """What comes in meanwhile waits, too: it may be for the new execution."""
    engine, instance, message = asked_by_parent(OrchestrationStatus.FAILED)
    history = episodes([STARTED, task(0)], [failed(0), the_end()])
    instance.failure, instance.episodes = BROKEN, 2
    assert engine.deliver(instance, message, NOW) == (instance, None)
    assert instance.is_working
    assert list(instance.controls) == [message]
    more = Message("i", event(1), message_id=2)
    assert engine.deliver(instance, more, NOW) == (instance, None)
    assert list(instance.held) == [more]
    instance.controls.clear()
    instance.is_working = False
    transition = engine.rewind_child(instance, message, history, NOW)
    assert instance.parent == ParentInstance("p", "p-new", 5)
    assert instance.status is OrchestrationStatus.RUNNING
    assert started_again(transition) == [0]
    assert transition.consumed == [1]


def test_a_child_that_cannot_rewind_tells_why() -> None:
    engine, instance, message = asked_by_parent(OrchestrationStatus.FAILED)
    transition = engine.rewind_child(instance, message, episodes([STARTED, LOCK], [event(1), the_end()]), NOW)
    assert (transition.instance, instance.status) == (None, OrchestrationStatus.FAILED)
    [told] = transition.sent
    assert (told.instance_id, told.execution_id) == ("p", "p-new")
    assert isinstance(told.event, SubOrchestrationInstanceFailed)
    assert told.event.failure.error_type == "holdfast.errors.RewindRefusedError"


# Forks


def test_a_fork_goes_on_with_work_of_its_own() -> None:
    started = msgspec.structs.replace(STARTED, parent=ParentInstance("p", "x", 1), version="2", expires_at=LATER)
    history = episodes(
        [started, task(0), timer(1), child(2, input="9", tags={"a": "b"}), child(3), call(4), child(5, detached=True)],
        [done(0), child_done(3), task(6)],
        [event(1), fired(1), the_end()],
    )
    instance, transition = hub().fork("i", "f", history, None, NOW)
    mark = ExecutionRewound(timestamp=NOW, execution_id=NEW, instance_id="f")
    own = child(2, input="9", tags={"a": "b"}, runs_as=f"{NEW}:2")
    first = tuple(own if each == history[0][4] else each for each in history[0])
    assert transition.history_copied == (first, history[1], (OrchestratorStarted(timestamp=NOW), mark))
    assert (instance.instance_id, instance.execution_id, instance.parent) == ("f", NEW, None)
    assert (instance.input, instance.version, instance.tags) == ("1", "2", {"k": "v"})
    assert instance.status is OrchestrationStatus.RUNNING
    assert (transition.revision_before, transition.executions_removed) == (0, ())
    assert started_again(transition) == [6]
    assert {each.sequence: each.due_at for each in transition.timers_created} == {1: LATER, RUN_TIMEOUT: LATER}
    assert transition.children_created == [OpenChild("f", NEW, 2, f"{NEW}:2")]
    sent = {message.instance_id: message.event for message in transition.sent}
    assert sent["@e@k"] == msgspec.structs.replace(
        call(4), timestamp=NOW, parent_instance_id="f", parent_execution_id=NEW
    )
    assert sent[f"{NEW}:2"] == ExecutionStarted(
        timestamp=NOW,
        name="c",
        instance_id=f"{NEW}:2",
        execution_id=f"{NEW}.2",
        input="9",
        parent=ParentInstance("f", NEW, 2),
        tags={"k": "v", "a": "b"},
    )
    assert len(sent) == 2


def test_a_fork_from_before_the_first_episode_is_a_start() -> None:
    instance, transition = hub().fork("i", "f", episodes([STARTED, event(1), the_end()]), None, NOW)
    assert instance.status is OrchestrationStatus.PENDING
    [message] = transition.sent
    assert message.event == msgspec.structs.replace(STARTED, timestamp=NOW, instance_id="f", execution_id=NEW)


@pytest.mark.parametrize("count", [-1, 2, 100])
def test_a_fork_takes_over_no_more_than_there_is(count: int) -> None:
    engine = hub()
    with pytest.raises(InvalidInputError, match=f"episode={count}: instance 'i' has 1 episodes"):
        engine.fork("i", "f", episodes([STARTED, task(0)], [failed(0), the_end()]), count, NOW)
    assert engine.lsn == 7


def test_a_fork_of_what_runs_takes_over_all_of_it() -> None:
    history = episodes([STARTED, task(0)], [event(1)])
    _, transition = hub().fork("i", "f", history, None, NOW)
    assert transition.history_copied[:-1] == tuple(history)
