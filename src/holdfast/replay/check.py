"""Does a whole recorded history still replay? For histories that are kept to be replayed against the code of the day.

The engine itself never asks that: it replays what has not ended, in order to go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from holdfast.model.converter import DataConverter
from holdfast.model.exported import ExportedHistory
from holdfast.model.history import ExecutionCompleted, ExecutionStarted, HistoryEvent, TimerFired
from holdfast.model.limits import Limits
from holdfast.model.refs import Orchestrator
from holdfast.model.status import OrchestrationStatus
from holdfast.replay.context import OrchestrationContext
from holdfast.replay.orchestration import Execution

_NEVER_RAN: Final = "holdfast.errors.NotRegisteredError"
_TOO_LONG: Final = "holdfast.errors.OrchestratorMisuseError"


def check_history(
    orchestrator: Orchestrator[Any, Any], history: ExportedHistory, converter: DataConverter, limits: Limits
) -> None:
    """Replay a history against code; if it has ended, the code must end there too, and in the same way.

    An end that came from outside, by a termination or an expiry, ran no code and is not replayed.

    Raises:
        NonDeterminismError: at the first difference.
    """
    execution = Execution(
        orchestrator, history.instance_id, history.execution_id, converter, limits, OrchestrationContext
    )
    *before, last = history.episodes or ((),)
    try:
        execution.replay(before)
        completed = last[-1] if last else None
        if not isinstance(completed, ExecutionCompleted) or _is_too_long(completed):
            execution.replay([last] if last else [])
        elif not _ended_from_outside(last, completed, is_first=not before):
            execution.replay_end(last)
    finally:
        execution.unload()


def _ended_from_outside(last: Sequence[HistoryEvent], completed: ExecutionCompleted, *, is_first: bool) -> bool:
    if completed.status is OrchestrationStatus.TERMINATED:
        return True
    if is_first and not any(isinstance(event, ExecutionStarted) for event in last):
        return True  # it was cancelled before it began
    if any(isinstance(event, TimerFired) and event.timer_id < 0 for event in last):
        return True  # timers of the instance, its run_timeout above all, have numbers that code cannot have
    failure = completed.failure
    if failure is None:
        return False
    # Only an end without the code is marked so: it was of another version, and the host was told to fail such.
    return failure.is_non_retriable or (is_first and failure.error_type == _NEVER_RAN)


def _is_too_long(completed: ExecutionCompleted) -> bool:
    """Whether the hub ended it for the length of its history, or, which is as well, its code for a misuse."""
    return completed.failure is not None and completed.failure.error_type == _TOO_LONG
