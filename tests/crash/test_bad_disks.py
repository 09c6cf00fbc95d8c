"""The disk is full, or cannot be written any more, while a host runs: it says so, loses nothing, and goes on."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from crash_kit import CarefulClient, check_finished, make_crash_app, store_url, workload
from engine_kit import Run, World, running
from power import FULL, IOERR_FSYNC, IOERR_WRITE, Disk, Fault, Operation, recorded
from power_kit import CONFIG, needs_recording
from store_check import rows_in_file

from holdfast import OverloadedError, StorageError
from holdfast.engine import culprits
from holdfast.storage.open_store import open_store

FAULTS = {"full": (FULL, "write"), "unwritable": (IOERR_WRITE, "write truncate sync"), "no sync": (IOERR_FSYNC, "sync")}


SAYS = {
    "full": ["Free some space"],
    "unwritable": ["The disk reported an error", "must be allowed to write"],
    "no sync": ["The disk reported an error"],
}


def refuse(how: str) -> Fault:
    code, kinds = FAULTS[how]

    def fault(operation: Operation) -> int:
        return code if operation.kind in kinds.split() else 0

    return fault


async def refusals(run: Run, how: str) -> list[str]:
    """Ask for things while the disk is bad; return what was said about it."""
    said: list[str] = []
    for number in range(20):
        try:
            await run.client.start_new("chain", 1, instance_id=f"refused {how} {number}")
        except (StorageError, OverloadedError) as error:
            said.append(str(error))
            await asyncio.sleep(0.005)
    return said


async def through(path: Path, how: str, disk: Disk, world: World) -> dict[str, object]:
    """Let the disk turn bad in the middle of the work, and good again after a while."""
    async with running(make_crash_app(world), open_store(store_url(path)), CONFIG) as run:
        careful = CarefulClient(run.client)
        await careful.start("events", 1, "before")
        working = asyncio.ensure_future(workload(careful))
        await asyncio.sleep(0.01)
        disk.fault, disk.is_read_only = refuse(how), how == "unwritable"
        said = await refusals(run, how)
        assert len(said) == 20, "it accepted what it could not store"
        unexplained = [each for each in said if not any(text in each for text in SAYS[how])]
        assert all("had to start again" in each for each in unexplained), unexplained
        disk.fault, disk.is_read_only = (lambda operation: 0), False
        results = await working
        await careful.send("before", "e", "x")
        assert await careful.result("before") == ["x"]
    return results


@needs_recording
@pytest.mark.parametrize("how", FAULTS)
def test_the_disk_turns_bad_and_good_again(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, world = tmp_path / "hub.db", World()
    monkeypatch.setattr(culprits, "_BACK_OFF_S", (0.0, 0.01))
    with recorded(tmp_path) as disk:
        results = asyncio.run(through(path, how, disk, world))
    check_finished(rows_in_file(path), world, results)


IN_A_SMALL_PLACE = (
    'mount -t tmpfs -o size=3m tmpfs "$0" && head -c 1000000 /dev/zero > "$0/ballast" && exec "$1" "$2" "$0"'
)
"""A file system of three megabytes, seen by one process only."""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="Linux has `unshare`")
def test_a_file_system_without_room(tmp_path: Path) -> None:
    unshare = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if subprocess.run([*unshare, 'mount -t tmpfs tmpfs "$0"', tmp_path], capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    app = Path(__file__).with_name("full_disk_app.py")
    command = [*unshare, IN_A_SMALL_PLACE, str(tmp_path), sys.executable, str(app)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Free some space on the disk; nothing that was acknowledged is lost." in done.stdout
    word, count = done.stdout.splitlines()[-1].split()
    assert word == "done"
    assert int(count) > 10, "the disk was full before there was anything to lose"
