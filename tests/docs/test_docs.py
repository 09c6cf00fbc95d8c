"""The documentation is true: its code runs, its links lead somewhere, its tables leave nothing out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from holdfast import HostConfig, HttpCallPolicy, Limits
from holdfast.http.reference import rewritten
from holdfast.http.table import DOCUMENTED

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(ROOT.glob("docs/**/*.md"))
PATTERNS = (ROOT / "examples" / "patterns.py").read_text(encoding="utf-8")
SETTINGS = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_KINDS = {"python", "console", "text"}
_COLUMNS_MAX = 120


class Snippet(NamedTuple):
    page: Path
    line: int
    kind: str
    code: str

    @property
    def is_fragment(self) -> bool:
        """Whether it stands in the example, literally and from the beginning of a line to the end of one."""
        return f"\n{self.code}" in PATTERNS

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def snippets() -> Iterator[Snippet]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in _FENCE.finditer(text):
            yield Snippet(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])


ALL = list(snippets())
SCRIPTS = [snippet for snippet in ALL if snippet.kind == "python" and not snippet.is_fragment]
FRAGMENTS = [snippet for snippet in ALL if snippet.kind == "python" and snippet.is_fragment]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "CI"},  # there, tests keep no histories
    )


_PYTEST = ("-m", "pytest", "-q", *("-p", "no:cacheprovider", "-p", "no:schemathesis", "-p", "no:hypothesispytest"))
"""Without plugins that no example needs, and that take seconds to import."""


@pytest.mark.parametrize("snippet", SCRIPTS, ids=str)
def test_script_runs_in_an_empty_folder(snippet: Snippet, tmp_path: Path) -> None:
    """What is not in the example is complete: it runs as it stands, tests under pytest, everything else as a script."""
    (tmp_path / "snippet.py").write_text(snippet.code, encoding="utf-8")
    is_test = re.search(r"^(?:async )?def test_", snippet.code, re.MULTILINE) is not None
    command = (*_PYTEST, "snippet.py") if is_test else ("snippet.py",)
    done = run(tmp_path, *command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_scripts_and_fragments() -> None:
    """Had the fences been read wrongly, nothing would be checked."""
    assert len(SCRIPTS) >= 5
    assert len(FRAGMENTS) >= 10


def test_each_pattern_has_a_page_with_its_orchestrator_or_entity() -> None:
    pages = {snippet.page.stem for snippet in FRAGMENTS}
    assert pages == {
        "chaining",
        "fan-out-fan-in",
        "async-http-api",
        "monitor",
        "human-interaction",
        "aggregator",
    }
    shown = "".join(snippet.code for snippet in FRAGMENTS)
    definition = re.compile(r"@app\.(?:orchestrator|entity).*?^(?:async def|class) (\w+)", re.MULTILINE | re.DOTALL)
    names = [found[1] for found in definition.finditer(PATTERNS)]
    assert len(names) >= 6
    assert [name for name in names if not re.search(rf"^(?:async def|class) {name}\b", shown, re.MULTILINE)] == []


def test_every_block_says_what_it_is() -> None:
    assert [str(snippet) for snippet in ALL if snippet.kind not in _KINDS] == []


def test_readme_greets_as_it_says(tmp_path: Path) -> None:
    [hello] = [snippet for snippet in SCRIPTS if snippet.page.name == "README.md"]
    (tmp_path / "hello.py").write_text(hello.code, encoding="utf-8")
    done = run(tmp_path, "hello.py")
    [promised] = re.findall(r"^\['Hello .*\]$", hello.page.read_text(encoding="utf-8"), re.MULTILINE)
    assert done.stdout.strip() == promised


# Settings


def rows(heading: str) -> list[str]:
    """The names in the first column of the table below a heading."""
    section = SETTINGS.split(f"## {heading}")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


@pytest.mark.parametrize("cls", [HostConfig, HttpCallPolicy, Limits], ids=["HostConfig", "HttpCallPolicy", "Limits"])
def test_every_setting_is_described_and_no_other(cls: type[msgspec.Struct]) -> None:
    assert rows(cls.__name__) == [field.name for field in msgspec.structs.fields(cls)]


def _documented(text: str) -> float | None:
    """Read the default in a table: `1,000`, `256 MiB`; None if it depends on the machine."""
    found = re.fullmatch(r"([\d,.]+)(?: ([KM])iB)?", text.strip())
    if found is None:
        return None
    factor = {None: 1, "K": 1024, "M": 1024 * 1024}[found[2]]
    return float(found[1].replace(",", "")) * factor


def test_defaults_of_the_settings_are_those_of_the_code() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", SETTINGS, re.MULTILINE))
    checked = 0
    for settings in (HostConfig(), HttpCallPolicy(), Limits()):
        for field in msgspec.structs.fields(settings):
            value: Any = getattr(settings, field.name)
            documented = _documented(table[field.name])
            if documented is not None:
                assert documented == value, field.name
                checked += 1
    assert checked >= 14


def test_every_name_of_the_configuration_is_described_with_its_variable_and_no_other() -> None:
    from holdfast.cli.config import ServerConfig
    from holdfast.cli.config_sources import variable_of

    page = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| `([\w.]+)` \| `(HOLDFAST_\w+)` \|", page, re.MULTILINE)
    names = [name for name, _ in found]
    assert names[: len(ServerConfig.__struct_fields__)] == list(ServerConfig.__struct_fields__)
    assert all(name.startswith("settings.") for name in names[len(ServerConfig.__struct_fields__) :])
    assert [variable for name, variable in found if variable != variable_of(name)] == []


# HTTP API


def test_every_endpoint_is_described_and_no_other() -> None:
    page = (ROOT / "docs" / "reference" / "http-api.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^### `(\w+) (/[^`]+)`$", page, re.MULTILINE))
    assert described == {(operation.method, operation.path) for operation in DOCUMENTED}


def test_the_http_reference_is_that_of_the_table() -> None:
    page = (ROOT / "docs" / "reference" / "http-api.md").read_text(encoding="utf-8")
    assert rewritten(page) == page, "run `python -m holdfast.http.reference docs/reference/http-api.md`"
    with pytest.raises(ValueError, match="has no lines"):
        rewritten("# A page")


# Links and layout


def links() -> Iterator[tuple[str, Path, str]]:
    for page in PAGES:
        for target in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
            if not target.startswith(("http://", "https://")):
                path, _, anchor = target.partition("#")
                yield f"{page.name}: {target}", (page.parent / path).resolve() if path else page, anchor


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_relative_link_resolves() -> None:
    found = list(links())
    assert len(found) >= 30
    assert [text for text, path, _ in found if not path.exists()] == []
    assert [text for text, path, anchor in found if anchor and anchor not in anchors(path)] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    targets: dict[Path, list[Path]] = {}
    for page in PAGES:
        texts = _LINK.findall(page.read_text(encoding="utf-8"))
        targets[page] = [(page.parent / text.partition("#")[0]).resolve() for text in texts if "://" not in text]
    while waiting:
        page = waiting.pop()
        if page not in reached and page in targets:
            reached.add(page)
            waiting.extend(targets[page])
    assert [page.name for page in PAGES if page not in reached] == []


def test_prose_keeps_to_the_columns_of_the_house() -> None:
    too_long = [
        f"{page.name}:{number}"
        for page in PAGES
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1)
        if len(line) > _COLUMNS_MAX and not line.startswith("|")
    ]
    assert too_long == []
