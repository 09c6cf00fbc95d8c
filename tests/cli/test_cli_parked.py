"""`holdfast parked` and `holdfast explain`, on instances that stand still for every reason."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from commands_app import Cli, cli  # noqa: F401 - a fixture

from holdfast.cli import confirm
from holdfast.codec.history import encode_record
from holdfast.model.failure import FailureDetails

WHY = encode_record(FailureDetails("holdfast.errors.NonDeterminismError", "differs", "line 1"))


def park(path: Path, *instance_ids: str) -> None:
    """Set instances aside, as a host does whose code does not replay."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for instance_id in instance_ids:
            statement = "UPDATE instance SET parked = ?, status = 'Suspended' WHERE instance_id = ?"
            assert connection.execute(statement, (WHY, instance_id)).rowcount == 1


def execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement).rowcount == 1


@pytest.fixture
def parked(cli: Cli, tmp_path: Path) -> list[str]:  # noqa: F811
    names = ["p1", "p2", "p3"]
    for name in (*names, "open"):
        cli.ok("start", "waiting", "--id", name)
        cli.until(lambda: cli.json("status", name)["runtime_status"] == "Running")  # noqa: B023 - called at once
    park(tmp_path / "hub.db", *names)
    return names


def test_list_and_show(cli: Cli, parked: list[str]) -> None:  # noqa: F811
    assert [each["instance_id"] for each in cli.lines("parked", "list")] == parked
    table = cli.ok("parked", "list").splitlines()
    assert [line.split()[0] for line in table] == ["INSTANCE", *parked]
    assert all("differs" in line for line in table[1:])
    shown = cli.ok("parked", "show", "p1")
    for part in ("NonDeterminismError: differs", "line 1", "holdfast parked retry p1"):
        assert part in shown
    assert cli.json("parked", "show", "p1")["parked"]["error_message"] == "differs"
    assert cli("parked", "show", "open").exit_code == 5
    waited = cli("wait", "p1")
    assert (waited.exit_code, "holdfast explain p1" in waited.stderr) == (1, True)
    assert "holdfast parked retry p1" in cli.ok("explain", "p1")


def test_retry(cli: Cli, parked: list[str]) -> None:  # noqa: F811
    assert cli.ok("parked", "retry", "p1", "--reason", "mended").strip() == "Resumed 1."
    cli.until(lambda: cli.json("status", "p1")["runtime_status"] == "Running")
    assert cli("parked", "retry", "p1").exit_code == 5
    assert cli.ok("parked", "retry", "--all").strip() == "Resumed 2."
    cli.until(lambda: cli.ok("parked", "list").strip() == "Nothing is parked.")
    cli.ok("raise", "p2", "Go", "1")
    assert cli.ok("wait", "p2").strip() == "1"


def test_discard(cli: Cli, parked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    assert cli.ok("parked", "discard", "p1").strip() == "Discarded 1."
    assert cli("parked", "discard", "open").exit_code == 5
    refused = cli("parked", "discard", "--all")
    assert (refused.exit_code, "--yes" in refused.stderr, "Traceback" in refused.output) == (2, True, False)
    monkeypatch.setattr(confirm, "_is_terminal", lambda: True)
    assert cli("parked", "discard", "--all", input="n\n").exit_code == 1
    assert cli.ok("parked", "discard", "--all", "--yes").strip() == "Discarded 2."
    cli.until(lambda: cli.json("count", "--id-prefix", "p") == {"Terminated": 3})
    assert cli.json("status", "open")["runtime_status"] == "Running"


def test_one_that_is_not_parked_stops_no_other(cli: Cli, parked: list[str]) -> None:  # noqa: F811
    done = cli("parked", "retry", "nobody", "p1", "open", "p2")
    assert (done.exit_code, done.stdout.strip()) == (5, "Resumed 2.")
    assert ("no instance 'nobody'" in done.stderr, "'open' is not parked" in done.stderr) == (True, True)
    done = cli("parked", "discard", "open", "p3")
    assert (done.exit_code, done.stdout.strip()) == (5, "Discarded 1.")


def test_an_entity_is_parked_like_an_orchestration(cli: Cli, parked: list[str], tmp_path: Path) -> None:  # noqa: F811
    for name in ("@counter@a", "@counter@b", "@counter@well"):
        cli.ok("call", name, "add", "3")
    park(tmp_path / "hub.db", "@counter@a", "@counter@b")
    listed = cli.lines("parked", "list")
    assert [each.get("instance_id") or each["entity_id"] for each in listed] == [*parked, "@counter@a", "@counter@b"]
    table = [line.split() for line in cli.ok("parked", "list").splitlines()]
    assert [line[:2] for line in table][-2:] == [["@counter@a", "counter"], ["@counter@b", "counter"]]
    shown = cli.ok("parked", "show", "@counter@a")
    for part in ("NonDeterminismError: differs", "line 1", '{"value":3}', "holdfast parked retry @counter@a"):
        assert part in shown
    assert cli.json("parked", "show", "@counter@a")["parked"]["error_message"] == "differs"
    for command in ("show", "retry", "discard"):
        assert cli("parked", command, "@counter@well").exit_code == 5
        assert cli("parked", command, "@counter@none").exit_code == 4
    assert cli("call", "@counter@a", "add", "4").exit_code == 1
    assert cli.ok("parked", "retry", "@counter@a").strip() == "Resumed 1."
    assert cli.ok("call", "@counter@a", "add", "4").strip() == "7"
    cli.ok("signal", "@counter@b", "add", "4")
    assert cli.ok("parked", "discard", "@counter@b").strip() == "Discarded 1."
    assert cli("entities", "get", "@counter@b").exit_code == 4
    assert cli.ok("call", "@counter@b", "add", "1").strip() == "1"
    park(tmp_path / "hub.db", "@counter@a", "@counter@b")
    assert cli.ok("parked", "discard", "--all", "--yes").strip() == "Discarded 5."
    cli.until(lambda: cli.ok("parked", "list").strip() == "Nothing is parked.")
    assert [each["entity_id"] for each in cli.lines("entities", "list")] == ["@counter@well"]


DAMAGES = (
    "tags = '{\"a\":'",
    "parent = 'x'",
    "status = 'Odd'",
    "lock = '{'",
    "failure = '[1,'",
    "events_awaited = '['",
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_listed_shown_and_discarded(
    cli: Cli,  # noqa: F811
    tmp_path: Path,
    damage: str,
) -> None:
    kind = "parent" if damage.startswith("tags") else "sleeping"
    for name, orchestrator in (("hurt", kind), ("well", "waiting")):
        cli.ok("start", orchestrator, "--id", name)
    cli.until(lambda: set(cli.json("count")) == {"Running"})
    everyone = [each["instance_id"] for each in cli.lines("list")]
    execute(tmp_path / "hub.db", f"UPDATE instance SET {damage} WHERE instance_id = 'hurt'")
    assert [each["instance_id"] for each in cli.lines("list")] == everyone
    assert [each["instance_id"] for each in cli.lines("list", "--not-parked")] == sorted({*everyone} - {"hurt"})
    assert sum(cli.json("count").values()) == len(everyone)
    [found] = cli.lines("parked", "list")
    assert (found["instance_id"], found["name"], found["runtime_status"]) == ("hurt", kind, "Suspended")
    assert found["parked"]["error_type"].endswith("CorruptRecordError")
    assert "CorruptRecordError" in cli.ok("parked", "show", "hurt")
    assert (cli("wait", "hurt").exit_code, cli("parked", "retry", "hurt").exit_code) == (1, 2)
    unwell = cli("doctor", "--store", cli.store)
    assert (unwell.exit_code, "[unreadable]" in unwell.stdout) == (1, True), unwell.output
    assert cli.ok("parked", "discard", "hurt").strip() == "Discarded 1."
    assert cli("status", "hurt").exit_code == 4
    assert cli.ok("doctor", "--store", cli.store).strip() == "All is well."
    assert [each["instance_id"] for each in cli.lines("list")] == sorted({*everyone} - {"hurt"})
    assert cli.ok("start", "flow", "2", "--id", "hurt", "--wait").strip() == "4"


@pytest.mark.parametrize("damage", ["lock = '{'", "status = 'Odd'", "parked = '{'", "created_at = 1000000000000000000"])
def test_a_damaged_entity_hides_no_other_and_is_discarded(cli: Cli, tmp_path: Path, damage: str) -> None:  # noqa: F811
    for name in ("@counter@hurt", "@counter@well"):
        cli.ok("call", name, "add", "3", "--request-key", name)
    cli.ok("signal", "@counter@hurt", "add", "1", "--after", "1d")
    execute(tmp_path / "hub.db", f"UPDATE instance SET {damage} WHERE instance_id = '@counter@hurt'")
    found = {each["entity_id"]: each["parked"] for each in cli.lines("entities", "list")}
    assert (list(found), found["@counter@well"]) == (["@counter@hurt", "@counter@well"], None)
    assert found["@counter@hurt"]["error_type"].endswith("CorruptRecordError")
    assert "CorruptRecordError" in cli.ok("parked", "show", "@counter@hurt")
    if damage.startswith(("lock", "parked")):
        assert [each["entity_id"] for each in cli.lines("parked", "list")] == ["@counter@hurt"]
    assert cli.ok("parked", "discard", "@counter@hurt").strip() == "Discarded 1."
    assert cli.ok("doctor", "--store", cli.store).strip() == "All is well."
    assert cli.ok("call", "@counter@hurt", "add", "1").strip() == "1"


def test_explain_asks_a_host_or_reads_a_store(cli: Cli) -> None:  # noqa: F811
    for name in ("sleeping", "parent", "locking"):
        cli.ok("start", name, "--id", name)
    cli.until(
        lambda: "Running" in cli("status", "child").stdout and "Locked" in cli("entities", "get", "counter@a").stdout
    )
    cli.ok("start", "flow", "1", "--id", "planned", "--start-at", "2999-01-01")
    cli.ok("start", "locking", "--id", "second")
    cli.until(lambda: cli.json("entities", "get", "counter@a")["lock_requests"] != [])
    held = cli.json("explain", "@counter@a")
    [holder] = [each["what"] for each in held["waits_for"]]
    waiter = ({"locking", "second"} - {holder}).pop()
    assert cli.json("explain", waiter)["advice"] == [f"holdfast explain {holder}  holds the lock of @counter@a"]
    for store in ((), ("--store", cli.store)):
        sleeping = cli.json("explain", "sleeping", *store)
        assert [each["kind"] for each in sleeping["waits_for"]] == ["timer"]
        assert ("cancelled" in sleeping["waits_for"][0]["detail"]) == (not store)
        assert [each["instance_id"] for each in cli.json("explain", "parent", *store)["waits_for"]] == ["child"]
        assert "holdfast raise child Go" in cli.ok("explain", "child", *store)
        assert cli.json("explain", "@counter@a", *store)["status"] == "Locked"
        assert "critical section" in json.dumps(cli.json("explain", holder, *store)["notes"])
        assert cli.json("explain", "planned", *store)["status"] == "Pending"
        assert cli("explain", "nobody", *store).exit_code == 4
    assert "planned for 2999" in cli.ok("explain", "planned", "--store", cli.store)
