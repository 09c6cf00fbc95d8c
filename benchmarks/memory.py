"""MEM: what an instance costs that waits in memory.

`python -m benchmarks.memory URL COUNT` is the process that is measured.
"""

from __future__ import annotations

import asyncio
import gc
import sys

from benchmarks.child import measured_in_child, resident_bytes, tell
from benchmarks.functions import app, keep, wait_for_go
from benchmarks.loop import run
from benchmarks.results import Machine, Result
from holdfast import Client, HostConfig

_AT_ONCE = 100
_CACHE_BYTES = 100_000_000
"""More than the page caches of all connections to a file."""
_TEXT_BYTES = 50_000
_CONFIG = HostConfig(cache_bytes_max=1_000_000_000)


async def waiting_instances(url: str, machine: Machine, *, quick: bool) -> list[Result]:
    """MEM: how much the memory of a process grows with each instance that waits for an event, all of them in memory."""
    count = 2_000 if quick else 20_000
    each_bytes = await measured_in_child("benchmarks.memory", url, str(count), found=float)
    return [Result("MEM", f"{count:,} waiting instances, each", each_bytes, "B")]


async def _measure(url: str, count: int) -> None:
    async with app.host(url, config=_CONFIG) as host:
        # First what has a limit: the pages that SQLite keeps, and what the allocators keep for the next burst.
        await _start(host.client, _CACHE_BYTES // _TEXT_BYTES, keep.name, "x" * _TEXT_BYTES)
        await _start(host.client, count, wait_for_go.name)
        before = await _settled_bytes()
        await _start(host.client, count, wait_for_go.name)
        tell((await _settled_bytes() - before) / count)


async def _start(client: Client, count: int, name: str, text: str | None = None) -> None:
    for first in range(0, count, _AT_ONCE):
        number = min(_AT_ONCE, count - first)
        await asyncio.gather(*(client.start_new(name, text) for _ in range(number)))


async def _settled_bytes() -> int:
    await asyncio.sleep(1.0)
    gc.collect()
    return resident_bytes()


if __name__ == "__main__":
    run(_measure(sys.argv[1], int(sys.argv[2])))
