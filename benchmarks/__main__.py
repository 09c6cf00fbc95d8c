"""`python -m benchmarks [--only W1,W2] [--store both] [--quick]`: measure, print a table, write a JSON file."""

from __future__ import annotations

import argparse
import asyncio
import platform
import sys
import tempfile
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

import holdfast
from benchmarks import entities, idle, purging, recovery, workloads
from benchmarks.loop import LOOP_NAME, run
from benchmarks.machine import measure_machine
from benchmarks.report import Report, describe_setting, print_report
from benchmarks.results import Machine, Result
from benchmarks.stores import CHOICES, FLEET, POSTGRES, SQLITE, NewHub, open_stores

_LATEST = Path(__file__).parent / "results" / "latest.json"
_WORKLOAD_TIMEOUT_S = 60.0  # none takes nearly as long; one that hangs must not hide the others


class Workload(Protocol):
    def __call__(self, url: str, machine: Machine, *, quick: bool) -> Coroutine[Any, Any, list[Result]]: ...


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
    "IDLE": idle.idle_queries,
}
ONLY_ON = {"PURGE": (SQLITE,), "IDLE": (POSTGRES, FLEET)}
"""What fills the tables past Holdfast, and what counts queries to a server."""


def main() -> int:
    options = _options()
    started_at, begin = datetime.now(UTC), time.perf_counter()
    results: dict[str, list[Result]] = {}
    failed: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory(
        prefix="holdfast-bench-", dir=options.directory, ignore_cleanup_errors=True
    ) as name:
        directory = Path(name)
        print(f"holdfast {holdfast.__version__}, Python {platform.python_version()}, {LOOP_NAME}, files in {directory}")
        with open_stores(directory, CHOICES[options.store]) as stores:
            machine = measure_machine(directory, stores.server_url, run, quick=options.quick)
            for store, new_hub in stores.new_hub.items():
                chosen = [each for each in options.only if store in ONLY_ON.get(each, (store,))]
                results[store], failed[store] = _run_workloads(store, chosen, new_hub, machine, quick=options.quick)
    report = Report(
        started_at=started_at,
        took_s=time.perf_counter() - begin,
        quick=options.quick,
        setting=describe_setting(),
        machine=machine,
        results=results,
        failed=failed,
    )
    print_report(report)
    _LATEST.parent.mkdir(exist_ok=True)
    _LATEST.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    print(f"\n{report.setting.commit}, {report.took_s:.0f} s in all; written to {_LATEST}")
    return 1 if any(failed.values()) else 0


def _run_workloads(
    store: str, chosen: list[str], new_hub: NewHub, machine: Machine, *, quick: bool
) -> tuple[list[Result], dict[str, str]]:
    results: list[Result] = []
    failed: dict[str, str] = {}
    for name in chosen:
        print(f"  {name} on {store} ...", file=sys.stderr, flush=True)
        try:
            results += run(_limited(WORKLOADS[name], new_hub(name), machine, quick=quick))
        except Exception as error:  # the other workloads still have something to say
            failed[name] = f"{type(error).__name__}: {error}"
    return results, failed


async def _limited(workload: Workload, url: str, machine: Machine, *, quick: bool) -> list[Result]:
    async with asyncio.timeout(_WORKLOAD_TIMEOUT_S):
        return await workload(url, machine, quick=quick)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Holdfast on this machine.")
    parser.add_argument("--only", type=_names, default=list(WORKLOADS), metavar="W1,W2", help="only these workloads")
    parser.add_argument(
        "--store", choices=CHOICES, default=SQLITE, help="PostgreSQL is a private server; fleet: three hosts on it"
    )
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
