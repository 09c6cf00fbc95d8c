"""What the code of an orchestrator asks for, each thing under the next sequence number; in a replay also from where."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from holdfast.errors import InvalidInputError
from holdfast.model.actions import (
    CancelTimer,
    CompleteOrchestration,
    CreateTimer,
    MarkPatch,
    OrchestratorAction,
    scheduled_event,
)
from holdfast.model.history import HistoryEvent, PatchMarked, ScheduledEvent
from holdfast.replay.stepper import source_line

_WITHOUT_EVENT = (CancelTimer, CompleteOrchestration)
_NOTHING_MARKED: Final[frozenset[str]] = frozenset()


class Asked:
    """The actions of the current episode, and what is counted and remembered over all episodes of an execution."""

    __slots__ = (
        "_actions_max",
        "_is_replaying",
        "_lines",
        "_marked",
        "_patches",
        "actions",
        "custom_status",
        "next_number",
        "orchestrator",
    )

    def __init__(self, orchestrator: str, actions_max: int) -> None:
        self.orchestrator = orchestrator
        self._actions_max = actions_max
        self.next_number = 0
        """The sequence number of what is asked for next."""
        self.actions: list[OrchestratorAction] = []
        self.custom_status: str | None = None
        """What the episode has set it to."""
        self._is_replaying = False
        self._lines: list[str] = []
        self._marked = _NOTHING_MARKED
        self._patches: dict[str, bool] | None = None

    def take_number(self) -> int:
        """Return the sequence number of what is asked for next.

        Raises:
            InvalidInputError: if the episode has asked for too much already.
        """
        if len(self.actions) >= self._actions_max:
            raise InvalidInputError(
                f"Orchestrator {self.orchestrator!r} asked for more than {self._actions_max} things at once; "
                "split the work into sub-orchestrations, or bound it with ctx.map(..., concurrency=...)."
            )
        number = self.next_number
        self.next_number = number + 1
        return number

    def append(self, action: OrchestratorAction) -> None:
        """Ask for something: under the number that was taken for it, or without one."""
        self.actions.append(action)
        if self._is_replaying:
            self._lines.append(_user_line())

    def take_timer_back(self, number: int) -> None:
        """Take a timer back: unasked if it was created in this very episode, else by an action."""
        for index, action in enumerate(self.actions):
            if isinstance(action, CreateTimer) and action.id == number:
                del self.actions[index]
                del self._lines[index : index + 1]
                return
        self.append(CancelTimer(number))

    def is_patched(self, name: str) -> bool:
        """Return whether the code after a change is to be used, as decided when this was asked first."""
        if self._patches is None:
            self._patches = {}
        known = self._patches.get(name)
        if known is None:
            known = self._patches[name] = not self._is_replaying or name in self._marked
            if known:
                self.append(MarkPatch(name))
        return known

    # Episode by episode

    def begin_episode(self) -> None:
        self.actions.clear()
        self.custom_status = None

    def begin_replay(self, recorded: Sequence[HistoryEvent]) -> None:
        """Note the line of user code for each action of the next episode, which is recorded; it takes time."""
        self._is_replaying = True
        self._lines.clear()
        self._marked = frozenset(event.name for event in recorded if isinstance(event, PatchMarked))

    def end_replay(self, now: datetime) -> list[tuple[ScheduledEvent, str]]:
        """Return the events that the actions of the episode cause, each with its line."""
        self._is_replaying = False
        return [
            (scheduled_event(action, now), line)
            for action, line in zip(self.actions, self._lines, strict=True)
            if not isinstance(action, _WITHOUT_EVENT)
        ]

    def events_count(self) -> int:
        """Return how many events the actions of the episode cause."""
        count = 0
        for action in self.actions:
            if not isinstance(action, _WITHOUT_EVENT):
                count += 1
        return count


def _user_line() -> str:
    """The line of user code that asked, for the error of a replay that differs."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # the only cheap way to a caller
    here = __name__.rpartition(".")[0]
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith(here):
        frame = frame.f_back
    return f"at {source_line(frame)}"
