"""Does replayed code still ask for what history says it asked for? If not: both sides, and the likely cause."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from holdfast.errors import NonDeterminismError
from holdfast.model.failure import FailureDetails
from holdfast.model.history import PatchMarked, ScheduledEvent, SubOrchestrationInstanceCreated, TaskScheduled

_TEXT_CHARS_MAX = 200
_CHANGED_CODE = (
    "The orchestrator was changed while this instance was in flight. "
    "Put the old code back, or keep it under its old name for what is running and give the new code a new name."
)
_CHANGED_VALUE = (
    "An argument depends on something that differs between runs: the clock, random, uuid4, the environment, the order "
    "of a set, a changed constant. Take it from ctx or from an activity, or put the old code back."
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
        if event != found and _comparable(event) != _comparable(found):
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


def _message(subject: str, episode: int, expected: str, found: str, cause: str) -> str:
    return (
        f"{subject} does not replay: in episode {episode} its code does something else than its history says.\n"
        f"  expected (history): {expected}\n"
        f"  found (code):       {found}\n"
        f"Likely cause: {cause}"
    )


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
        parts.append(f"{field}={text if len(text) <= _TEXT_CHARS_MAX else text[:_TEXT_CHARS_MAX] + '...'}")
    return f"{type(event).__name__}({', '.join(parts)})"
