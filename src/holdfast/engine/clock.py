"""The one place where the engine learns the time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol

from holdfast.errors import CorruptRecordError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    def now(self) -> datetime:
        """Return the time, aware and in UTC."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


def to_microseconds(instant: datetime) -> int:
    """Return whole microseconds since the epoch, exactly."""
    return (instant - _EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """Return the aware UTC instant, exactly.

    Raises:
        CorruptRecordError: for what no calendar has.
    """
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        raise CorruptRecordError(f"{microseconds} microseconds since 1970 is no point in time.") from None
