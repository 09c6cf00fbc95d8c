"""External events of one execution: who waits for which name, and what came before anybody waited."""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

import msgspec

from holdfast.model.history import EventRaised
from holdfast.replay.tasks import DurableTask

T = TypeVar("T")


class Wait(msgspec.Struct, frozen=True, eq=False):
    """A task that is completed by an event, and the type of the payload that it expects."""

    task: DurableTask[Any]
    expected_type: Any


class EventQueues:
    """First come, first served, for each name without regard to case; an event satisfies one wait."""

    def __init__(self) -> None:
        self._waits: dict[str, deque[Wait]] = {}
        self._buffered: dict[str, deque[EventRaised]] = {}

    def take(self, name: str) -> EventRaised | None:
        """Return the oldest event that came before anybody waited for it."""
        return _popleft(self._buffered, name.casefold())

    def add(self, name: str, wait: Wait) -> None:
        self._waits.setdefault(name.casefold(), deque()).append(wait)

    def discard(self, name: str, wait: Wait) -> None:
        """Forget a wait that has timed out."""
        key = name.casefold()
        self._waits[key].remove(wait)
        if not self._waits[key]:
            del self._waits[key]

    def deliver(self, event: EventRaised) -> Wait | None:
        """Return the wait that an event satisfies; without one the event is kept."""
        wait = _popleft(self._waits, event.name.casefold())
        if wait is None:
            self._buffered.setdefault(event.name.casefold(), deque()).append(event)
        return wait

    def unprocessed(self) -> tuple[EventRaised, ...]:
        """Return the events that nobody has waited for, oldest first."""
        events = [event for queue in self._buffered.values() for event in queue]
        return tuple(sorted(events, key=lambda event: event.timestamp))


def _popleft(queues: dict[str, deque[T]], key: str) -> T | None:
    queue = queues.get(key)
    if not queue:
        return None
    first = queue.popleft()
    if not queue:
        del queues[key]
    return first
