"""The numbers of transitions, from which the ids of executions are made."""

from __future__ import annotations

from datetime import datetime

from holdfast.hub.transition import Transition


class Numbering:
    """All transitions of a node, in one total order."""

    def __init__(self, lsn: int, node: str, default_version: str | None) -> None:
        self.lsn = lsn
        self._node = node
        self._default_version = default_version

    def _begin(self, instance_id: str, now: datetime) -> Transition:
        self.lsn += 1
        return Transition(self.lsn, instance_id, now)

    def _execution_id(self, lsn: int) -> str:
        """Ids rise with time, so that the history of what runs at the same time is stored close together."""
        return f"{lsn:013x}-{self._node}"

    def _entity_execution_id(self, message_id: int) -> str:
        """An entity has one for as long as it is stored; its timers, and the ids of what it sends, go by it."""
        return f"e{message_id:x}-{self._node}"
