"""What a class or a function makes an entity of, and which ids and methods go with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from engine_kit import Run
from entity_kit import on

from holdfast import App, Entity, EntityContext, EntityId, InvalidInputError, Limits
from holdfast.codec.converter import JsonConverter
from holdfast.errors import InvalidInstanceIdError
from holdfast.model.history import EntityOperationSignaled
from holdfast.model.work_items import EntityWorkItem, OperationSucceeded
from holdfast.replay.entity import BatchRun, LiveState
from holdfast.storage.memory import MemoryStore


@dataclass
class Item:
    name: str


@dataclass
class Cart(Entity):
    items: list[Item] = field(default_factory=list)

    def add(self, item: Item) -> int:
        self.items.append(item)
        return len(self.items)

    @staticmethod
    def total(first: int, second: int) -> int:
        return first + second

    @classmethod
    def of(cls, *names: str) -> Cart:
        return cls([Item(name) for name in names])


@dataclass
class Shelf(Entity):
    def add(self, item: Item) -> None: ...


def test_a_generic_type_as_initializer_is_the_type_of_the_state() -> None:
    app = App()

    @app.entity
    def cart(ctx: EntityContext) -> list[str]:
        items = ctx.get_state(list[Item])
        items.append(ctx.get_input(Item))
        ctx.set_state(items)
        return [item.name for item in items]

    async def scenario(run: Run) -> None:
        cart_id = EntityId(cart, "a")
        assert await run.client.call_entity(cart_id, "add", Item("tea")) == ["tea"]
        assert await run.client.call_entity(cart_id, "add", Item("rice")) == ["tea", "rice"]

    on(MemoryStore(), app, scenario)


def test_static_and_class_methods_are_no_operations() -> None:
    app = App()
    app.entity(Cart)

    async def scenario(run: Run) -> None:
        for name in ("total", "of"):
            with pytest.raises(InvalidInputError, match=f"has no operation '{name}'; it has add, delete"):
                await run.client.signal_entity(EntityId("cart", "a"), name, 1)
        assert Cart.total(1, 2) == 3

    on(MemoryStore(), app, scenario)


def test_the_method_of_another_class_is_refused() -> None:
    app = App()
    app.entity(Cart)
    app.entity(Shelf)

    async def scenario(run: Run) -> None:
        shelf: EntityId[Any] = EntityId(Shelf, "a")
        with pytest.raises(InvalidInputError, match=r"Cart\.add is no operation of entity 'shelf'"):
            await run.client.signal_entity(shelf, Cart.add, Item("tea"))
        await run.client.call_entity(shelf, "add", Item("tea"))

    on(MemoryStore(), app, scenario)


@pytest.mark.parametrize("entity", [None, 5, int, Item, Cart()])
def test_an_id_is_of_an_entity(entity: Any) -> None:
    made = Cart() if isinstance(entity, Cart) else entity
    with pytest.raises(InvalidInstanceIdError):
        EntityId(made, "a")


def test_an_id_knows_its_class_also_if_that_is_registered_later() -> None:
    @dataclass
    class Late(Entity):
        number: int = 0

    late = EntityId(Late, "a")
    assert late.state_type is Any
    App().entity(Late)
    assert (late.state_type, late.instance_id) == (Late, "@late@a")

    class Derived(Late):
        """Not registered itself."""

    assert EntityId(Derived, "a").instance_id == "@derived@a"


class Counting(JsonConverter):
    """Counts how often a state is made of its JSON."""

    def __init__(self) -> None:
        super().__init__(payload_bytes_max=Limits().payload_bytes_max)
        self.made = 0

    def decode(self, text: str, expected_type: Any) -> Any:
        self.made += expected_type is Cart
        return super().decode(text, expected_type)


def test_the_state_of_a_busy_entity_is_not_made_anew_for_each_batch() -> None:
    app, converter = App(), Counting()
    app.entity(Cart)
    entity = app.registry.entity("cart")
    now = datetime(2026, 11, 22, tzinfo=UTC)
    operation = EntityOperationSignaled(
        timestamp=now, request_id="r", target_instance_id="@cart@a", operation="add", input='{"name":"tea"}'
    )
    state: str | None = None
    live: LiveState | None = None
    for number in range(1, 4):
        item = EntityWorkItem("@cart@a", "cart", "a", state, "1", (operation,), now, f"e:{number}")
        run = BatchRun(item, entity, converter, Limits(), live)
        batch = run.run(lambda: True)
        assert batch.outcomes == (OperationSucceeded(str(number)),)
        assert converter.made == number  # by its own operation, to see that it can be read again
        state, live = batch.state, run.live
