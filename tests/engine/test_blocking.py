"""Whoever keeps the whole host waiting is named, with what to do instead."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

import pytest
from engine_kit import SOON, Run
from entity_kit import on

from holdfast import App, Entity, EntityId, OrchestrationContext
from holdfast.engine import blocking
from holdfast.storage.memory import MemoryStore


def test_code_that_blocks_the_loop_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(blocking, "BLOCKED_S", 0.05)
    app = App()

    @app.activity
    async def busy(_: None) -> None:
        time.sleep(0.1)  # noqa: ASYNC251 - that is what it is about

    @app.activity
    async def busy_later(_: None) -> None:
        await asyncio.sleep(0.001)
        time.sleep(0.1)  # noqa: ASYNC251

    @app.activity
    def patient(_: None) -> None:
        time.sleep(0.1)

    @app.entity
    @dataclass
    class Slow(Entity):
        def work(self) -> None:
            time.sleep(0.1)

    @app.orchestrator
    async def calls(ctx: OrchestrationContext) -> None:
        for activity in (busy, busy_later, patient):
            await ctx.call_activity(activity, None)

    @app.orchestrator
    async def computes(ctx: OrchestrationContext) -> None:
        time.sleep(0.1)  # noqa: ASYNC251

    async def scenario(run: Run) -> None:
        for orchestrator in (calls, computes):
            await (await run.client.start_new(orchestrator)).wait_for_completion(timeout=SOON)
        await run.client.call_entity(EntityId(Slow, "a"), Slow.work, timeout=SOON)

    with caplog.at_level(logging.WARNING, "holdfast.engine"):
        on(MemoryStore(), app, scenario)
    told = [text for record in caplog.records if "has kept the whole host waiting" in (text := record.getMessage())]
    assert [text.partition(" has kept")[0] for text in told] == [
        "Activity 'busy', which is `async def`,",
        "Activity 'busy_later', which is `async def`,",
        "Orchestrator 'computes'",
        "A plain operation of entity @slow@a",
    ]
    assert [text.rpartition("; ")[2] for text in told] == [
        *["write it as a plain `def`, which runs in a thread."] * 2,
        "let an activity do what takes long.",
        "write what takes long as `async def`, or let an activity do it.",
    ]
