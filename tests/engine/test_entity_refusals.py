"""Bad requests to entities, which are refused where they are made, and the ids that entities can have."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from engine_kit import Run
from entity_kit import SHELF, MakeStore, on, shop

from holdfast import EntityId, EntitySignal, InvalidInputError, NotRegisteredError, PayloadError
from holdfast.errors import InvalidInstanceIdError
from holdfast.storage.memory import MemoryData, MemoryStore

BAD: list[tuple[Any, Any, tuple[Any, ...], type[Exception]]] = [
    (SHELF, "nothing", (), InvalidInputError),
    (SHELF, "initialize", (), InvalidInputError),
    (SHELF, "_hidden", (), InvalidInputError),
    (SHELF, "", (), InvalidInputError),
    (SHELF, "a" * 300, (), InvalidInputError),
    (SHELF, 5, (), InvalidInputError),
    (SHELF, "add", (), PayloadError),
    (SHELF, "add", ("one",), PayloadError),
    (SHELF, "add", (object(),), PayloadError),
    (SHELF, "take", (1,), PayloadError),
    (EntityId("plain", "a"), "any", ("one",), PayloadError),
    (EntityId("plain", "a"), "any", (), PayloadError),
    (EntityId("unknown", "a"), "add", (1,), NotRegisteredError),
    ("@shelf@a", "add", (1,), InvalidInputError),
    (None, "add", (1,), InvalidInputError),
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_requests_are_refused_before_anything_is_stored(number: int) -> None:
    """Also if they are one of many: then none of these is stored."""
    entity, operation, inputs, error = BAD[number]
    data = MemoryData()

    async def scenario(run: Run) -> None:
        client: Any = run.client
        lsn = data.lsn
        for request in (client.call_entity, client.signal_entity):
            with pytest.raises(error):
                await request(entity, operation, *inputs)
        many = [EntitySignal(SHELF, "add", 1), EntitySignal(entity, operation, *inputs), EntitySignal(SHELF, "add", 2)]
        with pytest.raises(error):
            await client.signal_many(many)
        assert data.lsn == lsn

    on(MemoryStore(data), shop(), scenario)


def test_keys_of_requests_and_instants_are_checked() -> None:
    data = MemoryData()

    async def scenario(run: Run) -> None:
        options: list[dict[str, Any]] = [{"key": key} for key in ("", "k" * 257, "\ud800", 5)]
        options += [{"due": due} for due in (5, datetime(2030, 1, 1), timedelta.max)]  # noqa: DTZ001 - it is refused
        for each in options:
            with pytest.raises(InvalidInputError):
                await run.client.signal_entity(SHELF, "add", 1, **each)
        assert data.lsn == 0

    on(MemoryStore(data), shop(), scenario)


@pytest.mark.parametrize("key", ["a@b", "@", "two words", "🐝", "Ä" * 200])
def test_keys_of_entities_can_be_any_printable_text(make_store: MakeStore, key: str) -> None:
    async def scenario(run: Run) -> None:
        await run.client.signal_entity(EntityId("Shelf", key), "add", 1)
        assert await run.client.call_entity(EntityId("shelf", key), "add", 2) == f"{key}: [1, 2]"
        assert [each.entity_id.key async for each in run.client.iterate_entities()] == [key]

    on(make_store(), shop(), scenario)


@pytest.mark.parametrize("key", ["", "a/b", "a\\b", "a?", "a#", "\ud800", "line\n", "k" * 1_000, 5, None])
def test_other_keys_are_refused(key: Any) -> None:
    with pytest.raises(InvalidInstanceIdError):
        EntityId("shelf", key)
