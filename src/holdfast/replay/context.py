"""The object that orchestrator code holds."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from holdfast.errors import InvalidInputError, OrchestratorMisuseError, PayloadTooLargeError
from holdfast.model.actions import CreateSubOrchestration, ScheduleTask, SendEntityMessage, SendEvent
from holdfast.model.history import EntityOperationCalled, EntityOperationSignaled
from holdfast.model.ids import EntityId, validate_instance_id
from holdfast.model.refs import (
    NO_INPUT,
    Activity,
    ExternalEvent,
    Orchestrator,
    check_options,
    encode_input,
    operation_name,
    validate_event_name,
    validate_name,
)
from holdfast.model.retry import RetryPolicy
from holdfast.replay.deterministic import deterministic_random, deterministic_uuid
from holdfast.replay.locks import CriticalSection, Locks
from holdfast.replay.logger import ReplaySafeLogger
from holdfast.replay.orchestration import Execution
from holdfast.replay.tasks import DurableTask, TimerTask

if TYPE_CHECKING:
    import logging

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the typed API
O = TypeVar("O")  # noqa: E741
E = TypeVar("E")
T = TypeVar("T")


class OrchestrationContext:
    """What an orchestrator may do, and all that it may know of the world.

    Every method that returns a `DurableTask` schedules at once; awaiting only waits. Arguments are checked and encoded
    at the call: a value that is not JSON-able raises `PayloadError` there.
    """

    __slots__ = ("_execution", "_locks", "_random", "_uuids")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._locks = Locks()
        self._random: random.Random | None = None
        self._uuids = 0

    @property
    def name(self) -> str:
        """The name of the orchestrator."""
        return self._execution.orchestrator.name

    @property
    def instance_id(self) -> str:
        return self._execution.instance_id

    @property
    def execution_id(self) -> str:
        """Changes with each `continue_as_new`."""
        return self._execution.execution_id

    @property
    def parent_instance_id(self) -> str | None:
        """The instance that called this one as a sub-orchestration, if any."""
        return self._execution.parent_instance_id

    @property
    def current_utc_datetime(self) -> datetime:
        """The time, aware and in UTC; it stands still between two waits and is the same on every replay."""
        return self._execution.clock()

    @property
    def is_replaying(self) -> bool:
        """Whether the code now runs over what has happened before."""
        return self._execution.is_replaying

    @property
    def random(self) -> random.Random:
        """A generator that is the same on every replay; not for secrets."""
        if self._random is None:
            self._random = deterministic_random(self.instance_id, self.execution_id)
        return self._random

    def new_uuid(self) -> uuid.UUID:
        """Return a UUID (version 5) that is the same on every replay."""
        self._uuids += 1
        return deterministic_uuid(self.instance_id, self.execution_id, self.current_utc_datetime, self._uuids - 1)

    def create_replay_safe_logger(self, logger: logging.Logger) -> ReplaySafeLogger:
        """Return a logger that is silent while the code replays, so that each line is logged once."""
        return ReplaySafeLogger(logger, self._execution)

    @overload
    def call_activity(
        self, activity: Activity[None, O], /, *, retry: RetryPolicy | None = None, timeout: timedelta | None = None
    ) -> DurableTask[O]: ...
    @overload
    def call_activity(
        self,
        activity: Activity[I, O],
        input: I,
        /,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
    ) -> DurableTask[O]: ...
    @overload
    def call_activity(
        self, activity: str, input: Any = ..., /, *, retry: RetryPolicy | None = None, timeout: timedelta | None = None
    ) -> DurableTask[Any]: ...
    def call_activity(
        self,
        activity: Activity[Any, Any] | str,
        input: Any = NO_INPUT,
        /,
        *,
        retry: RetryPolicy | None = None,
        timeout: timedelta | None = None,
    ) -> DurableTask[Any]:
        """Schedule an activity; the task has its result.

        Args:
            retry: what to do when an attempt fails; overrides the activity's own policy.
            timeout: how long one attempt may take; overrides the activity's own.

        The task raises `TaskFailedError`, which is also an instance of the original class where that is loaded.
        """
        self._check_alive()
        if not isinstance(activity, Activity | str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(f"{activity!r} is no activity; decorate the function with @app.activity.")
        name, speculative = validate_name(activity) if isinstance(activity, str) else activity.name, False
        if not isinstance(activity, str):
            retry, timeout = retry or activity.retry, timeout or activity.timeout
            speculative = activity.speculative
        check_options(name, retry, timeout)
        payload = self._encode(activity, input)
        return self._execution.schedule(
            lambda number: ScheduleTask(number, name, payload, retry, timeout, speculative), _output_type(activity)
        )

    @overload
    def call_sub_orchestrator(
        self, orchestrator: Orchestrator[None, O], /, *, instance_id: str | None = None
    ) -> DurableTask[O]: ...
    @overload
    def call_sub_orchestrator(
        self, orchestrator: Orchestrator[I, O], input: I, /, *, instance_id: str | None = None
    ) -> DurableTask[O]: ...
    @overload
    def call_sub_orchestrator(
        self, orchestrator: str, input: Any = ..., /, *, instance_id: str | None = None
    ) -> DurableTask[Any]: ...
    def call_sub_orchestrator(
        self, orchestrator: Orchestrator[Any, Any] | str, input: Any = NO_INPUT, /, *, instance_id: str | None = None
    ) -> DurableTask[Any]:
        """Start another orchestration and wait for its result; its failure is raised here as `TaskFailedError`.

        Without an `instance_id` it gets one made of this execution's id and the number of the call.
        """
        self._check_alive()
        self._locks.check_sub_orchestration()
        if not isinstance(orchestrator, Orchestrator | str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(f"{orchestrator!r} is no orchestrator; decorate it with @app.orchestrator.")
        if instance_id is not None:
            validate_instance_id(instance_id)
            if instance_id in (self.instance_id, self.parent_instance_id):
                raise InvalidInputError(
                    "A sub-orchestration cannot have the instance id of its caller or that one's caller: "
                    f"{instance_id!r}."
                )
        name = validate_name(orchestrator) if isinstance(orchestrator, str) else orchestrator.name
        payload = self._encode(orchestrator, input)
        execution_id = self.execution_id
        return self._execution.schedule(
            lambda number: CreateSubOrchestration(number, name, instance_id or f"{execution_id}:{number}", payload),
            _output_type(orchestrator),
        )

    def create_timer(self, due: timedelta | datetime, /) -> TimerTask:
        """Return a task that is completed after a duration or at an aware instant; one in the past fires at once."""
        self._check_alive()
        return self._execution.create_timer(_instant(self.current_utc_datetime, due))

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
        self._check_alive()
        name = validate_event_name(event) if isinstance(event, str) else event.name
        expected_type = Any if isinstance(event, str) else event.payload_type
        fire_at = None if timeout is None else _instant(self.current_utc_datetime, timeout)
        return self._execution.wait_for_event(name, expected_type, fire_at)

    @overload
    def send_event(self, instance_id: str, event: ExternalEvent[None], /) -> None: ...
    @overload
    def send_event(self, instance_id: str, event: ExternalEvent[T], data: T, /) -> None: ...
    @overload
    def send_event(self, instance_id: str, event: str, data: Any = None, /) -> None: ...
    def send_event(self, instance_id: str, event: ExternalEvent[Any] | str, data: Any = None, /) -> None:
        """Send an external event to another orchestration, one way; if that has ended, the event is dropped."""
        self._check_alive()
        validate_instance_id(instance_id)
        name = validate_event_name(event) if isinstance(event, str) else event.name
        payload = self._execution.converter.encode(data)
        self._execution.ask(lambda number: SendEvent(number, instance_id, name, payload))

    @overload
    def call_entity(self, entity: EntityId[E], operation: Callable[[E], O], /) -> DurableTask[O]: ...
    @overload
    def call_entity(self, entity: EntityId[E], operation: Callable[[E, I], O], input: I, /) -> DurableTask[O]: ...
    @overload
    def call_entity(self, entity: EntityId[Any], operation: str, input: Any = ..., /) -> DurableTask[Any]: ...
    def call_entity(
        self, entity: EntityId[Any], operation: Callable[..., Any] | str, input: Any = NO_INPUT, /
    ) -> DurableTask[Any]:
        """Run an operation on an entity and wait for its result; its failure is raised here as `TaskFailedError`."""
        self._check_alive()
        target = entity.instance_id
        self._locks.check_call(target)
        execution = self._execution
        name, payload = operation_name(operation), self._encode(None, input)

        def call(number: int) -> SendEntityMessage:
            return SendEntityMessage(
                EntityOperationCalled(
                    timestamp=execution.clock(),
                    event_id=number,
                    request_id=f"{execution.execution_id}:{number}",
                    target_instance_id=target,
                    operation=name,
                    input=payload,
                    parent_instance_id=execution.instance_id,
                    parent_execution_id=execution.execution_id,
                )
            )

        number = execution.ask(call)
        task = execution.open_task(number, entity.result_type(name))
        execution.open_request(f"{execution.execution_id}:{number}", number)
        self._locks.calling(target, task)
        return task

    @overload
    def signal_entity(self, entity: EntityId[E], operation: Callable[[E], Any], /) -> None: ...
    @overload
    def signal_entity(self, entity: EntityId[E], operation: Callable[[E, I], Any], input: I, /) -> None: ...
    @overload
    def signal_entity(self, entity: EntityId[Any], operation: str, input: Any = ..., /) -> None: ...
    def signal_entity(
        self, entity: EntityId[Any], operation: Callable[..., Any] | str, input: Any = NO_INPUT, /
    ) -> None:
        """Ask an entity to run an operation, one way: there is no result, and a failure is not reported."""
        self._check_alive()
        target = entity.instance_id
        self._locks.check_signal(target)
        execution = self._execution
        name, payload = operation_name(operation), self._encode(None, input)
        execution.ask(
            lambda number: SendEntityMessage(
                EntityOperationSignaled(
                    timestamp=execution.clock(),
                    event_id=number,
                    request_id=f"{execution.execution_id}:{number}",
                    target_instance_id=target,
                    operation=name,
                    input=payload,
                )
            )
        )

    def lock(self, *entities: EntityId[Any]) -> CriticalSection:
        """Return a critical section over entities, for `async with`. No other orchestration gets in between."""
        self._check_alive()
        return self._locks.section(self._execution, entities)

    def continue_as_new(self, input: Any = None, /, *, preserve_unprocessed_events: bool = True) -> None:
        """Start over with a new input and an empty history, once the function returns; return right after this call.

        What is still open is dropped: results of activities, timers, sub-orchestrations. External events that nobody
        waited for are handed on, unless told otherwise.
        """
        self._check_alive()
        payload = self._execution.converter.encode(input)
        self._execution.continue_as_new(payload, preserve_unprocessed_events)

    def set_custom_status(self, status: Any, /) -> None:
        """Show a JSON-able value (16 KiB at most) to whoever asks for this instance's status, from the next wait on."""
        self._check_alive()
        text = self._execution.converter.encode(status)
        limit = self._execution.limits.custom_status_bytes_max
        if len(text.encode()) > limit:
            raise PayloadTooLargeError(
                f"The custom status has {len(text.encode())} bytes; at most {limit} are allowed."
            )
        self._execution.set_custom_status(text)

    def _encode(self, function: Activity[Any, Any] | Orchestrator[Any, Any] | str | None, input: Any) -> str | None:
        known = None if isinstance(function, str) else function
        return encode_input(self._execution.converter, known, input)

    def _check_alive(self) -> None:
        if self._execution.is_inert:
            raise OrchestratorMisuseError(
                f"Instance {self.instance_id!r} was unloaded; this context is not connected to anything any more."
            )


def _output_type(function: Activity[Any, Any] | Orchestrator[Any, Any] | str) -> Any:
    return Any if isinstance(function, str) else function.output_type


def _instant(now: datetime, due: timedelta | datetime) -> datetime:
    """Return an instant in UTC."""
    if not isinstance(due, timedelta | datetime):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"{due!r} is no time to wait for; use timedelta(seconds=...) or an aware datetime.")
    try:
        fire_at = now + due if isinstance(due, timedelta) else due
    except OverflowError:
        raise InvalidInputError(f"A timer cannot be due after {due}: the calendar ends before that.") from None
    if fire_at.tzinfo is None:
        raise InvalidInputError(
            f"The instant {due} has no time zone; use an aware datetime, such as ctx.current_utc_datetime + delay."
        )
    return fire_at.astimezone(now.tzinfo)
