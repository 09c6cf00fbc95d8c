"""What is drawn of a report: how far each target is, and how costs grow."""

from __future__ import annotations

import math
from itertools import groupby
from pathlib import Path

from benchmarks.report import Report
from benchmarks.results import Series
from benchmarks.svg import Line, bars, lines


def write_plots(report: Report, beside: Path) -> list[Path]:
    """Write the charts of a report beside its file; return their files."""
    charts: dict[str, str] = {}
    found = report.verdicts()
    if found:
        rows = [(f"{each.target.workload}: {each.target.measure}, {each.target.words}", each.part) for each in found]
        charts["targets"] = bars(f"How much of each target is reached, {report.setting.commit}", rows)
    for store, growth in report.growth.items():
        for (workload, unit), of_one in groupby(growth, lambda each: (each.workload, each.unit)):
            charts[f"{store}-{workload.lower()}-{unit}"] = _growth(report, list(of_one))
    files: list[Path] = []
    for name, chart in charts.items():
        files.append(beside.with_name(f"{beside.stem}-{name}.svg"))
        files[-1].write_text(chart, "utf-8")
    return files


def _growth(report: Report, growth: list[Series]) -> str:
    first = growth[0]
    drawn = [Line(each.measure, list(zip(each.sizes, each.costs, strict=True))) for each in growth]
    # What the dearest may cost for each n, if at the first n it costs what it does.
    dearest = max(each.costs[0] for each in growth)
    steepness = [math.log(n) * (1 if first.is_of_each else n) for n in first.sizes]
    reference = [(n, dearest * each / steepness[0]) for n, each in zip(first.sizes, steepness, strict=True)]
    drawn.append(Line("log n" if first.is_of_each else "n log n", reference, is_reference=True))
    return lines(f"{first.workload}, {report.setting.commit}", first.of, first.unit, drawn)
