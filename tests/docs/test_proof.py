"""The pages that say how we know: the rules that they name are those of the code, and their tests exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
import pytest

from holdfast.testing.faults import Faults

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "docs" / "explanation" / f"{name}.md" for name in ("guarantees", "proof", "what-breaks-elsewhere")]
PROOF = (ROOT / "docs" / "explanation" / "proof.md").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "src" / "holdfast" / "testing").glob("*.py"))

_RAISERS = {"InvariantViolation", "_broken"}
_TEST = re.compile(r"tests/[\w/]+\.py::\w+")
_FILE = re.compile(r"`(tests/[\w/.]+?)(?:::\w+)?`")


# The rules of the simulator


def said(source: Path) -> Iterator[ast.expr]:
    """Give the name of the rule in each place where a source says that one is broken."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in _RAISERS:
                yield node.args[0]
        elif isinstance(node, ast.FunctionDef) and node.returns is not None and "Problem" in ast.unparse(node.returns):
            returned = (each.value for each in ast.walk(node) if isinstance(each, ast.Return))
            yield from (value.elts[0] for value in returned if isinstance(value, ast.Tuple))


def rules() -> set[str]:
    found = {name.value for source in SOURCES for name in said(source) if isinstance(name, ast.Constant)}
    return {name for name in found if isinstance(name, str)}


def test_every_rule_has_a_name_that_can_be_read_in_the_source() -> None:
    """But where one is handed on: by the helper that raises it, and from what the fold of a history returns."""
    others = {ast.unparse(name) for source in SOURCES for name in said(source) if not isinstance(name, ast.Constant)}
    assert others == {"rule", "problem[0]"}
    assert len(rules()) >= 20


def test_the_page_names_every_rule_of_the_simulator_and_no_other() -> None:
    """On that page, what is bold is the name of a rule."""
    assert set(re.findall(r"\*\*(.+?)\*\*", PROOF)) == rules()


def test_every_rule_has_a_line_in_the_table() -> None:
    section = PROOF.split("## What is checked")[1].split("\n## ")[0]
    table = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    assert set(re.findall(r"\*\*(.+?)\*\*", table)) == rules()


def test_the_page_names_every_fault_of_the_simulator_and_no_other() -> None:
    section = PROOF.split("## What goes wrong")[1].split("\n## ")[0]
    named = re.findall(r"^\| .* \| `(\w+)` \|$", section, re.MULTILINE)
    assert sorted(named) == sorted({field.name for field in msgspec.structs.fields(Faults)} - {"total"})


# The tests


@cache
def functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_test_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(_TEST.findall(text))
    assert len(named) >= 10
    missing: list[str] = []
    for test in sorted(named):
        file, _, name = test.partition("::")
        if not (ROOT / file).is_file() or not name.startswith("test_") or name not in functions(ROOT / file):
            missing.append(test)
    assert missing == []
    assert [file for file in _FILE.findall(text) if not (ROOT / file).exists()] == []


def test_every_guarantee_says_what_holds_it() -> None:
    """Both tables of the page have the same lines; each line of the second names tests."""
    page = PAGES[0].read_text(encoding="utf-8")
    promised, held = (_lines(page, heading) for heading in ("In one table", "What holds it"))
    assert list(held) == list(promised)
    assert [name for name, line in held.items() if not _TEST.search(line)] == []


def test_everything_that_breaks_elsewhere_has_a_test_here() -> None:
    page = PAGES[2].read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if re.match(r"\| (?!What broke|-)", line)]
    assert len(lines) >= 50
    assert [line for line in lines if line.count(" | ") != 2 or not _TEST.search(line)] == []


def _lines(page: str, heading: str) -> dict[str, str]:
    """Return the lines of a table below a heading by their first column."""
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("|")][2:]
    return {line.split(" | ")[0].removeprefix("| "): line for line in table}
