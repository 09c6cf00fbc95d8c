"""Arithmetic of instants that stays within the calendar: what is due after its end is due at its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

LAST: Final = datetime.max.replace(tzinfo=UTC)
LONGEST_S: Final = 3_000 * 365 * 24 * 60 * 60.0
"""Longer delays than this count as this: three thousand years."""


def after(now: datetime, delay: timedelta) -> datetime:
    """Return the instant after a delay, or the last one that there is."""
    try:
        return now + delay
    except OverflowError:
        return LAST if delay > timedelta(0) else datetime.min.replace(tzinfo=UTC)
