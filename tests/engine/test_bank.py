"""Money moves between accounts under locks, while commits fail and transfers are ended: none is made, none is lost."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from engine_kit import SOON, FailingStore, Run, eventually, insist, running, start

from holdfast import (
    App,
    Entity,
    EntityId,
    EntityQuery,
    HostConfig,
    InstanceNotRunningError,
    LockLostError,
    OrchestrationContext,
)
from holdfast.storage.memory import MemoryStore
from holdfast.storage.open_store import open_store
from holdfast.storage.port import Store

BRIEF = timedelta(milliseconds=5)
FAILURES = ["before", "unknown, not applied", "unknown, applied"]

MakeStore = Callable[[], Store]
Order = tuple[str, str, str, int]
"""How to go about it, from where, to where, how much."""


def make_bank() -> App:
    app = App()

    @app.entity
    @dataclass
    class Account(Entity):
        balance: int = 0

        def add(self, amount: int) -> int:
            self.balance += amount
            return self.balance

    @app.orchestrator
    async def transfer(ctx: OrchestrationContext, order: Order) -> bool:
        """Move money, or say that none was moved; one that is doomed holds its locks until it is terminated."""
        how, amount = order[0], order[3]
        source, target = EntityId(Account, order[1]), EntityId(Account, order[2])
        lease, timeout = BRIEF if how == "slow" else None, BRIEF if how == "impatient" else None
        is_taken = False
        while True:
            try:
                async with ctx.lock(source, target, lease=lease, timeout=timeout):
                    if how == "doomed":
                        await ctx.wait_for_external_event("never")
                    seen = await ctx.call_entity(source, Account.add, -amount)
                    is_taken = True
                    if how == "slow":
                        await ctx.create_timer(BRIEF * (amount % 4) / 4)
                    if await ctx.call_entity(source, Account.add, 0) != seen:
                        raise AssertionError("somebody else was here")
                    await ctx.call_entity(target, Account.add, amount)
                    return True
            except TimeoutError:
                continue
            except LockLostError:
                if is_taken:
                    await ctx.call_entity(source, Account.add, amount)
                return False

    _ = transfer
    return app


async def terminate(run: Run, instance_id: str) -> None:
    async def request() -> None:
        with suppress(InstanceNotRunningError):  # the answer to an earlier request was lost
            await run.client.terminate(instance_id)

    await insist(request)


async def settle(run: Run, orders: dict[str, Order], dice: random.Random) -> None:
    """Start all transfers, end the doomed ones at some moment, and see that every account has what it should have."""
    doomed: list[str] = []
    for name, order in orders.items():
        await start(run, "transfer", order, name)
        doomed += [name] if order[0] == "doomed" else []
        if doomed and dice.random() < 0.5:
            await terminate(run, doomed.pop(dice.randrange(len(doomed))))
    for name in doomed:
        await terminate(run, name)
    expected = Counter[str]()
    for name, (how, source, target, amount) in orders.items():
        if how != "doomed" and await run.client.wait_for_completion(name, timeout=SOON):
            expected[source] -= amount
            expected[target] += amount

    async def all_are_free() -> bool:
        found = run.client.iterate_entities(EntityQuery(with_empty=True))
        return all([each.lock is None and each.messages == 0 async for each in found])

    await eventually(all_are_free)
    found = run.client.iterate_entities(EntityQuery(entity="account"))
    balances = {each.entity_id.key: json.loads(each.found.state or "{}")["balance"] async for each in found}
    assert sum(balances.values()) == 0
    assert {key: value for key, value in balances.items() if value} == {k: v for k, v in expected.items() if v}


FEW: dict[str, Order] = {
    "1": ("doomed", "ann", "bob", 1_000),
    "2": ("plain", "bob", "ann", 1),
    "3": ("plain", "ann", "cyd", 20),
    "4": ("doomed", "cyd", "ann", 2_000),
    "5": ("impatient", "cyd", "bob", 300),
}


async def run_with_failure(store: Store, commit: int, how: str) -> bool:
    """Run a few transfers with a commit for each transition; return whether the one that was to fail was reached."""
    failing = FailingStore(store)
    failing.fail_at = {commit: how}
    async with running(make_bank(), failing, HostConfig(group_transitions_max=1, drain_s=0.2)) as run:
        await settle(run, FEW, random.Random(7))
    return not failing.fail_at


@pytest.mark.parametrize("how", FAILURES)
def test_each_commit_of_transfers_fails_once(how: str) -> None:
    commit = 1
    while asyncio.run(run_with_failure(MemoryStore(), commit, how)):
        commit += 1
    assert commit > 50, "there is too little to fail"


@pytest.mark.parametrize("how", FAILURES)
def test_commits_of_transfers_fail_on_sqlite(how: str, tmp_path: Path) -> None:
    for commit in range(3, 50, 9):
        store = open_store(f"sqlite:///{tmp_path / f'{commit}.db'}")
        assert asyncio.run(run_with_failure(store, commit, how))


def draw(dice: random.Random, transfers: int) -> dict[str, Order]:
    orders: dict[str, Order] = {}
    for number in range(transfers):
        source, target = dice.sample(["ann", "bob", "cyd", "dan"], 2)
        how = dice.choice(["plain", "plain", "impatient", "slow", "doomed"])
        orders[f"t{number}"] = (how, source, target, dice.randint(1, 1_000))
    return orders


@pytest.mark.parametrize("seed", range(8))
def test_money_is_conserved(make_store: MakeStore, seed: int) -> None:
    """Transfers that are terminated, lose their locks, or wait in vain, while every now and then a commit fails."""
    dice = random.Random(seed)
    store = FailingStore(make_store())
    store.fail_at = {number: dice.choice(FAILURES) for number in dice.sample(range(2, 60), 4)}

    async def main() -> None:
        async with running(make_bank(), store, HostConfig(group_transitions_max=8, drain_s=0.2)) as run:
            await settle(run, draw(dice, 20), dice)

    asyncio.run(main())
