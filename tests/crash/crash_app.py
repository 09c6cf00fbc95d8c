"""The process that gets killed: a host under load, which says on its standard output what was acknowledged.

It waits for the store, and goes on when that fails for a while; it ends when another host has the store.

`crash_app.py STORE LOG load ROUND` works until it is killed; `crash_app.py STORE LOG finish` waits for everything
that was ever started, prints what there is, and stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from holdfast import (
    App,
    Client,
    Entity,
    EntityId,
    Host,
    HostConfig,
    Limits,
    LockLostError,
    OrchestrationContext,
    StorageError,
    activity_context,
    when_all,
)
from holdfast.errors import InstanceNotRunningError, OverloadedError, OwnershipLostError, StoreInUseError
from holdfast.model.history import TaskScheduled

app = App()
LOG = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note_start() -> None:
    """Note in the outside world that an activity has started, and for which call."""
    context = activity_context()
    line = json.dumps([context.instance_id, context.execution_id, context.sequence])
    os.write(LOG, f"{line}\n".encode())


@app.activity
async def increment(number: int) -> int:
    note_start()
    await asyncio.sleep(0.002)
    return number + 1


@app.orchestrator
async def chain(ctx: OrchestrationContext, length: int) -> int:
    value = 0
    for _ in range(length):
        value = await ctx.call_activity(increment, value)
    return value


@app.orchestrator
async def fan(ctx: OrchestrationContext, width: int) -> int:
    return sum(await when_all(ctx.call_activity(increment, n) for n in range(width)))


@app.orchestrator
async def family(ctx: OrchestrationContext, width: int) -> list[int]:
    return await when_all(ctx.call_sub_orchestrator(chain, n) for n in range(width))


@app.orchestrator
async def race(ctx: OrchestrationContext, milliseconds: int) -> str:
    try:
        return await ctx.wait_for_external_event("go", timeout=timedelta(milliseconds=milliseconds))
    except TimeoutError:
        return await ctx.wait_for_external_event("go")


@app.entity
@dataclass
class Tally(Entity):
    total: int = 0

    def add(self, amount: int) -> int:
        self.total += amount
        return self.total


@app.orchestrator
async def transfer(ctx: OrchestrationContext, amount: int) -> int:
    source, target = EntityId(Tally, "source"), EntityId(Tally, "target")
    async with ctx.lock(source, target):
        await ctx.call_entity(source, Tally.add, -amount)
        await ctx.call_entity(target, Tally.add, amount)
    return amount


ACCOUNTS = [EntityId(Tally, key) for key in ("ann", "bob", "cyd", "dan")]


def two_accounts(number: int) -> tuple[EntityId[Tally], EntityId[Tally]]:
    source = number % 4
    return ACCOUNTS[source], ACCOUNTS[(source + 1 + number // 4 % 3) % 4]


@app.orchestrator
async def payment(ctx: OrchestrationContext, number: int) -> list[object]:
    """Move money, whose locks may come late, or be over in between; return from where to where, and how much."""
    source, target = two_accounts(number)
    is_taken, patience = False, timedelta(milliseconds=50)
    while True:
        try:
            async with ctx.lock(source, target, timeout=patience, lease=timedelta(milliseconds=20)):
                await ctx.call_entity(source, Tally.add, -number)
                is_taken = True
                await ctx.call_activity(increment, number)
                await ctx.call_entity(target, Tally.add, number)
            return [source.key, target.key, number]
        except TimeoutError:
            patience *= 2  # they are many; if none waited any longer, nobody would get anywhere
        except LockLostError:
            if is_taken:
                await ctx.call_entity(source, Tally.add, number)
            return [source.key, target.key, 0]


@app.orchestrator
async def doomed(ctx: OrchestrationContext, number: int) -> None:
    """Hold locks, some for too long, until it is terminated."""
    async with ctx.lock(*two_accounts(number), lease=timedelta(milliseconds=1 + number % 40)):
        await ctx.wait_for_external_event("never")


WORK = [(chain, 4), (fan, 6), (family, 3), (transfer, 1)]
EXPECTED = {"chain": 4, "fan": 21, "family": [0, 1, 2], "transfer": 1, "race": "now"}


def say(*words: object) -> None:
    print(*words, flush=True)


@asynccontextmanager
async def unless_the_store_fails() -> AsyncGenerator[None]:
    """Go on with something else then, after a while: whether what was asked for is stored is not known."""
    try:
        yield
    except OwnershipLostError:
        raise
    except (StorageError, OverloadedError):
        await asyncio.sleep(0.02)


async def load(client: Client, round_name: str) -> None:
    async def start_orchestrations(worker: int) -> None:
        for number in itertools.count():
            orchestrator, value = WORK[(worker + number) % len(WORK)]
            instance_id = f"{orchestrator.name}-{round_name}-{worker}-{number}"
            say("try", instance_id)
            async with unless_the_store_fails():
                await client.start_new(orchestrator.name, value, instance_id=instance_id)
                say("ack", instance_id)

    async def raise_events() -> None:
        for number in itertools.count():
            instance_id = f"race-{round_name}-{number}"
            say("try", instance_id)
            async with unless_the_store_fails():
                await client.start_new(race, 5, instance_id=instance_id)
                await asyncio.sleep(0.004)
                await client.raise_event(instance_id, "go", "now")
                say("ack", instance_id)

    async def pay() -> None:
        for number in itertools.count(1):
            instance_id = f"payment-{round_name}-{number}"
            say("try", instance_id)
            async with unless_the_store_fails():
                await client.start_new(payment, number, instance_id=instance_id)
                say("ack", instance_id)
            await asyncio.sleep(0.005)

    async def lock_and_end() -> None:
        for number in itertools.count(1):
            instance_id = f"doomed-{round_name}-{number}"
            say("try", instance_id)
            async with unless_the_store_fails():
                await client.start_new(doomed, number, instance_id=instance_id)
                await asyncio.sleep(0.003 * (number % 5))
                await client.terminate(instance_id)
                say("ack", instance_id)

    async def signal() -> None:
        while True:
            say("try", "signal")
            async with unless_the_store_fails():
                await client.signal_entity(EntityId(Tally, "signals"), Tally.add, 1)
                say("ack", "signal")

    await asyncio.gather(
        *(start_orchestrations(worker) for worker in range(4)), raise_events(), pay(), lock_and_end(), signal()
    )


async def end_doomed(client: Client, asked: list[tuple[str, bool]]) -> dict[str, object]:
    """Terminate those that nobody came to terminate; return how those have ended that somebody did."""
    ended: dict[str, object] = {}
    for instance_id, must_have_ended in asked:
        status = await client.get_status(instance_id)
        if not instance_id.startswith("doomed") or status is None:
            continue
        if must_have_ended:  # soon: what was acknowledged may have to be taken in yet
            status = await client.wait_until_stopped(instance_id, timeout=timedelta(seconds=30))
        elif not status.runtime_status.is_terminal:
            with contextlib.suppress(InstanceNotRunningError):  # as somebody came, whose request is taken in just now
                await client.terminate(instance_id)
        ended[instance_id] = status.runtime_status.value if must_have_ended else "Terminated"
    return ended


async def still_locked(client: Client) -> list[str]:
    """Wait until no entity is locked; return those that still are, for ever it seems."""
    for _ in range(1_000):
        locked = [str(each.entity_id) async for each in client.iterate_entities() if each.lock is not None]
        if not locked:
            return []
        await asyncio.sleep(0.01)
    return locked


async def finish(host: Host) -> None:
    """Read ids from standard input; print the result of each, the entities, and every scheduled activity."""
    client = host.client
    asked = json.loads(sys.stdin.readline())
    results = await end_doomed(client, asked)
    scheduled: list[tuple[str, str, int]] = []
    for instance_id, must_end in asked:
        if instance_id.startswith("doomed"):
            continue
        status = await client.get_status(instance_id)
        if status is None:
            continue
        if must_end or not instance_id.startswith("race"):
            results[instance_id] = await client.wait_for_completion(instance_id, timeout=timedelta(seconds=30))
        execution_id = status.state.execution_id
        owners = [(instance_id, execution_id)]
        if instance_id.startswith("family"):
            for n in range(3):
                child = await client.get_status(f"{execution_id}:{n}")
                if child is not None:
                    owners.append((child.instance_id, child.state.execution_id))
        for owner, execution in owners:
            history = await client.get_history(owner)
            scheduled += [(owner, execution, event.event_id) for event in history if isinstance(event, TaskScheduled)]
    totals: dict[str, int] = {}
    for key in ("signals", "source", "target", *(account.key for account in ACCOUNTS)):
        tally = await client.read_entity_state(EntityId(Tally, key))
        totals[key] = tally.total if tally else 0
    say(
        json.dumps({"results": results, "totals": totals, "scheduled": scheduled, "locked": await still_locked(client)})
    )


async def main() -> None:
    # Kills come so fast here that the innocent would be suspected of them.
    config = HostConfig(limits=Limits(deliveries_max=1_000_000), renew_s=0.3)
    is_ready = False
    while True:
        try:
            async with app.host(sys.argv[1], config=config) as host:
                is_ready = True
                say("ready")
                if sys.argv[3] == "load":
                    await load(host.client, sys.argv[4])
                else:
                    await finish(host)
                return
        except StoreInUseError:
            if is_ready:
                raise
            await asyncio.sleep(0.05)


if __name__ == "__main__":
    asyncio.run(main())
