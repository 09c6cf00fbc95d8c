"""Arithmetic of instants that stays within the calendar: what is due after its end is due at its end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from holdfast.errors import InvalidInputError

LAST: Final = datetime.max.replace(tzinfo=UTC)
LONGEST_S: Final = 3_000 * 365 * 24 * 60 * 60.0
"""Longer delays than this count as this: three thousand years."""


def after(now: datetime, delay: timedelta) -> datetime:
    """Return the instant after a delay, or the last one that there is."""
    try:
        return now + delay
    except OverflowError:
        return LAST if delay > timedelta(0) else datetime.min.replace(tzinfo=UTC)


def to_utc(what: str, instant: datetime) -> datetime:
    """Return an aware instant in UTC; raise InvalidInputError if that is beyond the calendar."""
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise InvalidInputError(f"{what}={instant!r} is beyond the calendar in UTC.") from None


def instant(now: datetime, due: timedelta | datetime) -> datetime:
    """Return an instant in UTC.

    Raises:
        InvalidInputError: for what is neither a duration nor an aware instant, or is beyond the calendar.
    """
    if not isinstance(due, timedelta | datetime):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"{due!r} is no time to wait for; use timedelta(seconds=...) or an aware datetime.")
    try:
        fire_at = now + due if isinstance(due, timedelta) else due
    except OverflowError:
        raise InvalidInputError(f"A timer cannot be due after {due}: the calendar ends before that.") from None
    if fire_at.tzinfo is None:
        raise InvalidInputError(
            f"The instant {due} has no time zone; use an aware datetime, such as ctx.current_utc_datetime + delay."
        )
    return to_utc("the instant", fire_at)
