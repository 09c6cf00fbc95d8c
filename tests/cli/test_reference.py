"""The page of all commands says what the commands say themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from holdfast.cli import errors
from holdfast.cli.main import commands
from holdfast.cli.reference import updated

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
MADE = re.compile(r"<!-- made: ([^>]*?) -->\n(.*?)<!-- end -->\n", re.DOTALL)
SHARED = ("exit codes", "the host", "which instances")
SECTIONS = {what: text for what, text in MADE.findall(PAGE) if what not in SHARED}


def test_the_page_is_up_to_date() -> None:
    """If not: `python -m holdfast.cli.reference docs/reference/cli.md`."""
    assert updated(PAGE) == PAGE


def test_commands_that_are_missing_are_added_and_those_that_are_gone_removed() -> None:
    without = MADE.sub("", PAGE)
    assert {what for what, _ in MADE.findall(updated(without))} == {*SECTIONS, *SHARED}
    assert updated(f"{PAGE}<!-- made: dance -->\n## x\n<!-- end -->\n") == PAGE


@pytest.mark.parametrize("command", SECTIONS)
def test_it_has_the_options_that_help_has(command: str) -> None:
    shown = CliRunner().invoke(commands, [*command.split(), "--help"], env={"COLUMNS": "250"})
    assert shown.exit_code == 0
    there = set(re.findall(r"(?<![\w`-])--[a-z][a-z-]*", shown.output)) - {"--help"}
    own = _options(SECTIONS[command])
    shared = _options("".join(text for what, text in MADE.findall(PAGE) if what in SHARED))
    assert own <= there <= own | shared


def _options(text: str) -> set[str]:
    cells = re.findall(r"^\| `([^`]*)`", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"--[a-z][a-z-]*", cell)}


def test_exit_codes_are_distinct_and_each_error_has_one() -> None:
    assert set(errors.EXIT_CODES) == set(range(len(errors.EXIT_CODES)))
