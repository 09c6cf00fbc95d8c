"""`python -m benchmarks.results_page`: writes RESULTS.md from the last runs of `make bench` and `make bench-growth`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.__main__ import RESULTS
from benchmarks.report import Report, growth_of, limits, number, said_of
from benchmarks.results import Result

_PAGE: Final = Path(__file__).parent / "RESULTS.md"
_HEAD: Final = """# Results

Written by `make bench-results` from one run of `make bench` and one of `make bench-growth`; [README.md](README.md) says
what is measured and how to read it. Numbers belong to the machine and the commit above them.
"""


def main() -> int:
    reports = [msgspec.json.decode(file.read_bytes(), type=Report) for file in _files() if file.exists()]
    if not reports:
        print(f"There are no results in {RESULTS} yet; run `make bench`.", file=sys.stderr)
        return 1
    _PAGE.write_text("\n".join([_HEAD, *(_section(each) for each in reports)]), "utf-8")
    print(f"written: {_PAGE}")
    return 0


def _files() -> Iterable[Path]:
    return (RESULTS / "latest.json", RESULTS / "growth.json")


def _section(report: Report) -> str:
    setting = report.setting
    title = "How costs grow" if any(report.growth.values()) else "Workloads"
    parts = [
        f"## {title}: commit {setting.commit}, {report.started_at:%Y-%m-%d}\n",
        f"Holdfast {setting.holdfast}, Python {setting.python}, {setting.loop}, SQLite {setting.sqlite}; "
        f"{setting.cpus} x {setting.processor}, {setting.platform}. It took {report.took_s:.0f} seconds.\n",
    ]
    if report.quick:
        parts.append("These are the small counts of `--quick`: they show that it works, and nothing else.\n")
    rows = ((what, f"{number(value)} {unit}") for what, value, unit in limits(report.machine))
    parts.append(_table(("what the machine can do", ""), rows))
    if any(report.results.values()):
        parts.append(_results(report))
    for store, growth in report.growth.items():
        rows = (
            (
                each.workload,
                f"{each.measure}, by {each.of}",
                ", ".join(f"{n:,}: {number(cost)} {each.unit}" for n, cost in zip(each.sizes, each.costs, strict=True)),
                growth_of(each),
            )
            for each in growth
        )
        parts.append(_table((store, "", "", "cost as"), rows))
    failed = [(store, name, reason) for store, found in report.failed.items() for name, reason in found.items()]
    if failed:
        parts.append(_table(("not finished", "", "why"), failed))
    return "\n".join(parts)


def _results(report: Report) -> str:
    """Return one table of all stores; ratios and targets are those of SQLite, or of the only store."""
    stores, verdicts = list(report.results), report.verdicts()
    rows: list[tuple[str, ...]] = []
    for row, by_store in report.side_by_side().items():
        ratio = next((each.ratio for each in by_store.values()), None)
        rows.append(
            (
                *row,
                *(_cell(by_store.get(store)) for store in stores),
                "" if ratio is None else f"{number(ratio.value)} {ratio.of}",
                said_of(row, verdicts),
            )
        )
    return _table(("", "", *stores, "ratio", "target"), rows)


def _cell(result: Result | None) -> str:
    return "" if result is None else f"{number(result.value)} {result.unit}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    table = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in table)


if __name__ == "__main__":
    sys.exit(main())
