"""How costs grow: with what is in the store, with the length of a chain, with the history that is replayed."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from benchmarks.filling import multiply
from benchmarks.functions import GO, STEPS, app, chain_and_wait, chain_of_three, long_chain
from benchmarks.results import Machine, Series
from benchmarks.workloads import fresh_host, run_chain, run_chains, until
from holdfast import Client, InstanceQuery, OrchestrationStatus

_OLD, _ORIGINAL = "old-", "original"
_IN_FLIGHT, _TOTAL = 200, 3_000
_PAGE = 100


async def full_store(url: str, machine: Machine, *, quick: bool) -> list[Series]:
    """STORE: W2, and what clients ask, beside ever more orchestrations that have ended."""
    sizes = [100, 1_000, 10_000] if quick else [1_000, 100_000, 1_000_000]
    steps: list[float] = []
    asked: dict[str, list[float]] = {}
    async with fresh_host(url) as host:
        handle = await host.client.start_new(chain_of_three, 0, instance_id=_ORIGINAL)
        await handle.wait_for_completion()
    there = 0
    for size in sizes:
        await asyncio.to_thread(multiply, url, _ORIGINAL, f"{_OLD}{size}-", size - there)
        there = size
        async with fresh_host(url) as host:
            for name, ms in (await _asked_ms(host.client, f"{_OLD}{size}-", size // 2)).items():
                asked.setdefault(name, []).append(ms)
            steps.append(await _step_us(host.client, _IN_FLIGHT if quick else _TOTAL))
    what = "instances in the store"
    return [
        Series("STORE", "W2, 200 in flight, a step", what, "us", sizes, steps, is_of_each=True),
        *(Series("STORE", name, what, "ms", sizes, found) for name, found in asked.items()),
    ]


async def _step_us(client: Client, total: int) -> float:
    numbers = iter(range(total))
    begin = time.perf_counter()
    await asyncio.gather(*(run_chains(client, numbers) for _ in range(_IN_FLIGHT)))
    return (time.perf_counter() - begin) / (total * STEPS) * 1e6


async def _asked_ms(client: Client, prefix: str, middle: int) -> dict[str, float]:
    """Return how long each question takes, on average of what lies in the middle."""

    def page(**conditions: Any) -> Callable[[], Awaitable[object]]:
        query = InstanceQuery(**conditions)
        return lambda: client.list_instances(query, limit=_PAGE)

    questions: dict[str, tuple[int, Callable[[], Awaitable[object]]]] = {
        "get_status": (200, lambda: client.get_status(f"{prefix}{middle:07d}")),
        "page of 100": (20, page()),
        "page by status": (20, page(statuses=[OrchestrationStatus.COMPLETED])),
        "page by name": (20, page(name=chain_of_three)),
        "page by prefix": (20, page(id_prefix=f"{prefix}{middle // 1000:04d}")),
        "page of a status that none has": (3, page(statuses=[OrchestrationStatus.FAILED])),
        "page of a name that none has": (3, page(name="nobody")),
        "count": (3, lambda: client.count_instances()),
    }
    found: dict[str, float] = {}
    for name, (times, ask) in questions.items():
        taken = [await _taken_s(ask) for _ in range(times)]
        found[name] = statistics.median(taken) * 1e3
    return found


async def _taken_s(ask: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await ask()
    return time.perf_counter() - begin


async def long_chains(url: str, machine: Machine, *, quick: bool) -> list[Series]:
    """LENGTH: W4 with chains of 10, 1,000 and 10,000 activities, from the start to the result."""
    sizes = [10, 100, 1_000] if quick else [10, 1_000, 10_000]
    found: list[float] = []
    async with fresh_host(url) as host:
        for length in sizes:
            taken: list[float] = []
            for _ in range(max(1, 200 // length)):
                begin = time.perf_counter()
                await (await host.client.start_new(long_chain, length)).wait_for_completion()
                taken.append(time.perf_counter() - begin)
            found.append(statistics.median(taken) * 1e3)
    return [Series("LENGTH", "a chain, from start to end", "activities in a row", "ms", sizes, found)]


async def long_histories(url: str, machine: Machine, *, quick: bool) -> list[Series]:
    """REPLAY: an event for an instance that is not in memory: it is read, replayed, and ends."""
    sizes = [10, 100, 1_000] if quick else [10, 1_000, 10_000]
    copies = 3 if quick else 9
    async with fresh_host(url) as host:
        for size in sizes:
            # Each activity makes three events: that the code ran, what it asked for, and the answer.
            await host.client.start_new(chain_and_wait, size // 3, instance_id=f"{_ORIGINAL}-{size}")
        await until(lambda: _all_wait(host.client, [f"{_ORIGINAL}-{size}" for size in sizes]))
    for size in sizes:
        await asyncio.to_thread(multiply, url, f"{_ORIGINAL}-{size}", f"copy-{size}-", copies)
    found: list[float] = []
    async with app.host(url) as host:
        await run_chain(host.client, 0)
        for size in sizes:
            ids = [f"copy-{size}-{number:07d}" for number in range(copies)]
            found.append(statistics.median([await _woken_ms(host.client, each) for each in ids]))
    return [Series("REPLAY", "woken by an event, to its end", "events in the history", "ms", sizes, found)]


async def _woken_ms(client: Client, instance_id: str) -> float:
    handle = client.get_handle(chain_and_wait, instance_id)
    begin = time.perf_counter()
    await handle.raise_event(GO, 1)
    await handle.wait_for_completion()
    return (time.perf_counter() - begin) * 1e3


async def _all_wait(client: Client, ids: Sequence[str]) -> bool:
    found = [await client.get_status(each) for each in ids]
    return all(status is not None and status.events_awaited for status in found)
