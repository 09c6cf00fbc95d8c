"""Asking a live orchestration something, and asking it to change: what is told is durable, and happens once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from engine_kit import SOON, FailingStore, Run, SlowStore, eventually
from test_orchestrations import on

from holdfast import (
    App,
    HostConfig,
    InstanceNotFoundError,
    InstanceNotRunningError,
    OrchestrationContext,
    QueryFailedError,
    TaskFailedError,
    UpdateRejectedError,
    WaitTimeoutError,
)
from holdfast.errors import CommitFailedError
from holdfast.storage.memory import MemoryStore
from holdfast.storage.port import Store

MakeStore = Callable[[], Store]


def make_app() -> App:
    app = App()

    @app.activity
    async def price(item: str) -> int:
        return len(item)

    @app.orchestrator
    async def cart(ctx: OrchestrationContext) -> dict[str, int]:
        items: dict[str, int] = {}

        def check(item: str) -> None:
            if item in items:
                raise ValueError(f"{item} is in the cart already")

        async def add(item: str) -> int:
            items[item] = await ctx.call_activity(price, item)
            return len(items)

        def remove(item: str) -> int:
            return items.pop(item)

        ctx.set_query_handler("items", lambda: items)
        ctx.set_query_handler("price", lambda item: items[item])
        ctx.set_query_handler("cheating", lambda: ctx.call_activity(price, "x"))
        ctx.set_update_handler("add", add, validator=check)
        ctx.set_update_handler("remove", remove)
        await ctx.wait_for_external_event("checkout")
        return items

    @app.orchestrator
    async def hesitant(ctx: OrchestrationContext) -> None:
        async def never() -> None:
            await ctx.wait_for_external_event("never")

        ctx.set_update_handler("never", never)
        await ctx.wait_for_external_event("go")

    return app


def test_updates_have_an_effect_and_a_reply_and_queries_see_it(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("cart", instance_id="c")
        assert await handle.update("add", "apple") == 1
        assert await handle.update("ADD", "fig") == 2
        assert await handle.query("items") == {"apple": 5, "fig": 3}
        assert await handle.query("price", "fig") == 3
        assert await handle.update("remove", "apple") == 5
        await handle.raise_event("checkout")
        assert await handle.wait_for_completion(timeout=SOON) == {"fig": 3}

    on(make_store(), make_app(), scenario)


def test_a_query_and_an_update_bring_an_instance_back_that_was_unloaded(make_store: MakeStore) -> None:
    async def first(run: Run) -> None:
        handle = await run.client.start_new("cart", instance_id="c")
        await handle.update("add", "apple")

    async def then(run: Run) -> None:
        assert await run.client.query("c", "items") == {"apple": 5}
        assert await run.client.update("c", "add", "fig") == 2
        await run.client.raise_event("c", "checkout")
        assert await run.client.wait_for_completion("c", timeout=SOON) == {"apple": 5, "fig": 3}

    app = make_app()
    on(make_store(), app, first)
    on(make_store(), app, then, HostConfig(drain_s=0.2, cache_bytes_max=1))


def test_a_repeated_update_has_one_effect_and_the_same_answer(make_store: MakeStore) -> None:
    async def first(run: Run) -> None:
        handle = await run.client.start_new("cart", instance_id="c")
        assert await handle.update("add", "apple", update_id="u") == 1
        assert await handle.update("add", "fig") == 2

    async def then(run: Run) -> None:
        assert await run.client.update("c", "add", "apple", update_id="u") == 1
        with pytest.raises(UpdateRejectedError):
            await run.client.update("c", "add", "apple", update_id="another")
        history = await run.client.get_history("c")
        answers = await asyncio.gather(
            *(run.client.update("c", "remove", "fig", update_id="r") for _ in range(5)), return_exceptions=True
        )
        assert answers == [3] * 5
        assert await run.client.query("c", "items") == {"apple": 5}
        assert len(await run.client.get_history("c")) > len(history)

    app = make_app()
    on(make_store(), app, first)
    on(make_store(), app, then)


def test_a_rejected_update_leaves_no_trace(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("cart", instance_id="c")
        await handle.update("add", "apple")
        before = await run.client.get_history("c")
        with pytest.raises(UpdateRejectedError, match="apple is in the cart already"):
            await handle.update("add", "apple")
        with pytest.raises(UpdateRejectedError, match="it has no update handler 'pay'; it has add, remove"):
            await handle.update("pay")
        with pytest.raises(UpdateRejectedError, match="cannot take"):
            await handle.update("add", 7)
        assert await run.client.get_history("c") == before

    on(make_store(), make_app(), scenario)


def test_a_handler_that_raises_fails_the_update_and_not_the_orchestration(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("cart", instance_id="c")
        with pytest.raises(KeyError) as caught:
            await handle.update("remove", "nothing")
        assert isinstance(caught.value, TaskFailedError)
        assert await handle.update("add", "fig") == 1

    on(make_store(), make_app(), scenario)


def test_what_cannot_be_asked_is_said(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        with pytest.raises(InstanceNotFoundError):
            await run.client.query("nobody", "items")
        handle = await run.client.start_new("cart", instance_id="c")
        await handle.update("add", "fig")
        with pytest.raises(QueryFailedError, match="no query handler 'total'; it has cheating, items, price"):
            await handle.query("total")
        with pytest.raises(QueryFailedError, match="used from outside of its orchestrator"):
            await handle.query("cheating")
        with pytest.raises(QueryFailedError, match="apple"):
            await handle.query("price", "apple")
        await handle.raise_event("checkout")
        await handle.wait_for_completion(timeout=SOON)
        with pytest.raises(InstanceNotRunningError):
            await handle.query("items")
        with pytest.raises(InstanceNotRunningError):
            await handle.update("add", "apple")

    on(make_store(), make_app(), scenario)


def test_an_update_waits_no_longer_than_it_is_asked_to_whatever_the_store_does() -> None:
    slow, held = SlowStore(MemoryStore()), asyncio.Event()

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("hesitant")
        slow.before["commit"] = held
        waiting = asyncio.create_task(handle.update("never", update_id="u", timeout=timedelta(milliseconds=20)))
        try:
            async with asyncio.timeout(SOON.total_seconds()):
                await asyncio.wait((waiting,))
        finally:
            held.set()
        with pytest.raises(WaitTimeoutError, match="ask again"):
            await waiting

    on(slow, make_app(), scenario)


def test_an_update_that_is_open_at_the_end_is_answered(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("hesitant")
        with pytest.raises(WaitTimeoutError, match="ask again"):
            await handle.update("never", update_id="u", timeout=timedelta(milliseconds=30))
        waiting = asyncio.create_task(handle.update("never", update_id="u"))
        await asyncio.sleep(0.01)
        await handle.raise_event("go")
        with pytest.raises((TaskFailedError, InstanceNotRunningError)):
            await waiting
        await handle.wait_for_completion(timeout=SOON)

    on(make_store(), make_app(), scenario)


@pytest.mark.parametrize("how", ["before", "unknown, not applied", "unknown, applied"])
@pytest.mark.parametrize("commit", range(1, 5))
def test_a_failed_commit_leaves_no_half_update(make_store: MakeStore, how: str, commit: int) -> None:
    """Whatever fails, asking again with the same id gives the answer of the one time that it was made."""
    store = FailingStore(make_store())

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("cart", instance_id="c")
        await handle.update("add", "first")
        store.fail_at = {store.commits + commit: how}
        answers: list[Any] = []

        async def ask() -> bool:
            try:
                answers.append(await run.client.update("c", "remove", "first", update_id="u", timeout=SOON))
            except (CommitFailedError, InstanceNotFoundError):
                return False
            except Exception as error:
                if "recovering" not in str(error):
                    raise
                return False
            return True

        await eventually(ask)
        assert answers == [5]

        async def emptied() -> bool:
            try:
                return await run.client.query("c", "items") == {}
            except Exception:
                return False

        await eventually(emptied)

    on(store, make_app(), scenario)
