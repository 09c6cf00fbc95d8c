"""The history as clients of the protocol know it: what was asked for is folded into its completion."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    ExecutionStarted,
    HistoryEvent,
    OrchestratorStarted,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
)

_Scheduled = TaskScheduled | SubOrchestrationInstanceCreated
_Finished = TaskCompleted | TaskFailed | SubOrchestrationInstanceCompleted | SubOrchestrationInstanceFailed

_PAYLOADS = frozenset({"input", "result", "output", "reason"})
"""Fields that hold JSON texts."""
_BREAKS = bytes.maketrans(b"\r\n", b"  ")
_OUTPUTS = frozenset({"result", "output"})
_HIDDEN = frozenset(
    {"event_id", "task_scheduled_id", "timer_id", "parent", "execution_id", "parent_execution_id", "policy", "call_id"}
)
_STARTED_HIDDEN = frozenset({"name", "instance_id", "version", "tags", "carried", "event_keys"})
_SCHEDULED_HIDDEN = frozenset({"version"})


def raw(text: str | None) -> object:
    """Return a JSON text as what is written as that very text; None is written as null."""
    return None if text is None else msgspec.Raw(text.encode())


def one_line(value: object) -> bytes:
    """Return a value as JSON without line breaks, also where a client has written its payload on several lines."""
    # In JSON a raw line break is white space: in a text it is escaped.
    return msgspec.json.encode(value).translate(_BREAKS)


def project_history(events: Sequence[HistoryEvent], *, show_input: bool, show_output: bool) -> list[dict[str, object]]:
    """Return the rows of `historyEvents`.

    A completion tells what was completed and since when it was asked for; rows of what is not yet complete stay.
    """
    hidden = _HIDDEN if show_input else _HIDDEN | {"input"}
    hidden = hidden if show_output else hidden | _OUTPUTS
    scheduled = {event.event_id: event for event in events if isinstance(event, _Scheduled)}
    finished = {event.task_scheduled_id for event in events if isinstance(event, _Finished)}
    rows: list[dict[str, object]] = []
    for event in events:
        match event:
            case OrchestratorStarted():
                continue
            case TaskScheduled() | SubOrchestrationInstanceCreated():
                if event.event_id not in finished:
                    rows.append(_row(event, hidden | _SCHEDULED_HIDDEN))
            case (
                TaskCompleted() | TaskFailed() | SubOrchestrationInstanceCompleted() | SubOrchestrationInstanceFailed()
            ):
                rows.append(_folded(event, scheduled.get(event.task_scheduled_id), hidden))
            case ExecutionStarted():
                rows.append({**_row(event, hidden | _STARTED_HIDDEN), "FunctionName": event.name})
            case _:
                rows.append(_row(event, hidden))
    return rows


def event_rows(events: Sequence[HistoryEvent], *, show_input: bool, show_output: bool) -> list[dict[str, object]]:
    """Return one row for each event, with its numbers, and nothing folded."""
    hidden = frozenset[str]() if show_input else frozenset({"input"})
    hidden = hidden if show_output else hidden | _OUTPUTS
    return [_row(event, hidden) for event in events]


def _folded(event: _Finished, scheduled: _Scheduled | None, hidden: frozenset[str]) -> dict[str, object]:
    row = _row(event, hidden)
    if scheduled is not None:
        row["ScheduledTime"] = scheduled.timestamp
        row["FunctionName"] = scheduled.name
        if "input" not in hidden and scheduled.input is not None:
            row["Input"] = raw(scheduled.input)
    return row


def _row(event: HistoryEvent, hidden: frozenset[str]) -> dict[str, object]:
    row: dict[str, object] = {"EventType": type(event).__name__}
    for field in event.__struct_fields__:
        value: object = getattr(event, field)
        if field in hidden or value is None or value is False or value in ({}, ()):
            continue
        if isinstance(value, FailureDetails):
            row["Reason"] = f"{value.error_type}: {value.error_message}"
            row["Details"] = value.stack_trace
        elif field == "status":
            row["OrchestrationStatus"] = value
        else:
            row[_pascal(field)] = raw(value) if field in _PAYLOADS and isinstance(value, str) else value
    return row


def _pascal(field: str) -> str:
    return "".join(part.capitalize() for part in field.split("_"))
