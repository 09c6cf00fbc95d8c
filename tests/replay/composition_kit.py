"""What the tests of composition share: events and actions as short literals, and a player that checks each replay."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from test_execution import START, Player

from holdfast import App, Limits
from holdfast.model.actions import (
    CancelTask,
    CancelTimer,
    CompleteOrchestration,
    CreateSubOrchestration,
    CreateTimer,
    OrchestratorAction,
    ScheduleTask,
)
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    CancelRequested,
    EventRaised,
    HistoryEvent,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TimerFired,
)

CANCEL = CancelRequested(timestamp=START, reason='"enough"')


def done(number: int, result: str = "null") -> TaskCompleted:
    return TaskCompleted(timestamp=START, task_scheduled_id=number, result=result)


def failed(number: int, text: str = "no", kind: str = "builtins.ValueError") -> TaskFailed:
    return TaskFailed(timestamp=START, task_scheduled_id=number, failure=FailureDetails(kind, text))


def child_done(number: int, result: str = "null") -> SubOrchestrationInstanceCompleted:
    return SubOrchestrationInstanceCompleted(timestamp=START, task_scheduled_id=number, result=result)


def child_failed(number: int, text: str = "no", kind: str = "builtins.ValueError") -> SubOrchestrationInstanceFailed:
    return SubOrchestrationInstanceFailed(timestamp=START, task_scheduled_id=number, failure=FailureDetails(kind, text))


def fired(number: int) -> TimerFired:
    return TimerFired(timestamp=START, timer_id=number, fire_at=START)


def raised(name: str, input: str = "null") -> EventRaised:
    return EventRaised(timestamp=START, name=name, input=input)


def told(action: OrchestratorAction) -> str:
    """One action as a short text: `a` asks for the activity a, `stop 0` cancels what has the number 0."""
    match action:
        case ScheduleTask():
            return action.name + ("" if action.input in (None, "null") else f" {action.input}")
        case CreateSubOrchestration():
            return f"{action.name}()"
        case CreateTimer():
            return f"timer {(action.fire_at - START).total_seconds():g}"
        case CancelTask() | CancelTimer():
            return f"stop {action.id}"
        case CompleteOrchestration(failure=None):
            return f"{action.status.value} {action.result}"
        case CompleteOrchestration(failure=failure):
            assert failure is not None
            return f"{action.status.value} {failure.error_type.rpartition('.')[2]}: {failure.error_message}"
        case _:
            return type(action).__name__


class Story:
    """Tells events to an orchestrator, episode by episode. After each, a replay must agree with the live execution."""

    def __init__(self, function: Callable[..., Any], input: str | None = None, *, limits: Limits | None = None) -> None:
        self.player = Player(App().orchestrator(function), input, limits)
        self.told = [told(action) for action in self.player.actions]
        self._check_replay()

    def then(self, *events: HistoryEvent) -> list[str]:
        """Run one episode; return what it asked for."""
        self.told = [told(action) for action in self.player.episode(*events)]
        self._check_replay()
        return self.told

    def _check_replay(self) -> None:
        if self.player.ends:
            self.player.live.unload()
            return
        again = self.player.fresh()
        again.replay(self.player.history)
        assert again.can_unload() == self.player.live.can_unload()
        if again.can_unload():
            self.player.live.unload()
            self.player.live = again
        else:
            again.unload()


SECOND = timedelta(seconds=1)
