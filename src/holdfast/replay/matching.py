"""Does replayed code still ask for what history says it asked for? If not: both sides, and the likely cause."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast.errors import NonDeterminismError
from holdfast.model.actions import CompleteOrchestration
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    ExecutionCompleted,
    PatchMarked,
    ScheduledEvent,
    SubOrchestrationInstanceCreated,
    TaskScheduled,
    UpdateCompleted,
)
from holdfast.model.status import OrchestrationStatus

_TEXT_CHARS_MAX = 200
_CHANGED_CODE = (
    "The orchestrator was changed while this instance was in flight. "
    "Put the old code back, or keep it for what is running: behind `if ctx.patched(...)`, or as a version of its own."
)
_CHANGED_VALUE = (
    "An argument depends on something that differs between runs: the clock, random, uuid4, the environment, the order "
    "of a set, a changed constant. Take it from ctx or from an activity, or put the old code back."
)
_CHANGED_END = (
    "The orchestrator was changed, or its end depends on something that differs between runs: the clock, random, "
    "uuid4, the environment, the order of a set. Take that from ctx or from an activity, or put the old code back."
)


def check_episode(
    subject: str, episode: int, recorded: Sequence[ScheduledEvent], asked: Sequence[tuple[ScheduledEvent, str]]
) -> None:
    """Compare what one replayed episode asked for with what its history recorded.

    Args:
        subject: names the instance and its orchestrator.
        asked: each event as the code would cause it now, with the source line that asked.

    Raises:
        NonDeterminismError: at the first difference in kind, order, name or argument.
    """
    recorded = _without_forgotten_patches(recorded, asked)
    for event, (found, line) in zip(recorded, asked, strict=False):
        if event != found and _comparable(event) != _comparable(found) and not _same_failure(event, found):
            cause = _CHANGED_VALUE if _same_call(event, found) else _CHANGED_CODE
            raise NonDeterminismError(_message(subject, episode, describe(event), f"{describe(found)}, {line}", cause))
    if len(asked) > len(recorded):
        found, line = asked[len(recorded)]
        raise NonDeterminismError(
            _message(subject, episode, "nothing more in this episode", f"{describe(found)}, {line}", _CHANGED_CODE)
        )
    if len(recorded) > len(asked):
        missing = describe(recorded[len(asked)])
        raise NonDeterminismError(_message(subject, episode, missing, "nothing more in this episode", _CHANGED_CODE))


def _comparable(event: ScheduledEvent) -> ScheduledEvent:
    """Leave out what is recorded for a rewind, and is no part of what the code asked for."""
    if isinstance(event, TaskScheduled):
        return msgspec.structs.replace(event, policy=None, call_id=None)
    if isinstance(event, SubOrchestrationInstanceCreated):
        return msgspec.structs.replace(event, runs_as=None)
    return event


def _without_forgotten_patches(
    recorded: Sequence[ScheduledEvent], asked: Sequence[tuple[ScheduledEvent, str]]
) -> list[ScheduledEvent]:
    """Leave out the marks of patches that the code does not ask about any more: it took the new branch for good."""
    asked_about = {event.name for event, _ in asked if isinstance(event, PatchMarked)}
    return [event for event in recorded if not isinstance(event, PatchMarked) or event.name in asked_about]


def ended_early(subject: str, episode: int, failure: FailureDetails | None) -> NonDeterminismError:
    """Return the error for code that ends, with a failure or not, in an episode after which its history goes on."""
    how = "it returned" if failure is None else f"it raised {failure.error_type}: {failure.error_message}"
    return NonDeterminismError(_message(subject, episode, "the orchestration goes on", how, _CHANGED_CODE))


def check_end(subject: str, episode: int, recorded: ExecutionCompleted, found: CompleteOrchestration | None) -> None:
    """Compare how code ends in the last episode of its history with how it ended then.

    A failure may change its words and its stack, but not its type.

    Raises:
        NonDeterminismError: if it ends otherwise, or not at all (`found` is None).
    """
    if found is None:
        raise NonDeterminismError(_message(subject, episode, _describe_end(recorded), "it goes on", _CHANGED_END))
    same = found.status is recorded.status
    if same and recorded.status is OrchestrationStatus.COMPLETED:
        same = found.result == recorded.result
    elif same and recorded.failure is not None:
        same = found.failure is not None and found.failure.error_type == recorded.failure.error_type
    if not same:
        raise NonDeterminismError(
            _message(subject, episode, _describe_end(recorded), _describe_end(found), _CHANGED_END)
        )


def _describe_end(end: ExecutionCompleted | CompleteOrchestration) -> str:
    if end.failure is not None:
        return f"it raised {end.failure.error_type}: {_cut(end.failure.error_message)}"
    how = "it returned" if end.status is OrchestrationStatus.COMPLETED else f"it ended as {end.status.value} with"
    return f"{how} {_cut(str(end.result))}"


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT_CHARS_MAX else f"{text[:_TEXT_CHARS_MAX]}..."


def _message(subject: str, episode: int, expected: str, found: str, cause: str) -> str:
    return (
        f"{subject} does not replay: in episode {episode} its code does something else than its history says.\n"
        f"  expected (history): {expected}\n"
        f"  found (code):       {found}\n"
        f"Likely cause: {cause}"
    )


def _same_failure(event: ScheduledEvent, found: ScheduledEvent) -> bool:
    """Whether both answer an update by a failure of the same type; the words may change, as for a whole execution."""
    match event, found:
        case UpdateCompleted(failure=FailureDetails() as failure), UpdateCompleted(failure=FailureDetails() as other):
            return event.update_id == found.update_id and failure.error_type == other.error_type
        case _:
            return False


def _same_call(event: ScheduledEvent, found: ScheduledEvent) -> bool:
    names = ("name", "operation", "event_id")
    return type(event) is type(found) and all(
        getattr(event, name, None) == getattr(found, name, None) for name in names
    )


def describe(event: ScheduledEvent) -> str:
    """Return one line for an event: kind, fields that are set, long texts cut."""
    parts: list[str] = []
    for field, value in msgspec.structs.asdict(_comparable(event)).items():
        if field == "timestamp" or value is None or value is False or value == {}:
            continue
        text = str(value) if field == "input" else repr(value)
        parts.append(f"{field}={_cut(text)}")
    return f"{type(event).__name__}({', '.join(parts)})"
