"""One execution, told by its history alone: what was asked for, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

from holdfast.model.history import (
    ExecutionCompleted,
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
)

Problem: TypeAlias = tuple[str, str]
"""(the rule that is broken, how)."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ExecutionFold:
    """Grows by episodes. What it finds wrong it says once."""

    def __init__(self) -> None:
        self.completed: ExecutionCompleted | None = None
        self._asked: dict[int, str] = {}
        self._fire_at: dict[int, datetime] = {}
        self._answered: set[int] = set()

    def add(self, events: Sequence[HistoryEvent], now_us: int) -> Problem | None:
        """Take in the next episode; return the first rule that it breaks.

        Args:
            now_us: the latest that any clock may say.
        """
        if self.completed is not None:
            return "final results", "it had ended before"
        for event in events:
            problem = self._add(event, _EPOCH + timedelta(microseconds=now_us))
            if problem is not None:
                return problem
        return None

    def open(self, asked: str) -> list[int]:
        """Return the numbers of what was asked for, of one kind, and has neither an answer nor been given up."""
        return [number for number, kind in self._asked.items() if kind == asked and number not in self._answered]

    def _add(self, event: HistoryEvent, latest: datetime) -> Problem | None:
        match event:
            case SubOrchestrationInstanceCreated(detached=True):
                pass
            case TaskScheduled() | SubOrchestrationInstanceCreated() | TimerCreated():
                if event.event_id in self._asked:
                    return "sequence numbers", f"{event.event_id} is used twice"
                self._asked[event.event_id] = type(event).__name__
                if isinstance(event, TimerCreated):
                    self._fire_at[event.event_id] = event.fire_at
            case TaskCompleted() | TaskFailed():
                return self._answer(event.task_scheduled_id, "TaskScheduled")
            case SubOrchestrationInstanceCompleted() | SubOrchestrationInstanceFailed():
                return self._answer(event.task_scheduled_id, "SubOrchestrationInstanceCreated")
            case TimerFired():
                if event.timestamp < event.fire_at or latest < event.fire_at:
                    return "timers are not early", f"timer {event.timer_id}, due at {event.fire_at}, fires before"
                if event.timer_id >= 0 and self._fire_at.get(event.timer_id, event.fire_at) != event.fire_at:
                    return "timers are not early", f"timer {event.timer_id} was created for another time"
                return self._answer(event.timer_id, "TimerCreated")
            case TaskCancelled():
                self._answered.add(event.task_scheduled_id)
            case ExecutionCompleted():
                self.completed = event
            case _:
                pass
        return None

    def _answer(self, number: int, asked: str) -> Problem | None:
        if number < 0:
            return None  # of the instance itself, or carried over from the execution before
        if self._asked.get(number) != asked:
            return "answers have questions", f"{number} is answered, but was not asked for as {asked}"
        if number in self._answered:
            return "one answer", f"{number} is answered twice"
        self._answered.add(number)
        return None
