"""Messages that were dropped because their instance does not exist, as long as a load may still find their rows."""

from __future__ import annotations

from collections.abc import Iterable


class Dropped:
    def __init__(self) -> None:
        self._lsn_by_id: dict[int, int] = {}

    def __contains__(self, message_id: int | None) -> bool:
        return message_id in self._lsn_by_id

    def add(self, message_ids: Iterable[int], lsn: int) -> None:
        """Note what a transition drops."""
        self._lsn_by_id.update(dict.fromkeys(message_ids, lsn))

    def forget(self, known_lsn: int) -> None:
        """Forget what every open read knows to be gone."""
        while self._lsn_by_id:
            message_id = next(iter(self._lsn_by_id))
            if self._lsn_by_id[message_id] > known_lsn:
                return
            del self._lsn_by_id[message_id]
