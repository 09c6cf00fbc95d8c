"""Requests between hosts on PostgreSQL."""

from __future__ import annotations

import asyncio

import pytest

from holdfast.errors import CommitFailedError
from holdfast.storage.mail import NewRequest
from holdfast.storage.open_store import open_store
from postgres_kit import new_schema, private_server


def test_a_request_has_no_id_that_another_one_had_before_the_server_crashed() -> None:
    """A host answered with what an older request had come to, and withdrew newer ones with the older."""

    async def ask(url: str) -> int:
        store = open_store(url)
        try:
            await store.acquire(0)
            assert store.mail is not None
            return (await store.mail.send([NewRequest(0, "m", "{}")]))[0]
        finally:
            await store.close()

    with private_server() as server:
        url = new_schema(server.url)
        before = asyncio.run(ask(url))
        server.crash()
        server.start()
        assert asyncio.run(ask(url)) > before


def test_what_is_told_after_the_end_opens_no_connection(postgres_server: str) -> None:
    async def scenario() -> None:
        store = open_store(new_schema(postgres_server))
        await store.acquire(0)
        assert store.mail is not None
        await store.close()
        with pytest.raises(CommitFailedError, match="has closed it"):
            await store.mail.hint("hosts", ())

    asyncio.run(scenario())
