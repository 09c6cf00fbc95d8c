"""Commands against a host that is served: as processes, over HTTP."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from cli_process import TINY, Running, holdfast

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")


def test_commands_reach_a_host_by_its_url_and_key(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY)
    with Running("tiny.py", cwd=tmp_path, HOLDFAST_KEY="sw0rdfish") as running:
        where = {"HOLDFAST_URL": running.url, "HOLDFAST_KEY": "sw0rdfish"}

        def run(*arguments: str) -> str:
            done = holdfast(*arguments, cwd=tmp_path, **where)
            assert (done.returncode, done.stderr) == (0, "")
            return done.stdout.strip()

        assert run("start", "flow", "21", "--id", "a") == "a"
        assert run("wait", "a", "--timeout", "1m") == "-42"
        assert run("start", "waiting", "--id", "b") == "b"
        assert json.loads(run("status", "b", "--json"))["name"] == "waiting"
        assert [json.loads(line)["instance_id"] for line in run("list", "--json").splitlines()] == ["a", "b"]
        run("raise", "b", "Go", '"now"')
        assert run("wait", "b") == '"now"'
        assert "TaskScheduled" in run("history", "a")
        assert "ended as Completed" in run("explain", "a")
        assert run("purge", "--all", "--yes") == "Purged 2 instances."
        assert json.loads(run("count", "--json")) == {}

        wrong = holdfast("status", "a", "--key", "wrong", cwd=tmp_path, HOLDFAST_URL=running.url)
        assert (wrong.returncode, "key" in wrong.stderr, "wrong" in wrong.stderr) == (2, True, False)
        nobody = holdfast("status", "nobody", cwd=tmp_path, **where)
        assert (nobody.returncode, nobody.stdout) == (4, "")
        store = f"sqlite:///{tmp_path / 'holdfast.db'}"
        assert run("doctor", "--store", store) == "All is well."
        in_use = holdfast("doctor", "--store", store, "--mend", cwd=tmp_path)
        assert (in_use.returncode, "in use" in in_use.stderr) == (2, True)
        url = running.url
        assert running.stop() == 0
    gone = holdfast("status", "a", "--url", url, cwd=tmp_path)
    assert (gone.returncode, "cannot be reached" in gone.stderr, "Traceback" in gone.stderr) == (3, True, False)
