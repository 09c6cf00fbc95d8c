"""`python -m benchmarks [--only W1,W2] [--quick] [--directory DIR]`: measure, print a table, write a JSON file."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

import holdfast
from benchmarks import entities, purging, recovery, workloads
from benchmarks.loop import LOOP_NAME, run
from benchmarks.machine import measure_machine
from benchmarks.results import Machine, Result

_LATEST = Path(__file__).parent / "results" / "latest.json"
_WORKLOAD_TIMEOUT_S = 60.0  # none takes nearly as long; one that hangs must not hide the others


class Workload(Protocol):
    def __call__(self, directory: Path, machine: Machine, *, quick: bool) -> Coroutine[Any, Any, list[Result]]: ...


WORKLOADS: dict[str, Workload] = {
    "W1": workloads.chained_latency,
    "W2": workloads.chained_throughput,
    "W3": workloads.fan_outs,
    "W4": workloads.chain_of_thousand,
    "W5": workloads.external_events,
    "W6": entities.entity_signals,
    "W7": workloads.timer_lateness,
    "W8": recovery.crash_recovery,
    "BANK": entities.bank,
    "PURGE": purging.purge_beside_work,
}


class Report(msgspec.Struct, frozen=True):
    """All that is written to the JSON file. `failed` names the workloads that gave no numbers, with the reason."""

    started_at: datetime
    took_s: float
    quick: bool
    holdfast: str
    python: str
    platform: str
    cpus: int
    sqlite: str
    loop: str
    machine: Machine
    results: list[Result]
    failed: dict[str, str]


def main() -> int:
    options = _options()
    started_at, begin = datetime.now(UTC), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=options.directory) as name:
        directory = Path(name)
        print(f"holdfast {holdfast.__version__}, Python {platform.python_version()}, {LOOP_NAME}, files in {directory}")
        machine = measure_machine(directory, run, quick=options.quick)
        results, failed = _run_workloads(options.only, directory, machine, quick=options.quick)
    report = Report(
        started_at=started_at,
        took_s=time.perf_counter() - begin,
        quick=options.quick,
        holdfast=holdfast.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        cpus=os.cpu_count() or 1,
        sqlite=sqlite3.sqlite_version,
        loop=LOOP_NAME,
        machine=machine,
        results=results,
        failed=failed,
    )
    _print(report)
    _LATEST.parent.mkdir(exist_ok=True)
    _LATEST.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    print(f"\n{report.took_s:.0f} s in all; written to {_LATEST}")
    return 1 if failed else 0


def _run_workloads(
    chosen: list[str], directory: Path, machine: Machine, *, quick: bool
) -> tuple[list[Result], dict[str, str]]:
    results: list[Result] = []
    failed: dict[str, str] = {}
    for name in chosen:
        print(f"  {name} ...", file=sys.stderr, flush=True)
        room = directory / name
        room.mkdir()
        try:
            results += run(_limited(WORKLOADS[name], room, machine, quick=quick))
        except Exception as error:  # the other workloads still have something to say
            failed[name] = f"{type(error).__name__}: {error}"
    return results, failed


async def _limited(workload: Workload, directory: Path, machine: Machine, *, quick: bool) -> list[Result]:
    async with asyncio.timeout(_WORKLOAD_TIMEOUT_S):
        return await workload(directory, machine, quick=quick)


def _print(report: Report) -> None:
    machine = report.machine
    _line("machine", "4 KiB append and fsync, p50", machine.fsync_p50_s * 1e3, "ms")
    _line("machine", "grouped SQLite rows", machine.grouped_rows_per_s, "/s")
    _line("machine", "asyncio task switch", machine.task_switch_s * 1e6, "us")
    for result in report.results:
        ratio = "" if result.ratio is None else f"{_number(result.ratio.value):>10} {result.ratio.of}"
        _line(result.workload, result.measure, result.value, result.unit, ratio)
    for name, reason in report.failed.items():
        print(f"{name:<9}did not finish: {reason}")


def _line(name: str, measure: str, value: float, unit: str, ratio: str = "") -> None:
    print(f"{name:<9}{measure:<36}{_number(value):>10} {unit:<4}{ratio}".rstrip())


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Holdfast on this machine.")
    parser.add_argument("--only", type=_names, default=list(WORKLOADS), metavar="W1,W2", help="only these workloads")
    parser.add_argument("--quick", action="store_true", help="small counts: to see that it works, not to compare")
    parser.add_argument("--directory", type=Path, help="where the files are made; a disk, not memory")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = [name.strip().upper() for name in text.split(",")]
    for name in names:
        if name not in WORKLOADS:
            raise argparse.ArgumentTypeError(f"there is no workload {name!r}; there are {', '.join(WORKLOADS)}")
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    sys.exit(main())
