"""A host that waits for the place of another one."""

from __future__ import annotations

import asyncio

import pytest
from engine_kit import SOON, World, make_app, running, until
from test_orchestrations import MakeStore

from holdfast import HostConfig
from holdfast.errors import StoreInUseError


def test_a_standby_goes_on_with_what_the_other_one_has_begun(make_store: MakeStore) -> None:
    async def stand_by() -> object:
        async with running(make_app(World()), make_store(), HostConfig(drain_s=0.2, standby_s=60)) as run:
            await run.client.raise_event("i", "e", "late")
            return await run.client.wait_for_completion("i", timeout=SOON)

    async def scenario() -> None:
        async with running(make_app(World()), make_store()) as run:
            await run.client.start_new("events", 2, instance_id="i")
            waiting = asyncio.create_task(stand_by())
            await run.client.raise_event("i", "e", "early")
            await until(lambda: run.engine.is_quiet)
            assert not waiting.done()
        assert await waiting == ["early", "late"]

    asyncio.run(scenario())


@pytest.mark.parametrize("standby_s", [None, 0.01])
def test_a_host_that_is_no_standby_says_so_that_another_one_is_there(
    make_store: MakeStore, standby_s: float | None
) -> None:
    async def scenario() -> None:
        async with running(make_app(World()), make_store()) as run:
            with pytest.raises(StoreInUseError, match=r"in use|owns"):
                async with running(make_app(World()), make_store(), HostConfig(standby_s=standby_s)):
                    pass
            await run.client.start_new("events", 1)

    asyncio.run(scenario())
