"""Makes the kit of the engine's tests known here, and adds up what was survived."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "engine"))

_PREFIX = "survived: "


@pytest.fixture
def survived(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Count what a test has put Holdfast through."""
    return lambda what, count: record_property(f"{_PREFIX}{what}", count)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much was survived: what a soak run is worth is in its numbers."""
    totals = Counter[str]()
    for report in terminalreporter.getreports("passed"):
        for name, count in report.user_properties:
            if name.startswith(_PREFIX):
                totals[name.removeprefix(_PREFIX)] += int(str(count))
    if totals:
        terminalreporter.write_line("Survived: " + ", ".join(f"{totals[what]:,} {what}" for what in sorted(totals)))
