"""Batches of operations: what is stored together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from engine_kit import Run, until
from test_orchestrations import on

from holdfast import App, Entity, EntityId
from holdfast.storage.port import Store

MakeStore = Callable[[], Store]


def test_each_async_operation_is_stored_before_the_next_one_begins(make_store: MakeStore) -> None:
    """Else the first caller would wait for all that stand behind, and a crash would let all of them run again."""
    app, begun = App(), list[str]()

    @app.entity
    @dataclass
    class Mail(Entity):
        sent: int = 0

        async def send(self, text: str) -> int:
            begun.append(text)
            if begun == ["first", "second"]:
                await asyncio.Event().wait()
            self.sent += 1
            return self.sent

    mail = EntityId(Mail, "a")

    async def first(run: Run) -> None:
        answers = [asyncio.create_task(run.client.call_entity(mail, Mail.send, text)) for text in ("first", "second")]
        await until(lambda: begun == ["first", "second"])
        assert await answers[0] == 1
        answers[1].cancel()

    async def then(run: Run) -> None:
        assert await run.client.call_entity(mail, Mail.send, "third") == 3

    on(make_store(), app, first)
    on(make_store(), app, then)
    assert begun == ["first", "second", "second", "third"]
