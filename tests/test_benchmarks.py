"""What the benchmarks make of their numbers. That they run at all, `make bench ARGS=--quick` shows."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from benchmarks.report import growth_of, said
from benchmarks.results import Machine, Result, Series
from benchmarks.svg import Line, bars, lines
from benchmarks.targets import TARGETS, verdicts

MACHINE = Machine(fsync_p50_s=0.0003, grouped_rows_per_s=100_000, task_switch_s=1e-6)


def results_of(workload: str, *, factor: float) -> list[Result]:
    """One row for each target of a workload, of `factor` times the bound; a multiple counts once."""
    rows = {each.measure: each.at_most or each.at_least or 0.0 for each in reversed(TARGETS) if not each.times}
    found = [each.measure for each in TARGETS if each.workload == workload]
    return [Result(workload, measure, factor * rows.get(measure, 1.0), "") for measure in dict.fromkeys(found)]


def test_each_target_has_one_bound_and_refers_to_a_row_that_has_a_target_too() -> None:
    rows = {(each.workload, each.measure) for each in TARGETS}
    for target in TARGETS:
        assert (target.at_most is None) != (target.at_least is None)
        assert target.times in (None, "fsync p50") or (target.workload, target.times) in rows


def test_a_number_meets_its_target_from_the_right_side() -> None:
    [exactly] = verdicts(results_of("W5", factor=1.0), MACHINE)
    [slower] = verdicts(results_of("W5", factor=0.5), MACHINE)
    assert (exactly.is_met, slower.is_met) == (True, False)
    assert said(slower) == "at least 8,000: NOT MET, 50% of it"
    assert not any(each.is_met for each in verdicts(results_of("HTTP", factor=0.9), MACHINE))
    assert all(each.is_met for each in verdicts(results_of("IMPORT", factor=0.9), MACHINE))
    assert not any(each.is_met for each in verdicts(results_of("IMPORT", factor=1.1), MACHINE))


def test_a_target_may_be_a_multiple_of_another_row_or_of_the_fsync() -> None:
    found = verdicts([Result("W1", "3 steps, p50", 1.9, "ms"), Result("W1", "3 steps, p99", 7.0, "ms")], MACHINE)
    assert [(said(each), round(each.bound, 3)) for each in found] == [
        ("at most 2: met", 2.0),
        ("at most 6 x fsync p50: NOT MET, 95% of it", 1.8),
        ("at most 4 x 3 steps, p50: met", 7.6),
    ]


def test_a_row_that_a_target_is_about_must_not_get_lost() -> None:
    with pytest.raises(LookupError, match=r"'events' of W5"):
        verdicts([Result("W5", "happenings", 1.0, "/s")], MACHINE)


@pytest.mark.parametrize(
    ("costs", "is_of_each", "exponent", "is_too_steep"),
    [
        ([1.0, 1.0, 1.0], True, 0.0, False),
        ([1.0, 1.3, 1.6], True, 0.1, False),  # as log n
        ([1.0, 1.0, 10.0], True, 0.5, True),
        ([1.0, 10.0, 100.0], False, 1.0, False),
        ([1.0, 10.0, 250.0], False, 1.2, True),
        ([1.0, 100.0, 10_000.0], False, 2.0, True),
    ],
)
def test_what_grows_faster_than_n_log_n_is_too_steep(
    costs: list[float], is_of_each: bool, exponent: float, is_too_steep: bool
) -> None:
    series = Series("GROWS", "it", "n", "ms", [100, 1_000, 10_000], costs, is_of_each=is_of_each)
    assert round(series.exponent, 1) == exponent
    assert series.is_too_steep == is_too_steep
    assert growth_of(series).endswith("TOO STEEP") == is_too_steep


def test_charts_are_images_with_all_that_is_drawn() -> None:
    for chart, shapes in (
        (bars("<title> & more", [("much", 4.0), ("little", 0.001), ("just", 1.0)]), {"rect": 4, "line": 1}),
        (
            lines("t", "n", "ms", [Line("a", [(1, 1), (10, 5)]), Line("b", [(1, 2)], is_reference=True)]),
            {"polyline": 2},
        ),
    ):
        root = ElementTree.fromstring(chart)
        for shape, count in shapes.items():
            assert len(root.findall(f"{{http://www.w3.org/2000/svg}}{shape}")) == count
