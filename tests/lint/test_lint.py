"""The linter on a corpus of what is wrong and what is right, and on sources that were not written for it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from corpus import BAD, GOOD, expected
from typer.testing import CliRunner

from holdfast.cli.main import commands
from holdfast.lint import RULES, Finding, Severity, check_paths, check_source

ROOT = Path(__file__).parents[2]
HEAD = """
import time
from holdfast import App, OrchestrationContext
app = App()
@app.activity
async def ship(item: str) -> str: ...
"""
BODY = HEAD + "@app.orchestrator\nasync def order(ctx: OrchestrationContext) -> object:\n    "


@pytest.fixture(scope="module")
def found() -> list[Finding]:
    return check_paths([BAD])


def codes(source: str) -> list[str]:
    return [each.code for each in check_source(source)]


# The corpus


def test_what_is_marked_as_wrong_is_found_and_nothing_else(found: list[Finding]) -> None:
    places = sorted((Path(each.path).relative_to(BAD).as_posix(), each.line, each.code) for each in found)
    assert places == expected()


def test_each_rule_is_broken_in_the_corpus(found: list[Finding]) -> None:
    assert {each.code for each in found} == RULES.keys() - {"HF001"}


def test_nothing_is_found_in_what_is_right() -> None:
    assert check_paths([GOOD]) == []
    assert len(re.findall("@app.orchestrator", "".join(each.read_text() for each in GOOD.glob("*.py")))) >= 25


def test_nothing_is_found_in_our_own_orchestrators() -> None:
    assert check_paths([ROOT / "examples", ROOT / "benchmarks", ROOT / "tests" / "histories" / "golden_app.py"]) == []


def test_nothing_is_found_in_the_documentation() -> None:
    """But for the name that the page on changes of code gets wrong on purpose."""
    pages = {page: page.read_text(encoding="utf-8") for page in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]}
    fences = [
        (page.name, code)
        for page, text in pages.items()
        for code in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]
    assert len(fences) >= 20
    findings = [each for name, code in fences for each in check_source(code, name)]
    assert [(each.path, each.code) for each in findings] == [("change-code.md", "HF402")]


# Findings


def test_a_finding_says_where_what_and_what_to_do_instead() -> None:
    [finding] = check_source(BODY + "return time.time()\n", "shop.py")
    assert finding == Finding(
        path="shop.py",
        line=9,
        column=12,
        code="HF101",
        severity=Severity.ERROR,
        message="`time.time()` reads a clock, which says something else on each replay.",
        fix="Use ctx.current_utc_datetime.",
        chain=("order",),
    )


def test_the_way_from_the_orchestrator_is_shown(found: list[Finding]) -> None:
    chains = {each.chain for each in found if each.path.endswith("prices.py")}
    assert chains == {("helped", "price")}
    [by_property] = [each for each in found if each.chain == ("helped", "total", "_chance")]
    assert str(by_property).endswith("(helped -> total -> _chance)")


def test_the_order_is_that_of_the_source_whatever_the_order_of_the_paths(found: list[Finding]) -> None:
    assert found == sorted(found)
    assert check_paths(sorted(BAD.rglob("*.py"), reverse=True)) == found


def test_code_is_not_imported_to_be_checked(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text("import helper\nraise SystemExit('imported')\n" + BODY + "helper.f()\n")
    (tmp_path / "helper.py").write_text("import time\nopen('trace', 'w')\ndef f(): time.sleep(1)\n")
    assert [(Path(each.path).name, each.code) for each in check_paths([tmp_path / "shop.py"])] == [
        ("helper.py", "HF201")
    ]


@pytest.mark.parametrize(
    ("comment", "is_silent"),
    [
        ("# noqa", True),
        ("# noqa: HF101", True),
        ("#NOQA:E501,HF101", True),
        ("# why  # noqa: HF", True),
        ("# noqa: HF102", False),
        ("# noqa: E501", False),
        ("# noqatall", False),
    ],
)
def test_a_comment_silences_what_it_names(comment: str, is_silent: bool) -> None:
    assert codes(f"{BODY}return time.time()  {comment}\n") == ([] if is_silent else ["HF101"])


# Sources that were not written for it


@pytest.mark.parametrize("source", ["def", "x = '\0'", "\tx\n  y", "(" * 5_000, "x = 1" + " + 1" * 50_000])
def test_what_cannot_be_parsed_is_a_finding(source: str) -> None:
    assert codes(source) == ["HF001"]


@pytest.mark.parametrize("count", [100, 300, 3_000])
def test_what_is_nested_deeply_is_checked_or_refused(count: int, tmp_path: Path) -> None:
    chain = "".join(f"    a{number} = a{number - 1}.b()\n" for number in range(1, count))
    added = "    return time.time()" + " + a0" * count
    (tmp_path / "app.py").write_text(f"{BODY}a0 = ctx\n{chain}{added}\nimport {'x' * 3_000}\n")
    assert [each.code for each in check_paths([tmp_path])] in (["HF101"], ["HF001"])


def test_any_python_can_be_checked_as_if_it_were_an_orchestrator() -> None:
    """Every function of many modules of the standard library gets the decorator."""
    library = Path(sysconfig.get_path("stdlib"))
    files = [each for each in sorted(library.rglob("*.py")) if not {"site-packages", "test"} & {*each.parts}][::6]
    assert len(files) >= 60
    seen: set[str] = set()
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        decorated = re.sub(r"^( *)(async )?def ", r"\1@app.orchestrator\n\g<0>", text, flags=re.MULTILINE)
        findings = check_source(decorated, path.name)
        assert findings == sorted(findings)
        seen |= {each.code for each in findings}
    assert len(seen - {"HF001"}) >= 12


# The command


def lint(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(commands, ["lint", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "app.py").write_text(BODY + "ctx.call_activity(ship, 'x')\n    return time.time()\n")
    for skipped in (".venv", "build", "__pycache__"):
        (folder / skipped).mkdir()
        (folder / skipped / "no.py").write_text("def")
    return folder


def test_the_command_prints_findings_and_fails(shop: Path) -> None:
    code, output, _ = lint(shop)
    assert code == 1
    assert output.splitlines() == [
        f"{shop / 'app.py'}:9:5: HF301 warning: `ctx.call_activity()` makes a task that nobody waits for: its failure "
        "goes unseen, and the orchestration may end before it.",
        "    Await it, or combine it with when_all.",
        f"{shop / 'app.py'}:10:12: HF101 error: `time.time()` reads a clock, which says something else on each replay.",
        "    Use ctx.current_utc_datetime.",
        "1 error, 1 warning: 1 orchestrator in 1 file.",
    ]


def test_the_command_prints_json(shop: Path) -> None:
    code, output, _ = lint(shop, "--json")
    assert code == 1
    lines = [json.loads(line) for line in output.splitlines()]
    assert [(each["line"], each["code"], each["severity"]) for each in lines] == [
        (9, "HF301", "warning"),
        (10, "HF101", "error"),
    ]
    assert lines[0].keys() == {"path", "line", "column", "code", "severity", "message", "fix", "chain"}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--select", "HF1"], ["HF101"]),
        (["--select", "hf101,HF301"], ["HF301", "HF101"]),
        (["--ignore", "HF1"], ["HF301"]),
        (["--select", "HF1", "--ignore", "HF101"], []),
        (["--ignore", "HF1", "--ignore", "HF3"], []),
    ],
)
def test_codes_are_selected_and_ignored(shop: Path, options: list[str], kept: list[str]) -> None:
    code, output, _ = lint(shop, *options)
    assert re.findall(r"HF\d+", output) == kept
    assert code == (1 if kept else 0)


def test_infos_do_not_fail(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(BODY + "return await ctx.call_activity('shop')\n")
    code, output, _ = lint(tmp_path)
    assert (code, output.splitlines()[-1]) == (0, "1 info: 1 orchestrator in 1 file.")


def test_what_cannot_be_checked_ends_with_2_and_the_rest_is_checked(shop: Path) -> None:
    (shop / "broken.py").write_text("def\n")
    code, output, errors = lint(shop, "--select", "HF1")
    assert code == 2
    assert "HF101" in output
    assert "broken.py:1:4: HF001 error" in output
    assert "Not checked" in errors
    assert lint(shop / "nothing.py")[0] == 2
    code, _, errors = lint(shop, "--select", "HF9")
    assert code == 2
    assert "'HF9'" in errors


# flake8


def test_flake8_reports_it(shop: Path) -> None:
    (shop / "app.py").write_text(BODY + "a = time.time()  # noqa: HF101\n    return time.time()\n")
    done = subprocess.run(
        [sys.executable, "-m", "flake8", "--isolated", "--select", "HF", "app.py"],
        cwd=shop,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines() == [
        "app.py:10:12: HF101 `time.time()` reads a clock, which says something else on each replay. "
        "Use ctx.current_utc_datetime."
    ], done.stderr
    assert done.returncode == 1


# Documentation


def test_every_rule_is_documented_with_its_severity_and_no_other() -> None:
    page = (ROOT / "docs" / "reference" / "lint.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (HF\d{3}) \| (\w+) \|", page, re.MULTILINE)
    assert sorted(rows) == [(rule.code, rule.severity.value) for rule in RULES.values()]
