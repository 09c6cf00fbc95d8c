"""Contexts for activities and entities that a unit test calls directly, without a host."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Generator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar, cast, overload

import msgspec

from holdfast.codec.converter import JsonConverter
from holdfast.engine.activity_context import CURRENT, ActivityContext, AttemptInfo, CancelFlag
from holdfast.errors import ConfigurationError
from holdfast.model.entities import Entity, EntityClass, EntityDefinition, EntityFunction, operation_name
from holdfast.model.failure import exception_from_failure
from holdfast.model.history import EntityOperationCalled
from holdfast.model.ids import EntityId
from holdfast.model.limits import Limits
from holdfast.model.refs import NO_INPUT, encode_input
from holdfast.model.work_items import EntityBatch, EntityWorkItem, Failed
from holdfast.replay.entity import BatchRun
from holdfast.replay.entity_context import CURRENT_OPERATION, EntityContext, OperationRun
from holdfast.testing.sent import Sent, plain, sent_by

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the typed API
O = TypeVar("O")  # noqa: E741
E = TypeVar("E", bound=Entity)
S = TypeVar("S")

BEGINS_AT: Final = datetime(2030, 1, 1, tzinfo=UTC)
LIMITS: Final = Limits()
CONVERTER: Final = JsonConverter(payload_bytes_max=LIMITS.payload_bytes_max)


class FakeActivityContext(ActivityContext):
    """What `activity_context()` returns in a test; it keeps what is reported to it."""

    def __init__(self, info: AttemptInfo) -> None:
        self._flag = CancelFlag()
        self._reports: list[str] = []
        super().__init__(info, CONVERTER, self._reports.append, self._flag)

    @property
    def heartbeats(self) -> list[Any]:
        """The progress of each heartbeat, as plain JSON values."""
        return [plain(CONVERTER, report) for report in self._reports]

    def cancel(self) -> None:
        """Let the attempt find that nobody waits for it any more."""
        self._flag.set()


@contextlib.contextmanager
def fake_activity_context(
    *,
    name: str = "activity",
    instance_id: str = "instance",
    execution_id: str = "execution",
    sequence: int = 0,
    attempt: int = 1,
    tags: Mapping[str, str] | None = None,
    last_progress: object = None,
) -> Generator[FakeActivityContext, None, None]:
    """Let `activity_context()` work in the block, for an activity that is called directly."""
    progress = None if last_progress is None else CONVERTER.encode(last_progress)
    info = AttemptInfo(instance_id, execution_id, sequence, name, attempt, dict(tags or {}), progress)
    context = FakeActivityContext(info)
    token = CURRENT.set(context)
    try:
        yield context
    finally:
        CURRENT.reset(token)


class FakeEntityContext(EntityContext):
    """What `entity_context()` returns in a test, and what an entity function can be called with."""

    def __init__(self, run: OperationRun) -> None:
        super().__init__(run, CONVERTER, LIMITS)
        self._fake_run = run

    @property
    def sent(self) -> list[Sent]:
        """What the operation has sent so far: `SentSignal` and `SentStart`, in order."""
        return _sent(self._fake_run.actions)

    @property
    def state(self) -> Any:
        """The state of an entity function, as plain JSON values; None if there is none."""
        return plain(CONVERTER, self._fake_run.state)

    @property
    def is_deleted(self) -> bool:
        """Whether the operation has deleted the state."""
        return self._fake_run.is_deleted

    @property
    def result(self) -> Any:
        """What `set_result` was given, as plain JSON values."""
        return plain(CONVERTER, self._fake_run.result)


@contextlib.contextmanager
def fake_entity_context(
    entity: EntityId[Any] | None = None,
    *,
    operation: str = "operation",
    input: object = NO_INPUT,
    state: object = None,
    request_id: str = "request",
    now: datetime = BEGINS_AT,
) -> Generator[FakeEntityContext, None, None]:
    """Let `entity_context()` work in the block, for an operation that is called directly.

    Args:
        state: of an entity function; for a class, anything but None says that the entity exists.
    """
    entity = entity or EntityId("entity", "key")
    item = _work_item(entity, operation, input, state, request_id, now)
    is_class = isinstance(entity.definition, EntityClass)
    run = OperationRun(item, item.operations[0], 0, item.state, has_fields=is_class)
    context = FakeEntityContext(run)
    token = CURRENT_OPERATION.set(context)
    try:
        yield context
    finally:
        run.is_over = True
        CURRENT_OPERATION.reset(token)


class OperationResult(msgspec.Struct, Generic[S, O], frozen=True):
    """What became of one operation: its result, the state after it (None: deleted), and what it sends."""

    result: O
    state: S | None
    sent: list[Sent]


@overload
def run_operation(
    entity: type[E], operation: Callable[[E], Coroutine[Any, Any, O]], /, *, state: E | None = ..., key: str = ...
) -> OperationResult[E, O]: ...
@overload
def run_operation(
    entity: type[E],
    operation: Callable[[E, I], Coroutine[Any, Any, O]],
    input: I,
    /,
    *,
    state: E | None = ...,
    key: str = ...,
) -> OperationResult[E, O]: ...
@overload
def run_operation(
    entity: type[E], operation: Callable[[E], O], /, *, state: E | None = ..., key: str = ...
) -> OperationResult[E, O]: ...
@overload
def run_operation(
    entity: type[E], operation: Callable[[E, I], O], input: I, /, *, state: E | None = ..., key: str = ...
) -> OperationResult[E, O]: ...
@overload
def run_operation(
    entity: type[E], operation: str, input: Any = ..., /, *, state: E | None = ..., key: str = ...
) -> OperationResult[E, Any]: ...
@overload
def run_operation(
    entity: EntityFunction, operation: str, input: Any = ..., /, *, state: Any = ..., key: str = ...
) -> OperationResult[Any, Any]: ...
def run_operation(
    entity: Any, operation: Any, input: Any = NO_INPUT, /, *, state: Any = None, key: str = "key"
) -> OperationResult[Any, Any]:
    """Run one operation of an entity as a host does: state and input go through JSON, an error rolls all back.

    `run_operation(Counter, Counter.add, 5, state=Counter(3)).state == Counter(8)`. One that is `async def` runs in an
    event loop of its own, so not from within another.

    Args:
        state: before the operation; None if the entity does not exist yet.

    Raises:
        TaskFailedError: what a caller gets if the operation raises, also an instance of the original class.
    """
    definition: EntityDefinition | None = getattr(entity, "__entity_class__", None)
    if definition is None:
        raise ConfigurationError(f"{entity!r} is no entity; decorate it with @app.entity.")
    entity_id = EntityId[Any](entity, key)
    name = operation_name(operation, definition)
    item = _work_item(entity_id, name, input, state, "request", BEGINS_AT)
    run = BatchRun(item, definition, CONVERTER, LIMITS)
    batch = _run_async(run) if definition.is_async(name) else run.run(lambda: False)
    [outcome] = batch.outcomes
    if isinstance(outcome, Failed):
        raise exception_from_failure(outcome.details)
    found = definition.operations.get(name.lower())
    return OperationResult(
        None if outcome.result is None else CONVERTER.decode(outcome.result, found.output_type if found else Any),
        None if batch.state is None else CONVERTER.decode(batch.state, definition.state_type),
        _sent(outcome.actions),
    )


def _run_async(run: BatchRun) -> EntityBatch:
    import asyncio

    return asyncio.run(run.run_async(lambda result: result))


def _work_item(
    entity: EntityId[Any], operation: str, input: object, state: object, request_id: str, now: datetime
) -> EntityWorkItem:
    definition = entity.definition
    called = EntityOperationCalled(
        timestamp=now,
        request_id=request_id,
        target_instance_id=entity.instance_id,
        operation=operation,
        input=encode_input(CONVERTER, None, input),
    )
    return EntityWorkItem(
        instance_id=entity.instance_id,
        name=entity.name,
        key=entity.key,
        state=None if state is None else CONVERTER.encode(state),
        state_version=None if definition is None else str(definition.state_version),
        operations=(called,),
        now=now,
        identity="test",
    )


def _sent(actions: Any) -> list[Sent]:
    return cast("list[Sent]", [sent_by(action, CONVERTER) for action in actions])
