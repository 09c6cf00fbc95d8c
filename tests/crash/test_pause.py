"""A process that is paused while another takes its store over must not write when it wakes up."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest
from test_kill import host, rest_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSTOP")


def acknowledged(lines: list[str]) -> set[str]:
    return {line.split()[1] for line in lines if line.startswith("ack ") and not line.endswith("signal")}


def test_a_paused_owner_is_fenced_when_it_wakes_up(tmp_path: Path) -> None:
    """The lock is lost as on a broken network file system: its file is gone. The epochs in the store still hold."""
    store, log = tmp_path / "hub.db", tmp_path / "activities.log"
    paused = host(store, log, "load", "paused")
    time.sleep(0.3)
    paused.send_signal(signal.SIGSTOP)
    Path(f"{store}-owner").unlink()
    successor = host(store, log, "load", "successor")
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
