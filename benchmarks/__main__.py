"""`python -m benchmarks [--growth] [--only W1,W2] [--store both] [--quick]`: measure, print a table, write it down."""

from __future__ import annotations

import argparse
import asyncio
import gc
import platform
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

import holdfast
from benchmarks.catalog import GROWTH, WORKLOADS, Workload
from benchmarks.loop import LOOP_NAME, run
from benchmarks.machine import measure_machine
from benchmarks.plots import write_plots
from benchmarks.report import Report, describe_setting, print_report
from benchmarks.results import Machine, Result, Series
from benchmarks.stores import CHOICES, SQLITE, NewHub, open_stores

RESULTS: Final = Path(__file__).parent / "results"

R = TypeVar("R")


def main() -> int:
    options = _options()
    started_at, begin = datetime.now(UTC), time.perf_counter()
    results: dict[str, list[Result]] = {}
    growth: dict[str, list[Series]] = {}
    failed: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory(
        prefix="holdfast-bench-", dir=options.directory, ignore_cleanup_errors=True
    ) as name:
        directory = Path(name)
        print(f"holdfast {holdfast.__version__}, Python {platform.python_version()}, {LOOP_NAME}, files in {directory}")
        with open_stores(directory, CHOICES[options.store]) as stores:
            machine = measure_machine(directory, stores.server_url, run, quick=options.quick)
            for store, new_hub in stores.new_hub.items():
                failed[store] = {}
                measured = _Measured(store, options.only, new_hub, machine, failed[store], options.quick)
                if options.growth:
                    growth[store] = measured.all_of(GROWTH)
                else:
                    results[store] = measured.all_of(WORKLOADS)
    report = Report(
        started_at=started_at,
        took_s=time.perf_counter() - begin,
        quick=options.quick,
        setting=describe_setting(),
        machine=machine,
        results=results,
        growth=growth,
        failed=failed,
    )
    RESULTS.mkdir(exist_ok=True)
    is_part = bool(options.only or options.quick)  # which does not take the place of a whole run
    file = RESULTS / f"{'partial' if is_part else 'growth' if options.growth else 'latest'}.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    print_report(report)
    written = [file, *write_plots(report, file)]
    print(f"\n{report.setting.commit}, {report.took_s:.0f} s in all; written: {', '.join(map(str, written))}")
    return 1 if any(failed.values()) else 0


class _Measured(msgspec.Struct):
    """The workloads of one store; what fails is noted in `failed`, and does not stop the others."""

    store: str
    only: list[str] | None
    new_hub: NewHub
    machine: Machine
    failed: dict[str, str]
    quick: bool

    def all_of(self, workloads: Mapping[str, Workload[R]]) -> list[R]:
        found: list[R] = []
        for name, workload in workloads.items():
            if name in (self.only or workloads) and (not workload.only_on or self.store in workload.only_on):
                print(f"  {name} on {self.store} ...", file=sys.stderr, flush=True)
                gc.collect()  # what the one before has left
                try:
                    found += run(self._limited(name, workload))
                except Exception as error:  # the other workloads still have something to say
                    self.failed[name] = f"{type(error).__name__}: {error}"
        return found

    async def _limited(self, name: str, workload: Workload[R]) -> list[R]:
        async with asyncio.timeout(workload.limit_s):
            return await workload.measure(self.new_hub(name), self.machine, quick=self.quick)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Holdfast on this machine.")
    parser.add_argument("--growth", action="store_true", help="measure how costs grow, instead; takes minutes")
    parser.add_argument("--only", type=_names, metavar="W1,W2", help="only these workloads")
    parser.add_argument(
        "--store", choices=CHOICES, default=SQLITE, help="PostgreSQL is a private server; fleet: three hosts on it"
    )
    parser.add_argument("--quick", action="store_true", help="small counts: to see that it works, not to compare")
    parser.add_argument("--directory", type=Path, help="where the files are made; a disk, not memory")
    options = parser.parse_args()
    known: Mapping[str, Workload[Any]] = GROWTH if options.growth else WORKLOADS
    for name in options.only or ():
        if name not in known:
            parser.error(f"there is no workload {name!r}; there are {', '.join(known)}")
    return options


def _names(text: str) -> list[str]:
    return [name.strip().upper() for name in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
