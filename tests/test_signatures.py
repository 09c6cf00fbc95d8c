"""Decorators refuse what cannot work, and say how it could."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from holdfast import (
    App,
    ConfigurationError,
    Entity,
    EntityContext,
    HostConfig,
    Limits,
    OrchestrationContext,
    RetryPolicy,
)
from holdfast.engine.config import config_from_mapping


def two_parameters(a: int, b: int) -> int:
    return a + b


def keywords(*, a: int) -> int:
    return a


async def stream(ctx: OrchestrationContext) -> AsyncIterator[int]:
    yield 1


@dataclass
class NoDefaults(Entity):
    value: int


class NoFields(Entity):
    value: int = 0

    def add(self) -> None: ...


@dataclass
class YieldingOperation(Entity):
    def each(self) -> Iterator[int]:
        yield 1


@dataclass
class Initialized(Entity):
    def initialize(self, value: int) -> None: ...


@dataclass
class SameOperations(Entity):
    def add(self) -> None: ...

    def Add(self) -> None: ...


def two_inputs(ctx: EntityContext, first: int, second: int) -> None: ...


@dataclass
class TwoInputs(Entity):
    def add(self, a: int, b: int) -> None: ...


class NoEntity:
    pass


REFUSED: list[tuple[Callable[[App], Any], str]] = [
    (lambda app: app.activity(two_parameters), r"two_parameters.*2 parameters \(a, b\).*one dataclass"),  # type: ignore[call-overload]  # that is the point
    (lambda app: app.activity(keywords), "one positional input"),  # type: ignore[call-overload]  # that is the point
    (lambda app: app.activity(timeout=timedelta(0))(lambda: 1), "timeout"),
    (lambda app: app.activity(lambda: 1), "<lambda>"),
    (lambda app: app.orchestrator(stream), "async generator.*await"),  # type: ignore[call-overload]  # that is the point
    (lambda app: app.orchestrator(lambda: None), "needs ctx"),  # type: ignore[call-overload]  # that is the point
    (lambda app: app.entity(NoDefaults), "default"),
    (lambda app: app.entity(NoFields), "@dataclass below @app.entity"),
    (lambda app: app.entity("counter"), "A name is given as name="),  # type: ignore[call-overload]  # that is the point
    (lambda app: app.entity(name="a@b")(SameOperations), "contains '@'"),
    (lambda app: app.entity(name="a/b")(SameOperations), "contains '/'"),
    (lambda app: app.entity(YieldingOperation), "yields"),
    (lambda app: app.entity(Initialized), "initialize"),
    (lambda app: app.entity(SameOperations), "case"),
    (lambda app: app.entity(two_inputs), "3 parameters"),
    (lambda app: app.entity(state_version=2)(TwoInputs), "upgrade_state"),
    (lambda app: app.entity(upgrade_state=lambda state, version: state)(TwoInputs), "first version is 1"),
    (lambda app: app.entity(state_version=0)(TwoInputs), "state_version=0"),
    (lambda app: app.entity(TwoInputs), "2 parameters|3 parameters"),
    (lambda app: app.entity(NoEntity), "derive from"),  # type: ignore[type-var]  # that is the point
    (lambda app: app.route("no-slash"), "slash"),
    (lambda app: app.host("postgres://x/y?shema=z"), "Did you mean 'schema'"),
    (lambda app: RetryPolicy(max_attempts=0), "max_attempts"),
    (lambda app: RetryPolicy(backoff_coefficient=0.5), "backoff"),
    (lambda app: HostConfig(threads_max=0), "threads_max"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_cannot_work_is_refused_at_once(number: int) -> None:
    attempt, message = REFUSED[number]
    with pytest.raises(ConfigurationError, match=message):
        attempt(App())


def test_names_are_unique_without_regard_to_case() -> None:
    app = App()
    app.activity(name="Send")(lambda: 1)
    with pytest.raises(ConfigurationError, match="already"):
        app.activity(name="SEND")(lambda: 2)
    other = App()
    other.activity(name="Send")(lambda: 3)


def test_settings_from_a_command_line() -> None:
    config = config_from_mapping({"threads_max": "3", "limits.payload_bytes_max": "77"})
    assert config == HostConfig(threads_max=3, limits=Limits(payload_bytes_max=77))
    for settings, hint in (
        ({"thread_max": 1}, "'threads_max'"),
        ({"limits.payload_max": 1}, "'limits.payload_bytes_max'"),
        ({"payload_bytes_max": 1}, "'limits.payload_bytes_max'"),
        ({"threads_max": "many"}, "wrong type"),
        ({"limits": {}}, "limits"),
    ):
        with pytest.raises(ConfigurationError, match=hint):
            config_from_mapping(settings)
