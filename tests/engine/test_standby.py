"""A host that waits for the place of another one."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from engine_kit import SOON, World, make_app, running, until
from test_orchestrations import MakeStore

from holdfast import ConfigurationError, HostConfig, OverloadedError
from holdfast.engine.confirmations import Confirmations
from holdfast.errors import StorageError, StoreInUseError
from holdfast.storage.memory import MemoryStore
from holdfast.storage.port import Fence, Ownership


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


class Unreachable(MemoryStore):
    """A store with a lease of a fifth of a second, which cannot be asked about it while `is_cut`."""

    is_cut = False

    async def acquire(self, now: int, *, after_crash: bool | None = None, suspect_deliveries: int = 3) -> Ownership:
        if self.is_cut:
            raise StorageError("It cannot be reached.")
        owned = await super().acquire(now, after_crash=after_crash, suspect_deliveries=suspect_deliveries)
        return msgspec.structs.replace(owned, lease_s=0.2)

    async def renew(self, fence: Fence) -> None:
        if self.is_cut:
            raise StorageError("It cannot be reached.")
        await super().renew(fence)


def test_a_host_that_cannot_renew_its_lease_takes_its_hands_off_before_another_one_begins() -> None:
    async def scenario() -> None:
        store = Unreachable()
        async with running(make_app(World()), store, HostConfig(drain_s=0.2, renew_s=0.05)) as run:
            handle = await run.client.start_new("events", 1)
            node = run.engine.node
            store.is_cut = True
            await until(lambda: node.is_abandoned)
            with pytest.raises(OverloadedError, match="recovering"):
                await handle.raise_event("e", 1)
            store.is_cut = False
            await until(lambda: run.engine.is_ready)
            await handle.raise_event("e", 1)
            assert await handle.wait_for_completion(timeout=SOON) == [1]

    asyncio.run(scenario())


def test_a_lease_that_is_over_before_it_is_renewed_is_refused() -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigurationError, match="Set renew_s to a third"):
            async with running(make_app(World()), Unreachable(), HostConfig(renew_s=0.11)):
                pass

    asyncio.run(scenario())


def test_a_standby_waits_for_a_store_that_cannot_be_reached() -> None:
    async def scenario() -> None:
        store = Unreachable()
        store.is_cut = True
        asyncio.get_running_loop().call_later(0.05, setattr, store, "is_cut", False)
        async with running(make_app(World()), store, HostConfig(renew_s=0.05, standby_s=60)) as run:
            await run.client.start_new("events", 1)

    asyncio.run(scenario())


def test_one_question_is_asked_for_all_who_came_before_it() -> None:
    async def scenario() -> None:
        questions: list[asyncio.Future[None]] = []

        def ask() -> asyncio.Future[None]:
            questions.append(asyncio.get_running_loop().create_future())
            return questions[-1]

        confirmations = Confirmations(ask)
        early = [asyncio.create_task(confirmations.confirm()) for _ in range(3)]
        await until(lambda: len(questions) == 1)
        late = [asyncio.create_task(confirmations.confirm()) for _ in range(3)]
        early[0].cancel()
        questions[0].set_result(None)
        await until(lambda: len(questions) == 2)
        assert [each.cancelled() or each.exception() for each in early] == [True, None, None]
        assert not any(each.done() for each in late), "the first question was asked before they came"
        questions[1].set_exception(StorageError("It cannot be said."))
        assert [type(error) for error in await asyncio.gather(*late, return_exceptions=True)] == [StorageError] * 3
        again = asyncio.create_task(confirmations.confirm())
        await until(lambda: len(questions) == 3)
        questions[2].set_result(None)
        await again

    asyncio.run(scenario())
