"""What an operation of an entity sees of itself, and how it reaches out: by signals and new orchestrations."""

from __future__ import annotations

import contextvars
import typing
from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn, TypeVar, Unpack, cast, overload

from holdfast.errors import InvalidInputError, OrchestratorMisuseError
from holdfast.model.actions import CreateSubOrchestration, EntityAction, SendEntityMessage
from holdfast.model.converter import DataConverter
from holdfast.model.entities import operation_name
from holdfast.model.history import EntityOperationSignaled
from holdfast.model.ids import EntityId, address_of, validate_instance_id
from holdfast.model.instants import instant
from holdfast.model.limits import Limits
from holdfast.model.options import DetachedOptions, SignalOptions, check_names, check_version
from holdfast.model.refs import NO_INPUT, Orchestrator, encode_input, validate_name
from holdfast.model.requests import check_tags
from holdfast.model.work_items import EntityOperation, EntityWorkItem

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the typed API
E = TypeVar("E")
T = TypeVar("T")


class OperationRun:
    """What one operation has done so far; it counts, all of it, if the operation succeeds."""

    __slots__ = (
        "actions",
        "has_fields",
        "identity",
        "is_deleted",
        "is_over",
        "operation",
        "result",
        "state",
        "work_item",
    )

    def __init__(
        self, work_item: EntityWorkItem, operation: EntityOperation, number: int, state: str | None, *, has_fields: bool
    ) -> None:
        self.work_item = work_item
        self.has_fields = has_fields
        """Whether it is an operation of a class, whose fields are the state."""
        self.operation = operation
        self.identity = f"{work_item.identity}.{number:x}"
        """What the ids of all that it sends are made of."""
        self.state = state
        """As JSON; None if the entity does not exist."""
        self.is_deleted = False
        self.result = "null"
        self.actions: list[EntityAction] = []
        self.is_over = False


class EntityContext:
    """One operation of one entity. What it sends leaves when the operation has succeeded, together with its state."""

    def __init__(self, run: OperationRun, converter: DataConverter, limits: Limits) -> None:
        self._run = run
        self._converter = converter
        self._limits = limits

    @property
    def is_over(self) -> bool:
        """Whether the operation has ended, and its context is not connected to anything any more."""
        return self._run.is_over

    @property
    def entity_id(self) -> EntityId[Any]:
        return EntityId(self._run.work_item.name, self._run.work_item.key)

    @property
    def operation_name(self) -> str:
        """The operation as the sender wrote it; for a class, case does not matter."""
        return self._run.operation.operation

    @property
    def request_id(self) -> str:
        """Names this operation, also when it runs again after a crash: give it to what an `async def` calls.

        If the client chose a key, it is made of that and the entity's id.
        """
        operation = self._run.operation
        if operation.key is None:
            return operation.request_id
        return f"{self._run.work_item.instance_id}:{operation.key}"

    @property
    def current_utc_datetime(self) -> datetime:
        return self._run.work_item.now

    @property
    def has_state(self) -> bool:
        """Whether the entity exists."""
        return self._run.state is not None and not self._run.is_deleted

    @overload
    def get_input(self) -> Any: ...
    @overload
    def get_input(self, expected_type: type[T]) -> T: ...
    @overload
    def get_input(self, expected_type: Any) -> Any: ...
    def get_input(self, expected_type: Any = Any) -> Any:
        """Return the input as a value of a type, by default as plain JSON values. If there is none it counts as null.

        Raises:
            PayloadError: if it is of another type.
        """
        text = "null" if self._run.operation.input is None else self._run.operation.input
        return self._converter.decode(text, expected_type)

    def get_state(self, initializer: Callable[[], T], expected_type: Any = None) -> T:
        """Return the state of an entity function, or what `initializer` makes if the entity does not exist.

        A class as initializer is its type, too: `ctx.get_state(int)` is an int, at first 0; so is `list[Item]`. Each
        call returns a new copy; a change counts when it is given to `set_state`.
        """
        self._check_function("get_state")
        if self._run.state is None:
            return initializer()
        is_type = isinstance(initializer, type) or typing.get_origin(initializer) is not None
        of_type = expected_type or (initializer if is_type else Any)
        return cast(T, self._converter.decode(self._run.state, of_type))

    def set_state(self, state: object) -> None:
        """Keep a state of an entity function: any JSON-able value but None, which deletes the entity."""
        self._check_function("set_state")
        self._run.state = None if state is None else self._converter.encode(state)
        self._run.is_deleted = state is None

    def delete_state(self) -> None:
        """Let the entity not exist any more, once this operation is over."""
        self._check_usable()
        self._run.state = None
        self._run.is_deleted = True

    def set_result(self, result: object) -> None:
        """Answer whoever called, if the function itself returns nothing."""
        self._check_usable()
        self._run.result = self._converter.encode(result)

    @overload
    def signal_entity(
        self, entity: EntityId[E], operation: Callable[[E], Any], /, **options: Unpack[SignalOptions]
    ) -> None: ...
    @overload
    def signal_entity(
        self, entity: EntityId[E], operation: Callable[[E, I], Any], input: I, /, **options: Unpack[SignalOptions]
    ) -> None: ...
    @overload
    def signal_entity(
        self, entity: EntityId[Any], operation: str, input: Any = ..., /, **options: Unpack[SignalOptions]
    ) -> None: ...
    def signal_entity(
        self,
        entity: EntityId[Any],
        operation: Callable[..., Any] | str,
        input: Any = NO_INPUT,
        /,
        **options: Unpack[SignalOptions],
    ) -> None:
        """Ask an entity, also this one, to run an operation, one way.

        Options: `due`; see `SignalOptions`.

        Raises:
            InvalidInputError: if it cannot be stored.
            OrchestratorMisuseError: if the operation is over.
        """
        now, due = self._check_usable(), options.get("due")
        check_names(options, SignalOptions, "signal_entity")
        event = EntityOperationSignaled(
            timestamp=now,
            request_id=f"{self._run.identity}.{len(self._run.actions):x}",
            target_instance_id=address_of(entity),
            operation=operation_name(operation, entity.definition),
            input=encode_input(self._converter, None, input),
            due_at=None if due is None else instant(now, due),
        )
        self._act(SendEntityMessage(event))

    @overload
    def start_orchestration(
        self, orchestrator: Orchestrator[None, Any], /, **options: Unpack[DetachedOptions]
    ) -> str: ...
    @overload
    def start_orchestration(
        self, orchestrator: Orchestrator[I, Any], input: I, /, **options: Unpack[DetachedOptions]
    ) -> str: ...
    @overload
    def start_orchestration(
        self, orchestrator: str, input: Any = ..., /, **options: Unpack[DetachedOptions]
    ) -> str: ...
    def start_orchestration(
        self, orchestrator: Orchestrator[Any, Any] | str, input: Any = NO_INPUT, /, **options: Unpack[DetachedOptions]
    ) -> str:
        """Start an orchestration that nobody waits for, and return its instance id.

        If its id is in use, nothing is started, and nobody is told.

        Options: `instance_id`, `version`, `tags`, `start_at`; see `DetachedOptions`.
        """
        now = self._check_usable()
        check_names(options, DetachedOptions, "start_orchestration")
        check_version(options.get("version"))
        start_at = options.get("start_at")
        typed = isinstance(orchestrator, Orchestrator)
        chosen = options.get("instance_id")
        instance_id = (
            f"{self._run.identity}.{len(self._run.actions):x}" if chosen is None else validate_instance_id(chosen)
        )
        self._act(
            CreateSubOrchestration(
                id=0,
                name=orchestrator.name if typed else validate_name(orchestrator),
                instance_id=instance_id,
                input=encode_input(self._converter, orchestrator if typed else None, input),
                version=options.get("version"),
                tags=check_tags(options.get("tags"), self._limits.tags_max),
                detached=True,
                start_at=None if start_at is None else instant(now, start_at),
            )
        )
        return instance_id

    def call_entity(self, *_: object, **__: object) -> NoReturn:
        """Refused: an entity that waits for another one, which may wait for it, would block both for ever.

        Raises:
            OrchestratorMisuseError: always.
        """
        raise OrchestratorMisuseError(
            f"Entity {self._run.work_item.instance_id} cannot call an entity, itself included: two that wait for each "
            "other would block for ever. Signal it, or start an orchestration that calls both."
        )

    def _act(self, action: EntityAction) -> None:
        if len(self._run.actions) >= self._limits.actions_max:
            raise InvalidInputError(
                f"Operation {self.operation_name!r} of entity {self._run.work_item.instance_id} asked for more than "
                f"{self._limits.actions_max} things at once."
            )
        self._run.actions.append(action)

    def _check_function(self, what: str) -> None:
        self._check_usable()
        if self._run.has_fields:
            raise OrchestratorMisuseError(
                f"{what} is for entity functions; the state of {self._run.work_item.instance_id} are the fields of "
                "its class: read and set self.field."
            )

    def _check_usable(self) -> datetime:
        if self._run.is_over:
            raise OrchestratorMisuseError(
                f"The operation {self.operation_name!r} of entity {self._run.work_item.instance_id} is over; its "
                "context is not connected to anything any more."
            )
        return self._run.work_item.now


CURRENT_OPERATION: contextvars.ContextVar[EntityContext | None] = contextvars.ContextVar(
    "holdfast_operation", default=None
)


def running_operation() -> EntityContext | None:
    """Return the context of the operation that is running; None outside of one, and in what it has left behind."""
    context = CURRENT_OPERATION.get()
    return None if context is None or context.is_over else context


def entity_context() -> EntityContext:
    """Return the context of the operation that is running.

    Raises:
        OrchestratorMisuseError: outside of an operation of an entity.
    """
    context = running_operation()
    if context is None:
        raise OrchestratorMisuseError("entity_context() is for the operations of entities; none is running here.")
    return context
