"""The part of the context that deals with time, events and entities."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar, Unpack, overload

from holdfast.model.actions import SendEntityMessage, SendEvent
from holdfast.model.entities import operation_name
from holdfast.model.history import EntityOperationCalled, EntityOperationSignaled
from holdfast.model.ids import EntityId, address_of, validate_instance_id
from holdfast.model.instants import instant
from holdfast.model.options import SignalOptions, check_names
from holdfast.model.refs import NO_INPUT, ExternalEvent, validate_event_name
from holdfast.replay.calls import Calls
from holdfast.replay.locks import CriticalSection
from holdfast.replay.open_tasks import OpenTask, TimerTask
from holdfast.replay.tasks import DurableTask

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the typed API
O = TypeVar("O")  # noqa: E741
E = TypeVar("E")
T = TypeVar("T")


class Messaging(Calls):
    """Timers, external events, entity calls and signals, critical sections."""

    __slots__ = ()

    def create_timer(self, due: timedelta | datetime, /) -> TimerTask:
        """Return a task that is completed after a duration or at an aware instant; one in the past fires at once.

        So does a negative duration. It may be years. Daylight saving is the caller's: an instant is an instant.
        """
        self._check_usable()
        return self._execution.create_timer(instant(self._execution.clock(), due))

    @overload
    def wait_for_external_event(
        self, event: ExternalEvent[T], /, *, timeout: timedelta | None = None
    ) -> DurableTask[T]: ...
    @overload
    def wait_for_external_event(self, event: str, /, *, timeout: timedelta | None = None) -> DurableTask[Any]: ...
    def wait_for_external_event(
        self, event: ExternalEvent[Any] | str, /, *, timeout: timedelta | None = None
    ) -> DurableTask[Any]:
        """Return a task for the next external event of a name (case-insensitive).

        Events that came before are kept and handed out in order, each to one wait. With a `timeout` the task raises
        `TimeoutError` when none came in time; that wait is over then, and a later event goes to a later wait.
        """
        self._check_usable()
        name = validate_event_name(event) if isinstance(event, str) else event.name
        expected_type = Any if isinstance(event, str) else event.payload_type
        fire_at = None if timeout is None else instant(self._execution.clock(), timeout)
        return self._execution.events.wait(name, expected_type, fire_at)

    @overload
    def send_event(self, instance_id: str, event: ExternalEvent[None], /) -> None: ...
    @overload
    def send_event(self, instance_id: str, event: ExternalEvent[T], data: T, /) -> None: ...
    @overload
    def send_event(self, instance_id: str, event: str, data: Any = None, /) -> None: ...
    def send_event(self, instance_id: str, event: ExternalEvent[Any] | str, data: Any = None, /) -> None:
        """Send an external event to another orchestration, one way; if that has ended, the event is dropped."""
        self._check_usable()
        validate_instance_id(instance_id)
        name = validate_event_name(event) if isinstance(event, str) else event.name
        payload = self._execution.converter.encode(data)
        self._execution.asked.append(SendEvent(self._execution.asked.take_number(), instance_id, name, payload))

    @overload
    def call_entity(  # type: ignore[overload-overlap]  # a coroutine function is also a function; the first match holds
        self, entity: EntityId[E], operation: Callable[[E], Coroutine[Any, Any, O]], /
    ) -> DurableTask[O]: ...
    @overload
    def call_entity(  # type: ignore[overload-overlap]  # as above
        self, entity: EntityId[E], operation: Callable[[E, I], Coroutine[Any, Any, O]], input: I, /
    ) -> DurableTask[O]: ...
    @overload
    def call_entity(self, entity: EntityId[E], operation: Callable[[E], O], /) -> DurableTask[O]: ...
    @overload
    def call_entity(self, entity: EntityId[E], operation: Callable[[E, I], O], input: I, /) -> DurableTask[O]: ...
    @overload
    def call_entity(self, entity: EntityId[Any], operation: str, input: Any = ..., /) -> DurableTask[Any]: ...
    def call_entity(
        self, entity: EntityId[Any], operation: Callable[..., Any] | str, input: Any = NO_INPUT, /
    ) -> DurableTask[Any]:
        """Run an operation on an entity and wait for its result; its failure is raised here as `TaskFailedError`.

        In a critical section whose lock is lost, it raises `LockLostError`, and nothing has run.
        """
        self._check_usable()
        target = address_of(entity)
        self._locks.check_call(target)
        execution = self._execution
        name, payload = operation_name(operation, entity.definition), self._encode(None, input)

        number = execution.asked.take_number()
        request_id = f"{execution.identity}:{number}"
        called = EntityOperationCalled(
            timestamp=execution.clock(),
            event_id=number,
            request_id=request_id,
            target_instance_id=target,
            operation=name,
            input=payload,
            parent_instance_id=execution.instance_id,
            parent_execution_id=execution.identity,
            critical_section_id=self._locks.section_id,
        )
        execution.asked.append(SendEntityMessage(called))
        task: OpenTask[Any] = OpenTask(execution.open_tasks, number, entity.result_type(name))
        execution.open_tasks.add(task)
        execution.open_tasks.add_request(request_id, number)
        self._locks.calling(target, task)
        return task

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
        """Ask an entity to run an operation, one way: there is no result, and a failure is not reported.

        Options: `due`; see `SignalOptions`.
        """
        self._check_usable()
        check_names(options, SignalOptions, "signal_entity")
        target = address_of(entity)
        self._locks.check_signal(target)
        execution = self._execution
        name, payload = operation_name(operation, entity.definition), self._encode(None, input)
        due = options.get("due")
        due_at = None if due is None else instant(execution.clock(), due)
        number = execution.asked.take_number()
        signaled = EntityOperationSignaled(
            timestamp=execution.clock(),
            event_id=number,
            request_id=f"{execution.identity}:{number}",
            target_instance_id=target,
            operation=name,
            input=payload,
            due_at=due_at,
        )
        execution.asked.append(SendEntityMessage(signaled))

    def lock(
        self, *entities: EntityId[Any], timeout: timedelta | None = None, lease: timedelta | None = None
    ) -> CriticalSection:
        """Return a critical section over entities, for `async with`. No other orchestration gets in between.

        Args:
            timeout: how long to wait for the locks; `TimeoutError` is raised then, and none of them is held.
            lease: how long to hold them at most; after that they are given back, and calls of these entities inside
                the section raise `LockLostError`.
        """
        self._check_usable()
        return self._locks.section(self._execution, entities, timeout, lease)
