"""PURGE: what W2 loses while a million rows of old orchestrations leave the same file in the background."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.filling import multiply, path_of
from benchmarks.functions import STEPS, app, chain_of_three
from benchmarks.results import Machine, Ratio, Result
from benchmarks.workloads import fresh_host
from holdfast import Client, Host, HostConfig, InstanceQuery

_OLD, _ORIGINAL = "old-", "original"
_IN_FLIGHT = 200
_WINDOW_S = 6.0


async def purge_beside_work(url: str, machine: Machine, *, quick: bool) -> list[Result]:
    """PURGE: W2 alone, with the retention of a host at work, and with a client that purges as fast as it can."""
    async with fresh_host(url) as host:
        handle = await host.client.start_new(chain_of_three, 0, instance_id=_ORIGINAL)
        await handle.wait_for_completion()
    path = path_of(url)
    rows = multiply(url, _ORIGINAL, _OLD, 2_000 if quick else 200_000, {"instance.updated_at": "n"})
    window_s = 1.0 if quick else _WINDOW_S
    results = [Result("PURGE", "rows to purge at first", rows, "")]
    alone, beside, by_hand = [], [], []
    for _ in range(2):
        async with app.host(url) as host:
            alone.append(await _rate(host.client, window_s))
        retention = HostConfig(retention_s=86_400.0)
        async with app.host(url, config=retention) as host:
            beside.append(await _with_count(host, path, window_s, lambda _: asyncio.sleep(window_s)))
    async with app.host(url) as host:
        by_hand.append(await _with_count(host, path, window_s, _purge))
    base = sum(alone) / len(alone)
    for label, found in (("by retention", beside), ("by hand", by_hand)):
        rate = sum(each[0] for each in found) / len(found)
        purged = sum(each[1] for each in found) / len(found)
        beside_it = Ratio(rate / base, "W2 alone")
        results.append(Result("PURGE", f"W2 beside purge {label}, steps", rate * STEPS, "/s", beside_it))
        results.append(Result("PURGE", f"orchestrations purged {label}", purged, "/s"))
    return results


async def _rate(client: Client, window_s: float) -> float:
    """Return how many chains are done in a second."""
    numbers, done = itertools.count(), 0
    end = time.perf_counter() + window_s

    async def run() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await (await client.start_new(chain_of_three, next(numbers))).wait_for_completion()
            done += 1

    begin = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(_IN_FLIGHT)))
    return done / (time.perf_counter() - begin)


async def _with_count(
    host: Host, path: Path, window_s: float, meanwhile: Callable[[Client], Coroutine[Any, Any, None]]
) -> tuple[float, float]:
    """Return the rate of W2 and how many old orchestrations went in a second, while something else goes on."""
    before, begin = _left(path), time.perf_counter()
    job = asyncio.create_task(meanwhile(host.client))
    rate = await _rate(host.client, window_s)
    took_s = time.perf_counter() - begin
    purged = before - _left(path)
    await job
    return rate, purged / took_s


async def _purge(client: Client) -> None:
    await client.purge_instances(InstanceQuery(id_prefix=_OLD))


def _left(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM instance WHERE instance_id LIKE 'old-%'").fetchone()[0]
