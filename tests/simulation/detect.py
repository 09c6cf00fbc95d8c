"""How many seeds it takes to find each planted bug: `python tests/simulation/detect.py [TEXT] [--seeds N]`."""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))

from planted import BUGS, PlantedBug, planted
from seeds import be_quiet, run_seed

SEEDS_MAX = 3_000
"""Within so many seeds each planted bug must be found."""
_STEPS_MAX = 60_000
_STUCK_S = 10


class Detection(NamedTuple):
    bug: str
    seeds: int | None
    """How many seeds it took; None if it was not found."""
    finding: str


def detect(bug: PlantedBug, directory: Path, seeds_max: int = SEEDS_MAX, first: int = 0) -> Detection:
    """Run seed after seed with a bug until one fails, which must not fail without it."""
    for seed in range(first, first + seeds_max):
        with planted(bug):
            finding = _finding(seed, directory)
        if finding is not None:
            run_seed(seed, directory, steps_max=_STEPS_MAX)
            return Detection(bug.name, seed - first + 1, finding)
    return Detection(bug.name, None, "")


def _finding(seed: int, directory: Path) -> str | None:
    signal.alarm(_STUCK_S)
    try:
        run_seed(seed, directory, steps_max=_STEPS_MAX)
    except AssertionError as error:
        return str(error).splitlines()[0]
    except _StuckError:
        return "everything ends: a single step does not"
    finally:
        signal.alarm(0)
    return None


class _StuckError(KeyboardInterrupt):
    """The only kind of error that no part of asyncio keeps to itself."""


def _give_up(*_: object) -> None:
    raise _StuckError


def _prepare() -> None:
    be_quiet()
    signal.signal(signal.SIGALRM, _give_up)


class _Detect:
    def __init__(self, directory: Path, seeds_max: int) -> None:
        self._directory = directory
        self._seeds_max = seeds_max

    def __call__(self, number: int) -> Detection:
        directory = self._directory / str(number)
        directory.mkdir()
        return detect(BUGS[number], directory, self._seeds_max)


def detect_all(numbers: list[int], seeds_max: int = SEEDS_MAX, processes: int | None = None) -> Iterator[Detection]:
    """Look for bugs in several processes; give what was found, in the order of the bugs."""
    directory = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        with multiprocessing.Pool(processes, _prepare, maxtasksperchild=1) as pool:
            yield from pool.imap(_Detect(directory, seeds_max), numbers)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", nargs="?", default="", help="only the bugs with this in their name")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX)
    options = parser.parse_args()
    numbers = [number for number, bug in enumerate(BUGS) if options.text in bug.name]
    missed = 0
    print("| bug | seeds | found as |\n|---|---|---|")
    for detection in detect_all(numbers, options.seeds):
        missed += detection.seeds is None
        print(f"| {detection.bug} | {detection.seeds or 'NOT FOUND'} | {detection.finding[:160]} |", flush=True)
    print(f"\n{len(numbers)} bugs, {missed} not found")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
