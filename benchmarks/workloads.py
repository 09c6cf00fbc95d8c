"""W1 to W5 and W7: each is a coroutine that gets the client of a fresh host and returns what it measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.fleet import standing_by
from benchmarks.functions import (
    GO,
    STEPS,
    chain_of_three,
    fan_out,
    long_chain,
    probe,
    sleep_a_second,
    wait_for_go,
)
from benchmarks.results import Machine, Result, fsyncs, percentile, rows
from holdfast import Client, Host, OrchestrationHandle, OrchestrationStatus


@asynccontextmanager
async def fresh_host(url: str) -> AsyncGenerator[Host]:
    """A host with default settings on a new task hub, warm: the first run of anything imports and compiles."""
    async with standing_by(url) as enter, enter() as host:
        for number in range(10):
            await run_chain(host.client, number)
        yield host


async def run_chain(client: Client, number: int) -> None:
    handle = await client.start_new(chain_of_three, number)
    await handle.wait_for_completion()


async def run_chains(client: Client, numbers: Iterator[int]) -> None:
    for number in numbers:
        await run_chain(client, number)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what a client can only ask for, seldom enough not to be in the way."""
    while not await condition():  # noqa: ASYNC110 - nothing tells a client
        await asyncio.sleep(0.02)


async def chained_latency(url: str, machine: Machine, *, quick: bool) -> list[Result]:
    """W1: one orchestration of three chained activities at a time; from `start_new` to its result."""
    taken: list[float] = []
    async with fresh_host(url) as host:
        for number in range(50 if quick else 400):
            begin = time.perf_counter()
            await run_chain(host.client, number)
            taken.append(time.perf_counter() - begin)
    found = [(percent, percentile(taken, percent)) for percent in (50, 95, 99)]
    return [Result("W1", f"3 steps, p{percent}", s * 1e3, "ms", fsyncs(s, machine)) for percent, s in found]


async def chained_throughput(url: str, machine: Machine, *, quick: bool) -> list[Result]:
    """W2: the same with many in flight: as soon as one is done its place is taken by the next."""
    results: list[Result] = []
    async with fresh_host(url) as host:
        for in_flight in (50, 200, 1_000):
            total = in_flight if quick else max(1_500, 3 * in_flight)
            numbers = iter(range(total))
            begin = time.perf_counter()
            await asyncio.gather(*(run_chains(host.client, numbers) for _ in range(in_flight)))
            per_s = total / (time.perf_counter() - begin)
            label = f"{in_flight} in flight"
            results.append(Result("W2", f"{label}, orchestrations", per_s, "/s"))
            results.append(Result("W2", f"{label}, steps", per_s * STEPS, "/s", rows(per_s * STEPS, machine)))
    return results


async def fan_outs(url: str, machine: Machine, *, quick: bool) -> list[Result]:
    """W3: one orchestration that calls many activities at once and waits for all."""
    results: list[Result] = []
    async with fresh_host(url) as host:
        for width in (100, 1_000) if quick else (1_000, 10_000):
            begin = time.perf_counter()
            handle = await host.client.start_new(fan_out, width)
            await handle.wait_for_completion()
            taken_s = time.perf_counter() - begin
            per_s = width / taken_s
            results.append(Result("W3", f"fan-out of {width:,}, all done", taken_s * 1e3, "ms"))
            results.append(Result("W3", f"fan-out of {width:,}, steps", per_s, "/s", rows(per_s, machine)))
    return results


async def chain_of_thousand(url: str, machine: Machine, *, quick: bool) -> list[Result]:
    """W4: one orchestration of 1,000 activities in a row; a step must not cost more the longer the history is."""
    length = 300 if quick else 1_000
    probe.step_times.clear()
    async with fresh_host(url) as host:
        handle = await host.client.start_new(long_chain, length)
        await handle.wait_for_completion()
    times = probe.step_times
    first_s, last_s = (times[100] - times[0]) / 100, (times[-1] - times[-101]) / 100
    return [
        Result("W4", "first 100 steps, each", first_s * 1e3, "ms", fsyncs(first_s, machine)),
        Result("W4", f"last 100 of {length:,} steps, each", last_s * 1e3, "ms", fsyncs(last_s, machine)),
    ]


async def external_events(url: str, machine: Machine, *, quick: bool) -> list[Result]:
    """W5: many instances wait for an event each; all are raised; time from the first raise until all are done."""
    count = 100 if quick else 1_000
    async with fresh_host(url) as host:
        handles = await asyncio.gather(*(host.client.start_new(wait_for_go) for _ in range(count)))
        await until(lambda: all_running(handles))
        begin = time.perf_counter()
        await asyncio.gather(*(handle.raise_event(GO, 1) for handle in handles))
        await asyncio.gather(*(handle.wait_for_completion() for handle in handles))
        taken_s = time.perf_counter() - begin
    per_s = count / taken_s
    return [
        Result("W5", f"{count:,} events, all done", taken_s * 1e3, "ms"),
        Result("W5", "events", per_s, "/s", rows(per_s, machine)),
    ]


async def all_running(handles: Sequence[OrchestrationHandle[Any]]) -> bool:
    statuses = await asyncio.gather(*(handle.get_status() for handle in handles))
    return all(status is not None and status.runtime_status is OrchestrationStatus.RUNNING for status in statuses)


async def timer_lateness(url: str, machine: Machine, *, quick: bool) -> list[Result]:
    """W7: one-second timers; from the instant each was due to the moment its orchestration's client has the result."""
    count = 100 if quick else 1_000

    async def lateness(client: Client) -> float:
        handle = await client.start_new(sleep_a_second)
        due = await handle.wait_for_completion()
        return time.time() - due

    async with fresh_host(url) as host:
        late = await asyncio.gather(*(lateness(host.client) for _ in range(count)))
    found = [("p50", percentile(late, 50)), ("p99", percentile(late, 99)), ("max", max(late))]
    return [Result("W7", f"{count:,} timers late, {name}", s * 1e3, "ms", fsyncs(s, machine)) for name, s in found]
