"""What is due when: a heap for the near future. The store keeps the rest, and all of it."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from holdfast.engine.clock import Clock
from holdfast.model.messages import DurableKey

T = TypeVar("T")


class DueTimes(Generic[T]):
    """Calls back with each item once its time has come by the clock, never before; each key once at a time."""

    def __init__(self, clock: Clock, horizon_s: int, clock_check_s: float, fire: Callable[[T], None]) -> None:
        self._clock = clock
        self._clock_check_s = clock_check_s
        self._horizon = timedelta(seconds=horizon_s)
        self._fire = fire
        self._heap: list[tuple[datetime, DurableKey]] = []
        self._items: dict[DurableKey, tuple[datetime, T]] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._sleeping_until: datetime | None = None

    def horizon(self) -> datetime:
        """The instant beyond which items are left to the store."""
        return self._clock.now() + self._horizon

    def add(self, key: DurableKey, due_at: datetime, item: T) -> None:
        """Keep an item if it is due soon; one with the same key is replaced."""
        if due_at > self.horizon():
            self._items.pop(key, None)
            return
        known, self._items[key] = self._items.get(key), (due_at, item)
        if known is None or known[0] != due_at:
            heapq.heappush(self._heap, (due_at, key))
        if self._sleeping_until is None or due_at < self._sleeping_until:
            self._arm()

    def discard(self, key: DurableKey) -> None:
        self._items.pop(key, None)

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
