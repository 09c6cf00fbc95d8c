"""A host that waits for the place of another one."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec
import pytest
from engine_kit import SOON, World, make_app, running, until
from test_orchestrations import MakeStore

from holdfast import ConfigurationError, HostConfig, OverloadedError
from holdfast.engine import culprits
from holdfast.engine.confirmations import Confirmations
from holdfast.errors import StorageError, StoreInUseError
from holdfast.storage.memory import MemoryData, MemoryStore
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


def test_a_host_that_is_no_standby_says_so_that_another_one_is_there(make_store: MakeStore) -> None:
    async def scenario() -> None:
        async with running(make_app(World()), make_store()) as run:
            with pytest.raises(StoreInUseError, match=r"in use|owns"):
                async with running(make_app(World()), make_store(), HostConfig(standby_s=0.01)):
                    pass
            await run.client.start_new("events", 1)

    asyncio.run(scenario())


def test_a_host_does_not_wait_for_a_store_that_cannot_be_shared_unless_it_is_told_to() -> None:
    async def scenario() -> None:
        data = MemoryData()
        async with running(make_app(World()), MemoryStore(data)):
            with pytest.raises(StoreInUseError, match="owns"):
                async with running(make_app(World()), MemoryStore(data)):
                    pass

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


def test_a_store_that_is_away_is_asked_for_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    back_off_s = (0.0, 0.01, 0.05, 0.1)
    monkeypatch.setattr(culprits, "_BACK_OFF_S", back_off_s)

    class Away(Unreachable):
        async def acquire(self, now: int, **options: Any) -> Ownership:
            asked.append(asyncio.get_running_loop().time())
            return await super().acquire(now, **options)

    asked: list[float] = []

    async def scenario() -> None:
        store = Away()
        async with running(make_app(World()), store, HostConfig(drain_s=0.2, renew_s=0.05)) as run:
            node = run.engine.node
            store.is_cut = True
            await until(lambda: len(asked) >= 7)
            assert node.is_abandoned
            store.is_cut = False
            await until(lambda: run.engine.is_ready)

    asyncio.run(scenario())
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    for pause, at_least in zip(pauses[-5:], (*back_off_s[1:], back_off_s[-1], back_off_s[-1]), strict=True):
        assert pause > 0.9 * at_least, pauses


class Silent(Unreachable):
    """One that cannot be asked at all while `is_cut`: whoever does hears nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = self.given_up = 0

    async def renew(self, fence: Fence) -> None:
        if not self.is_cut:
            return await super().renew(fence)
        self.asked += 1
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.given_up += 1


def test_a_host_whose_question_is_never_answered_takes_its_hands_off_too(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        store = Silent()
        async with running(make_app(World()), store, HostConfig(drain_s=0.2, renew_s=0.05)) as run:
            handle = await run.client.start_new("events", 1)
            node = run.engine.node
            store.is_cut = True
            await until(lambda: node.is_abandoned)
            await until(lambda: store.given_up == 1)
            assert store.asked == 1
            store.is_cut = False
            await until(lambda: run.engine.is_ready)
            await handle.raise_event("e", 1)
            assert await handle.wait_for_completion(timeout=SOON) == [1]

    asyncio.run(scenario())
    assert "has not answered" in caplog.text


class Late(MemoryStore):
    """A store without a lease whose first answer comes when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()
        self.asked = self.answered = 0

    async def renew(self, fence: Fence) -> None:
        self.asked += 1
        await self.may_answer.wait()
        await super().renew(fence)
        self.answered += 1


def test_where_there_is_no_lease_an_answer_may_take_long() -> None:
    async def scenario() -> None:
        store = Late()
        async with running(make_app(World()), store, HostConfig(renew_s=0.001)) as run:
            node = run.engine.node
            await until(lambda: store.asked > 0)
            for _ in range(20):
                await asyncio.sleep(0.001)
            assert (store.asked, node.is_abandoned) == (1, False)
            store.may_answer.set()
            await until(lambda: store.answered > 1)
            assert run.engine.node is node

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
