"""The part of the client that deals with entities."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from holdfast.client.entity_status import EntityPage, EntityQuery, EntitySignal, EntityStatus
from holdfast.errors import InvalidInputError
from holdfast.model.converter import DataConverter
from holdfast.model.entities import EntityDefinition, EntityFunction, operation_name
from holdfast.model.failure import exception_from_failure
from holdfast.model.history import EntityOperationFailed
from holdfast.model.ids import EntityId, address_of
from holdfast.model.instants import instant
from holdfast.model.options import ClientSignalOptions, EntityCallOptions, check_names
from holdfast.model.refs import NO_INPUT, encode_input
from holdfast.model.requests import EntityFilter, OperationRequest, check_duration, check_instant, check_key
from holdfast.model.status import EntitiesRemoved, LockState

if TYPE_CHECKING:
    from holdfast.client.port import TaskHub
    from holdfast.model.limits import Limits

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the typed API
O = TypeVar("O")  # noqa: E741
E = TypeVar("E")

PAGE_ENTITIES_MAX = 1_000


class EntityOperations:
    """Mixed into `Client`: operations on entities, reading them, and what operators do to them."""

    _hub: TaskHub
    _converter: DataConverter
    _limits: Limits

    @overload
    async def signal_entity(
        self, entity: EntityId[E], operation: Callable[[E], Any], /, **options: Unpack[ClientSignalOptions]
    ) -> None: ...
    @overload
    async def signal_entity(
        self, entity: EntityId[E], operation: Callable[[E, I], Any], input: I, /, **options: Unpack[ClientSignalOptions]
    ) -> None: ...
    @overload
    async def signal_entity(
        self, entity: EntityId[Any], operation: str, input: Any = ..., /, **options: Unpack[ClientSignalOptions]
    ) -> None: ...
    async def signal_entity(
        self,
        entity: EntityId[Any],
        operation: Callable[..., Any] | str,
        input: Any = NO_INPUT,
        /,
        **options: Unpack[ClientSignalOptions],
    ) -> None:
        """Ask an entity to run an operation, one way; the entity comes into being if it does not exist.

        Options: `due`, `key`; see `ClientSignalOptions`.

        Raises:
            NotRegisteredError: if the app has no such entity.
            InvalidInputError, OverloadedError.
        """
        await self.signal_many([EntitySignal(entity, operation, input, **options)])

    async def signal_many(self, signals: Iterable[EntitySignal]) -> None:
        """Send many signals, to one entity or several, in one commit: all of them are stored, or none.

        Those to one entity run in the order in which they are given.

        Raises:
            NotRegisteredError: if the app has no such entity.
            InvalidInputError: if one of them cannot be stored, or there are too many.
            OverloadedError: if too much waits for one of the entities.
        """
        requests = [self._request(each) for each in signals]
        if len(requests) > self._limits.signals_max:
            raise InvalidInputError(
                f"There are {len(requests)} signals; one request takes at most {self._limits.signals_max}."
            )
        if requests:
            await self._hub.signal_entities(requests)

    @overload
    async def call_entity(  # type: ignore[overload-overlap]  # a coroutine function is also a function; the first match holds
        self,
        entity: EntityId[E],
        operation: Callable[[E], Coroutine[Any, Any, O]],
        /,
        **options: Unpack[EntityCallOptions],
    ) -> O: ...
    @overload
    async def call_entity(  # type: ignore[overload-overlap]  # as above
        self,
        entity: EntityId[E],
        operation: Callable[[E, I], Coroutine[Any, Any, O]],
        input: I,
        /,
        **options: Unpack[EntityCallOptions],
    ) -> O: ...
    @overload
    async def call_entity(
        self, entity: EntityId[E], operation: Callable[[E], O], /, **options: Unpack[EntityCallOptions]
    ) -> O: ...
    @overload
    async def call_entity(
        self, entity: EntityId[E], operation: Callable[[E, I], O], input: I, /, **options: Unpack[EntityCallOptions]
    ) -> O: ...
    @overload
    async def call_entity(
        self, entity: EntityId[Any], operation: str, input: Any = ..., /, **options: Unpack[EntityCallOptions]
    ) -> Any: ...
    async def call_entity(
        self,
        entity: EntityId[Any],
        operation: Callable[..., Any] | str,
        input: Any = NO_INPUT,
        /,
        **options: Unpack[EntityCallOptions],
    ) -> Any:
        """Run an operation on an entity and return its result, once that is on the disk.

        It queues like a signal; an entity that is locked lets it wait.

        Options: `timeout`, `key`; see `EntityCallOptions`.

        Raises:
            TaskFailedError: if the operation failed, which has changed nothing; an instance of the original class
                where that is loaded.
            InstanceParkedError: if the entity needs an operator.
            WaitTimeoutError: if there is no result in time.
            OrchestratorMisuseError: in an operation of an entity.
            NotRegisteredError, InvalidInputError, OverloadedError.
            PayloadError: if the result, of an operation that has succeeded, is not of the type that it declares.
        """
        check_names(options, EntityCallOptions, "call_entity")
        timeout = options.get("timeout")
        check_duration("timeout", timeout)
        request = self._request(EntitySignal(entity, operation, input, key=options.get("key")))
        answer = await self._hub.call_entity(request, timeout)
        if isinstance(answer, EntityOperationFailed):
            raise exception_from_failure(answer.failure)
        text = "null" if answer.output is None else answer.output
        return self._converter.decode(text, entity.result_type(request.operation))

    def _request(self, signal: EntitySignal) -> OperationRequest:
        if not isinstance(signal, EntitySignal):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(f"{signal!r:.80} is no signal; write EntitySignal(entity, operation, input).")
        check_key("key", signal.key)
        if signal.due is not None:
            instant(datetime.now(UTC), signal.due)  # refused here if it cannot be; the host says what it comes to
        return OperationRequest(
            instance_id=address_of(signal.entity),
            operation=operation_name(signal.operation, signal.entity.definition),
            input=encode_input(self._converter, None, signal.input),
            key=signal.key,
            due=signal.due,
        )

    async def read_entity_state(self, entity: EntityId[E]) -> E | None:
        """Return the committed state of an entity, or None if it does not exist.

        Raises:
            PayloadError, VersionMismatchError: if this code cannot read it.
        """
        found = await self.get_entity(entity)
        return None if found is None else found.state

    async def get_entity(self, entity: EntityId[E]) -> EntityStatus[E] | None:
        """Return an entity with all that is stored around it: its lock, who waits for that, what waits for it.

        None if nothing has ever happened to it, or it was cleaned away; one that was deleted has no state.
        """
        found = await self._hub.get_entity(address_of(entity))
        if found is None:
            return None
        return EntityStatus(found, entity.definition, entity.state_type, self._converter)

    async def list_entities(
        self, query: EntityQuery | None = None, *, limit: int = 100, continuation_token: str | None = None
    ) -> EntityPage:
        """Return a page of entities, at most `limit`, ascending by id; those that change meanwhile shift no page.

        Raises:
            InvalidInputError: if the query or the limit cannot be meant.
        """
        query = query or EntityQuery()
        if not isinstance(query, EntityQuery):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(f"{query!r:.80} is no query; write EntityQuery(entity=Counter).")
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= PAGE_ENTITIES_MAX:  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(f"limit={limit!r} must be a number from 1 to {PAGE_ENTITIES_MAX}.")
        check_instant("updated_from", query.updated_from)
        check_instant("updated_until", query.updated_until)
        after = continuation_token or ""
        if not isinstance(after, str) or (after and not (after.startswith("@") and after.isprintable())):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
            raise InvalidInputError(f"continuation_token={after!r:.60} does not come from a page of entities.")
        prefix, definition, state_type = _selection(query)
        wanted = EntityFilter(
            prefix=prefix,
            updated_from=query.updated_from,
            updated_until=query.updated_until,
            with_state=query.with_state,
            with_empty=query.with_empty,
            only_parked=query.only_parked,
        )
        found = await self._hub.list_entities(wanted, after, limit)
        entities = [EntityStatus[Any](each, definition, state_type, self._converter) for each in found]
        return EntityPage(entities, found[-1].instance_id if len(found) == limit else None)

    async def iterate_entities(self, query: EntityQuery | None = None) -> AsyncIterator[EntityStatus[Any]]:
        """Return all entities that a query finds, read page by page."""
        token: str | None = None
        while True:
            page = await self.list_entities(query, limit=PAGE_ENTITIES_MAX, continuation_token=token)
            for entity in page.entities:
                yield entity
            token = page.continuation_token
            if token is None:
                return

    async def break_lock(self, entity: EntityId[Any]) -> LockState | None:
        """Take the lock of an entity from the orchestration that holds it; return who that was, None if nobody did.

        That orchestration goes on: its next call of this entity raises `LockLostError`.
        """
        return await self._hub.break_lock(address_of(entity))

    async def clean_entities(
        self,
        *,
        idle_for: timedelta = timedelta(hours=1),
        remove_empty: bool = True,
        release_orphaned_locks: bool = True,
    ) -> EntitiesRemoved:
        """Clean the storage of entities: remove those without state, lock and messages; give back locks of the gone.

        Args:
            idle_for: only entities that nothing has happened to for so long are removed. What they remember of keys
                goes with them.

        Raises:
            InvalidInputError, OverloadedError.
        """
        if not isinstance(idle_for, timedelta) or idle_for < timedelta(0):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(f"idle_for={idle_for!r} must be a timedelta of zero or more.")
        return await self._hub.clean_entities(
            idle_for, remove_empty=remove_empty, release_orphaned=release_orphaned_locks
        )


def _selection(query: EntityQuery) -> tuple[str, EntityDefinition | None, Any]:
    """Return the prefix of the instance ids that a query is about, and what is known of their states."""
    if query.entity is None:
        if query.key_prefix:
            raise InvalidInputError("A key_prefix needs an entity: EntityQuery(entity=Counter, key_prefix=...).")
        return "@", None, Any
    if not isinstance(query.key_prefix, str) or not query.key_prefix.isprintable():  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"key_prefix={query.key_prefix!r:.80} is not how the key of an entity can begin.")
    if not isinstance(query.entity, str | type | EntityFunction):
        raise InvalidInputError(f"entity={query.entity!r:.80} is no entity class, entity function or name.")
    # A key of one character: an entity cannot have an empty one, but its prefix can be.
    sample: EntityId[Any] = EntityId(query.entity, "-")
    return f"@{sample.name}@{query.key_prefix}", sample.definition, sample.state_type
