"""The power fails: what was acknowledged is there, what was not is there whole or not at all, and the rest finishes.

A workload runs on a recorded disk (`power.py`), with small checkpoints, so that cuts fall into all that SQLite does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count, takewhile
from pathlib import Path

import pytest
from power import (
    FULL,
    IOERR_FSYNC,
    IOERR_WRITE,
    Operation,
    everything_arrives,
    nothing_arrives,
    some_arrives,
)
from power_kit import Life, live, needs_recording, new_life, small_checkpoints, use_settings

__all__ = ["small_checkpoints"]

pytestmark = [needs_recording, pytest.mark.usefixtures("small_checkpoints")]


def cut(life: Life, dice: random.Random) -> Life:
    """Cut the power anywhere, or as often where files are being written beside the log."""
    beside = [number for number, each in enumerate(life.operations, 1) if not each.name.endswith("-wal")]
    position = dice.choice(beside) if beside and dice.random() < 0.3 else dice.randint(1, len(life.operations))
    fate = dice.choice((nothing_arrives, everything_arrives, some_arrives(dice), some_arrives(dice)))
    return life.until(position, fate)


def cut_again_and_again(tmp_path: Path, seed: int, cuts: int) -> None:
    """Cut one life in many places, and now and then the life after that too."""
    dice, first = random.Random(seed), new_life()
    live(tmp_path / "first", first)
    done = 0
    while done < cuts:
        life = first
        while done < cuts:
            life = cut(life, dice)
            live(tmp_path / f"cut{done}", life)
            done += 1
            if dice.random() < 0.7:
                break


def test_the_power_is_cut(tmp_path: Path, survived: Callable[[str, int], None]) -> None:
    cut_again_and_again(tmp_path, seed=20261122, cuts=90)
    survived("power cuts", 90)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(50))
def test_the_power_is_cut_many_more_times(tmp_path: Path, seed: int, survived: Callable[[str, int], None]) -> None:
    cut_again_and_again(tmp_path, seed=seed, cuts=240)
    survived("power cuts", 240)


def test_the_disk_forgets_what_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests are worth: with the setting by which most people run SQLite, they fail."""
    use_settings(monkeypatch, synchronous="NORMAL", wal_autocheckpoint=20)
    with pytest.raises(AssertionError, match="what was acknowledged is lost"):
        cut_again_and_again(tmp_path, seed=20261122, cuts=120)


# Errors of the disk, and a power cut after them


class FailsOnce:
    """The n-th of some operations fails; what it should have written is then there by half."""

    def __init__(self, kind: str, number: int, code: int) -> None:
        self.kind = kind
        self.number = number
        self.code = code
        self.seen = 0

    def __call__(self, operation: Operation) -> int:
        self.seen += operation.kind == self.kind
        return self.code if operation.kind == self.kind and self.seen == self.number else 0


ERRORS = {"sync": [IOERR_FSYNC], "write": [IOERR_WRITE, FULL], "truncate": [IOERR_WRITE]}


def fail_and_cut(tmp_path: Path, fault: FailsOnce, dice: random.Random) -> bool:
    """Let an operation fail, and the power after it; return whether there was such an operation."""
    life = new_life()
    live(tmp_path / f"{fault.kind}{fault.number}", life, fault)
    live(tmp_path / f"{fault.kind}{fault.number} cut", cut(life, dice))
    return fault.seen >= fault.number


def fail_again_and_again(tmp_path: Path, kind: str, stride: int, seed: int = 20261122) -> int:
    dice, failures = random.Random(seed), 0
    for number in count(1, stride):
        for code in ERRORS[kind]:
            if not fail_and_cut(tmp_path, FailsOnce(kind, number, code), dice):
                return failures
            failures += 1
    raise AssertionError("unreachable")


@pytest.mark.parametrize(("kind", "stride"), [("sync", 6), ("write", 75), ("truncate", 4)])
def test_the_disk_fails(tmp_path: Path, kind: str, stride: int, survived: Callable[[str, int], None]) -> None:
    survived("errors of the disk", fail_again_and_again(tmp_path, kind, stride))


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("seed", range(3))
def test_the_disk_fails_at_each_operation(
    tmp_path: Path, kind: str, seed: int, survived: Callable[[str, int], None]
) -> None:
    survived("errors of the disk", fail_again_and_again(tmp_path, kind, 1, seed))


def die_of_a_failed_sync(tmp_path: Path, number: int, dice: random.Random) -> bool:
    """Let a process die as a sync fails, so that the next one finds what only seems to be on the disk.

    It has to make that durable, or be rid of it, before it acknowledges anything. Return whether there was such a sync.
    """
    first, found = new_life(), list[Life]()
    folder, fails = tmp_path / f"first{number}", FailsOnce("sync", number, IOERR_FSYNC)

    def fault(operation: Operation) -> int:
        code = fails(operation)
        if code:
            files = {path.name: path.read_bytes() for path in folder.glob("hub.db*") if not path.name.endswith("-shm")}
            first.operations.append(Operation("failed sync", operation.name))
            found.append(first.from_here(files))
        return code

    live(folder, first, fault)
    for second in found:
        died = len(second.operations)
        live(tmp_path / f"second{number}", second)
        position = dice.randint(first_safe_cut(second.operations, died), len(second.operations))
        live(tmp_path / f"third{number}", second.until(position, nothing_arrives))
    return bool(found)


def first_safe_cut(operations: list[Operation], died: int) -> int:
    """Return from where on the power may fail in the process after one that died of a failed sync.

    A known gap, which guarantees.md tells of: if it was the log that could not be synced, not before the next process
    has emptied it for good. Until then the file may hold a commit of which the log on the disk, which is older, knows
    nothing. SQLite then mixes the two, and the file can be corrupt. It takes a failed sync, a death before the process
    could react to it, and a power cut while the next one is opening the file.
    """
    if operations[died - 1].name != "hub.db-wal":
        return died
    begun_anew = False
    for number, each in enumerate(operations[died:], died + 1):
        begun_anew |= each == Operation("truncate", "hub.db-wal", 0)
        if begun_anew and each == Operation("sync", "hub.db-wal"):
            return number
    return died


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.soak)])
def test_a_process_dies_of_a_failed_sync(tmp_path: Path, stride: int, survived: Callable[[str, int], None]) -> None:
    dice = random.Random(20261122)
    numbers = takewhile(lambda number: die_of_a_failed_sync(tmp_path, number, dice), count(1, stride))
    survived("errors of the disk", sum(1 for _ in numbers))
