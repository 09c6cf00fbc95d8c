"""What a program holds in its hand to send messages from within its own transactions, for asyncio and for threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, Unpack, overload

from holdfast.model.ids import EntityId
from holdfast.model.limits import Limits
from holdfast.model.options import ClientSignalOptions, OutboxStartOptions
from holdfast.model.refs import NO_INPUT, ExternalEvent, Orchestrator
from holdfast.outbox.connections import send_now, send_soon
from holdfast.outbox.messages import Messages, Outgoing
from holdfast.outbox.statements import Statements
from holdfast.storage.postgres_schema import SCHEMA

I = TypeVar("I")  # noqa: E741 - input, as everywhere in the typed API
E = TypeVar("E")
T = TypeVar("T")


class Outbox:
    """Starts orchestrations, raises events and signals entities in a transaction of yours, over its connection.

    If that commits, a host takes in what was sent, in the order of one sender, each message once; if it does not,
    nothing was sent. No host needs to run meanwhile. Connections are those of asyncpg, of psycopg 3 and of SQLAlchemy
    for asyncio; see `SyncOutbox` for those that block.

    Args:
        schema: of the task hub; in an SQLite file it has no meaning.
        limits: those of the host, if they are not the usual ones.
        notify: whether to tell the hosts of a commit on PostgreSQL, at its price: `NOTIFY` lets commits wait for each
            other. Else they find it when they look, every `poll_s`.
    """

    def __init__(self, schema: str = SCHEMA, *, limits: Limits | None = None, notify: bool = True) -> None:
        self._statements = Statements(schema, notify=notify)
        self._messages = Messages(limits)

    @overload
    async def start_new(
        self, connection: object, orchestrator: Orchestrator[None, Any], /, **options: Unpack[OutboxStartOptions]
    ) -> str: ...
    @overload
    async def start_new(
        self,
        connection: object,
        orchestrator: Orchestrator[I, Any],
        input: I,
        /,
        **options: Unpack[OutboxStartOptions],
    ) -> str: ...
    @overload
    async def start_new(
        self, connection: object, orchestrator: str, input: Any = ..., /, **options: Unpack[OutboxStartOptions]
    ) -> str: ...
    async def start_new(
        self,
        connection: object,
        orchestrator: Orchestrator[Any, Any] | str,
        input: Any = NO_INPUT,
        /,
        **options: Unpack[OutboxStartOptions],
    ) -> str:
        """Start an orchestration with the transaction; return its instance id.

        A start whose id is in use when the host takes it in has no effect. So it can be sent again when it is not known
        whether a transaction was committed, if you choose the `instance_id`.

        Options: `instance_id`, `version`, `tags`, `start_at`, `run_timeout`, `replace_ended`; see
        `OutboxStartOptions`.

        Raises:
            InvalidInputError: if something cannot be stored, or the connection cannot be used.
            ConfigurationError: if there is no task hub where it leads to.
        """
        return await self._send(connection, self._messages.start(orchestrator, input, options))

    @overload
    async def raise_event(
        self, connection: object, instance_id: str, event: ExternalEvent[None], /, *, key: str | None = None
    ) -> None: ...
    @overload
    async def raise_event(
        self, connection: object, instance_id: str, event: ExternalEvent[T], data: T, /, *, key: str | None = None
    ) -> None: ...
    @overload
    async def raise_event(
        self, connection: object, instance_id: str, event: str, data: Any = None, /, *, key: str | None = None
    ) -> None: ...
    async def raise_event(
        self,
        connection: object,
        instance_id: str,
        event: ExternalEvent[Any] | str,
        data: Any = None,
        /,
        *,
        key: str | None = None,
    ) -> None:
        """Send an external event with the transaction. If nobody can receive it then, the host drops and logs it.

        Args:
            key: names this event: of several with one key the orchestration sees the first.

        Raises:
            InvalidInputError, ConfigurationError: as `start_new`.
        """
        await self._send(connection, self._messages.event(instance_id, event, data, key))

    @overload
    async def signal_entity(
        self,
        connection: object,
        entity: EntityId[E],
        operation: Callable[[E], Any],
        /,
        **options: Unpack[ClientSignalOptions],
    ) -> None: ...
    @overload
    async def signal_entity(
        self,
        connection: object,
        entity: EntityId[E],
        operation: Callable[[E, I], Any],
        input: I,
        /,
        **options: Unpack[ClientSignalOptions],
    ) -> None: ...
    @overload
    async def signal_entity(
        self,
        connection: object,
        entity: EntityId[Any],
        operation: str,
        input: Any = ...,
        /,
        **options: Unpack[ClientSignalOptions],
    ) -> None: ...
    async def signal_entity(
        self,
        connection: object,
        entity: EntityId[Any],
        operation: Callable[..., Any] | str,
        input: Any = NO_INPUT,
        /,
        **options: Unpack[ClientSignalOptions],
    ) -> None:
        """Ask an entity to run an operation, with the transaction; it comes into being if it does not exist.

        Options: `due`, by the clock of this machine, and `key`; see `ClientSignalOptions`.

        Raises:
            InvalidInputError, ConfigurationError: as `start_new`.
        """
        await self._send(connection, self._messages.signal(entity, operation, input, options))

    async def _send(self, connection: object, message: Outgoing) -> str:
        await send_soon(connection, self._statements, message)
        return message.instance_id


class SyncOutbox:
    """The `Outbox` for connections that block: those of sqlite3, of psycopg 3, of SQLAlchemy and of Django.

    An SQLite connection leads to the file of the hub itself, in which you may have tables of your own; a second file
    that is attached to it is not committed together with it when the power fails.

    Args:
        schema, limits, notify: as those of `Outbox`.
    """

    def __init__(self, schema: str = SCHEMA, *, limits: Limits | None = None, notify: bool = True) -> None:
        self._statements = Statements(schema, notify=notify)
        self._messages = Messages(limits)

    @overload
    def start_new(
        self, connection: object, orchestrator: Orchestrator[None, Any], /, **options: Unpack[OutboxStartOptions]
    ) -> str: ...
    @overload
    def start_new(
        self,
        connection: object,
        orchestrator: Orchestrator[I, Any],
        input: I,
        /,
        **options: Unpack[OutboxStartOptions],
    ) -> str: ...
    @overload
    def start_new(
        self, connection: object, orchestrator: str, input: Any = ..., /, **options: Unpack[OutboxStartOptions]
    ) -> str: ...
    def start_new(
        self,
        connection: object,
        orchestrator: Orchestrator[Any, Any] | str,
        input: Any = NO_INPUT,
        /,
        **options: Unpack[OutboxStartOptions],
    ) -> str:
        """Start an orchestration with the transaction, as `Outbox.start_new`; return its instance id."""
        return self._send(connection, self._messages.start(orchestrator, input, options))

    @overload
    def raise_event(
        self, connection: object, instance_id: str, event: ExternalEvent[None], /, *, key: str | None = None
    ) -> None: ...
    @overload
    def raise_event(
        self, connection: object, instance_id: str, event: ExternalEvent[T], data: T, /, *, key: str | None = None
    ) -> None: ...
    @overload
    def raise_event(
        self, connection: object, instance_id: str, event: str, data: Any = None, /, *, key: str | None = None
    ) -> None: ...
    def raise_event(
        self,
        connection: object,
        instance_id: str,
        event: ExternalEvent[Any] | str,
        data: Any = None,
        /,
        *,
        key: str | None = None,
    ) -> None:
        """Send an external event with the transaction, as `Outbox.raise_event`."""
        self._send(connection, self._messages.event(instance_id, event, data, key))

    @overload
    def signal_entity(
        self,
        connection: object,
        entity: EntityId[E],
        operation: Callable[[E], Any],
        /,
        **options: Unpack[ClientSignalOptions],
    ) -> None: ...
    @overload
    def signal_entity(
        self,
        connection: object,
        entity: EntityId[E],
        operation: Callable[[E, I], Any],
        input: I,
        /,
        **options: Unpack[ClientSignalOptions],
    ) -> None: ...
    @overload
    def signal_entity(
        self,
        connection: object,
        entity: EntityId[Any],
        operation: str,
        input: Any = ...,
        /,
        **options: Unpack[ClientSignalOptions],
    ) -> None: ...
    def signal_entity(
        self,
        connection: object,
        entity: EntityId[Any],
        operation: Callable[..., Any] | str,
        input: Any = NO_INPUT,
        /,
        **options: Unpack[ClientSignalOptions],
    ) -> None:
        """Ask an entity to run an operation, with the transaction, as `Outbox.signal_entity`."""
        self._send(connection, self._messages.signal(entity, operation, input, options))

    def _send(self, connection: object, message: Outgoing) -> str:
        send_now(connection, self._statements, message)
        return message.instance_id
