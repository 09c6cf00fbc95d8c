"""Outcomes of activities until they are stored: a failed commit forgets that one was taken in, but not the outcome."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from holdfast.model.messages import DurableKey
from holdfast.model.work_items import ActivityWorkItem, Outcome


class Answers:
    """Outlives the nodes of an engine. Each new node is offered what the one before has not stored."""

    def __init__(self) -> None:
        self._by_key: dict[DurableKey, tuple[ActivityWorkItem, Outcome]] = {}
        self._consumed: deque[tuple[int, DurableKey]] = deque()

    def __contains__(self, key: DurableKey) -> bool:
        return key in self._by_key

    def add(self, work_item: ActivityWorkItem, outcome: Outcome) -> None:
        self._by_key[work_item.execution_id, work_item.sequence] = (work_item, outcome)

    def consumed(self, key: DurableKey, lsn: int) -> bool:
        """Note that a transition takes an outcome in, or makes it meaningless; return whether there is one."""
        if key not in self._by_key:
            return False
        self._consumed.append((lsn, key))
        return True

    def discard(self, key: DurableKey) -> None:
        """Forget an outcome that concerns nobody."""
        self._by_key.pop(key, None)

    def stored(self, durable_lsn: int) -> None:
        """Forget the outcomes whose transitions are durable."""
        while self._consumed and self._consumed[0][0] <= durable_lsn:
            self._by_key.pop(self._consumed.popleft()[1], None)

    def keys(self) -> Collection[DurableKey]:
        """Return which activities have outcomes here that are not stored."""
        return self._by_key.keys()

    def waiting(self) -> list[tuple[ActivityWorkItem, Outcome]]:
        """Return all that are not stored."""
        return list(self._by_key.values())

    def offer_again(self) -> list[tuple[ActivityWorkItem, Outcome]]:
        """Return all that are not stored, for a new node."""
        self._consumed.clear()
        return list(self._by_key.values())
