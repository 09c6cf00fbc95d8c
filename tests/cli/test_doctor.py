"""`holdfast doctor`: what it finds in a store that was damaged by hand, and what it leaves alone."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from commands_app import Cli, cli, make_cli  # noqa: F401 - a fixture

from holdfast.engine import doctor as engine_doctor


@pytest.fixture(scope="module")
def hub_that_is_well(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with something of everything, to be copied."""
    path = tmp_path_factory.mktemp("doctor") / "hub.db"
    with pytest.MonkeyPatch.context() as patch:
        fill(make_cli(path, patch))
    assert not path.with_name("hub.db-wal").exists(), "all of it is in the one file"
    return path


@pytest.fixture
def hub(cli: Cli, hub_that_is_well: Path, tmp_path: Path) -> Path:  # noqa: F811
    return Path(shutil.copy(hub_that_is_well, tmp_path))


def fill(cli: Cli) -> None:  # noqa: F811
    cli.ok("start", "flow", "1", "--id", "done", "--wait")
    cli("start", "failing", '"boom"', "--id", "failed", "--wait")
    for name in ("waiting", "sleeping", "parent", "locking", "talking"):
        cli.ok("start", name, "--id", name)
    cli.ok("start", "flow", "1", "--id", "planned", "--start-at", "2999-01-01")
    cli.ok("terminate", "talking")
    cli.ok("call", "counter@b", "add", "1", "--request-key", "k")
    cli.ok("signal", "counter@b", "add", "1", "--after", "1d")
    cli.until(lambda: "Running" in cli.ok("status", "locking") and "Running" in cli.ok("status", "child"))
    cli.until(lambda: "Locked" in cli.ok("entities", "get", "counter@a"))


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0, statement


def findings(cli: Cli, *options: str) -> list[tuple[str, str | None, str]]:  # noqa: F811
    done = cli("doctor", "--store", cli.store, "--json", *options)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == (1 if found else 0), done.output
    return [(each["rule"], each["instance_id"], each["what"]) for each in found]


def test_a_store_that_is_well(cli: Cli, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    assert cli.ok("doctor", "--store", cli.store).strip() == "All is well."
    monkeypatch.setattr(engine_doctor, "_PAGE", 1)
    assert findings(cli) == []


_EXECUTION = "(SELECT execution_id FROM instance WHERE instance_id = '{}')"
_GONE = f"UPDATE history SET execution_id = 'gone' WHERE execution_id = {_EXECUTION.format('done')}"


@pytest.mark.parametrize(
    ("statement", "rule", "instance_id", "part"),
    [
        ("DELETE FROM timer WHERE instance_id = 'planned'", "stuck", "planned", "nothing will start it"),
        ("UPDATE instance SET execution_id = 'x' WHERE instance_id = 'sleeping'", "orphan", "sleeping", "timer"),
        ("UPDATE instance SET status = 'Odd' WHERE instance_id = 'done'", "unreadable", "done", "Odd"),
        ("UPDATE instance SET status = 'Failed' WHERE instance_id = 'done'", "end", "done", "ends as Completed"),
        ("UPDATE instance SET status = 'Running' WHERE instance_id = 'done'", "end", "done", "it is Running"),
        ("UPDATE instance SET status = 'Completed' WHERE instance_id = 'waiting'", "end", "waiting", "no end"),
        ("UPDATE instance SET episodes = 9 WHERE instance_id = 'done'", "history", "done", "9 episodes"),
        ("UPDATE instance SET history_events = 1 WHERE instance_id = 'done'", "history", "done", "1 events"),
        (
            f"UPDATE history SET events = '{{}}' WHERE execution_id = {_EXECUTION.format('done')} AND episode = 0",
            "unreadable",
            "done",
            "episode 0",
        ),
        ("DELETE FROM child", "lost work", "parent", "'child'"),
        ("UPDATE child SET child_instance_id = 'none'", "lost work", "parent", "which is gone"),
        (
            "UPDATE instance SET status = 'Terminated', updated_at = 0 WHERE instance_id = 'child'",
            "lost work",
            "parent",
            "it was not told",
        ),
        ("UPDATE timer SET sequence = 77 WHERE instance_id = 'sleeping'", "lost work", "sleeping", "timer #77"),
        ("DELETE FROM instance WHERE instance_id = 'locking'", "lock", "@counter@a", "does not hold"),
        ("UPDATE instance SET lock = NULL WHERE instance_id = '@counter@a'", "lock", "locking", "believes to hold"),
        ("DELETE FROM instance WHERE instance_id = '@counter@b'", "orphan", "@counter@b", "operation_key"),
        (_GONE, "orphan", None, "execution gone"),
    ],
)
def test_what_is_wrong_is_found(
    cli: Cli,  # noqa: F811
    hub: Path,
    statement: str,
    rule: str,
    instance_id: str | None,
    part: str,
) -> None:
    change(hub, statement)
    found = findings(cli)
    assert any(each[:2] == (rule, instance_id) and part in each[2] for each in found), found
    shown = cli("doctor", "--store", cli.store)
    assert (shown.exit_code, f"[{rule}]" in shown.stdout, "finding" in shown.stdout) == (1, True, True)


def test_messages_to_nobody(cli: Cli, hub: Path) -> None:  # noqa: F811
    event = '{"v":1,"event":{"type":"EventRaised","timestamp":"2026-01-01T00:00:00Z","name":"Go"}}'
    change(hub, f"INSERT INTO inbox VALUES (0, 1, 'nobody', NULL, '{event}')")
    assert [each[:2] for each in findings(cli)] == [("message", "nobody")]


def test_orphans_are_mended_and_nothing_else(cli: Cli, hub: Path) -> None:  # noqa: F811
    change(
        hub,
        _GONE,
        "UPDATE instance SET execution_id = 'x', episodes = 0, history_events = 0 WHERE instance_id = 'sleeping'",
        "DELETE FROM instance WHERE instance_id = '@counter@b'",
    )
    before = {each[0] for each in findings(cli)}
    assert before == {"orphan", "history"}
    mended = cli("doctor", "--store", cli.store, "--mend")
    assert (mended.exit_code, "Removed" in mended.stdout) == (1, True), mended.output
    assert {each[:2] for each in findings(cli)} == {("history", "done")}
    with closing(sqlite3.connect(hub)) as connection:
        assert connection.execute("SELECT count(*) FROM history WHERE execution_id = 'gone'").fetchone() == (0,)


def test_a_damaged_file(cli: Cli, hub: Path) -> None:  # noqa: F811
    with closing(sqlite3.connect(hub)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute(
            "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'timer_by_time') "
            "WHERE name = 'activity_by_time'"
        )
        connection.commit()
    assert findings(cli)[0][0] == "file"


@pytest.mark.parametrize(
    ("store", "part"),
    [
        ("sqlite:///nothing.db", "no task hub"),
        ("memory://", "belongs to the process"),
        ("hub.db", "is not a store URL"),
    ],
)
def test_no_store(cli: Cli, store: str, part: str) -> None:  # noqa: F811
    done = cli("doctor", "--store", store)
    assert (done.exit_code, part in done.stderr) == (2, True)
