"""Adds up what Holdfast was put through, and says so at the end: what a long run is worth is in its numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from postgres_kit import private_server

_SURVIVED = "survived: "
_FOUND = "found: "


@pytest.fixture
def survived(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Count what a test has put Holdfast through."""
    return lambda what, count: record_property(f"{_SURVIVED}{what}", count)


@pytest.fixture
def found_bug(record_property: Callable[[str, object], None]) -> Callable[[str, str], None]:
    """Note how a planted bug was found."""
    return lambda bug, how: record_property(f"{_FOUND}{bug}", how)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that only this process uses."""
    with private_server() as server:
        yield server.url


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    totals, found = Counter[str](), dict[str, str]()
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            if name.startswith(_SURVIVED):
                totals[name.removeprefix(_SURVIVED)] += int(str(value))
            elif name.startswith(_FOUND):
                found[name.removeprefix(_FOUND)] = str(value)
    if found:
        terminalreporter.write_line("| Planted bug | Seeds | Found as |\n|---|---|---|")
    for bug, how in found.items():
        terminalreporter.write_line(f"| {bug} | {how} |")
    if totals:
        terminalreporter.write_line("Survived: " + ", ".join(f"{totals[what]:,} {what}" for what in sorted(totals)))
