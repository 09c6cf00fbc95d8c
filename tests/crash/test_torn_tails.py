"""The end of the log that was not synced is cut off at any byte, or damaged: the commits before it are untouched.

The log is never cut below what was synced. A disk that loses that has lied about it, and there is nothing left from
which the loss could even be noticed: a shorter log is a valid one.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from power import Fate, Files, Operation, files_after_cut
from power_kit import Life, live, needs_recording, new_life

pytestmark = needs_recording


class Torn:
    """The fate of a tail of which only the first bytes arrive."""

    def __init__(self, length: int) -> None:
        self._left = length

    def __call__(self, operation: Operation) -> bytes | None:
        arrived = operation.data[: self._left] if operation.name == "hub.db-wal" else b""
        self._left -= len(arrived)
        return arrived or None


def damaged(dice: random.Random) -> Fate:
    """Return the fate of a tail all of which arrives, but some of it as something else."""

    def fate(operation: Operation) -> bytes | None:
        data = bytearray(operation.data)
        if not data:
            return operation.data  # a truncation
        at = dice.randrange(len(data))
        if dice.random() < 0.5:
            data[at] ^= 1 << dice.randrange(8)
        else:
            data[at : at + 512] = bytes(len(data[at : at + 512]))
        return bytes(data)

    return fate


def commits(life: Life) -> Iterator[tuple[int, int]]:
    """Return, for each commit, the number of operations before it and after it, without the sync that ends it."""
    syncs = [number for number, each in enumerate(life.operations) if each == Operation("sync", "hub.db-wal")]
    for before, after in pairwise(syncs):
        between = life.operations[before + 1 : after]
        if between and all((each.kind, each.name) == ("write", "hub.db-wal") for each in between):
            yield before + 1, after


def size_of(life: Life, commit: tuple[int, int]) -> int:
    return sum(len(each.data) for each in life.operations[slice(*commit)])


def found_in(files: Files, folder: Path) -> list[tuple[object, ...]]:
    """Return the watermark and what there is of it, as SQLite recovers the file by itself."""
    for name in ("hub.db", "hub.db-wal"):
        (folder / name).write_bytes(files[name])
    with closing(sqlite3.connect(folder / "hub.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute(
            "SELECT lsn, (SELECT count(*) FROM instance), (SELECT total(revision) FROM instance), (SELECT count(*) "
            "FROM history), (SELECT count(*) FROM inbox), (SELECT count(*) FROM activity) FROM node"
        ).fetchall()


def tear_at_each_byte(folder: Path, stride: int) -> int:
    """Tear the smallest commit at every so many bytes, and at each byte of the heads of its frames."""
    life = new_life()
    live(folder / "first", life)
    frame, commits_of_groups = 24 + 4096, list(commits(life))[5:-1]
    size, (before, after) = min((size_of(life, each), each) for each in commits_of_groups)
    lengths = [length for length in range(size) if length % stride == 0 or length % frame < 32 or length > size - 8]

    def found(position: int, length: int) -> list[tuple[object, ...]]:
        return found_in(files_after_cut({}, life.operations[:position], Torn(length)), folder)

    whole, nothing = found(after, size), found(before, 0)
    assert whole != nothing
    assert [length for length in lengths if found(after, length) != nothing] == []
    return len(lengths)


def tear_and_finish(folder: Path, seed: int, tails: int) -> None:
    """Tear or damage the tails of any commits, and let a host finish the work."""
    life, dice = new_life(), random.Random(seed)
    live(folder / "first", life)
    known = list(commits(life))
    for number in range(tails):
        commit = dice.choice(known)
        fate = Torn(dice.randrange(size_of(life, commit))) if number % 2 else damaged(dice)
        live(folder / f"tail{number}", life.until(commit[1], fate))


def test_a_commit_is_torn(tmp_path: Path, survived: Callable[[str, int], None]) -> None:
    survived("torn tails", tear_at_each_byte(tmp_path, stride=61))


def test_torn_tails_are_survived(tmp_path: Path, survived: Callable[[str, int], None]) -> None:
    tear_and_finish(tmp_path, seed=20261122, tails=30)
    survived("torn tails", 30)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_commit_is_torn_at_each_byte(tmp_path: Path, survived: Callable[[str, int], None]) -> None:
    survived("torn tails", tear_at_each_byte(tmp_path, stride=1))


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(10))
def test_more_torn_tails_are_survived(tmp_path: Path, seed: int, survived: Callable[[str, int], None]) -> None:
    tear_and_finish(tmp_path, seed, tails=300)
    survived("torn tails", 300)
