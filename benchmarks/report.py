"""All that a run found: as a file, and as a table with the stores side by side."""

from __future__ import annotations

import os
import platform
import sqlite3
import subprocess
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import msgspec

import holdfast
from benchmarks.loop import LOOP_NAME
from benchmarks.results import Machine, Result, Series
from benchmarks.stores import SQLITE
from benchmarks.targets import Verdict, verdicts


class Setting(msgspec.Struct, frozen=True):
    """What was measured, and on what."""

    holdfast: str
    commit: str
    python: str
    platform: str
    processor: str
    cpus: int
    sqlite: str
    loop: str


class Report(msgspec.Struct, frozen=True):
    """All that is written to the JSON file. `results`, `growth` and `failed` are by store.

    `failed` names the workloads that gave no numbers, with the reason.
    """

    started_at: datetime
    took_s: float
    quick: bool
    setting: Setting
    machine: Machine
    results: dict[str, list[Result]]
    growth: dict[str, list[Series]]
    failed: dict[str, dict[str, str]]

    def side_by_side(self) -> dict[tuple[str, str], dict[str, Result]]:
        """Return the results by workload and measure, and then by store."""
        by_row: dict[tuple[str, str], dict[str, Result]] = {}
        for store, results in self.results.items():
            for each in results:
                by_row.setdefault((each.workload, each.measure), {})[store] = each
        return by_row

    def verdicts(self) -> list[Verdict]:
        """Hold the results on SQLite against the targets; small counts say nothing about them."""
        return [] if self.quick else verdicts(self.results.get(SQLITE, []), self.machine)


def describe_setting() -> Setting:
    return Setting(
        holdfast=holdfast.__version__,
        commit=_commit(),
        python=platform.python_version(),
        platform=platform.platform(),
        processor=_processor(),
        cpus=os.cpu_count() or 1,
        sqlite=sqlite3.sqlite_version,
        loop=LOOP_NAME,
    )


def _commit() -> str:
    """Which commit the code is of, and whether it was changed since."""
    command = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*")
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def print_report(report: Report) -> None:
    for measure, value, unit in limits(report.machine):
        print(f"{'machine':<9}{measure:<36}{number(value):>10} {unit}")
    if any(report.results.values()):
        _print_results(report)
    for store, growth in report.growth.items():
        for each in growth:
            print(f"\n{each.workload:<9}{each.measure}, by {each.of}, on {store}")
            points = "".join(
                f"{n:>12,}: {number(cost)} {each.unit}" for n, cost in zip(each.sizes, each.costs, strict=True)
            )
            print(f"{'':<9}{points}{growth_of(each):>40}")
    for store, failed in report.failed.items():
        for name, reason in failed.items():
            print(f"{name:<9}did not finish on {store}: {reason}")


def _print_results(report: Report) -> None:
    stores = list(report.results)
    if len(stores) > 1:
        print(f"\n{'':<45}{''.join(f'{name:>22}' for name in stores)}")
    found = report.verdicts()
    for row, by_store in report.side_by_side().items():
        cells = "".join(_cell(by_store.get(store)) for store in stores)
        workload, measure = row
        print(f"{workload:<9}{measure:<36}{cells}{_of(by_store):<18}{said_of(row, found)}".rstrip())
    if found:
        print(f"\n{sum(each.is_met for each in found)} of {len(found)} targets met")


def said_of(row: tuple[str, str], verdicts: Iterable[Verdict]) -> str:
    """Return the targets of a row, by workload and measure, and whether they are met, in words."""
    return "; ".join(said(each) for each in verdicts if (each.target.workload, each.target.measure) == row)


def said(verdict: Verdict) -> str:
    """Return a target and whether it is met, in words."""
    return f"{verdict.target.words}: {'met' if verdict.is_met else f'NOT MET, {verdict.part:.0%} of it'}"


def growth_of(series: Series) -> str:
    """Return how a cost grows, in words."""
    words = f"n ** {series.exponent:.2f}"
    if series.is_of_each:
        words += " each"
    return f"{words}, {series.against_n_log_n:.2f} x n log n{': TOO STEEP' if series.is_too_steep else ''}"


def limits(machine: Machine) -> list[tuple[str, float, str]]:
    """Return what the machine can do, as rows: what, how much, unit."""
    found = [
        ("4 KiB append and fsync, p50", machine.fsync_p50_s * 1e3, "ms"),
        ("grouped SQLite rows", machine.grouped_rows_per_s, "/s"),
        ("asyncio task switch", machine.task_switch_s * 1e6, "us"),
    ]
    if machine.postgres_commit_p50_s is not None:
        found.append(("PostgreSQL, one row's commit, p50", machine.postgres_commit_p50_s * 1e3, "ms"))
    return found


def _cell(result: Result | None) -> str:
    if result is None:
        return f"{'':>22}"
    ratio = "" if result.ratio is None else number(result.ratio.value)
    return f"{number(result.value):>10} {result.unit:<3}{ratio:>8}"


def _of(found: dict[str, Result]) -> str:
    return next((f" {each.ratio.of}" for each in found.values() if each.ratio is not None), "")


def number(value: float) -> str:
    """Return three digits of a number, or all of them."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
