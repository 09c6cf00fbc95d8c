"""The numbers of transitions and messages, and the ids of executions that are made from them."""

from __future__ import annotations

from datetime import datetime

import msgspec

from holdfast.hub.transition import Transition

_MESSAGES_PER_INCARNATION = 1 << 37
"""At 20,000 a second, enough for 79 days; then the node fails, and begins again. There may be 67 million of them."""


class NewExecutions(msgspec.Struct, frozen=True, gc=False):
    """How the executions that a transition begins are named, and which version they have if none is asked for."""

    lsn: int
    node: str
    default_version: str | None

    @property
    def execution_id(self) -> str:
        """Ids rise with time, so that the history of what runs at the same time is stored close together."""
        return f"{self.lsn:013x}-{self.node}"


class Numbering:
    """All transitions of a node, in one total order."""

    def __init__(self, lsn: int, node: str, incarnation: int, default_version: str | None) -> None:
        self.lsn = lsn
        self._node = f"{node}.{incarnation:x}"
        first = incarnation * _MESSAGES_PER_INCARNATION
        self._message_ids = iter(range(first, first + _MESSAGES_PER_INCARNATION))
        self._default_version = default_version

    def _begin(self, instance_id: str, now: datetime) -> Transition:
        self.lsn += 1
        return Transition(self.lsn, instance_id, now, self._message_ids)

    def _new_executions(self, transition: Transition) -> NewExecutions:
        return NewExecutions(transition.lsn, self._node, self._default_version)

    def _entity_execution_id(self, message_id: int) -> str:
        """An entity has one for as long as it is stored; its timers, and the ids of what it sends, go by it."""
        return f"e{message_id:x}-{self._node}"
