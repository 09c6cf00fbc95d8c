"""External events of one execution: who waits for which name, and what came before anybody waited."""

from __future__ import annotations

from collections import deque
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING

from holdfast.model.history import EventRaised

if TYPE_CHECKING:
    from holdfast.replay.event_waits import Wait


class EventQueues:
    """First come, first served, for each name without regard to case; an event satisfies one wait."""

    __slots__ = ("_arrived", "_buffered", "_waits", "buffered")

    def __init__(self) -> None:
        self._waits: dict[str, list[Wait]] = {}
        self._buffered: dict[str, deque[tuple[int, EventRaised]]] = {}
        self._arrived = 0
        self.buffered = 0
        """How many events nobody has waited for."""

    def take(self, name: str) -> EventRaised | None:
        """Return the oldest event that came before anybody waited for it."""
        key = name.casefold()
        events = self._buffered.get(key)
        if events is None:
            return None
        _, first = events.popleft()
        if not events:
            del self._buffered[key]
        self.buffered -= 1
        return first

    def add(self, wait: Wait) -> None:
        self._waits.setdefault(wait.name.casefold(), []).append(wait)

    def discard(self, wait: Wait) -> None:
        """Forget a wait that has timed out or was cancelled."""
        key = wait.name.casefold()
        self._waits[key].remove(wait)
        if not self._waits[key]:
            del self._waits[key]

    def deliver(self, event: EventRaised) -> Wait | None:
        """Return the wait that an event satisfies; without one the event is kept."""
        key = event.name.casefold()
        waits = self._waits.get(key)
        if waits is None:
            self.keep(event)
            return None
        first = waits.pop(0)
        if not waits:
            del self._waits[key]
        return first

    def keep(self, event: EventRaised) -> None:
        """Keep an event for a later wait."""
        self._arrived += 1
        self.buffered += 1
        self._buffered.setdefault(event.name.casefold(), deque()).append((self._arrived, event))

    def awaited(self, names_max: int) -> tuple[str, ...]:
        """Return the first names that somebody waits for, as they were written there."""
        if not self._waits:
            return ()
        return tuple(waits[0].name for waits in islice(self._waits.values(), names_max))

    def unprocessed(self) -> tuple[EventRaised, ...]:
        """Return the events that nobody has waited for, in the order of their arrival."""
        arrivals = sorted((arrival for queue in self._buffered.values() for arrival in queue), key=itemgetter(0))
        return tuple(event for _, event in arrivals)
