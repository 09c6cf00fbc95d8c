"""What the tests of entities share: an app of entities, and a way to run a scenario on a host with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from engine_kit import Run, eventually, running

from holdfast import (
    App,
    Entity,
    EntityContext,
    EntityId,
    EntitySignal,
    HostConfig,
    OrchestrationContext,
    TaskFailedError,
    entity_context,
)
from holdfast.engine.clock import Clock
from holdfast.storage.port import Store

MakeStore = Callable[[], Store]


def on(
    store: Store,
    app: App,
    scenario: Callable[[Run], Coroutine[Any, Any, Any]],
    config: HostConfig | None = None,
    clock: Clock | None = None,
) -> Any:
    async def main() -> Any:
        async with running(app, store, config, clock) as run:
            return await scenario(run)

    return asyncio.run(main())


@dataclass
class Outside:
    """The world outside of the entities: what their async operations did, and may do next."""

    seen: list[Any] = field(default_factory=list)
    cancelled: list[Any] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)


def ledger(key: str) -> EntityId[Any]:
    """The entity that writes down what happens to it."""
    return EntityId("ledger", key)


def cell(key: str) -> EntityId[Any]:
    """The entity function that holds any value."""
    return EntityId("cell", key)


async def entries(run: Run, key: str) -> list[Any]:
    """Return what is committed of what a ledger has written down."""
    state: Any = await run.client.read_entity_state(ledger(key))
    return [] if state is None else state["entries"]


async def has_entries(run: Run, key: str, expected: list[Any]) -> None:
    """Wait until a ledger has as many entries as expected, and check that they are those."""

    async def there() -> bool:
        return len(await entries(run, key)) >= len(expected)

    await eventually(there)
    assert await entries(run, key) == expected


def note(to: str, what: Any, **options: Any) -> EntitySignal:
    return EntitySignal(ledger(to), "note", what, **options)


def make_entities(outside: Outside | None = None) -> App:
    app, world = App(), outside or Outside()

    @app.entity
    @dataclass
    class Ledger(Entity):
        entries: list[Any] = field(default_factory=list)

        def note(self, what: Any) -> int:
            self.entries.append(what)
            return len(self.entries)

        def note_and_fail(self, what: Any) -> None:
            self.entries.append(what)
            raise ValueError(f"not {what}")

        def pass_on(self, to: list[Any]) -> None:
            """Signal another entity, or start an orchestration; fail if asked to."""
            key, what, fails = to
            self.entries.append(what)
            context = entity_context()
            context.signal_entity(ledger(key), "note", what)
            context.start_orchestration("notes", [key, f"started by {what}"], instance_id=f"of {what}")
            if fails:
                raise ValueError("after all was asked for")

        async def wait(self, what: Any) -> int:
            world.seen.append((what, entity_context().request_id))
            self.entries.append(what)
            try:
                await world.gate.wait()
            except asyncio.CancelledError:
                world.cancelled.append(what)
                raise
            return len(self.entries)

    @app.entity
    def cell(ctx: EntityContext) -> Any:
        match ctx.operation_name:
            case "set":
                ctx.set_state(ctx.get_input())
            case "get":
                return [ctx.has_state, ctx.get_state(lambda: "nothing")]
            case "delete":
                ctx.delete_state()
            case _:
                raise ValueError(f"A cell cannot {ctx.operation_name}.")
        return None

    @app.orchestrator
    async def notes(ctx: OrchestrationContext, what: list[str]) -> int:
        return await ctx.call_entity(ledger(what[0]), "note", what[1])

    _ = (Ledger, cell, notes)
    return app


class OutOfStockError(Exception):
    """An error of the user's own."""


def shop() -> App:
    app = App()

    @app.entity
    @dataclass
    class Shelf(Entity):
        """Its operations do what operations should not."""

        owner: str = ""
        items: Any = field(default_factory=list)

        def initialize(self) -> None:
            self.owner = entity_context().entity_id.key

        def add(self, count: int, /) -> str:
            self.items.append(count)
            return f"{self.owner}: {self.items}"

        def maybe(self, count: int = 7) -> str:
            return self.add(count)

        def take(self) -> None:
            self.items.clear()
            raise OutOfStockError("no pears left")

        def return_what_is_no_json(self) -> Any:
            self.items.append("lost")
            return object()

        def become_what_is_no_json(self) -> None:
            self.items = object()

        def become_too_large(self) -> None:
            self.items.append("x" * 2_000)

        def call(self, other: str) -> None:
            entity_context().call_entity(EntityId(Shelf, other), Shelf.add, 1)

        def _hidden(self) -> None: ...

    @app.entity
    def plain(ctx: EntityContext, amount: int) -> int:
        total = ctx.get_state(int) + amount
        ctx.set_state(total)
        return total

    @app.entity
    def counter(ctx: EntityContext, amount: int = 1) -> int:
        return plain(ctx, amount)

    @app.orchestrator
    async def shopping(ctx: OrchestrationContext) -> list[str]:
        shelf, said = EntityId("shelf", "a"), list[str]()
        for operation in ("take", "return_what_is_no_json", "nothing of the kind"):
            try:
                await ctx.call_entity(shelf, operation)
            except TaskFailedError as error:
                said.append(type(error).__name__)
        return said

    _ = (Shelf, counter, shopping)
    return app


SHELF: EntityId[Any] = EntityId("shelf", "a")
