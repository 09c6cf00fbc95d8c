"""W8: a process is killed with many orchestrations in flight; how long until another has finished them.

`python -m benchmarks.recovery URL COUNT` is the process that is killed.
"""

from __future__ import annotations

import asyncio
import sys
import time

from benchmarks.fleet import plain, standing_by
from benchmarks.functions import app, chain_with_hold, probe
from benchmarks.loop import run
from benchmarks.results import Machine, Result, rows
from holdfast import HostConfig

_READY = b"ready"
_CONFIG = HostConfig(renew_s=0.3, standby_s=30.0)


def _instance_id(number: int) -> str:
    return f"crash-{number}"


def _with_short_lease(url: str) -> str:
    """Nobody can take a hub over before the lease of its owner ends, so that is what would be measured."""
    return url if url.startswith("sqlite:") else f"{url}&lease_s=1"


async def crash_recovery(url: str, machine: Machine, *, quick: bool) -> list[Result]:
    """W8: from opening the task hub that the killed process left until every orchestration in it is done."""
    count = 100 if quick else 1_000
    url = _with_short_lease(url)
    async with standing_by(url, _CONFIG) as enter:
        await _run_and_kill(plain(url), count)
        begin = time.perf_counter()
        async with enter() as host:
            opened_s = time.perf_counter() - begin
            handles = [host.client.get_handle(chain_with_hold, _instance_id(number)) for number in range(count)]
            await asyncio.gather(*(handle.wait_for_completion() for handle in handles))
            done_s = time.perf_counter() - begin
    per_s = count / (done_s - opened_s)
    return [
        Result("W8", "host entered after the kill", opened_s * 1e3, "ms"),
        Result("W8", f"{count:,} in flight, all done", done_s * 1e3, "ms"),
        Result("W8", "orchestrations, from then on", per_s, "/s", rows(per_s, machine)),
    ]


async def _run_and_kill(url: str, count: int) -> None:
    """Start a process that brings the orchestrations in flight, and kill it when it says that they are."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.recovery", url, str(count), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        said = (await process.stdout.readline()).strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    if said != _READY:
        raise RuntimeError(f"The process to be killed ended too early; it said {said!r}.")


async def _be_killed(url: str, count: int) -> None:
    probe.to_hold = min(count, _CONFIG.activities_max)
    async with app.host(url, config=_CONFIG) as host:
        await asyncio.gather(
            *(host.client.start_new(chain_with_hold, n, instance_id=_instance_id(n)) for n in range(count))
        )
        # An activity starts only once its call is stored, so each one that is held has its first step behind it.
        await probe.all_held.wait()
        print(_READY.decode(), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(_be_killed(sys.argv[1], int(sys.argv[2])))
