"""W6 and Bank: entities that are signalled, and entities that are locked, two by two."""

from __future__ import annotations

import asyncio
import random
import time
from functools import partial

from benchmarks.functions import Account, Counter, Transfer, transfer
from benchmarks.results import Machine, Result, rows
from benchmarks.workloads import fresh_host, until
from holdfast import Client, EntityId, EntitySignal

_SIGNALS_PER_REQUEST = 1_000
_BALANCE = 1_000
_SEED = 4711


async def entity_signals(url: str, machine: Machine, *, quick: bool) -> list[Result]:
    """W6: signals to one entity, which run one after the other, and to a hundred, which do not wait for each other."""
    results: list[Result] = []
    async with fresh_host(url) as host:
        for counters, signals in ((1, 200), (20, 10)) if quick else ((1, 2_000), (100, 20)):
            ids = [EntityId(Counter, f"{counters}-{number}") for number in range(counters)]
            begin = time.perf_counter()
            await asyncio.gather(
                *(host.client.signal_entity(each, Counter.add, 1) for _ in range(signals) for each in ids)
            )
            results += await _applied(host.client, ids, signals, begin, machine, f"{counters} x {signals:,} signals")
        signals = 2_000 if quick else 20_000
        ids = [EntityId(Counter, "bulk")]
        begin = time.perf_counter()
        for _ in range(signals // _SIGNALS_PER_REQUEST):
            await host.client.signal_many(EntitySignal(ids[0], Counter.add, 1) for _ in range(_SIGNALS_PER_REQUEST))
        results += await _applied(host.client, ids, signals, begin, machine, f"{signals:,} signals in bulk")
    return results


async def _applied(
    client: Client, ids: list[EntityId[Counter]], signals: int, begin: float, machine: Machine, label: str
) -> list[Result]:
    for each in ids:
        await until(partial(_has_value, client, each, signals))
    taken_s = time.perf_counter() - begin
    per_s = len(ids) * signals / taken_s
    return [
        Result("W6", f"{label}, all applied", taken_s * 1e3, "ms"),
        Result("W6", label, per_s, "/s", rows(per_s, machine)),
    ]


async def _has_value(client: Client, counter: EntityId[Counter], value: int) -> bool:
    state = await client.read_entity_state(counter)
    return state is not None and state.value >= value


async def bank(url: str, machine: Machine, *, quick: bool) -> list[Result]:
    """Bank: transfers between accounts, each of which locks two, reads one and changes both, 200 at a time."""
    transfers, accounts, in_flight = (100, 20, 50) if quick else (1_000, 100, 200)
    chosen = random.Random(_SEED)
    names = [f"account-{number}" for number in range(accounts)]
    plan = iter([Transfer(*chosen.sample(names, 2), chosen.randint(1, 50)) for _ in range(transfers)])

    async def customer(client: Client) -> None:
        for each in plan:
            await (await client.start_new(transfer, each)).wait_for_completion()

    async with fresh_host(url) as host:
        await host.client.signal_many(EntitySignal(EntityId(Account, name), Account.add, _BALANCE) for name in names)
        begin = time.perf_counter()
        await asyncio.gather(*(customer(host.client) for _ in range(in_flight)))
        taken_s = time.perf_counter() - begin
        found = [await host.client.read_entity_state(EntityId(Account, name)) for name in names]
    total = sum(each.balance for each in found if each is not None)
    if total != accounts * _BALANCE:
        raise AssertionError(f"The accounts had {accounts * _BALANCE} together, and have {total} now.")
    per_s = transfers / taken_s
    return [
        Result("BANK", f"{transfers:,} transfers, all done", taken_s * 1e3, "ms"),
        Result("BANK", "transfers with two locks", per_s, "/s", rows(per_s, machine)),
    ]
