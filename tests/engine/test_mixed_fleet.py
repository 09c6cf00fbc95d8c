"""Hosts with different code on one hub, as during a deploy: each orchestration runs where its code is, or waits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from engine_kit import SOON, eventually, until
from fleet_kit import PARTITIONS, ids_of, joined, owned_by, shared_by

from holdfast import App, Client, HostConfig, OrchestrationContext, OrchestrationFailedError, OrchestrationStatus
from holdfast.model.ids import partition_of
from postgres_kit import drop, new_schema

BRISK = HostConfig(drain_s=0.2, poll_s=0.1, renew_s=0.1)


@pytest.fixture
def url(postgres_server: str) -> Iterator[str]:
    url = new_schema(postgres_server, partitions=PARTITIONS)
    yield f"{url}&lease_s=3600"
    drop(url)


def make_app(*, is_new: bool) -> App:
    app = App()

    @app.activity
    async def stamp(number: int) -> str:
        return f"{number} by {'new' if is_new else 'old'}"

    @app.orchestrator
    async def known(ctx: OrchestrationContext, numbers: int) -> list[str]:
        return [await ctx.call_activity(stamp, number) for number in range(numbers)]

    async def added(ctx: OrchestrationContext) -> str:
        await ctx.wait_for_external_event("first")
        return await ctx.wait_for_external_event("second")

    @app.orchestrator
    async def asks(ctx: OrchestrationContext, child: str) -> str:
        return await ctx.call_sub_orchestrator("added", instance_id=child)

    @app.orchestrator
    async def asks_for_nothing(ctx: OrchestrationContext) -> str:
        return await ctx.call_sub_orchestrator("nowhere")

    if is_new:
        app.orchestrator(added)
    _ = (known, asks, asks_for_nothing)
    return app


def test_what_only_others_have_waits_untouched_with_and_without_a_past(url: str) -> None:
    async def scenario() -> None:
        async with AsyncExitStack() as stack:
            new = await stack.enter_async_context(joined(make_app(is_new=True), url, BRISK))
            begun = [f"begun-{number}" for number in range(PARTITIONS)]
            for id_ in begun:
                await new.client.start_new("added", instance_id=id_)
                await new.client.raise_event(id_, "first")
            await until(lambda: new.engine.is_quiet)
            async with joined(make_app(is_new=False), url, BRISK) as old:
                await shared_by(new, old)
                fresh = next(ids_of(old, "fresh-"))
                parent = await new.client.start_new("asks", fresh, instance_id=next(ids_of(new, "parent-")))
                await eventually(lambda: _exists(old.client, fresh))
                moved = [id_ for id_ in begun if partition_of(id_, PARTITIONS) in owned_by(old)]
                assert moved
                for id_ in (fresh, *moved):
                    await old.client.raise_event(id_, "first")
                    await old.client.raise_event(id_, "second", "there")
                # What its owner has can overtake all that only waits.
                run = await old.client.start_new("known", 3, instance_id=next(ids_of(old, "k")))
                assert len(await run.wait_for_completion(timeout=SOON)) == 3
                for id_ in (fresh, *moved):
                    status = await old.client.get_status(id_)
                    assert status is not None
                    assert status.parked is None
                    expected = OrchestrationStatus.PENDING if id_ == fresh else OrchestrationStatus.RUNNING
                    assert status.runtime_status is expected
            await shared_by(new)
            for id_ in (fresh, *moved):
                assert await new.client.wait_for_completion(id_, timeout=SOON) == "there"
            assert await parent.wait_for_completion(timeout=SOON) == "there"

    asyncio.run(scenario())


@pytest.mark.parametrize("pooler", ["none", "transaction"])
def test_whoever_has_just_come_is_known_before_anything_fails_for_want_of_its_code(url: str, pooler: str) -> None:
    """Nobody tells behind a pooler, and elsewhere a child could be faster than the word that a host has come."""

    async def scenario() -> None:
        at = f"{url}&pooler={pooler}"
        async with joined(make_app(is_new=False), at, BRISK) as old, joined(make_app(is_new=True), at, BRISK) as new:
            children = [id_ for id_, _ in zip(ids_of(old, "child-"), range(5), strict=False)]
            own = ids_of(new, "parent-")
            for child in children:
                await new.client.start_new("asks", child, instance_id=next(own))
            unknown = await old.client.start_new("asks_for_nothing", instance_id=next(ids_of(old, "unknown-")))
            with pytest.raises(OrchestrationFailedError, match="has no orchestrator 'nowhere'"):
                await unknown.wait_for_completion(timeout=SOON)
            for child in children:
                await eventually(lambda child=child: _exists(new.client, child))
                await old.client.raise_event(child, "first")
                status = await new.client.get_status(child)
                assert status is not None
                assert status.runtime_status is OrchestrationStatus.PENDING

    asyncio.run(scenario())


async def _exists(client: Client, id_: str) -> bool:
    return await client.get_status(id_) is not None


def test_a_deploy_host_by_host_under_load_ends_everything(url: str) -> None:
    """Old hosts go one by one, new ones come; what the new ones have is used as soon as there is one."""

    async def scenario() -> None:
        async with AsyncExitStack() as all_old, AsyncExitStack() as all_new:
            old = [AsyncExitStack() for _ in range(2)]
            for each in old:
                await all_old.enter_async_context(each)
            olds = [await each.enter_async_context(joined(make_app(is_new=False), url, BRISK)) for each in old]
            await shared_by(*olds)
            started = [
                await olds[number % 2].client.start_new("known", 20, instance_id=f"o{number}") for number in range(20)
            ]
            ids = [each.instance_id for each in started]
            news = []
            for number, each in enumerate(old):
                news.append(await all_new.enter_async_context(joined(make_app(is_new=True), url, BRISK)))
                for more in range(10):
                    id_ = f"n{number}-{more}"
                    await news[-1].client.start_new("added", instance_id=id_)
                    for name, value in (("first", None), ("second", "there")):
                        await news[-1].client.raise_event(id_, name, value)
                    ids.append(id_)
                await each.aclose()
            await shared_by(*news)
            for id_ in ids:
                result = await news[0].client.wait_for_completion(id_, timeout=SOON)
                assert result == "there" if id_.startswith("n") else len(result) == 20

    asyncio.run(scenario())
