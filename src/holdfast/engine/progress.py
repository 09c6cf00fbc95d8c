"""What running activities report, made durable now and then: a later attempt reads it, also after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from holdfast.model.messages import DurableKey
from holdfast.model.work_items import ActivityWorkItem

_RECORD_S: Final = 1.0
"""How often at most the progress of one attempt is stored; in between, only the newest is kept in memory."""


class Progress:
    """The newest report of each running attempt that is not stored yet."""

    def __init__(self, record: Callable[[ActivityWorkItem, str], None]) -> None:
        self._record = record
        self._latest: dict[DurableKey, tuple[ActivityWorkItem, str]] = {}
        self._handle: asyncio.TimerHandle | None = None

    def reported(self, work_item: ActivityWorkItem, progress: str) -> None:
        self._latest[work_item.execution_id, work_item.sequence] = (work_item, progress)
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(_RECORD_S, self._flush)

    def ended(self, work_item: ActivityWorkItem) -> None:
        """Forget an attempt whose outcome says all."""
        self._latest.pop((work_item.execution_id, work_item.sequence), None)

    def close(self) -> None:
        """Store what is left."""
        if self._handle is not None:
            self._handle.cancel()
        self._flush()

    def _flush(self) -> None:
        self._handle = None
        latest, self._latest = self._latest, {}
        for work_item, progress in latest.values():
            self._record(work_item, progress)
