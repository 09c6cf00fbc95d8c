"""Idempotency keys of operations: requests with one key have one effect, and equal answers."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from engine_kit import SOON, FailingStore, Run, until
from entity_kit import MakeStore, Outside, entries, has_entries, ledger, make_entities, note, on

from holdfast import EntitySignal, HostConfig, Limits, StorageError, TaskFailedError
from holdfast.storage.memory import MemoryData, MemoryStore


def test_requests_with_one_key_have_one_effect_and_equal_answers(make_store: MakeStore) -> None:
    """Also after the host has been started again; a failure is an answer, too."""

    async def scenario(run: Run) -> None:
        for _ in range(3):
            assert await run.client.call_entity(ledger("a"), "note", "called", key="call", timeout=SOON) == 1
            await run.client.signal_entity(ledger("a"), "note", "signalled", key="signal")
            with pytest.raises(ValueError, match="not this") as failed:
                await run.client.call_entity(ledger("a"), "note_and_fail", "this", key="fail", timeout=SOON)
            assert isinstance(failed.value, TaskFailedError)
        assert await run.client.call_entity(ledger("b"), "note", "another entity", key="call", timeout=SOON) == 1
        assert await entries(run, "a") == ["called", "signalled"]

    on(make_store(), make_entities(), scenario)
    on(make_store(), make_entities(), scenario)


def test_a_repetition_while_the_first_request_waits_gets_its_answer(make_store: MakeStore) -> None:
    """Whether it comes while the first one runs, or before; and also on the next host."""
    outside, before = Outside(), Outside()

    async def gives_up(run: Run) -> None:
        call = asyncio.create_task(run.client.call_entity(ledger("a"), "wait", 1, key="k"))
        await until(lambda: bool(before.seen))
        call.cancel()

    async def asks_again(run: Run) -> None:
        calls = [asyncio.create_task(run.client.call_entity(ledger("a"), "wait", n, key="k")) for n in (1, 2)]
        await run.client.signal_entity(ledger("a"), "wait", 3, key="k")
        await until(lambda: bool(outside.seen))
        calls += [asyncio.create_task(run.client.call_entity(ledger("a"), "wait", 4, key="k"))]
        await run.client.signal_entity(ledger("b"), "note", "so that the calls have arrived")
        outside.gate.set()
        async with asyncio.timeout(SOON.total_seconds()):
            assert await asyncio.gather(*calls) == [1, 1, 1]
        assert await entries(run, "a") == [1]

    on(make_store(), make_entities(before), gives_up)
    on(make_store(), make_entities(outside), asks_again)


def test_a_call_whose_key_a_waiting_signal_has_is_answered_once_that_has_run() -> None:
    outside = Outside()

    async def scenario(run: Run) -> None:
        await run.client.signal_entity(ledger("a"), "wait", 1, key="k")
        call = asyncio.create_task(run.client.call_entity(ledger("a"), "wait", 2, key="k"))
        await until(lambda: bool(outside.seen))
        await run.client.signal_entity(ledger("b"), "note", "so that the call has arrived")
        outside.gate.set()
        async with asyncio.timeout(SOON.total_seconds()):
            await call
        assert await entries(run, "a") == [1]

    on(MemoryStore(), make_entities(outside), scenario)


def test_a_call_whose_key_a_scheduled_signal_has_is_answered_once_that_has_run(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        await run.client.signal_entity(ledger("a"), "note", "later", key="k", due=timedelta(milliseconds=100))
        assert await run.client.call_entity(ledger("a"), "note", "now", key="k", timeout=SOON) == 1
        assert await run.client.call_entity(ledger("a"), "note", "again", key="k", timeout=SOON) == 1
        assert await entries(run, "a") == ["later"]

    on(make_store(), make_entities(), scenario)


def test_scheduled_signals_with_one_key_are_one(make_store: MakeStore) -> None:
    """The first one counts, due or not; it is known before it has run, and after the host was started again."""
    soon = timedelta(milliseconds=300)

    async def sends(run: Run) -> None:
        for what in ("first", "second"):
            await run.client.signal_entity(ledger("a"), "note", what, due=soon, key="k")

    async def sends_again(run: Run) -> None:
        await run.client.signal_entity(ledger("a"), "note", "at once", key="k")
        await run.client.signal_many([note("a", "third", due=soon, key="k"), note("a", "last", due=2 * soon)])
        await has_entries(run, "a", ["first", "last"])

    on(make_store(), make_entities(), sends)
    on(make_store(), make_entities(), sends_again)


@pytest.mark.parametrize("together", [True, False])
def test_the_oldest_keys_are_forgotten(together: bool) -> None:
    """Whether the requests run in one batch, which may have more keys than are remembered, or one by one."""
    data, config = MemoryData(), HostConfig(limits=Limits(entity_keys_max=2))
    signals = [note("a", n, key=f"k{n}") for n in range(5)]

    async def scenario(run: Run) -> None:
        if together:
            await run.client.signal_many(signals)
        else:
            for n in range(5):
                await run.client.call_entity(ledger("a"), "note", n, key=f"k{n}", timeout=SOON)
        await has_entries(run, "a", [0, 1, 2, 3, 4])
        assert sorted(key for _, key in data.operation_keys) == ["k3", "k4"]

    async def again(run: Run) -> None:
        await run.client.signal_many([note("a", "known", key="k4"), note("a", "forgotten", key="k1")])
        await has_entries(run, "a", [0, 1, 2, 3, 4, "forgotten"])

    on(MemoryStore(data), make_entities(), scenario, config)
    on(MemoryStore(data), make_entities(), again, config)


def test_keys_of_scheduled_signals_are_bounded_once_they_have_run() -> None:
    data, config = MemoryData(), HostConfig(limits=Limits(entity_keys_max=2))

    async def scenario(run: Run) -> None:
        for n in range(5):
            await run.client.signal_entity(ledger("a"), "note", n, key=f"k{n}", due=timedelta(milliseconds=200))
        await until(lambda: len(data.timers) == 5)
        assert len(data.operation_keys) == 5
        await until(lambda: not data.timers)
        await run.client.call_entity(ledger("a"), "note", 5)
        assert sorted(key for _, key in data.operation_keys) == ["k3", "k4"]

    on(MemoryStore(data), make_entities(), scenario, config)


def test_a_deleted_entity_knows_its_keys_and_a_cleaned_one_does_not(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        for _ in range(2):
            await run.client.call_entity(ledger("a"), "note", 1, key="k", timeout=SOON)
            await run.client.call_entity(ledger("a"), "delete", timeout=SOON)
        await run.client.call_entity(ledger("a"), "note", 1, key="k", timeout=SOON)
        assert await run.client.read_entity_state(ledger("a")) is None
        cleaned = await run.client.clean_entities(idle_for=timedelta(0))
        assert cleaned.empty_entities_removed == 1
        assert await run.client.call_entity(ledger("a"), "note", 2, key="k", timeout=SOON) == 1
        assert await entries(run, "a") == [2]

    on(make_store(), make_entities(), scenario)


def test_a_key_that_was_not_stored_is_not_remembered() -> None:
    failing = FailingStore(MemoryStore())

    async def scenario(run: Run) -> None:
        await run.client.call_entity(ledger("a"), "note", 0)
        for how in ("before", "unknown, not applied", "unknown, applied"):
            failing.fail_at[failing.commits + 1] = how
            with pytest.raises(StorageError):
                await run.client.signal_entity(ledger("a"), "note", how, key=how)
            await until(lambda: run.engine.is_ready)
            await run.client.signal_entity(ledger("a"), "note", how, key=how)
        await has_entries(run, "a", [0, "before", "unknown, not applied", "unknown, applied"])

    on(failing, make_entities(), scenario)


def test_keys_count_within_one_request() -> None:
    async def scenario(run: Run) -> None:
        await run.client.signal_many([note("a", 1, key="k"), note("b", 1, key="k"), note("a", 2, key="k")])
        await run.client.signal_many([EntitySignal(ledger("a"), "note", 3)])
        await has_entries(run, "a", [1, 3])
        await has_entries(run, "b", [1])

    on(MemoryStore(), make_entities(), scenario)
