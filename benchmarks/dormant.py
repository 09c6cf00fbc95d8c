"""DORMANT: a million instances that wait, none of them in memory; what a host takes that starts on them.

Half of them wait for an event, half for a timer. All those timers are due within ten minutes, which is the worst case,
as a host keeps the next ones in memory.

`python -m benchmarks.dormant URL BEGINS_AT SAMPLE` is the process that is measured.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import msgspec

from benchmarks.child import measured_in_child, resident_bytes, tell
from benchmarks.filling import multiply, path_of
from benchmarks.functions import GO, app, sleep_until, wait_for_go
from benchmarks.loop import run
from benchmarks.results import Machine, Result, percentile
from benchmarks.workloads import all_running, until
from holdfast import Client

_BY_EVENT, _BY_TIMER, _SAMPLE = "event-", "timer-", "sample-"
_APART_S = 0.05
"""Between two timers of the sample, so that each has the host for itself."""
_BEGINS_S = 10.0
"""From the end of filling until the first of them is due."""
_AT_REST_S = 2.0
_TIMERS_S = (120, 600)
"""When the other timers are due."""


class Found(msgspec.Struct):
    started_s: float
    resident_bytes: int
    event_s: list[float]
    timer_s: list[float]


async def dormant_instances(url: str, machine: Machine, *, quick: bool) -> list[Result]:
    """DORMANT: memory of a host with a million dormant instances, and how long one takes to wake, each by itself."""
    count, sample = (10_000, 20) if quick else (1_000_000, 200)
    await _make_originals(url)
    begins_at = await asyncio.to_thread(_fill, url, count, sample)
    found = await measured_in_child("benchmarks.dormant", url, str(begins_at), str(sample), found=Found)
    return [
        Result("DORMANT", f"{count:,} instances, host started", found.started_s * 1e3, "ms"),
        Result("DORMANT", f"{count:,} instances, memory", found.resident_bytes / 1e6, "MB"),
        Result("DORMANT", "woken by an event, p50", percentile(found.event_s, 50) * 1e3, "ms"),
        Result("DORMANT", "woken by an event, worst", max(found.event_s) * 1e3, "ms"),
        Result("DORMANT", "woken by a timer, p50", percentile(found.timer_s, 50) * 1e3, "ms"),
        Result("DORMANT", "woken by a timer, worst", max(found.timer_s) * 1e3, "ms"),
    ]


async def _make_originals(url: str) -> None:
    async with app.host(url) as host:
        event = await host.client.start_new(wait_for_go, instance_id=f"{_BY_EVENT}original")
        timer = await host.client.start_new(sleep_until, _in(timedelta(days=1)), instance_id=f"{_BY_TIMER}original")
        await until(lambda: all_running([event, timer]))


def _fill(url: str, count: int, sample: int) -> float:
    """Multiply the originals; return when the first timer of the sample is due, in seconds since the epoch."""
    first, last = (time.time() + seconds for seconds in _TIMERS_S)
    step_us = int((last - first) * 1e6) // (count // 2)
    due_at = {"timer.due_at": f"{int(first * 1e6)} + n * {step_us}"}
    multiply(url, f"{_BY_TIMER}original", _SAMPLE, sample)
    multiply(url, f"{_BY_TIMER}original", _BY_TIMER, count // 2, due_at)
    multiply(url, f"{_BY_EVENT}original", _BY_EVENT, count // 2)
    begins_at = time.time() + _BEGINS_S
    with closing(sqlite3.connect(path_of(url))) as connection, connection:
        number = f"CAST(substr(instance_id, {len(_SAMPLE) + 1}) AS INTEGER)"
        connection.execute(
            f"UPDATE timer SET due_at = ? + {number} * ? WHERE instance_id LIKE '{_SAMPLE}%'",
            (int(begins_at * 1e6), int(_APART_S * 1e6)),
        )
    return begins_at


def _in(duration: timedelta) -> datetime:
    return datetime.now(UTC) + duration


async def _measure(url: str, begins_at: float, sample: int) -> None:
    begin = time.perf_counter()
    async with app.host(url) as host:
        started_s = time.perf_counter() - begin
        await asyncio.sleep(_AT_REST_S)
        resident = resident_bytes()
        event_s = [await _woken_by_event(host.client, number) for number in range(sample)]
        if time.time() > begins_at:
            raise RuntimeError("The first timer was due before the host was ready; the machine is too busy.")
        dues = [begins_at + number * _APART_S for number in range(sample)]
        timer_s = await asyncio.gather(*(_late(host.client, number, due) for number, due in enumerate(dues)))
        tell(Found(started_s, resident, event_s, timer_s))


async def _woken_by_event(client: Client, number: int) -> float:
    handle = client.get_handle(wait_for_go, f"{_BY_EVENT}{number:07d}")
    begin = time.perf_counter()
    await handle.raise_event(GO, number)
    await handle.wait_for_completion()
    return time.perf_counter() - begin


async def _late(client: Client, number: int, due: float) -> float:
    await client.get_handle(sleep_until, f"{_SAMPLE}{number:07d}").wait_for_completion()
    return time.time() - due


if __name__ == "__main__":
    run(_measure(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
