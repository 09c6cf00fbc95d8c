"""What a client sends to entities, asks for and learns about them, with payloads as Python values."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Generic, TypeVar, Unpack, cast, overload

import msgspec

from holdfast.model.converter import DataConverter
from holdfast.model.entities import EntityDefinition, current_state
from holdfast.model.failure import FailureDetails
from holdfast.model.ids import EntityId
from holdfast.model.options import ClientSignalOptions, check_names
from holdfast.model.refs import NO_INPUT
from holdfast.model.status import EntityState, LockState

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the typed API
E = TypeVar("E")


class EntitySignal:
    """One signal of `client.signal_many`.

    Options: `due`, `key`; see `ClientSignalOptions`. It does not matter whether signals with one key come together.
    """

    __slots__ = ("due", "entity", "input", "key", "operation")

    @overload
    def __init__(
        self, entity: EntityId[E], operation: Callable[[E], Any], /, **options: Unpack[ClientSignalOptions]
    ) -> None: ...
    @overload
    def __init__(
        self, entity: EntityId[E], operation: Callable[[E, I], Any], input: I, /, **options: Unpack[ClientSignalOptions]
    ) -> None: ...
    @overload
    def __init__(
        self, entity: EntityId[Any], operation: str, input: Any = ..., /, **options: Unpack[ClientSignalOptions]
    ) -> None: ...
    def __init__(
        self,
        entity: EntityId[Any],
        operation: Callable[..., Any] | str,
        input: Any = NO_INPUT,
        /,
        **options: Unpack[ClientSignalOptions],
    ) -> None:
        check_names(options, ClientSignalOptions, "signal_entity")
        self.entity = entity
        self.operation = operation
        self.input: Any = input
        self.due = options.get("due")
        self.key = options.get("key")


class EntityQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which entities to list: all, or those of one class, function or name; those whose key begins so; by time.

    `updated_from` and `updated_until` are aware instants, both inclusive. Entities that hold nothing, neither a state
    nor a lock, are left out unless `with_empty` or `only_parked`.
    """

    entity: Any = None
    """An entity class, an entity function, or a name."""
    key_prefix: str = ""
    updated_from: datetime | None = None
    updated_until: datetime | None = None
    with_state: bool = True
    with_empty: bool = False
    only_parked: bool = False
    """Only those that wait for an operator."""


class EntityStatus(Generic[E]):
    """The committed state of an entity, and what goes on around it, at one moment."""

    def __init__(
        self, found: EntityState, definition: EntityDefinition | None, state_type: Any, converter: DataConverter
    ) -> None:
        self.found = found
        """The same with the state as JSON text."""
        self._definition = definition
        self._state_type = state_type
        self._converter = converter

    @property
    def entity_id(self) -> EntityId[Any]:
        return EntityId.parse(self.found.instance_id)

    @property
    def exists(self) -> bool:
        """Whether it has a state."""
        return self.found.has_state

    @property
    def state(self) -> E | None:
        """The state; None if there is none, or if it was not asked for.

        Raises:
            PayloadError, VersionMismatchError: if this code cannot read it.
        """
        text = self.found.state
        if text is None:
            return None
        if self._definition is not None:
            text = current_state(self._definition, text, self.found.state_version, self._converter)
        return cast(E, self._converter.decode(text, self._state_type))

    @property
    def created_at(self) -> datetime:
        return self.found.created_at

    @property
    def last_updated_at(self) -> datetime:
        return self.found.last_updated_at

    @property
    def lock(self) -> LockState | None:
        """Which orchestration holds its lock."""
        return self.found.lock

    @property
    def lock_requests(self) -> tuple[LockState, ...]:
        """Which orchestrations wait for its lock, in order; only `get_entity` tells."""
        return self.found.lock_requests

    @property
    def messages(self) -> int:
        """How many operations and lock requests wait for it now."""
        return self.found.messages

    @property
    def scheduled_signals(self) -> int:
        """How many signals wait for their time."""
        return self.found.scheduled_signals

    @property
    def parked(self) -> FailureDetails | None:
        """Why it waits for an operator, if it does."""
        return self.found.parked

    def __repr__(self) -> str:
        return f"<EntityStatus {self.found.instance_id}>"


class EntityPage(msgspec.Struct, frozen=True):
    """Some entities, ascending by id. Those that follow are found with the `continuation_token`, if there are any."""

    entities: list[EntityStatus[Any]]
    continuation_token: str | None
