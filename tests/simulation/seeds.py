"""One seed, one world: `python tests/simulation/seeds.py FIRST COUNT` runs many, and says which of them fail and how.

With one seed it says more: `python tests/simulation/seeds.py 4711 1 --log`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import multiprocessing
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from workloads import Workload, make_world

from holdfast import HostConfig, Limits
from holdfast.model.requests import OperationRequest
from holdfast.testing.faults import Faults
from holdfast.testing.loop import InvariantViolation
from holdfast.testing.simulation import Simulation, SimulationFailedError

SQLITE_EACH = 20
"""One seed of so many runs on a file."""
DEADLY_EACH = 25
"""In one seed of so many there is work that kills whoever does it, and no other crash."""
_LIMIT = timedelta(hours=2)


def make_simulation(seed: int, file: Path | None = None) -> tuple[Simulation, list[Workload]]:
    dice = random.Random(f"{seed}/shape")  # what comes later has dice of its own, so that known seeds stay as they are
    is_deadly = seed % DEADLY_EACH == DEADLY_EACH - 1
    app, workloads = make_world(seed, is_deadly=is_deadly)
    faults = Faults.some(seed)
    if is_deadly:  # who dies by chance beside it may be taken for guilty
        faults = Faults(total=faults.total, reply_lost=faults.reply_lost, request_repeated=faults.request_repeated)
    config = HostConfig(
        drain_s=0.2,
        cache_bytes_max=dice.choice((1, 20_000, 10_000_000)),
        group_transitions_max=dice.choice((1, 3, 10_000)),
        journal_transitions_max=dice.choice((2, 10_000)),
        timer_horizon_s=dice.choice((4, 600)),
        timers_max=random.Random(f"{seed}/timers").choice((1, 20_000)),
        activities_max=dice.choice((1, 1_000)),
        activity_queue_max=dice.choice((1, 1_000)),
        limits=Limits(deliveries_max=5 if is_deadly else 100, episode_messages_max=dice.choice((1, 2, 1_000))),
    )
    hosts = dice.choice((1, 2, 2, 3))
    return Simulation(app, seed=seed, hosts=hosts, faults=faults, config=config, file=file, limit=_LIMIT), workloads


async def play(sim: Simulation, workloads: list[Workload]) -> None:
    for workload in workloads:
        workload.outside.said = sim.ledger.ever_said
    sim.task_hub.answered = lambda request: check_answer(sim, request)
    await asyncio.gather(*(workload.play(sim) for workload in workloads))
    await sim.settle()
    for _ in range(200):  # what nobody waits for ends as well, after as many timers as it may have
        if all(_has_ended(row.status) or row.instance_id.startswith("@") for row in sim.ledger.instances.values()):
            break
        await sim.advance(seconds=5)
    await sim.advance(seconds=10)  # and what was planned happens
    await sim.settle()
    open_ = [row.instance_id for row in sim.ledger.instances.values() if not row.instance_id.startswith("@")]
    open_ = [each for each in open_ if not _has_ended(sim.ledger.instances[each].status)]
    assert open_ == [], f"these have not ended: {open_}"
    states = {row.instance_id: json.loads(row.state) for row in sim.ledger.instances.values() if row.state is not None}
    for workload in workloads:
        workload.check(states)


def check_answer(sim: Simulation, request: OperationRequest) -> None:
    """Hold that a token is stored, and that a call without a key does not wait any more, when its answer is sent."""
    token = (request.input or "").strip('"')
    if not sim.ledger.ever_said(token):
        raise InvariantViolation("answers are durable", f"{token} was accepted, and is not stored")
    waiting = [row for row in sim.ledger.messages.values() if row.instance_id == request.instance_id]
    if request.key is None and any(token in row.event and "OperationCalled" in row.event for row in waiting):
        raise InvariantViolation("answers are durable", f"{token} was answered, and still waits")


def _has_ended(status: str) -> bool:
    return status in ("Completed", "Failed", "Terminated", "Canceled")


def run_seed(seed: int, directory: Path | None = None, *, steps_max: int | None = None) -> Simulation:
    """Run one seed; on a new file in a directory if its turn comes.

    Raises:
        AssertionError: if anything is wrong.
    """
    file = None if directory is None or seed % SQLITE_EACH else directory / f"{seed}.db"
    sim, workloads = make_simulation(seed, file)
    if steps_max is not None:
        sim.loop.steps_max = steps_max
    try:
        sim.run(lambda sim: play(sim, workloads))
    except SimulationFailedError:
        raise
    except Exception as error:
        raise AssertionError(f"seed {seed}, after {sim.trouble.happened}: {error!r}") from error
    finally:
        if file is not None:
            for each in file.parent.glob(f"{file.name}*"):
                each.unlink()
    return sim


def be_quiet() -> None:
    """Prepare a process for many seeds: no logs, and no garbage collection but when asked for."""
    logging.disable(logging.CRITICAL)
    gc.disable()


def _try_seed(seed: int, directory: Path) -> tuple[int, str | None, list[str], int]:
    if seed % 50 == 0:
        gc.collect()
    try:
        sim = run_seed(seed, directory)
    except AssertionError as error:
        return seed, str(error), [], 0
    return seed, None, sim.trouble.happened, sim.loop.steps


class _Try:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __call__(self, seed: int) -> tuple[int, str | None, list[str], int]:
        return _try_seed(seed, self._directory)


def run_many(first: int, count: int, processes: int) -> Iterator[tuple[int, str | None, list[str], int]]:
    """Run seeds in several processes; give (seed, what is wrong, the faults, the steps) of each."""
    directory = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        with multiprocessing.Pool(processes, be_quiet) as pool:
            yield from pool.imap_unordered(_Try(directory), range(first, first + count), chunksize=10)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--log", action="store_true", help="in this process, with all that the hosts log")
    options = parser.parse_args()
    if options.log:
        logging.basicConfig(level=logging.DEBUG)
        with tempfile.TemporaryDirectory() as directory:
            for seed in range(options.first, options.first + options.count):
                run_seed(seed, Path(directory))
        return
    began, faults, steps, wrong = time.monotonic(), Counter[str](), 0, 0
    results = run_many(options.first, options.count, options.processes)
    for done, (seed, error, happened, taken) in enumerate(results, 1):
        if done % 10_000 == 0:
            print(f"{done} seeds, {wrong} failed, {time.monotonic() - began:.0f} s", flush=True)
        faults.update(happened)
        steps += taken
        if error is not None:
            wrong += 1
            print(f"seed {seed}: {error}\n", flush=True)
    took = time.monotonic() - began
    each_ms = took / options.count * 1e3
    print(f"{options.count} seeds, {wrong} failed, {steps} steps, {took:.0f} s, {each_ms:.1f} ms each")
    print("faults:", dict(faults.most_common()))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
