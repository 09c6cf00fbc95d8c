"""A process that is paused while another takes its store over must not write when it wakes up."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from test_kill import host, rest_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSTOP")


def acknowledged(lines: list[str]) -> set[str]:
    return {line.split()[1] for line in lines if line.startswith("ack ") and not line.endswith("signal")}


def pause_between_commits(process: subprocess.Popen[str], store: Path) -> None:
    """Stop a process where it holds no lock of SQLite's own, which would keep a successor out by itself."""
    while True:
        process.send_signal(signal.SIGSTOP)
        connection = sqlite3.connect(store, timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            process.send_signal(signal.SIGCONT)
            time.sleep(0.003)
        else:
            connection.execute("ROLLBACK")
            return
        finally:
            connection.close()


def test_a_paused_owner_is_fenced_when_it_wakes_up(tmp_path: Path) -> None:
    """The lock is lost as on a broken network file system: its file is gone. The epochs in the store still hold."""
    store, log = tmp_path / "hub.db", tmp_path / "activities.log"
    with ExitStack() as at_the_end:
        paused = host(store, log, "load", "paused")
        at_the_end.callback(paused.kill)
        time.sleep(0.3)
        pause_between_commits(paused, store)
        Path(f"{store}-owner").unlink()
        successor = host(store, log, "load", "successor")
        at_the_end.callback(successor.kill)
        time.sleep(0.3)
        paused.send_signal(signal.SIGCONT)
        said_by_paused = rest_of(paused).splitlines()
        assert paused.returncode != 0, "it went on although another process owns its store"
        successor.kill()
        said_by_successor = rest_of(successor).splitlines()

    claimed = acknowledged(said_by_paused) | acknowledged(said_by_successor)
    assert acknowledged(said_by_successor), "the successor did not get to work"
    with sqlite3.connect(store) as connection:
        stored = {row[0] for row in connection.execute("SELECT instance_id FROM instance")}
    connection.close()
    assert claimed <= stored
    checker = host(store, log, "finish")
    assert checker.stdin is not None
    checker.stdin.write(json.dumps([(each, True) for each in sorted(claimed)]) + "\n")
    checker.stdin.flush()
    assert json.loads(rest_of(checker))["results"].keys() == claimed
