"""A process that is paused while another takes its store over must not write when it wakes up."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from test_kill import check, check_cold, host, said_by

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGSTOP")


def pause_between_commits(process: subprocess.Popen[str], store: Path) -> None:
    """Stop a process where it holds no lock of SQLite's own, which would keep a successor waiting by itself."""
    while True:
        process.send_signal(signal.SIGSTOP)
        with closing(sqlite3.connect(store, timeout=0, isolation_level=None)) as connection:
            try:
                [(is_locked, _, _)] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            except sqlite3.OperationalError:
                is_locked = True
        if not is_locked:
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.003)


def pause_and_take_over(store: Path, log: Path, name: str, dice: random.Random) -> list[list[str]]:
    """Pause a process in the middle of its load until another works on its store; return what both said.

    The lock is lost as on a broken network file system: its file is gone. The epochs in the store still hold.
    """
    errors = log.with_name("errors")
    with ExitStack() as at_the_end:
        paused = host(store, log, "load", f"{name}.paused", errors=errors)
        at_the_end.callback(paused.kill)
        time.sleep(dice.uniform(0, 0.3))
        pause_between_commits(paused, store)
        Path(f"{store}-owner").unlink()
        successor = host(store, log, "load", f"{name}.successor")
        at_the_end.callback(successor.kill)
        time.sleep(dice.uniform(0, 0.3))
        paused.send_signal(signal.SIGCONT)
        said_by_paused = said_by(paused)
        assert paused.returncode != 0, "it went on although another process owns its store"
        assert "Another process took the task hub over" in errors.read_text()
        successor.kill()
        said_by_successor = said_by(successor)
    return said_by_paused + said_by_successor


def pause_again_and_again(tmp_path: Path, pauses: int, seed: int) -> None:
    """Each time on the same store; what none of them may lose or do twice is looked at in the end."""
    dice, said = random.Random(seed), list[list[str]]()
    store, log = tmp_path / "hub.db", tmp_path / "activities.log"
    for number in range(pauses):
        said += pause_and_take_over(store, log, str(number), dice)
        check_cold(store)
    check(store, log, said)


def test_paused_owners_are_fenced_when_they_wake_up(tmp_path: Path, survived: Callable[[str, int], None]) -> None:
    pause_again_and_again(tmp_path, pauses=2, seed=20261122)
    survived("takeovers of a paused process", 2)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(3))
def test_more_paused_owners_are_fenced(tmp_path: Path, seed: int, survived: Callable[[str, int], None]) -> None:
    pause_again_and_again(tmp_path, pauses=30, seed=seed)
    survived("takeovers of a paused process", 30)
