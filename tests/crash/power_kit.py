"""What the tests of power cuts share: a workload on a recorded disk, and what is checked after a cut."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
from crash_kit import CarefulClient, check_cold, check_finished, make_crash_app, store_url, workload
from engine_kit import World, running
from power import Disk, Fate, Fault, Files, Operation, files_after_cut, is_possible, recorded
from store_check import rows_in_file

from holdfast import HostConfig, StorageError
from holdfast.storage.open_store import open_store
from holdfast.storage.sqlite import connection

CONFIG = HostConfig(drain_s=0.05, group_transitions_max=3)
needs_recording = pytest.mark.skipif(not is_possible(), reason="ctypes cannot reach the SQLite of this Python")


class Acknowledged(NamedTuple):
    """What a client was told, how many operations there were before that, and how far the store had come."""

    position: int
    what: str
    durable_lsn: int


@dataclass
class Life:
    """What happened from one start of a host to its end, or to the next cut."""

    before: Files
    operations: list[Operation]
    acknowledged: list[Acknowledged]
    world: World = field(default_factory=World)
    seen: Files | None = None
    """What programs see in the files, where that is more than what the disk holds."""

    def from_here(self, seen: Files) -> Life:
        """Return the life that begins if the process dies now, but the power stays."""
        known = [each for each in self.acknowledged if each.position <= len(self.operations)]
        return Life(self.before, list(self.operations), known, World(calls=list(self.world.calls)), seen)

    def until(self, position: int, fate: Fate) -> Life:
        """Return the life that begins if the power fails at a position of this one: what is there, what is known."""
        known = [Acknowledged(0, *each[1:]) for each in self.acknowledged if each.position <= position]
        files = files_after_cut(self.before, self.operations[:position], fate)
        return Life(files, [], known, World(calls=list(self.world.calls)))


def use_settings(patch: pytest.MonkeyPatch, **settings: object) -> None:
    """Let writers be opened with other settings than usual."""
    usual = [each for each in connection._WRITER_SETTINGS if not any(name in each for name in settings)]  # pyright: ignore
    changed = [f"PRAGMA {name} = {value}" for name, value in settings.items()]
    patch.setattr(connection, "_WRITER_SETTINGS", (*usual, *changed))


@pytest.fixture
def small_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the log be copied back and begun anew many times in a short run."""
    use_settings(monkeypatch, wal_autocheckpoint=20)


def new_life() -> Life:
    return Life({}, [], [])


def live(folder: Path, life: Life, fault: Fault | None = None) -> None:
    """Put the files of a life in place, check them, and let a host finish the work on a recorded disk.

    The client repeats only what was not acknowledged.
    """
    folder.mkdir()
    path, files = folder / "hub.db", life.before if life.seen is None else life.seen
    for name, content in files.items():
        (folder / name).write_bytes(content)
    if life.acknowledged:
        rows = rows_in_file(path)  # as SQLite alone recovers it
        assert rows.lsn >= max(each.durable_lsn for each in life.acknowledged), "what was acknowledged is lost"
        check_cold(rows)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    with recorded(folder) as disk:
        disk.fault = fault or disk.fault
        disk.operations = life.operations
        results = _work_until_done(path, life, disk)
    check_finished(rows_in_file(path), life.world, results)
    shutil.rmtree(folder)


def _work_until_done(path: Path, life: Life, disk: Disk) -> dict[str, object]:
    """Start hosts until one comes up; the disk may fail while they start."""
    for _ in range(3):
        with suppress(StorageError):
            return asyncio.run(_work(path, life, disk))
    raise AssertionError("it does not get anywhere")


async def _work(path: Path, life: Life, disk: Disk) -> dict[str, object]:
    async with running(make_crash_app(life.world), open_store(store_url(path)), CONFIG) as run:

        def note(what: str) -> None:
            # Between a failed commit and the next beginning there is no node; nothing is acknowledged then.
            life.acknowledged.append(Acknowledged(len(disk.operations), what, run.engine.node.journal.durable_lsn))

        careful = CarefulClient(run.client)
        careful.trusted = {each.what for each in life.acknowledged}
        careful.acknowledged = note
        return await workload(careful)
