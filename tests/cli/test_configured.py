"""No command ignores the configuration: the host and the store that it names, and where a wrong value is set."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

import pytest
from cli_process import TINY, Running, holdfast
from typer.testing import CliRunner

from holdfast import Client, HostUnreachableError
from holdfast.cli import connection
from holdfast.cli.configured import Connection, configured_connection
from holdfast.cli.main import commands
from holdfast.cli.reference import _commands  # pyright: ignore[reportPrivateUsage] - the one list of all of them

KEY: Final = "the-only-key-there-is"
FILE: Final = f'url = "http://127.0.0.1:9/hub"\nkey = "{KEY}"\nstore = "sqlite:///configured.db"\n'

ARGUMENTS: Final = {
    "start": ["flow"],
    "raise": ["x", "Go"],
    "query": ["x", "total"],
    "update": ["x", "add"],
    "purge": ["--all", "--yes"],
    "bulk": ["suspend", "--all", "--yes"],
    "signal": ["counter@a", "add"],
    "call": ["counter@a", "add"],
    "entities get": ["counter@a"],
    "entities unlock": ["counter@a"],
    "entities purge": ["counter@a"],
    "parked retry": ["x"],
    "parked discard": ["x"],
    "export": ["x.jsonl"],
    "import": ["x.jsonl"],
    "replay": ["tiny.py"],
}
"""What commands need besides; one that is not here needs an instance id, or nothing."""
WITHOUT: Final = frozenset({"run", "config", "lint", "demo"})
"""Those that are tested elsewhere, or have neither a host nor a store."""


def _with(option: str) -> list[tuple[str, list[str]]]:
    """Return the commands that have an option, with arguments that they accept."""
    found = {name: {each.name for each in command.params} for name, command in _commands() if name not in WITHOUT}
    return [
        (name, ARGUMENTS.get(name, ["x"] if "instance_id" in has else []))
        for name, has in found.items()
        if option in has
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("URL", "KEY", "STORE", "CONFIG"):
        monkeypatch.delenv(f"HOLDFAST_{name}", raising=False)
    (tmp_path / "tiny.py").write_text(TINY)
    (tmp_path / "x.jsonl").write_text("")
    return tmp_path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """Where commands have looked for a host."""
    found: list[Connection] = []

    def client_of(wanted: Connection) -> AbstractAsyncContextManager[Client]:
        found.append(wanted)
        raise HostUnreachableError("nobody there")

    monkeypatch.setattr(connection, "client_of", client_of)
    return found


def test_every_command_is_looked_at() -> None:
    known = {name for option in ("url", "store") for name, _ in _with(option)}
    assert known | WITHOUT == {name for name, _ in _commands()}


@pytest.mark.parametrize(("name", "arguments"), _with("url"))
def test_each_command_that_asks_a_host_asks_the_one_that_is_configured(
    folder: Path, asked: list[Connection], name: str, arguments: list[str]
) -> None:
    command = [*name.split(), *arguments]
    (folder / "pyproject.toml").write_text("[tool.holdfast]\n" + FILE)
    CliRunner().invoke(commands, command)
    CliRunner().invoke(commands, command, env={"HOLDFAST_URL": "http://127.0.0.1:10", "HOLDFAST_KEY": "other"})
    CliRunner().invoke(commands, [*command, "--url", "http://127.0.0.1:11"], env={"HOLDFAST_URL": "http://x.example"})
    assert asked == [
        Connection("http://127.0.0.1:9/hub", KEY),
        Connection("http://127.0.0.1:10", "other"),
        Connection("http://127.0.0.1:11", KEY),
    ]
    (folder / "pyproject.toml").write_text("[tool.holdfast]\nprot = 1\n")
    refused = CliRunner().invoke(commands, command)
    assert (refused.exit_code, "pyproject.toml" in refused.stderr) == (2, True), refused.output


@pytest.mark.parametrize(("name", "arguments"), [each for each in _with("store") if each[0] != "explain"])
def test_each_command_that_reads_a_store_reads_the_one_that_is_configured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: list[str]
) -> None:
    files: list[str] = []
    for module in ("doctor", "transfer"):
        monkeypatch.setattr(f"holdfast.cli.{module}.open_whole", _remembering(files))
    for module in ("replay", "export_history"):
        monkeypatch.setattr(f"holdfast.cli.{module}.reading", _remembering(files))
    command = [*name.split(), *arguments]
    (folder / "holdfast.toml").write_text(FILE)
    CliRunner().invoke(commands, command)
    CliRunner().invoke(commands, command, env={"HOLDFAST_STORE": "sqlite:///by-variable.db"})
    CliRunner().invoke(commands, [*command, "--store", "sqlite:///named.db"])
    assert files == ["sqlite:///configured.db", "sqlite:///by-variable.db", "sqlite:///named.db"]
    (folder / "holdfast.toml").write_text('store = "memory://"')
    refused = CliRunner().invoke(commands, command)
    assert (refused.exit_code, "holdfast.toml: 'memory://' belongs" in refused.stderr) == (2, True), refused.output
    (folder / "holdfast.toml").unlink()
    unnamed = CliRunner().invoke(commands, command)
    assert (unnamed.exit_code, "--store" in unnamed.stderr) == (2, True), unnamed.output


def _remembering(files: list[str]) -> Callable[[str], Any]:
    def remember(url: str) -> Any:
        files.append(url)
        raise HostUnreachableError("far enough")

    return remember


@pytest.mark.parametrize(
    ("file", "url"),
    [
        ("", "http://127.0.0.1:7071"),
        ("port = 8080", "http://127.0.0.1:8080"),
        ('host = "0.0.0.0"', "http://127.0.0.1:7071"),
        ('host = "::"\nssl_certfile = "x.pem"', "https://[::1]:7071"),
        ('host = "::1"', "http://[::1]:7071"),
        ('host = "localhost"\nport = 1', "http://localhost:1"),
        ('url = "https://hub.example.com"\nport = 0', "https://hub.example.com"),
    ],
)
def test_without_a_url_it_is_where_such_a_host_listens(folder: Path, file: str, url: str) -> None:
    (folder / "holdfast.toml").write_text(file)
    assert configured_connection("", None) == Connection(url, None)


@pytest.mark.parametrize(
    ("file", "environment", "parts"),
    [
        ('url = "elsewhere"', {}, ["holdfast.toml: The URL", "http(s)://host:port"]),
        ("", {"HOLDFAST_URL": "ftp://x"}, ["HOLDFAST_URL: The URL", "'ftp'"]),
        ("url = 1", {}, ["holdfast.toml: 1 cannot be the url"]),
        ('url = "http://x.example"', {"HOLDFAST_KEY": KEY}, ["HOLDFAST_KEY: The key", "unencrypted to 'x.example'"]),
        ("", {"HOLDFAST_KEY": f"{KEY}\u00fc"}, ["HOLDFAST_KEY: The key must be"]),
        ("port = 0", {}, ["holdfast.toml: port 0", "--url"]),
        ("[settings]\nthreads_max = 0", {}, ["holdfast.toml", "more than zero"]),
        ("", {"HOLDFAST_UTL": "x"}, ["HOLDFAST_UTL", "Did you mean 'HOLDFAST_URL'?"]),
    ],
)
def test_what_cannot_be_is_refused_with_its_origin(
    folder: Path, file: str, environment: dict[str, str], parts: list[str]
) -> None:
    (folder / "holdfast.toml").write_text(file)
    refused = CliRunner().invoke(commands, ["list"], env=environment)
    assert refused.exit_code == 2, refused.output
    for part in parts:
        assert part in refused.stderr
    assert KEY not in refused.output


def test_help_shows_no_secret(folder: Path) -> None:
    (folder / "holdfast.toml").write_text(FILE)
    for name, _ in _with("url"):
        shown = CliRunner().invoke(commands, [*name.split(), "--help"], env={"HOLDFAST_KEY": "sw0rdfish"})
        assert (shown.exit_code, "sw0rdfish" in shown.output, KEY in shown.output) == (0, False, False)


def test_one_file_is_enough_for_a_host_and_for_all_commands(folder: Path) -> None:
    (folder / "holdfast.toml").write_text(f'store = "sqlite:///hub.db"\nkey = "{KEY}"\n')
    with Running("tiny.py", cwd=folder) as running:
        port = running.url.rpartition(":")[2]
        started = holdfast("start", "flow", "21", "--id", "a", "--wait", cwd=folder, HOLDFAST_PORT=port)
        assert (started.returncode, started.stdout.strip()) == (0, "-42"), started.stderr
        listed = holdfast("list", "--json", cwd=folder, HOLDFAST_URL=running.url)
        assert (listed.returncode, '"instance_id":"a"' in listed.stdout) == (0, True), listed.stderr
        refused = holdfast("list", cwd=folder, HOLDFAST_URL=running.url, HOLDFAST_KEY="wrong")
        assert (refused.returncode, KEY in refused.stderr, "wrong" in refused.stderr) == (2, False, False)
        exported = holdfast("export-history", "a", cwd=folder)
        assert (exported.returncode, '"flow"' in exported.stdout) == (0, True), exported.stderr
        well = holdfast("doctor", cwd=folder)
        assert (well.returncode, well.stdout.strip()) == (0, "All is well."), well.stderr


def test_typer_is_told_of_no_variable() -> None:
    """It would take the value without its origin, and without the file."""
    for _, command in _commands():
        assert [each.name for each in command.params if each.info.envvar] == []
