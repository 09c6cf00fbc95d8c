"""The tasks of one execution that wait for an answer from the hub, each under the sequence number of its request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import HoldfastError
from holdfast.model.actions import TaskAnswer
from holdfast.model.failure import FailureDetails, exception_from_failure
from holdfast.model.history import (
    EntityLockGranted,
    EntityOperationCompleted,
    EntityOperationFailed,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TimerFired,
)
from holdfast.replay.tasks import DurableTask, TimerTask

if TYPE_CHECKING:
    from holdfast.replay.orchestration import Execution

_TASK_BYTES = 512

RAW: Final = object()
"""The expected type of a payload that is not to be decoded yet."""


class _CallTask(DurableTask[Any]):
    """The call of an activity or a sub-orchestration: what can be carried into the next execution."""

    __slots__ = ()


class OpenTasks:
    __slots__ = ("_by_number", "_execution", "_requests")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._by_number: dict[int, tuple[DurableTask[Any], Any]] = {}
        self._requests: dict[str, int] | None = None

    @property
    def work(self) -> int:
        """How many activities, sub-orchestrations and entity calls have not answered."""
        return sum(not isinstance(task, TimerTask) for task, _ in self._by_number.values())

    def add(
        self, number: int, expected_type: Any = None, give_up: Callable[[int], None] | None = None
    ) -> DurableTask[Any]:
        """Return the task that the answer to a sequence number completes; `give_up` is called if it is cancelled."""
        task: DurableTask[Any] = DurableTask(self._execution, lambda: self._cancelled(number, give_up))
        self._open(number, task, expected_type)
        return task

    def add_call(self, number: int, expected_type: Any, give_up: Callable[[int], None] | None) -> DurableTask[Any]:
        """Return the task for an activity or a sub-orchestration."""
        task = _CallTask(self._execution, lambda: self._cancelled(number, give_up))
        self._open(number, task, expected_type)
        return task

    def is_open(self, number: int) -> bool:
        return number in self._by_number

    def number_of(self, task: DurableTask[Any]) -> int | None:
        """Return the sequence number of an open activity or sub-orchestration; None for anything else."""
        if not isinstance(task, _CallTask):
            return None
        return next((number for number, (each, _) in self._by_number.items() if each is task), None)

    def add_timer(self, number: int, give_up: Callable[[int], None]) -> TimerTask:
        task = TimerTask(self._execution, lambda: self._cancelled(number, give_up))
        self._open(number, task, None)
        return task

    def add_request(self, request_id: str, number: int) -> None:
        """Let the answer to an entity request, which carries its id, find the task of a sequence number."""
        if self._requests is None:
            self._requests = {}
        self._requests[request_id] = number

    def finish(self, task: DurableTask[Any], payload: str | None, expected_type: Any) -> None:
        """Complete a task with a payload, or with the reason why that cannot be decoded."""
        self._execution.grow(payload)
        try:
            if expected_type is RAW:
                value: Any = payload
            else:
                value = None if payload is None else self._execution.converter.decode(payload, expected_type)
        except HoldfastError as error:
            kind, message = type(error), str(error)
            task.fail(lambda: kind(message))
        else:
            task.complete(value)

    def _open(self, number: int, task: DurableTask[Any], expected_type: Any) -> None:
        self._by_number[number] = (task, expected_type)
        self._execution.size_bytes += _TASK_BYTES

    def _cancelled(self, number: int, give_up: Callable[[int], None] | None) -> None:
        if self._by_number.pop(number, None) is not None:
            self._execution.size_bytes -= _TASK_BYTES
            if give_up is not None:
                give_up(number)

    def _settle(self, number: int, payload: str | None = None, failure: FailureDetails | None = None) -> None:
        entry = None if self._execution.is_over else self._by_number.pop(number, None)
        if entry is None:
            return  # it was cancelled, or the code has ended: nothing may come of it any more
        task, expected_type = entry
        self._execution.size_bytes -= _TASK_BYTES
        if failure is not None:
            details = failure
            task.fail(lambda: exception_from_failure(details))
        else:
            self.finish(task, payload, expected_type)

    def answered(self, event: TaskAnswer) -> None:
        if self._execution.continues_as_new:
            self._execution.carried.answered(event)
        match event:
            case TaskCompleted() | SubOrchestrationInstanceCompleted():
                self._settle(event.task_scheduled_id, event.result)
            case TaskFailed() | SubOrchestrationInstanceFailed():
                self._settle(event.task_scheduled_id, failure=event.failure)

    def timer_fired(self, event: TimerFired) -> None:
        self._settle(event.timer_id)

    def operation_completed(self, event: EntityOperationCompleted) -> None:
        self._settle(self._number_of_request(event.request_id), event.output)

    def operation_failed(self, event: EntityOperationFailed) -> None:
        self._settle(self._number_of_request(event.request_id), failure=event.failure)

    def lock_granted(self, event: EntityLockGranted) -> None:
        self._settle(self._number_of_request(event.critical_section_id))

    def _number_of_request(self, request_id: str) -> int:
        return self._requests.pop(request_id, -1) if self._requests else -1
