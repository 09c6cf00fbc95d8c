"""How much the audit log takes of refused requests: whoever has no key could fill the disk with them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import msgspec

REFUSALS_MAX: Final = 60
"""Lines in one minute about what was refused with one status to the holders of one key, or to those who have none."""
_WINDOW: Final = timedelta(minutes=1)


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """One line for all those that were too many in a minute."""

    at: datetime
    since: datetime
    status: int
    key: str | None
    left_out: int


class _Minute(msgspec.Struct):
    since: datetime
    written: int = 0
    left_out: int = 0

    def is_over_at(self, now: datetime) -> bool:
        # The clock may have been set back meanwhile.
        return not self.since <= now < self.since + _WINDOW


class Refusals:
    """Counts refusals, minute by minute. It holds what was refused in the last minute only."""

    def __init__(self) -> None:
        self._minutes: dict[tuple[int, str | None], _Minute] = {}

    def ended(self, now: datetime) -> list[LeftOut]:
        """Forget the minutes that are over, and return what was left out in them."""
        over = {reason: minute for reason, minute in self._minutes.items() if minute.is_over_at(now)}
        for reason in over:
            del self._minutes[reason]
        return [
            LeftOut(at=now, since=minute.since, status=status, key=key, left_out=minute.left_out)
            for (status, key), minute in over.items()
            if minute.left_out
        ]

    def takes(self, status: int, key: str | None, now: datetime) -> bool:
        """Tell whether one more is to be written down; count it otherwise."""
        minute = self._minutes.setdefault((status, key), _Minute(now))
        if minute.written < REFUSALS_MAX:
            minute.written += 1
            return True
        minute.left_out += 1
        return False
