"""Activities that other hosts of a fleet run: what their owner has no room or no code for; what moves, or is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import msgspec
import pytest
from engine_kit import SOON, until
from fleet_kit import PARTITIONS, ids_of, joined, shared_by

from holdfast import (
    App,
    HostConfig,
    Limits,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationStatus,
    when_all,
)
from postgres_kit import drop, new_schema

BRISK = HostConfig(drain_s=0.2, poll_s=0.1, renew_s=0.1)
ONE_AT_A_TIME = msgspec.structs.replace(BRISK, activities_max=1, activity_queue_max=1)


@pytest.fixture
def url(postgres_server: str) -> Iterator[str]:
    url = new_schema(postgres_server, partitions=PARTITIONS)
    yield f"{url}&lease_s=3600"
    drop(url)


@dataclass
class Host:
    """One app of a host: it notes what it runs, and may be told to wait with it."""

    begun: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self, *, has_work: bool = True) -> App:
        app = App()

        async def work(item: str) -> str:
            self.begun.append(item)
            await self.gate.wait()
            return item

        @app.orchestrator
        async def fan(ctx: OrchestrationContext, items: list[str]) -> list[str]:
            return await when_all(ctx.call_activity("work", item) for item in items)

        if has_work:
            app.activity(work)
        _ = fan
        return app


def items(count: int) -> list[str]:
    return [f"{number}" for number in range(count)]


def test_what_its_owner_has_no_room_for_is_run_by_others_each_taking_what_it_can_begin(url: str) -> None:
    async def scenario() -> None:
        hosts = [Host() for _ in range(3)]
        async with AsyncExitStack() as stack:
            runs = [await stack.enter_async_context(joined(host.app(), url, ONE_AT_A_TIME)) for host in hosts]
            await shared_by(*runs)
            fan = await runs[0].client.start_new("fan", items(30), instance_id=next(ids_of(runs[0])))
            await until(lambda: all(host.begun for host in hosts))
            for host in hosts:
                host.gate.set()
            assert await fan.wait_for_completion(timeout=SOON) == items(30)
            assert Counter(item for host in hosts for item in host.begun) == Counter(items(30)), "each ran once"

    asyncio.run(scenario())


def test_what_its_owner_lacks_is_run_by_a_host_that_has_it(url: str) -> None:
    async def scenario() -> None:
        old, new = Host(), Host()
        new.gate.set()
        async with joined(old.app(has_work=False), url, BRISK) as a, joined(new.app(), url, BRISK) as b:
            await shared_by(a, b)
            for run in (a, b):
                fan = await run.client.start_new("fan", items(3), instance_id=next(ids_of(run)))
                assert await fan.wait_for_completion(timeout=SOON) == items(3)
            assert (old.begun, len(new.begun)) == ([], 6)

    asyncio.run(scenario())


def test_what_no_host_has_fails(url: str) -> None:
    async def scenario() -> None:
        async with (
            joined(Host().app(has_work=False), url, BRISK) as a,
            joined(Host().app(has_work=False), url, BRISK) as b,
        ):
            await shared_by(a, b)
            fan = await a.client.start_new("fan", items(1), instance_id=next(ids_of(a)))
            with pytest.raises(OrchestrationFailedError, match="work"):
                await fan.wait_for_completion(timeout=SOON)

    asyncio.run(scenario())


def test_what_a_host_had_taken_that_dies_runs_again(url: str) -> None:
    async def scenario() -> None:
        owner, dead, other = Host(), Host(), Host()
        other.gate.set()
        async with AsyncExitStack() as stack:
            a = await stack.enter_async_context(joined(owner.app(has_work=False), url, BRISK))
            b = await stack.enter_async_context(joined(dead.app(), url, BRISK))
            await shared_by(a, b)
            fan = await a.client.start_new("fan", items(3), instance_id=next(ids_of(a)))
            await until(lambda: len(dead.begun) == 3)
            await stack.enter_async_context(joined(other.app(), url, BRISK))
            await b.store.close()
            assert await fan.wait_for_completion(timeout=SOON) == items(3)
            assert sorted(other.begun) == items(3)

    asyncio.run(scenario())


def test_what_kills_whoever_takes_it_is_parked(url: str) -> None:
    """It went from one host to the next for ever, and each died of it."""

    async def scenario() -> None:
        config = msgspec.structs.replace(BRISK, limits=Limits(deliveries_max=3))
        async with joined(Host().app(), url, msgspec.structs.replace(config, queues=())) as a:
            fan = await a.client.start_new("fan", items(1), instance_id="deadly")
            for _ in range(3):
                dead = Host()
                async with joined(dead.app(), url, config) as b:
                    await until(lambda dead=dead: len(dead.begun) == 1)
                    await b.store.close()
                    await shared_by(a)
            async with joined(Host().app(), url, config):
                status = await a.client.wait_until_stopped(fan.instance_id, timeout=SOON)
                assert status.runtime_status is OrchestrationStatus.SUSPENDED
                assert status.parked is not None
                assert "activity 'work' was running" in (status.parked.error_message or "")

    asyncio.run(scenario())


def test_what_runs_while_its_partition_moves_runs_once(url: str) -> None:
    async def scenario() -> None:
        first, second = Host(), Host()
        async with AsyncExitStack() as stack:
            a = await stack.enter_async_context(joined(first.app(), url, BRISK))
            ids = [f"moving-{number}" for number in range(PARTITIONS)]
            fans = [await a.client.start_new("fan", [id_], instance_id=id_) for id_ in ids]
            await until(lambda: len(first.begun) == len(ids))
            b = await stack.enter_async_context(joined(second.app(), url, BRISK))
            await shared_by(a, b)
            first.gate.set()
            second.gate.set()
            for fan, id_ in zip(fans, ids, strict=True):
                assert await fan.wait_for_completion(timeout=SOON) == [id_]
            assert (sorted(first.begun), second.begun) == (sorted(ids), [])

    asyncio.run(scenario())
