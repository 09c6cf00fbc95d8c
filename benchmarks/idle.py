"""IDLE: what a host asks its server that has nothing to do."""

from __future__ import annotations

import asyncio

from benchmarks.postgres import counted_queries
from benchmarks.results import Machine, Result
from benchmarks.workloads import fresh_host


async def idle_queries(url: str, machine: Machine, *, quick: bool) -> list[Result]:
    """IDLE: queries of a host that has done some work and waits for more."""
    window_s = 2.0 if quick else 20.0
    with counted_queries() as counter:
        async with fresh_host(url):
            before = counter.queries
            await asyncio.sleep(window_s)
            per_s = (counter.queries - before) / window_s
    return [Result("IDLE", "queries of an idle host", per_s, "/s")]
