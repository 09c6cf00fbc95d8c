"""What is wrong is found where it is, however the orchestrator comes there."""

import random
from datetime import datetime
from functools import partial

from helpers_package import prices
from helpers_package.prices import today_price
from helpers_package.star import *

from holdfast import App, Entity, OrchestrationContext

app = App()


def one() -> str:
    return two()


def two() -> str:
    return f"{datetime.now()}"  #! HF101


def by_key(item: str) -> float:
    return random.random()  #! HF102


class Pricing:
    def __init__(self) -> None:
        self.made = datetime.now()  #! HF101

    @property
    def total(self) -> float:
        return self._chance()

    def _chance(self) -> float:
        return random.random()  #! HF102

    @classmethod
    def make(cls) -> "Pricing":
        return cls()

    @staticmethod
    def at() -> datetime:
        return datetime.now()  #! HF101

    def __call__(self) -> datetime:
        return datetime.now()  #! HF101


class Special(Pricing):
    def __enter__(self) -> float:
        return random.random()  #! HF102

    def __exit__(self, *_: object) -> None: ...


def not_reached() -> float:
    return random.random()


@app.entity
class Counter(Entity):
    def add(self) -> float:
        return random.random()


async def update(amount: int) -> float:
    return random.random()  #! HF102


def plainly_registered(ctx: OrchestrationContext):
    yield ctx.create_timer(datetime.now())  #! HF101


app.orchestrator(plainly_registered)


async def with_options(mine, order):
    mine.call_activity("x")  #! HF301 HF402


app.orchestrator(name="options")(with_options)


@app.orchestrator
async def helped(ctx: OrchestrationContext, pricing: Pricing | None) -> object:
    ctx.set_update_handler("u", update)
    items = sorted(["a"], key=by_key)
    a = Special.make().total
    pricing()
    b = pricing.at()
    c = partial(one)
    with Special():
        pass
    prices.price()
    today_price()
    starred()
    return items, a, b, c
