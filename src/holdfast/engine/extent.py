"""How much comes of what code has asked for: messages, and the characters of all payloads."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.model.actions import (
    CancelTask,
    CancelTimer,
    CompleteOrchestration,
    CompleteUpdate,
    CreateSubOrchestration,
    CreateTimer,
    EntityAction,
    MarkPatch,
    OrchestratorAction,
    ScheduleTask,
    SendEntityMessage,
    SendEvent,
)
from holdfast.model.history import EntityOperationCalled, EntityOperationSignaled
from holdfast.model.work_items import EntityBatch, Episode, EpisodeResult, Failed


def extent_of(result: EpisodeResult | EntityBatch) -> tuple[int, int]:
    """Return how many actions and answers a result has, each of which may lead to a transition, and their length."""
    if isinstance(result, Episode):
        return len(result.actions), len(result.custom_status or "") + _chars(result.actions)
    if not isinstance(result, EntityBatch):
        return 0, 0
    actions, chars = 0, len(result.state or "")
    for outcome in result.outcomes:
        if not isinstance(outcome, Failed):
            actions += len(outcome.actions) + 1  # its answer
            chars += len(outcome.result or "") + _chars(outcome.actions)
    return actions, chars


def _chars(actions: Iterable[OrchestratorAction | EntityAction]) -> int:
    return sum(len(_payload(action) or "") for action in actions)


def _payload(action: OrchestratorAction | EntityAction) -> str | None:
    match action:
        case ScheduleTask() | CreateSubOrchestration() | SendEvent():
            return action.input
        case CompleteOrchestration() | CompleteUpdate():
            return action.result
        case SendEntityMessage(event=EntityOperationCalled() | EntityOperationSignaled() as event):
            return event.input
        case SendEntityMessage() | CreateTimer() | CancelTimer() | CancelTask() | MarkPatch():
            return None
