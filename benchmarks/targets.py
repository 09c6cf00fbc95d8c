"""What the results should be, on the machine for which that was written down: SQLite, default settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from benchmarks.results import Machine, Result

FSYNC: Final = "fsync p50"


class Target(msgspec.Struct, frozen=True):
    """A bound for one row; it has one of `at_most` and `at_least`."""

    workload: str
    measure: str
    at_most: float | None = None
    at_least: float | None = None
    times: str | None = None
    """What the bound is a multiple of: another row of the workload, or `FSYNC`. None: it has the unit of the row."""

    @property
    def words(self) -> str:
        """The bound in words, without the unit of the row."""
        bound = f"at most {self.at_most:,g}" if self.at_most is not None else f"at least {self.at_least:,g}"
        return bound if self.times is None else f"{bound} x {self.times}"


TARGETS: Final = (
    Target("W1", "3 steps, p50", at_most=2.0),
    Target("W1", "3 steps, p50", at_most=6, times=FSYNC),
    Target("W1", "3 steps, p99", at_most=4, times="3 steps, p50"),
    Target("W2", "200 in flight, orchestrations", at_least=5_500),
    Target("W2", "200 in flight, steps", at_least=16_500),
    Target("W2", "1000 in flight, orchestrations", at_least=5_500),
    Target("W2", "1000 in flight, steps", at_least=16_500),
    Target("W3", "fan-out of 1,000, steps", at_least=15_000),
    Target("W3", "fan-out of 10,000, steps", at_least=15_000),
    Target("W3", "fan-out of 10,000, steps", at_least=0.9, times="fan-out of 1,000, steps"),
    Target("W4", "first 100 steps, each", at_most=0.5),
    Target("W4", "last 100 of 1,000 steps, each", at_most=0.5),
    Target("W4", "last 100 of 1,000 steps, each", at_most=1.1, times="first 100 steps, each"),
    Target("W5", "events", at_least=8_000),
    Target("W6", "1 x 2,000 signals", at_least=20_000),
    Target("W6", "100 x 20 signals", at_least=20_000),
    Target("BANK", "transfers with two locks", at_least=2_000),
    Target("W7", "1,000 timers late, p99", at_most=15),
    Target("W8", "1,000 in flight, all done", at_most=800),
    Target("HTTP", "starts, 50 connections", at_least=3_000),
    Target("MEM", "20,000 waiting instances, each", at_most=5_000),
    Target("DORMANT", "1,000,000 instances, memory", at_most=200),
    Target("DORMANT", "woken by an event, worst", at_most=20),
    Target("DORMANT", "woken by a timer, worst", at_most=20),
    Target("IMPORT", "an app's imports", at_most=120),
    Target("IMPORT", "client only", at_most=60),
    Target("IMPORT", "client only, blocking", at_most=60),
)


class Verdict(msgspec.Struct, frozen=True):
    target: Target
    bound: float
    """In the unit of the row."""
    part: float
    """How much of the target is reached: 1 or more meets it."""

    @property
    def is_met(self) -> bool:
        return self.part >= 1


def verdicts(results: Iterable[Result], machine: Machine) -> list[Verdict]:
    """Hold results against the targets of their workloads.

    Raises:
        LookupError: if a workload has given results, but not the row that a target is about.
    """
    values = {(each.workload, each.measure): each.value for each in results}
    measured = {workload for workload, _ in values}
    found: list[Verdict] = []
    for target in TARGETS:
        if target.workload not in measured:
            continue
        value = values.get((target.workload, target.measure))
        if value is None:
            raise LookupError(f"There is a target for {target.measure!r} of {target.workload}, but no such row.")
        factor = 1.0 if target.times is None else machine.fsync_p50_s * 1e3
        if target.times is not None and target.times != FSYNC:
            factor = values[target.workload, target.times]
        if target.at_most is not None:
            found.append(Verdict(target, target.at_most * factor, target.at_most * factor / value))
        elif target.at_least is not None:
            found.append(Verdict(target, target.at_least * factor, value / (target.at_least * factor)))
    return found
