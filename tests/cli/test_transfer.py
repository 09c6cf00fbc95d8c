"""`holdfast export` and `import`: a hub goes elsewhere with what is in flight, whole or not at all."""

from __future__ import annotations

import errno
import json
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from commands_app import Cli, app, cli  # noqa: F401 - a fixture

from holdfast.cli import transfer
from holdfast.storage.sqlite.owner_lock import OwnerLock
from holdfast.storage.transfer import TABLES


@pytest.fixture
def exported(cli: Cli, tmp_path: Path) -> Path:  # noqa: F811
    cli.ok("start", "flow", "1", "--id", "done", "--wait")
    cli.ok("start", "parent", "--id", "p")
    cli.ok("call", "counter@a", "add", "5", "--request-key", "k")
    cli.ok("start", "flow", "3", "--id", "planned", "--start-at", "2999-01-01")
    cli.until(lambda: "Running" in cli("status", "child").stdout)
    assert "Exported" in cli.ok("export", "hub.jsonl", "--store", cli.store)
    return tmp_path / "hub.jsonl"


def rows(path: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path)) as connection:
        return {table: sorted(connection.execute(f"SELECT * FROM {table}"), key=str) for table in (*TABLES, "hub")}


def test_a_hub_arrives_with_all_that_is_in_flight(cli: Cli, exported: Path, tmp_path: Path) -> None:  # noqa: F811
    lines = [json.loads(line) for line in exported.read_text().splitlines()]
    assert (lines[0]["format"], lines[-1]["rows"]) == ("holdfast-hub", len(lines) - 2)
    assert "Imported" in cli.ok("import", "hub.jsonl", "--store", "sqlite:///copy.db")
    assert rows(tmp_path / "copy.db") == rows(tmp_path / "hub.db")
    assert cli.ok("doctor", "--store", "sqlite:///copy.db").strip() == "All is well."
    (tmp_path / "hub.db").unlink()
    (tmp_path / "copy.db").rename(tmp_path / "hub.db")
    assert cli.ok("call", "counter@a", "add", "5", "--request-key", "k").strip() == "5"
    cli.ok("raise", "child", "Go", '"now"')
    assert cli.ok("wait", "p").strip() == '"now"'
    assert cli.ok("start", "flow", "4", "--wait").strip() == "8"


def test_what_is_there_already_stays(cli: Cli, exported: Path, tmp_path: Path) -> None:  # noqa: F811
    before = rows(tmp_path / "hub.db")
    again = cli("export", "hub.jsonl", "--store", cli.store)
    assert (again.exit_code, "exists" in again.stderr) == (2, True)
    into = cli("import", "hub.jsonl", "--store", cli.store)
    assert (into.exit_code, "new or empty" in into.stderr) == (2, True)
    assert rows(tmp_path / "hub.db") == before


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda lines: lines[:-1], "was cut"),
        (lambda lines: lines[:3], "was cut"),
        (lambda lines: [*lines[:-1], lines[-1][:20]], "was cut"),
        (lambda lines: [*lines[:3], lines[3][:30]], "line 4"),
        (lambda lines: [*lines[:3], *lines[4:]], "was changed"),
        (lambda lines: [lines[0].replace('"lsn":', '"lsn":1'), *lines[1:]], "was changed"),
        (lambda lines: [*lines, lines[1]], "was changed"),
        (lambda lines: [lines[0], lines[1].replace('"instance"', '"odd"', 1), *lines[2:]], "line 2"),
        (lambda lines: [lines[0].replace('"v":2', '"v":1'), *lines[1:]], "another version"),
        (lambda lines: [lines[0].replace('"rows_version":1', '"rows_version":9'), *lines[1:]], "another version"),
        (lambda lines: ['{"format":"holdfast-hub","v":1,"schema_version":1}\n', *lines[1:]], "another version"),
        (lambda lines: [lines[0].replace("holdfast-hub", "x"), *lines[1:]], "no export"),
        (lambda lines: lines[1:], "no export"),
        (lambda lines: [], "no export"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(
    cli: Cli,  # noqa: F811
    exported: Path,
    tmp_path: Path,
    damage: Any,
    part: str,
) -> None:
    lines = exported.read_text().splitlines(keepends=True)
    exported.write_text("".join(damage(lines)))
    refused = cli("import", "hub.jsonl", "--store", "sqlite:///copy.db")
    assert (refused.exit_code, part in refused.stderr) == (2, True), refused.output
    assert "Traceback" not in refused.output
    # The file of the lock is never removed: another process may be about to lock it.
    assert {path.name for path in tmp_path.glob("copy*")} <= {"copy.db-owner"}


def _meanwhile(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Do something once an import has read its first line."""
    header = transfer._Reader.header

    def header_then(reader: Any) -> Any:
        monkeypatch.undo()
        found = header(reader)
        act()
        return found

    monkeypatch.setattr(transfer._Reader, "header", header_then)


def test_a_host_that_starts_meanwhile_keeps_its_file(
    cli: Cli,  # noqa: F811
    exported: Path,
    tmp_path: Path,
) -> None:
    store = tmp_path / "copy.db"
    locks: list[OwnerLock] = []

    def start_host() -> None:
        locks.append(OwnerLock(store))
        store.write_bytes(b"all that it stored")

    with pytest.MonkeyPatch.context() as patch:
        _meanwhile(patch, start_host)
        refused = cli("import", str(exported), "--store", f"sqlite:///{store}")
    assert (refused.exit_code, "in use by" in refused.stderr) == (2, True), refused.output
    locks.pop().release()
    assert store.read_bytes() == b"all that it stored"
    assert (tmp_path / "copy.db-owner").exists()


def test_of_two_imports_into_one_file_the_faster_one_stays(
    cli: Cli,  # noqa: F811
    exported: Path,
    tmp_path: Path,
) -> None:
    arguments = ("import", str(exported), "--store", f"sqlite:///{tmp_path / 'copy.db'}")
    with pytest.MonkeyPatch.context() as patch:
        _meanwhile(patch, lambda: print(cli.ok(*arguments)))
        refused = cli(*arguments)
    assert (refused.exit_code, "new or empty" in refused.stderr) == (2, True), refused.output
    assert rows(tmp_path / "copy.db") == rows(tmp_path / "hub.db")


def test_files_that_are_not_there(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    assert "cannot be read" in cli("import", "none.jsonl", "--store", "sqlite:///copy.db").stderr
    assert "no task hub" in cli("export", "x.jsonl", "--store", "sqlite:///none.db").stderr
    cli("status", "nobody")
    assert "cannot be written" in cli("export", "no/such/x.jsonl", "--store", cli.store).stderr
    assert list(tmp_path.glob("*.jsonl*")) == []


def test_an_export_is_for_its_owner_alone(cli: Cli, exported: Path, tmp_path: Path) -> None:  # noqa: F811
    assert stat.S_IMODE(exported.stat().st_mode) == 0o600
    # Another user left a link where an export might write.
    (tmp_path / "target").write_text("precious")
    (tmp_path / "second.jsonl.partial").symlink_to(tmp_path / "target")
    (tmp_path / "third.jsonl").symlink_to(tmp_path / "nowhere")
    cli.ok("export", "second.jsonl", "--store", cli.store)
    assert "exists" in cli("export", "third.jsonl", "--store", cli.store).stderr
    assert (tmp_path / "target").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()
    cli.ok("start", "flow", "1", "--id", "again", "--wait")
    cli.ok("purge", "again", "--export", "gone.jsonl")
    assert stat.S_IMODE((tmp_path / "gone.jsonl").stat().st_mode) == 0o600


def _no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("has_links", [True, False])
def test_an_export_replaces_nothing_that_came_meanwhile(
    cli: Cli,  # noqa: F811
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_links: bool,
) -> None:
    if not has_links:
        monkeypatch.setattr("os.link", _no_links)
    cli.ok("export", "second.jsonl", "--store", cli.store)
    assert len((tmp_path / "second.jsonl").read_text().splitlines()) == len(exported.read_text().splitlines())
    write = transfer._write

    def write_slowly(*arguments: Any) -> int:
        (tmp_path / "third.jsonl").write_text("precious")
        return write(*arguments)

    monkeypatch.setattr(transfer, "_write", write_slowly)
    refused = cli("export", "third.jsonl", "--store", cli.store)
    assert (refused.exit_code, "exists" in refused.stderr) == (2, True), refused.output
    assert (tmp_path / "third.jsonl").read_text() == "precious"
    assert list(tmp_path.glob("*.partial")) == []
