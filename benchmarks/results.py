"""What a run found: one value per row, set against the limits of the machine it was found on."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

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


def fsyncs(seconds: float, machine: Machine) -> Ratio:
    """How many times the machine's own fsync a duration is; the smaller the better."""
    return Ratio(seconds / machine.fsync_p50_s, "x fsync p50")


def rows(per_s: float, machine: Machine) -> Ratio:
    """Which part of the rows that SQLite alone could write a rate is; the larger the better."""
    return Ratio(per_s / machine.grouped_rows_per_s, "x grouped rows/s")


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
