"""The types of the public API: two checkers accept correct code and report each planted mistake where it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
GOOD, BAD = HERE / "good.py", HERE / "bad.py"

Reports = Mapping[int, str]
"""What a checker says about a file, by line."""

_MARK = re.compile(r"  # E(?:\((?P<checker>mypy|pyright)\))?: (?P<what>.+)$")


def _marked_lines(path: Path, checker: str) -> set[int]:
    found: set[int] = set()
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        mark = _MARK.search(line)
        if mark and mark["checker"] in (None, checker):
            found.add(number)
    return found


def _run(*command: str) -> str:
    """Run a checker from the root, where its settings are; 0 is "nothing found", 1 is "something found"."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def _mypy(path: Path, cache: Path) -> Reports:
    output = _run(
        sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(cache), "--output=json",
        str(path),
    )  # fmt: skip
    found: dict[int, str] = {}
    for line in output.splitlines():
        report = json.loads(line)
        if report["severity"] == "error":
            assert Path(report["file"]).name == path.name, line
            found[report["line"]] = report["message"]
    return found


def _pyright(path: Path, cache: Path) -> Reports:
    script = Path(sys.executable).parent / ("basedpyright.exe" if os.name == "nt" else "basedpyright")
    report = json.loads(_run(str(script), "--outputjson", "--pythonpath", sys.executable, str(path)))
    assert report["summary"]["filesAnalyzed"] == 1
    return {each["range"]["start"]["line"] + 1: each["message"] for each in report["generalDiagnostics"]}


CHECKERS: dict[str, Callable[[Path, Path], Reports]] = {"mypy": _mypy, "pyright": _pyright}


@pytest.mark.parametrize("checker", CHECKERS)
def test_correct_code_is_accepted(checker: str, tmp_path: Path) -> None:
    assert CHECKERS[checker](GOOD, tmp_path) == {}


@pytest.mark.parametrize("checker", CHECKERS)
def test_each_planted_mistake_is_reported_on_its_line(checker: str, tmp_path: Path) -> None:
    reports = CHECKERS[checker](BAD, tmp_path)
    marked = _marked_lines(BAD, checker)
    lines = BAD.read_text(encoding="utf-8").splitlines()
    missed = [f"{number}: {lines[number - 1]}" for number in sorted(marked - reports.keys())]
    unexpected = [f"{number}: {reports[number]}" for number in sorted(reports.keys() - marked)]
    assert (missed, unexpected) == ([], [])


def test_the_eleven_classic_mistakes_are_planted() -> None:
    text = BAD.read_text(encoding="utf-8")
    for what in (
        "wrong input",
        "missing input",
        "extra input",
        "unknown option",
        "wrong entity argument",
        "wrong result type",
        "wrong start input",
        "wrong event payload",
        "a union is no type[T]",
        "swapped context",
        "plain def",
    ):
        assert f"  # E: {what}\n" in text
