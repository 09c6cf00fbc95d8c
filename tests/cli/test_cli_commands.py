"""The commands that talk to a host: what they print, and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from commands_app import Cli, cli  # noqa: F401 - a fixture

from holdfast import Client, EntityId, HostUnreachableError
from holdfast.cli import confirm, purge


def test_start_status_wait_and_history(cli: Cli) -> None:  # noqa: F811
    assert cli.ok("start", "flow", "21", "--id", "a", "--tag", "team=x").strip() == "a"
    assert cli.ok("wait", "a").strip() == "42"
    shown = cli.ok("status", "a")
    for part in ("Completed", "flow", "team=x", "Output", "42", "UTC"):
        assert part in shown
    status = cli.json("status", "a")
    assert (status["runtime_status"], status["input"], status["output"]) == ("Completed", 21, 42)
    assert status["created_at"].endswith("Z")
    assert cli.json("wait", "a")["output"] == 42
    events = cli.lines("history", "a")
    assert [each["type"] for each in events][-1] == "ExecutionCompleted"
    assert [each["result"] for each in events if each["type"] == "TaskCompleted"] == [42]
    assert "TaskScheduled" in cli.ok("history", "a", "--last", "100")
    assert len(cli.lines("history", "a", "--last", "2")) == 2


def test_start_and_wait_in_one(cli: Cli) -> None:  # noqa: F811
    assert cli.ok("start", "flow", "4", "--wait").strip() == "8"
    failed = cli("start", "failing", '"boom"', "--id", "f", "--wait")
    assert (failed.exit_code, failed.stderr.count("ValueError: boom")) == (1, 1)
    assert cli("wait", "f").exit_code == 1
    assert cli("start", "waiting", "--wait", "--timeout", "50ms").exit_code == 6
    assert cli("start", "waiting", "--wait", "--timeout", "0.05").exit_code == 6
    assert cli("purge", "--older-than", "7", "--yes").exit_code == 2


@pytest.mark.parametrize(("policy", "code"), [("replace-ended", 5), ("reject", 5), ("return", 0), ("replace", 0)])
def test_what_a_start_does_with_an_id_in_use(cli: Cli, policy: str, code: int) -> None:  # noqa: F811
    cli.ok("start", "waiting", "--id", "a")
    assert cli("start", "waiting", "--id", "a", "--if-exists", policy).exit_code == code


def test_list_filters_and_counts(cli: Cli) -> None:  # noqa: F811
    for number in range(3):
        cli.ok("start", "flow", str(number), "--id", f"flow-{number}", "--tag", f"n={number}", "--wait")
    cli.ok("start", "waiting", "--id", "open")
    cli.until(lambda: cli.json("status", "open")["custom_status"] == {"step": 1})

    def ids(*arguments: str) -> list[str]:
        return [each["instance_id"] for each in cli.lines("list", *arguments)]

    assert ids() == ["flow-0", "flow-1", "flow-2", "open"]
    assert ids("--name", "flow", "--tag", "n=1") == ["flow-1"]
    assert ids("--status", "running") == ["open"]
    assert ids("--status", "running", "--status", "Completed", "--limit", "2") == ["flow-0", "flow-1"]
    assert ids("--id-prefix", "flow-", "--all") == ["flow-0", "flow-1", "flow-2"]
    assert ids("--custom-status", '{"step":1}') == ["open"]
    assert ids("--custom-status", "null") == []
    assert ids("--created-from", "2999-01-01") == []
    assert ids("--updated-until", "2999-01-01T00:00Z", "--not-parked", "--parent", "nobody") == []
    assert ids("--parked") == []
    table = cli("list", "--limit", "2")
    assert [line.split()[0] for line in table.stdout.splitlines()] == ["INSTANCE", "flow-0", "flow-1"]
    assert "more than 2" in table.stderr
    assert cli.json("count") == {"Running": 1, "Completed": 3}
    assert cli.json("count", "--name", "waiting") == {"Running": 1}
    assert [line.split() for line in cli.ok("count").splitlines()][1:] == [
        ["Running", "1"],
        ["Completed", "3"],
        ["All", "4"],
    ]


def test_events_suspend_resume_and_the_ends(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    for id_ in ("a", "b", "c"):
        cli.ok("start", "waiting", "--id", id_)
    cli.ok("suspend", "a", "--reason", "lunch")
    cli.until(lambda: cli.json("status", "a")["runtime_status"] == "Suspended")
    assert cli("suspend", "a").exit_code == 5
    assert ["Reason", '"lunch"'] in [line.split() for line in cli.ok("status", "a").splitlines()]
    assert cli.json("status", "a")["output"] == "lunch"
    cli.ok("resume", "a")
    cli.until(lambda: cli.json("status", "a")["runtime_status"] == "Running")
    assert cli.json("status", "a")["output"] is None
    (tmp_path / "data.json").write_text('{"from": "a file"}')
    cli.ok("raise", "a", "Go", "@data.json")
    assert json.loads(cli.ok("wait", "a")) == {"from": "a file"}
    assert cli("raise", "a", "Go", "1").exit_code == 5
    cli.ok("cancel", "b", "--reason", "enough")
    ended = cli("wait", "b")
    assert (ended.exit_code, "Canceled" in ended.stderr, "enough" in ended.stderr) == (1, True, True)
    cli.ok("terminate", "c", "--recursive")
    assert cli.json("status", "c")["runtime_status"] in ("Running", "Terminated")
    cli.ok("start", "waiting", "--id", "d")
    cli.ok("raise", "d", "Go", "-", input='"from stdin"')
    assert cli.ok("wait", "d").strip() == '"from stdin"'


def test_rewind_restart_and_fork(cli: Cli) -> None:  # noqa: F811
    cli("start", "failing", '"boom"', "--id", "f", "--wait")
    cli.ok("rewind", "f")
    assert cli("wait", "f").exit_code == 1
    cli.ok("start", "flow", "1", "--id", "a", "--wait")
    assert cli("rewind", "a").exit_code == 5
    assert cli.ok("restart", "a", "--same-id").strip() == "a"
    again = cli.json("restart", "a")["instance_id"]
    assert cli.ok("wait", again).strip() == "2"
    assert cli.ok("fork", "a", "--id", "b").strip() == "b"
    assert cli.ok("wait", "b").strip() == "2"


def test_query_and_update(cli: Cli) -> None:  # noqa: F811
    cli.ok("start", "talking", "--id", "t")
    cli.until(lambda: cli.json("status", "t")["runtime_status"] == "Running")
    assert cli.ok("update", "t", "add", "5", "--update-id", "first").strip() == "5"
    assert cli.ok("update", "t", "add", "5", "--update-id", "first").strip() == "5"
    assert cli.ok("query", "t", "total").strip() == "5"
    assert cli("query", "t", "none").exit_code == 1
    assert cli("update", "t", "add", "--", "-1").exit_code == 1


def test_entities(cli: Cli) -> None:  # noqa: F811
    assert cli.ok("call", "counter@a", "add", "3").strip() == "3"
    cli.ok("signal", "@counter@a", "add", "4", "--request-key", "k")
    cli.ok("signal", "@counter@a", "add", "4", "--request-key", "k")
    cli.ok("signal", "@counter@b", "add", "1", "--after", "1d")
    cli.until(lambda: cli.json("entities", "get", "counter@a")["state"] == {"value": 7})
    assert [each["entity_id"] for each in cli.lines("entities", "list")] == ["@counter@a"]
    listed = cli.ok("entities", "list", "--name", "counter", "--key-prefix", "a").splitlines()
    assert [line.split()[0] for line in listed] == ["ENTITY", "@counter@a"]
    assert cli.json("entities", "get", "@counter@b")["scheduled_signals"] == 1
    assert "Messages" in cli.ok("entities", "get", "counter@a")
    assert cli("call", "counter@a", "fail").exit_code == 1
    assert cli.ok("entities", "unlock", "counter@a").strip() == "It was not locked."
    assert (
        cli.json("entities", "clean")
        == cli.json("entities", "clean", "--idle-for", "1h")
        == {
            "empty_entities_removed": 0,
            "orphaned_locks_released": 0,
        }
    )
    cli.ok("entities", "purge", "counter@a")
    assert cli("entities", "get", "counter@a").exit_code == 4
    cli.ok("start", "locking", "--id", "l")
    cli.until(lambda: '"locked"' in cli.ok("entities", "list", "--json") or bool(cli.lines("entities", "list")))
    assert "locked by l since" in cli.ok("entities", "unlock", "counter@a")


def test_purge_by_id_and_by_filter(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    for number in range(5):
        cli.ok("start", "flow", str(number), "--id", f"flow-{number}", "--wait")
    cli.ok("start", "waiting", "--id", "open")
    assert cli.json("purge", "flow-0") == {"purged": 1}
    assert cli("purge", "flow-0").exit_code == 4
    assert cli("purge", "open").exit_code == 5
    refused = cli("purge", "--name", "flow")
    assert (refused.exit_code, "--yes" in refused.stderr) == (2, True)
    assert cli.ok("purge", "--older-than", "7d", "--yes").strip() == "Purged 0 instances."
    export = tmp_path / "gone.jsonl"
    assert cli.json("purge", "--id-prefix", "flow-1", "--yes", "--export", str(export)) == {"purged": 1}
    [line] = [json.loads(line) for line in export.read_text().splitlines()]
    assert (line["instance"]["output"], line["history"][-1]["type"]) == (2, "ExecutionCompleted")
    assert cli("purge", "--all", "--yes", "--export", str(export)).exit_code == 2
    assert cli.json("purge", "flow-2", "--export", str(tmp_path / "two.jsonl")) == {"purged": 1}
    assert cli.json("purge", "--all", "-y") == {"purged": 2}
    assert cli.json("count") == {"Running": 1}


def test_one_of_several_that_cannot_be_purged_stops_no_other(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    for name in ("a1", "a2", "b1", "b2"):
        cli.ok("start", "flow", "1", "--id", name, "--wait")
    cli.ok("start", "waiting", "--id", "open")
    done = cli("purge", "a1", "nope", "a2", "a1", "--json")
    assert (done.exit_code, json.loads(done.stdout), done.stderr.count("holdfast:")) == (4, {"purged": 2}, 1)
    assert "no instance 'nope'" in done.stderr
    export = tmp_path / "gone.jsonl"
    done = cli("purge", "nope", "b1", "open", "b2", "--export", str(export))
    assert (done.exit_code, done.stdout.strip()) == (5, "Purged 2 instances.")
    assert ("no instance 'nope'" in done.stderr, "'open' has not ended" in done.stderr) == (True, True)
    written = [json.loads(line)["instance"]["instance_id"] for line in export.read_text().splitlines()]
    assert written == ["b1", "b2"]
    assert cli.json("count") == {"Running": 1}


def test_an_export_of_nothing_leaves_no_file(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    assert cli("purge", "nope", "--export", "n.jsonl").exit_code == 4
    assert cli.json("purge", "--all", "--yes", "--export", "n.jsonl") == {"purged": 0}
    assert list(tmp_path.glob("*.jsonl")) == []


def test_without_a_host_no_others_are_tried(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for name in ("a", "b", "c"):
        cli.ok("start", "flow", "1", "--id", name, "--wait")
    purge = Client.purge

    async def purge_one(client: Client, instance_id: str) -> None:
        if instance_id != "a":
            raise HostUnreachableError("No host answers.")
        await purge(client, instance_id)

    monkeypatch.setattr(Client, "purge", purge_one)
    done = cli("purge", "a", "b", "c")
    assert (done.exit_code, done.stdout.strip()) == (3, "Purged 1 instance.")
    assert done.stderr.splitlines() == ["holdfast: No host answers.", "holdfast: Not tried: c."]


def test_an_entity_is_exported_with_its_state(cli: Cli, tmp_path: Path) -> None:  # noqa: F811
    cli.ok("call", "counter@a", "add", "3")
    shown = cli.json("entities", "get", "counter@a")
    export = tmp_path / "gone.jsonl"
    done = cli("purge", "@counter@a", "@counter@none", "--export", str(export))
    assert (done.exit_code, done.stdout.strip()) == (4, "Purged 1 instance.")
    assert "no entity '@counter@none'" in done.stderr
    [line] = [json.loads(line) for line in export.read_text().splitlines()]
    assert line == {"entity": shown}
    assert line["entity"]["state"] == {"value": 3}
    assert cli("entities", "get", "counter@a").exit_code == 4


def test_what_starts_anew_just_before_it_is_purged_stays(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    for name in ("a", "b"):
        cli.ok("start", "flow", "1", "--id", name, "--wait")
    purge_it = Client.purge

    async def start_then_purge(client: Client, instance_id: str, **options: Any) -> None:
        if instance_id == "a":
            await (await client.start_new("flow", 2, instance_id="a")).wait_for_completion()
        await purge_it(client, instance_id, **options)

    monkeypatch.setattr(Client, "purge", start_then_purge)
    named = cli("purge", "a", "--export", "a.jsonl")
    assert (named.exit_code, "has changed" in named.stderr) == (5, True), named.output
    assert cli.json("purge", "--name", "flow", "--yes", "--export", "both.jsonl") == {"purged": 1}
    assert cli.json("status", "a")["output"] == 4
    assert cli("status", "b").exit_code == 4


@pytest.mark.parametrize("named", ["a", "@counter@a"])
def test_what_changes_after_it_was_exported_stays(
    cli: Cli,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    named: str,
) -> None:
    cli.ok("start", "flow", "1", "--id", "a", "--wait")
    cli.ok("call", "counter@a", "add", "3")
    write = purge._write

    async def change(client: Client) -> None:
        if named == "a":
            await (await client.start_new("flow", 2, instance_id="a")).wait_for_completion()
        else:
            await client.call_entity(EntityId("counter", "a"), "add", 1)

    async def write_then(client: Client, *rest: Any) -> None:
        await write(client, *rest)
        await change(client)

    monkeypatch.setattr(purge, "_write", write_then)
    done = cli("purge", named, "--export", "gone.jsonl")
    assert (done.exit_code, "has changed" in done.stderr, done.stdout.strip()) == (5, True, "Purged 0 instances.")
    assert cli.json("status", "a")["output"] == (4 if named == "a" else 2)
    assert cli.json("entities", "get", "counter@a")["state"] == {"value": 3 if named == "a" else 4}


def test_bulk_does_it_to_all_that_match(cli: Cli) -> None:  # noqa: F811
    for number in range(3):
        cli.ok("start", "waiting", "--id", f"w{number}", "--tag", f"half={number % 2}")
    refused = cli("bulk", "terminate", "--name", "waiting")
    assert (refused.exit_code, "--yes" in refused.stderr) == (2, True)
    assert cli("bulk", "terminate", "--yes").exit_code == 2
    assert cli("bulk", "terminate", "--all", "--name", "waiting", "--yes").exit_code == 2
    assert cli("bulk", "delete", "--all", "--yes").exit_code == 2
    assert cli.ok("bulk", "suspend", "--tag", "half=1", "-y").strip() == "suspend: 1 instance."
    found = cli.json("bulk", "terminate", "--name", "waiting", "--reason", "closing", "-y")
    assert found["progress"] == {"done": 3, "refused": 0}
    assert cli.json("status", found["job"])["runtime_status"] == "Completed"
    assert cli.json("status", "w1")["output"] == "closing"
    job = cli.ok("bulk", "purge", "--name", "waiting", "-y", "--no-wait").strip()
    assert cli.json("wait", job)["output"] == {"done": 3, "refused": 0}


@pytest.mark.parametrize(("answer", "purged", "code"), [("y\n", True, 0), ("n\n", False, 1)])
def test_purge_asks_where_somebody_can_answer(
    cli: Cli,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    purged: bool,
    code: int,
) -> None:
    cli.ok("start", "flow", "1", "--id", "a", "--wait")
    monkeypatch.setattr(confirm, "_is_terminal", lambda: True)
    asked = cli("purge", "--all", input=answer)
    assert (asked.exit_code, "Purge 1 instance for good?" in asked.stderr) == (code, True)
    assert (cli("status", "a").exit_code == 4) == purged


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        (["status", "nobody"], 4, "no instance 'nobody'"),
        (["wait", "nobody"], 4, "no instance 'nobody'"),
        (["history", "nobody"], 4, "no instance 'nobody'"),
        (["raise", "nobody", "Go"], 4, "no instance 'nobody'"),
        (["terminate", "nobody"], 4, "no instance"),
        (["restart", "nobody"], 4, "no instance"),
        (["explain", "nobody"], 4, "no instance"),
        (["explain", "@counter@none"], 4, "no instance"),
        (["parked", "show", "nobody"], 4, "no instance"),
        (["entities", "get", "counter@none"], 4, "no entity '@counter@none'"),
        (["entities", "get", "counter"], 2, "@name@key"),
        (["start", "flaw", "1"], 2, "flow"),
        (["start", "flow", "hello"], 2, "'\"hello\"'"),
        (["start", "flow", "@nothing.json"], 2, "cannot be read"),
        (["start", "flow", "1", "--run-timeout", "soon"], 2, "1h30m"),
        (["start", "flow", "1", "--start-at", "soon"], 2, "2026-11-30"),
        (["start", "flow", "1", "--tag", "x"], 2, "NAME=VALUE"),
        (["start", "flow", "1", "--if-exists", "no"], 2, "replace-ended"),
        (["list", "--status", "odd"], 2, "odd"),
        (["list", "--limit", "0"], 2, "--limit"),
        (["purge"], 2, "--older-than"),
        (["purge", "a", "--all"], 2, "exclude"),
        (["purge", "--status", "running", "--yes"], 2, "has ended"),
        (["parked", "retry"], 2, "--all"),
        (["parked", "discard", "@counter@a"], 4, "no instance '@counter@a'"),
        (["parked", "show", "@counter"], 2, "@name@key"),
        (["signal", "counter@a", "add", "1", "--after", "1h", "--at", "2999-01-01"], 2, "exclude"),
    ],
)
def test_what_cannot_be_done_ends_with_a_code_and_says_why(
    cli: Cli,  # noqa: F811
    arguments: list[str],
    code: int,
    part: str,
) -> None:
    done = cli(*arguments)
    assert done.exit_code == code, done.output
    assert part in done.stderr
    assert "Traceback" not in done.output
