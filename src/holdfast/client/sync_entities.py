"""The part of the synchronous client that deals with entities."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar, Unpack, overload

from holdfast.client.bridge import Bridge, iterate
from holdfast.client.entity_status import EntityPage, EntityQuery, EntitySignal, EntityStatus
from holdfast.model.ids import EntityId
from holdfast.model.options import ClientSignalOptions, EntityCallOptions
from holdfast.model.refs import NO_INPUT
from holdfast.model.status import EntitiesRemoved, LockState

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the typed API
O = TypeVar("O")  # noqa: E741
E = TypeVar("E")


class SyncEntityOperations:
    """Mixed into `SyncClient`."""

    _bridge: Bridge

    @overload
    def signal_entity(
        self, entity: EntityId[E], operation: Callable[[E], Any], /, **options: Unpack[ClientSignalOptions]
    ) -> None: ...
    @overload
    def signal_entity(
        self, entity: EntityId[E], operation: Callable[[E, I], Any], input: I, /, **options: Unpack[ClientSignalOptions]
    ) -> None: ...
    @overload
    def signal_entity(
        self, entity: EntityId[Any], operation: str, input: Any = ..., /, **options: Unpack[ClientSignalOptions]
    ) -> None: ...
    def signal_entity(
        self,
        entity: EntityId[Any],
        operation: Callable[..., Any] | str,
        input: Any = NO_INPUT,
        /,
        **options: Unpack[ClientSignalOptions],
    ) -> None:
        """See `Client.signal_entity`."""
        self.signal_many([EntitySignal(entity, operation, input, **options)])

    def signal_many(self, signals: Iterable[EntitySignal]) -> None:
        """See `Client.signal_many`."""
        given = list(signals)  # read here: whatever makes them belongs to this thread
        self._bridge.run(lambda client: client.signal_many(given))

    @overload
    def call_entity(  # type: ignore[overload-overlap]  # a coroutine function is also a function; the first match holds
        self,
        entity: EntityId[E],
        operation: Callable[[E], Coroutine[Any, Any, O]],
        /,
        **options: Unpack[EntityCallOptions],
    ) -> O: ...
    @overload
    def call_entity(  # type: ignore[overload-overlap]  # as above
        self,
        entity: EntityId[E],
        operation: Callable[[E, I], Coroutine[Any, Any, O]],
        input: I,
        /,
        **options: Unpack[EntityCallOptions],
    ) -> O: ...
    @overload
    def call_entity(
        self, entity: EntityId[E], operation: Callable[[E], O], /, **options: Unpack[EntityCallOptions]
    ) -> O: ...
    @overload
    def call_entity(
        self, entity: EntityId[E], operation: Callable[[E, I], O], input: I, /, **options: Unpack[EntityCallOptions]
    ) -> O: ...
    @overload
    def call_entity(
        self, entity: EntityId[Any], operation: str, input: Any = ..., /, **options: Unpack[EntityCallOptions]
    ) -> Any: ...
    def call_entity(
        self,
        entity: EntityId[Any],
        operation: Callable[..., Any] | str,
        input: Any = NO_INPUT,
        /,
        **options: Unpack[EntityCallOptions],
    ) -> Any:
        """See `Client.call_entity`."""
        return self._bridge.run(lambda client: client.call_entity(entity, operation, input, **options))

    def read_entity_state(self, entity: EntityId[E]) -> E | None:
        """See `Client.read_entity_state`."""
        return self._bridge.run(lambda client: client.read_entity_state(entity))

    def get_entity(self, entity: EntityId[E]) -> EntityStatus[E] | None:
        """See `Client.get_entity`."""
        return self._bridge.run(lambda client: client.get_entity(entity))

    def list_entities(
        self, query: EntityQuery | None = None, *, limit: int = 100, continuation_token: str | None = None
    ) -> EntityPage:
        """See `Client.list_entities`."""
        return self._bridge.run(
            lambda client: client.list_entities(query, limit=limit, continuation_token=continuation_token)
        )

    def iterate_entities(self, query: EntityQuery | None = None) -> Iterator[EntityStatus[Any]]:
        """See `Client.iterate_entities`."""
        return iterate(self._bridge, lambda client: client.iterate_entities(query))

    def break_lock(self, entity: EntityId[Any]) -> LockState | None:
        """See `Client.break_lock`."""
        return self._bridge.run(lambda client: client.break_lock(entity))

    def clean_entities(
        self,
        *,
        idle_for: timedelta = timedelta(hours=1),
        remove_empty: bool = True,
        release_orphaned_locks: bool = True,
    ) -> EntitiesRemoved:
        """See `Client.clean_entities`."""
        return self._bridge.run(
            lambda client: client.clean_entities(
                idle_for=idle_for, remove_empty=remove_empty, release_orphaned_locks=release_orphaned_locks
            )
        )
