"""Who is suspected of killing the process: what runs, and not what only waits beside it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import msgspec
from engine_kit import SOON, World, make_app, running
from entity_kit import ledger

from holdfast import App, Entity, EntityId, OrchestrationContext
from holdfast.engine.suspects import SUSPECT_DELIVERIES
from holdfast.storage.memory import MemoryData, MemoryStore

LEDGER = ledger("x")


def make_waiting() -> App:
    app = make_app(World())

    @app.entity
    @dataclass
    class Ledger(Entity):
        def note(self, what: str) -> None: ...

    @app.orchestrator
    async def hold(ctx: OrchestrationContext) -> None:
        async with ctx.lock(EntityId(Ledger, "x")):
            await ctx.wait_for_external_event("go")

    return app


def test_what_cannot_run_is_not_counted_as_running() -> None:
    """It was counted at each death beside the guilty one, and parked in the end, while it had not run at all."""

    async def scenario() -> None:
        data = MemoryData()
        async with running(make_waiting(), MemoryStore(data)) as run:
            await run.client.start_new("events", 1, instance_id="suspended")
            await run.client.suspend("suspended")
            await run.client.raise_event("suspended", "e", 1)
            await run.client.start_new("hold", instance_id="holder")
            while (entity := await run.client.get_entity(LEDGER)) is None or entity.lock is None:
                await asyncio.sleep(0.001)
            await run.client.signal_entity(LEDGER, "note", "once it is free")
            await run.client.start_new("events", 1, instance_id="counted")
        deaths = {"suspended": SUSPECT_DELIVERIES, LEDGER.instance_id: SUSPECT_DELIVERIES, "counted": 1}
        for instance_id, deliveries in deaths.items():
            row = data.instances[instance_id]
            data.instances[instance_id] = msgspec.structs.replace(row, deliveries=deliveries)
        async with running(make_waiting(), MemoryStore(data)) as run:
            await run.client.raise_event("counted", "e", 1)  # it goes on once no suspect is left
            assert await run.client.wait_for_completion("counted", timeout=SOON) == [1]
            for instance_id in ("suspended", LEDGER.instance_id):
                assert data.instances[instance_id].deliveries == SUSPECT_DELIVERIES, instance_id
            await run.client.resume("suspended")
            assert await run.client.wait_for_completion("suspended", timeout=SOON) == [1]
            await run.client.raise_event("holder", "go")
            await run.client.wait_for_completion("holder", timeout=SOON)
            assert await run.client.call_entity(LEDGER, "note", "after it") is None
            assert data.instances[LEDGER.instance_id].deliveries == 0

    asyncio.run(scenario())
