"""Crashes at chosen points: at each commit, once before anything of it is stored, and once before anybody hears of it.

Between two commits nothing can go wrong that these two do not show: what was done since the last commit is lost with
the first, and what is done because of a commit is not done with the second.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Literal, TypeAlias

import msgspec

from holdfast.errors import ConfigurationError

Side: TypeAlias = Literal["before", "after"]


class CrashPoint(msgspec.Struct, frozen=True):
    """`before 3` is where the third commit is asked for, and is not made; `after 3` where it is just made."""

    side: Side
    commit: int

    def __str__(self) -> str:
        return f"{self.side} {self.commit}"

    @staticmethod
    def parse(text: str) -> CrashPoint:
        """Read what `str` makes of one.

        Raises:
            ConfigurationError: if it is none.
        """
        side, _, number = text.strip().partition(" ")
        if side in ("before", "after") and number.strip().isdecimal() and int(number) >= 1:
            return CrashPoint("before" if side == "before" else "after", int(number))
        raise ConfigurationError(f"{text!r} is no point to crash at; write 'before 3' or 'after 3'.")


def all_crash_points() -> Iterator[CrashPoint]:
    """Return all points, without end, in the order in which a run comes to them."""
    for commit in itertools.count(1):
        yield CrashPoint("before", commit)
        yield CrashPoint("after", commit)


class PlannedCrashes:
    """The crashes that are still to come, by the number of the commit, counted from the first of all."""

    def __init__(self) -> None:
        self._points: list[CrashPoint] = []
        self.is_armed = True

    def add(self, point: CrashPoint) -> None:
        self._points.append(point)

    @property
    def waiting(self) -> int:
        """How many points have not been reached."""
        return len(self._points)

    def strikes(self, side: Side, commit: int) -> CrashPoint | None:
        """Return the crash that happens now, if one does; it will not happen again."""
        point = CrashPoint(side, commit)
        if not self.is_armed or point not in self._points:
            return None
        self._points.remove(point)
        return point
