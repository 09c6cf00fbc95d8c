"""What a run found: one value per row, set against the limits of the machine it was found on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import msgspec


class Machine(msgspec.Struct, frozen=True):
    """What the machine itself can do, measured in the same run."""

    fsync_p50_s: float
    """To append 4 KiB to a file and fsync it."""
    grouped_rows_per_s: float
    """Rows of 200 bytes into SQLite, 100 to a transaction, each transaction on the disk."""
    task_switch_s: float
    """From one asyncio task to the next."""
    postgres_commit_p50_s: float | None = None
    """To change one small row in PostgreSQL and commit that."""


class Ratio(msgspec.Struct, frozen=True):
    value: float
    of: str


class Result(msgspec.Struct, frozen=True):
    workload: str
    measure: str
    value: float
    unit: str
    ratio: Ratio | None = None


_NOISE: Final = 1.2
"""By how much a cost may grow faster than n log n before that counts: two runs differ by as much."""


class Series(msgspec.Struct, frozen=True):
    """How a cost grows with some number n."""

    workload: str
    measure: str
    of: str
    """What there are n of."""
    unit: str
    sizes: list[int]
    """Each n, ascending."""
    costs: list[float]
    is_of_each: bool = False
    """Whether the costs are those of one of n, not of all together."""

    @property
    def totals(self) -> list[float]:
        """The costs of all n together."""
        return [cost * (n if self.is_of_each else 1) for n, cost in zip(self.sizes, self.costs, strict=True)]

    @property
    def exponent(self) -> float:
        """The p of the n**p that is as steep as the costs, from the first n to the last: 0 is flat, 1 linear."""
        return math.log(self.costs[-1] / self.costs[0]) / math.log(self.sizes[-1] / self.sizes[0])

    @property
    def against_n_log_n(self) -> float:
        """By how much the total grows more than n log n does, on the steepest step; less than 1 is slower growth."""
        steps = pairwise(zip(self.sizes, self.totals, strict=True))
        return max((after / before) / (_n_log_n(m) / _n_log_n(n)) for (n, before), (m, after) in steps)

    @property
    def is_too_steep(self) -> bool:
        return self.against_n_log_n > _NOISE


def _n_log_n(n: int) -> float:
    return n * math.log(n)


def fsyncs(seconds: float, machine: Machine) -> Ratio:
    """How many times the machine's own fsync a duration is; the smaller the better."""
    return Ratio(seconds / machine.fsync_p50_s, "x fsync p50")


def rows(per_s: float, machine: Machine) -> Ratio:
    """Which part of the rows that SQLite alone could write a rate is; the larger the better."""
    return Ratio(per_s / machine.grouped_rows_per_s, "x grouped rows/s")


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
