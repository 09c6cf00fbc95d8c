"""What an orchestrator has asked for in the current episode; during replay also from which line of code."""

from __future__ import annotations

import sys
from datetime import datetime

from holdfast.model.actions import CreateTimer, OrchestratorAction, SchedulingAction, scheduled_event
from holdfast.model.history import ScheduledEvent
from holdfast.replay.stepper import source_line


class Asked:
    def __init__(self) -> None:
        self.with_lines = False
        """Whether to note the line of user code for each action; it takes time, and only a replay needs it."""
        self._actions: list[OrchestratorAction] = []
        self._lines: list[str] = []

    def __len__(self) -> int:
        return len(self._actions)

    def clear(self) -> None:
        self._actions.clear()
        self._lines.clear()

    def append(self, action: OrchestratorAction) -> None:
        self._actions.append(action)
        if self.with_lines:
            self._lines.append(_user_line())

    def take_back_timer(self, timer_id: int) -> bool:
        """Forget a timer that was asked for in this very episode; return whether there is one."""
        for index, action in enumerate(self._actions):
            if isinstance(action, CreateTimer) and action.id == timer_id:
                del self._actions[index]
                del self._lines[index : index + 1]
                return True
        return False

    def actions(self) -> tuple[OrchestratorAction, ...]:
        return tuple(self._actions)

    def events_count(self) -> int:
        """How many events the actions cause."""
        return sum(isinstance(action, SchedulingAction) for action in self._actions)

    def events(self, now: datetime) -> list[tuple[ScheduledEvent, str]]:
        """Return the events that the actions cause, each with its line."""
        return [
            (scheduled_event(action, now), line)
            for action, line in zip(self._actions, self._lines, strict=True)
            if isinstance(action, SchedulingAction)
        ]


def _user_line() -> str:
    """The line of user code that asked, for the error of a replay that differs."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # the only cheap way to a caller
    here = __name__.rpartition(".")[0]
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith(here):
        frame = frame.f_back
    return f"at {source_line(frame)}"
