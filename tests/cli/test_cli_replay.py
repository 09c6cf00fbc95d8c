"""`holdfast export-history` and `holdfast replay`: histories of a store, beside a host that runs on it."""

from __future__ import annotations

import asyncio
import importlib
import json
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cli_process import BASE, TINY, Running, holdfast
from click.testing import Result
from typer.testing import CliRunner

from holdfast import App, HostConfig
from holdfast.cli.main import commands

APP = """
from dataclasses import dataclass
from holdfast import App, Entity, EntityId, OrchestrationContext

app = App()

@app.activity
def double(number: int) -> int:
    return 2 * number

@app.entity
@dataclass
class Counter(Entity):
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

@app.orchestrator
async def flow(ctx: OrchestrationContext, number: int) -> int:
    doubled = await ctx.call_activity(double, number)
    return await ctx.call_entity(EntityId(Counter, "all"), Counter.add, doubled)

@app.orchestrator
async def waiting(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_external_event("Go")

@app.orchestrator(name="old", version="1")
async def old(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_external_event("Go")
"""
OTHER = APP.replace("ctx.call_activity(double, number)", 'ctx.call_activity("treble", number)')


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an app, and a store in which it has run: two flows, one of another version, one not begun."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write(APP)
    asyncio.run(fill(tmp_path))
    yield tmp_path
    sys.modules.pop("flows", None)


def write(source: str) -> None:
    Path("flows.py").write_text(source)
    sys.modules.pop("flows", None)
    importlib.invalidate_caches()


async def fill(folder: Path) -> None:
    app: App = importlib.import_module("flows").app
    async with app.host(f"sqlite:///{folder / 'hub.db'}", config=HostConfig(drain_s=0.1)) as host:
        for instance_id in ("a", "b"):
            run = await host.client.start_new("flow", 3, instance_id=instance_id)
            await run.wait_for_completion()
        for name, options in (("waiting", {}), ("old", {"version": "1"})):
            run = await host.client.start_new(name, instance_id=name, **options)
            while not await host.client.get_history(name):
                await asyncio.sleep(0.005)
        await host.client.start_new("flow", 3, instance_id="later", start_at=datetime.now(UTC) + timedelta(days=1))


def invoke(*arguments: str) -> Result:
    sys.modules.pop("flows", None)
    return CliRunner().invoke(commands, arguments)


def test_everything_in_a_store_replays(folder: Path) -> None:
    done = invoke("replay", "flows.py", "--store", "sqlite:///hub.db")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert [line.split() for line in lines[:-1]] == [
        ["ok", "a", "flow"],
        ["ok", "b", "flow"],
        ["ok", "old", "old", "version", "1"],
        ["ok", "waiting", "waiting"],
    ]
    assert lines[-1].startswith("4 ok; 2 skipped")


def test_what_differs_is_shown_whole_and_ends_with_code_1(folder: Path) -> None:
    write(OTHER)
    done = invoke("replay", "flows.py", "--store", "sqlite:///hub.db")
    assert done.exit_code == 1
    for part in ("differs", "2 ok, 2 differs", "expected (history): TaskScheduled", "'treble'", "flows.py:", "Likely"):
        assert part in done.output


def test_reports_as_json_one_object_for_each_history(folder: Path) -> None:
    write(OTHER.replace("waiting(", "sleeping(").replace('version="1"', 'version="2"'))
    with closing(sqlite3.connect("hub.db")) as connection, connection:
        connection.execute(
            "UPDATE history SET events = '{}' WHERE execution_id = (SELECT execution_id FROM instance "
            "WHERE instance_id = 'b')"
        )
    done = invoke("replay", "flows.py", "--store", "sqlite:///hub.db", "--json")
    assert done.exit_code == 1
    found = {each["instance_id"]: each for each in map(json.loads, done.output.splitlines())}
    assert {name: each["result"] for name, each in found.items()} == {
        "a": "differs",
        "b": "unreadable",
        "old": "other version",
        "waiting": "not registered",
    }
    assert found["a"]["source"] == "sqlite:///hub.db"
    assert found["old"]["version"] == "1"
    assert "Episode 0 of the history of instance 'b'" in found["b"]["message"]
    assert "no orchestrator 'waiting'" in found["waiting"]["message"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--name", "FLOW"], ["a", "b"]),
        (["--name", "flow", "--limit", "1"], ["a"]),
        (["--limit", "3"], ["a", "b", "old"]),
        (["--limit", "100"], ["a", "b", "old", "waiting"]),
    ],
)
def test_a_part_of_a_store(folder: Path, arguments: list[str], expected: list[str]) -> None:
    done = invoke("replay", "flows.py", "--store", "sqlite:///hub.db", "--json", *arguments)
    assert done.exit_code == 0
    assert [json.loads(line)["instance_id"] for line in done.output.splitlines()] == expected


def test_a_store_is_read_page_by_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.cli.replay._PAGE", 1)
    done = invoke("replay", "flows.py", "--store", "sqlite:///hub.db")
    assert (done.exit_code, done.output.count("ok  ")) == (0, 4)


def test_an_exported_history_is_replayed_from_its_file(folder: Path) -> None:
    done = invoke("export-history", "a", "--store", "sqlite:///hub.db", "--output", "a.json")
    assert (done.exit_code, done.output) == (0, "")
    assert stat.S_IMODE(Path("a.json").stat().st_mode) == 0o600
    Path("mine.json").write_text("precious")
    refused = invoke("export-history", "a", "--store", "sqlite:///hub.db", "--output", "mine.json")
    assert (refused.exit_code, "'mine.json' exists" in refused.output) == (2, True)
    assert Path("mine.json").read_text() == "precious"
    shown = invoke("export-history", "a", "--store", "sqlite:///hub.db")
    assert shown.stdout_bytes == Path("a.json").read_bytes()
    Path("bad.json").write_text("{}")
    assert invoke("replay", "flows.py", "a.json").exit_code == 0
    assert invoke("replay", "flows.py", "a.json", "bad.json").exit_code == 1
    filtered = invoke("replay", "flows.py", "a.json", "--name", "waiting")
    assert (filtered.exit_code, "Nothing to replay; 1 skipped" in filtered.output) == (0, True)
    write(OTHER)
    both = invoke("replay", "flows.py", "a.json", "--store", "sqlite:///hub.db", "--json")
    sources = [each["source"] for each in map(json.loads, both.output.splitlines()) if each["result"] == "differs"]
    assert (both.exit_code, sources) == (1, ["a.json", "sqlite:///hub.db", "sqlite:///hub.db"])


def test_the_app_and_the_settings_are_those_of_run(folder: Path) -> None:
    write(APP.replace("app = App()", "app = other = App()") + "app = None\n")
    store = ("--store", "sqlite:///hub.db")
    assert invoke("replay", "flows.py", "--app", "other", *store).exit_code == 0
    assert invoke("replay", "flows:other", *store).exit_code == 0
    strict = ("--set", "default_version=3", "--set", "version_match=strict")
    other = invoke("replay", "flows.py", "--app", "other", *store, *strict)
    assert (other.exit_code, "1 ok, 3 other version" in other.output) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["replay", "flows.py"], "nothing to replay"),
        (["replay", "nothing.py", "--store", "sqlite:///hub.db"], "'nothing.py' does not exist"),
        (["replay", "flows.py", "--app", "none", "--store", "sqlite:///hub.db"], "no App named 'none'"),
        (["replay", "flows.py", "nothing.json"], "'nothing.json' cannot be read: No such file"),
        (["replay", "flows.py", "hub.db"], "'hub.db' cannot be read: it is not UTF-8"),
        (["replay", "flows.py", "--store", "sqlite:///nothing.db"], "no task hub at"),
        (["replay", "flows.py", "--store", "memory://"], "belongs to the process"),
        (["replay", "flows.py", "--store", "hub.db"], "is not a store URL"),
        (["replay", "flows.py", "--store", "sqlite:///hub.db", "--name", "flaw"], "Did you mean 'flow'?"),
        (["replay", "flows.py", "--store", "sqlite:///hub.db", "--set", "thread_max=1"], "no setting 'thread_max'"),
        (["replay", "flows.py", "--store", "sqlite:///hub.db", "--limit", "0"], "--limit"),
        (["export-history", "a"], "--store"),
        (["export-history", "@counter@all", "--store", "sqlite:///hub.db"], "kept for entities"),
        (["export-history", "a", "--store", "sqlite:///hub.db", "--output", "no/such/file"], "cannot be written"),
    ],
)
def test_what_cannot_be_meant_ends_with_code_2(folder: Path, arguments: list[str], part: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2, done.output
    assert part in done.output
    assert not Path("nothing.db").exists()


def test_no_such_instance_ends_with_code_4(folder: Path) -> None:
    done = invoke("export-history", "nobody", "--store", "sqlite:///hub.db")
    assert (done.exit_code, "no instance 'nobody'" in done.output) == (4, True)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")
def test_it_works_while_a_host_runs_on_the_store(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY)
    store = f"sqlite:///{tmp_path / 'holdfast.db'}"
    with Running("tiny.py", cwd=tmp_path) as running:
        assert running.result("done") == -42
        assert running.http.post(f"{BASE}/orchestrators/waiting/open").status_code == 202
        while running.status("open")["runtimeStatus"] == "Pending":
            pass
        replayed = holdfast("replay", "tiny.py", "--store", store, cwd=tmp_path)
        assert (replayed.returncode, "2 ok." in replayed.stdout) == (0, True), replayed.stdout + replayed.stderr
        exported = holdfast("export-history", "done", "--store", store, cwd=tmp_path)
        assert json.loads(exported.stdout)["name"] == "flow"
        (tmp_path / "tiny.py").write_text(TINY.replace("call_activity(double", "call_activity(negative"))
        changed = holdfast("replay", "tiny.py", "--store", store, cwd=tmp_path)
        assert changed.returncode == 1
        assert "Traceback" not in changed.stderr
        assert running.http.post(f"{BASE}/instances/open/raiseEvent/Go", json="now").status_code == 202
        assert running.result("again") == -42
        assert running.stop() == 0
