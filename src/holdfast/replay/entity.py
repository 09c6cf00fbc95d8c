"""Runs a batch of operations on one entity: each alone, each rolled back when it fails, with what it sends."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextvars import Token
from typing import Any, ParamSpec, TypeAlias, TypeVar

from holdfast.errors import OrchestratorMisuseError, PayloadError
from holdfast.model.converter import DataConverter
from holdfast.model.entities import EntityClass, EntityDefinition, EntityFunction, check_operation, current_state
from holdfast.model.failure import failure_from_exception
from holdfast.model.limits import Limits
from holdfast.model.refs import decode_input
from holdfast.model.work_items import (
    EntityBatch,
    EntityOperation,
    EntityWorkItem,
    Failed,
    OperationOutcome,
    OperationSucceeded,
)
from holdfast.replay.entity_context import CURRENT_OPERATION, EntityContext, OperationRun, entity_context

P = ParamSpec("P")
T = TypeVar("T")

Wait: TypeAlias = Callable[[Awaitable[Any]], Awaitable[Any]]
"""Waits for an operation that is `async def`; whatever goes wrong comes out as an Exception."""


class LiveState:
    """The state of an entity class as an object, kept between batches; `text` is the JSON that it stands for.

    It is made from that text, and no user code has seen it yet.
    """

    __slots__ = ("text", "value")

    def __init__(self, text: str, value: object) -> None:
        self.text = text
        self.value = value


class BatchRun:
    """One batch on its way.

    Raises:
        VersionMismatchError, PayloadError: if the stored state cannot be read by this code; nothing has run then.
    """

    def __init__(
        self,
        work_item: EntityWorkItem,
        entity: EntityDefinition,
        converter: DataConverter,
        limits: Limits,
        live: LiveState | None = None,
    ) -> None:
        self._work_item = work_item
        self._entity = entity
        self._converter = converter
        self._limits = limits
        self._state = None
        if work_item.state is not None:
            self._state = current_state(entity, work_item.state, work_item.state_version, converter)
        self._value: Any = live.value if live is not None and live.text == self._state else self._read()
        self._outcomes: list[OperationOutcome] = []
        self._actions = 0

    @property
    def live(self) -> LiveState | None:
        """The state after the batch, to be given to the next one."""
        return None if self._value is None or self._state is None else LiveState(self._state, self._value)

    def run(self, may_go_on: Callable[[], bool]) -> EntityBatch:
        """Run operations none of which is `async def`: at least one, and others for as long as `may_go_on`."""
        for operation in self._work_item.operations:
            run, token = self._begin(operation)
            try:
                result = _as_exception(self._call, operation)
                _as_exception(self._succeed, run, _plain(operation, result))
            except Exception as error:
                self._fail(error)
            finally:
                _end(run, token)
            if self._is_full or not may_go_on():
                break
        return self._batch()

    async def run_async(self, wait: Wait) -> EntityBatch:
        """Run operations up to the first that is `async def`.

        What follows is left for another batch, so that its outcome is stored at once: the caller does not wait for
        others, and after a crash no operation runs again but the one that was running.
        """
        for operation in self._work_item.operations:
            is_async = self._entity.is_async(operation.operation)
            run, token = self._begin(operation)
            try:
                result = _as_exception(self._call, operation)
                result = await wait(result) if is_async else _plain(operation, result)
                _as_exception(self._succeed, run, result)
            except Exception as error:
                self._fail(error)
            finally:
                _end(run, token)
            if is_async or self._is_full:
                break
        return self._batch()

    def _read(self) -> Any:
        """Return the state of a class as a new object; None if there is none."""
        if self._state is None or not isinstance(self._entity, EntityClass):
            return None
        return self._converter.decode(self._state, self._entity.cls)

    def _read_new(self, operation: EntityOperation, state: str) -> Any:
        try:
            return self._converter.decode(state, self._entity.state_type)
        except PayloadError as error:
            raise PayloadError(
                f"Operation {operation.operation!r} of {self._work_item.instance_id} has left a state that its class "
                f"cannot be made of. {error}"
            ) from error

    @property
    def _is_full(self) -> bool:
        """Whether the operations so far have asked for so much that the others are left for another batch."""
        return self._actions >= self._limits.actions_max

    def _begin(self, operation: EntityOperation) -> tuple[OperationRun, Token[EntityContext | None]]:
        has_fields = isinstance(self._entity, EntityClass)
        run = OperationRun(self._work_item, operation, len(self._outcomes), self._state, has_fields=has_fields)
        return run, CURRENT_OPERATION.set(EntityContext(run, self._converter, self._limits))

    def _call(self, operation: EntityOperation) -> Any:
        match self._entity:
            case EntityClass() as entity:
                return self._call_method(entity, operation)
            case EntityFunction() as entity:
                arguments: list[Any] = [entity_context()]
                if entity.input_required or (entity.has_input and operation.input is not None):
                    arguments.append(decode_input(self._converter, entity, operation.input))
                return entity.function(*arguments)

    def _call_method(self, entity: EntityClass, operation: EntityOperation) -> Any:
        found = check_operation(entity, operation.operation)
        if found is None:
            return entity_context().delete_state()
        if self._value is None:
            self._value = entity.new_state()
        arguments: list[Any] = []
        if found.input_required or (found.has_input and operation.input is not None):
            arguments.append(decode_input(self._converter, found, operation.input))
        return getattr(self._value, found.name)(*arguments)

    def _succeed(self, run: OperationRun, result: Any) -> None:
        """Take over what an operation has done, all of it or, if it cannot be stored and read again, nothing.

        The next operation gets an object of its own: what this one keeps hold of is not the state any more.
        """
        text = run.result if result is None else self._converter.encode(result)
        state, value = run.state, None
        if isinstance(self._entity, EntityClass):
            state = None if run.is_deleted else self._converter.encode(self._value)
            value = None if state is None else self._read_new(run.operation, state)
        self._outcomes.append(OperationSucceeded(text, tuple(run.actions)))
        self._actions += len(run.actions)
        self._state, self._value = state, value

    def _fail(self, error: Exception) -> None:
        self._outcomes.append(Failed(failure_from_exception(error)))
        self._value = self._read()

    def _batch(self) -> EntityBatch:
        version = None if self._state is None else str(self._entity.state_version)
        return EntityBatch(tuple(self._outcomes), self._state, version)


def _plain(operation: EntityOperation, result: Any) -> Any:
    """Return what an operation that is a plain `def` has returned, unless somebody would have to await it."""
    if not inspect.isawaitable(result):
        return result
    if inspect.iscoroutine(result):
        result.close()
    raise OrchestratorMisuseError(
        f"Operation {operation.operation!r} is no `async def`, and returned something to be awaited. What a decorator "
        "has wrapped must be `async def` still."
    )


def _as_exception(work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """Do something; what it raises that is no Exception, such as SystemExit, comes out as one."""
    try:
        return work(*args, **options)
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise RuntimeError(f"The operation raised {error!r}.") from error


def _end(run: OperationRun, token: Token[EntityContext | None]) -> None:
    run.is_over = True
    CURRENT_OPERATION.reset(token)
