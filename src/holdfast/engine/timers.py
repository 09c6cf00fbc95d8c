"""What is due when: a heap for the near future. The store keeps the rest, and all of it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Generic, TypeAlias, TypeVar

from holdfast.engine.clock import Clock
from holdfast.model.messages import DurableKey

T = TypeVar("T")

Place: TypeAlias = tuple[datetime, DurableKey]
"""Where an item stands in the order in which they are due; the same as in the store."""

_STALE_MAX: Final = 1_000
"""How much of the heap may be of items that are gone, besides as many as there are others."""


class DueTimes(Generic[T]):
    """Calls back with each item once its time has come by the clock, never before; each key once at a time.

    When there are too many, the latest are left to the store, and so is all that comes after them, until there is room.
    """

    def __init__(
        self, clock: Clock, horizon_s: int, items_max: int, clock_check_s: float, fire: Callable[[T], None]
    ) -> None:
        self._clock = clock
        self._clock_check_s = clock_check_s
        self._horizon = timedelta(seconds=horizon_s)
        self._items_max = items_max
        self._fire = fire
        self._last: Place | None = None
        """What is after this place was left to the store; None if nothing was."""
        self._heap: list[Place] = []
        self._items: dict[DurableKey, tuple[datetime, T]] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._sleeping_until: datetime | None = None

    def horizon(self) -> datetime:
        """The instant beyond which items are left to the store."""
        horizon = self._clock.now() + self._horizon
        return horizon if self._last is None else min(horizon, self._last[0])

    @property
    def has_overflowed(self) -> bool:
        """Whether items within the horizon were left to the store because there were too many."""
        return self._last is not None

    @property
    def has_room(self) -> bool:
        """Whether it has overflowed, and there is room again, or what was left to the store may be the next."""
        if self._last is None:
            return False
        return len(self._items) <= self._items_max // 2 or self._heap[0] > self._last

    def leave_after(self, due_at: datetime, key: DurableKey) -> None:
        """Leave all after a place to the store: it was not read beyond."""
        place = (due_at, key)
        self._last = place if self._last is None else min(self._last, place)

    def go_on(self) -> Place | None:
        """Keep from now on what comes; return the place after which the store must be read for what was left to it."""
        last, self._last = self._last, None
        return last

    def add(self, key: DurableKey, due_at: datetime, item: T) -> None:
        """Keep an item if it is due soon; one with the same key is replaced."""
        if due_at > self._clock.now() + self._horizon or self._has_no_room_for(due_at, key):
            self._items.pop(key, None)
            return
        known, self._items[key] = self._items.get(key), (due_at, item)
        if known is None or known[0] != due_at:
            heapq.heappush(self._heap, (due_at, key))
        if self._sleeping_until is None or due_at < self._sleeping_until:
            self._arm()
        if len(self._items) > 2 * self._items_max:
            self._leave_latest()

    def _has_no_room_for(self, due_at: datetime, key: DurableKey) -> bool:
        return self._last is not None and len(self._items) >= self._items_max and (due_at, key) > self._last

    def discard(self, key: DurableKey) -> None:
        self._items.pop(key, None)
        if len(self._heap) > 2 * len(self._items) + _STALE_MAX:
            self._heap = self._places()

    def _leave_latest(self) -> None:
        self._heap = self._places()[: self._items_max]
        self._items = {key: self._items[key] for _, key in self._heap}
        self.leave_after(*self._heap[-1])

    def _places(self) -> list[Place]:
        return sorted((due_at, key) for key, (due_at, _) in self._items.items())

    def clear(self) -> None:
        self._items.clear()
        self._heap.clear()
        self._disarm()

    def _disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._sleeping_until = None

    def _arm(self) -> None:
        self._disarm()
        if not self._heap:
            return
        self._sleeping_until = self._heap[0][0]
        delay_s = (self._sleeping_until - self._clock.now()).total_seconds()
        loop = asyncio.get_running_loop()
        self._handle = loop.call_later(min(max(delay_s, 0.0), self._clock_check_s), self._wake)

    def _wake(self) -> None:
        now = self._clock.now()
        while self._heap and self._heap[0][0] <= now:
            due_at, key = heapq.heappop(self._heap)
            entry = self._items.get(key)
            if entry is not None and entry[0] == due_at:
                del self._items[key]
                self._fire(entry[1])
        self._arm()
