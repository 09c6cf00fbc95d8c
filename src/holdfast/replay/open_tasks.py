"""The tasks of one execution that wait for an answer from the hub, each under the sequence number of its request."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from holdfast.errors import HoldfastError
from holdfast.model.actions import CancelTask
from holdfast.model.failure import FailureDetails, exception_from_failure
from holdfast.replay.tasks import DurableTask

if TYPE_CHECKING:
    from holdfast.replay.orchestration import Execution

T = TypeVar("T")

_TASK_BYTES = 512
_NO_NUMBER: Final = -(2**63)

RAW: Final = object()
"""The expected type of a payload that is not to be decoded yet."""


class OpenTask(DurableTask[T]):
    """A task that the answer to the request of its sequence number completes."""

    __slots__ = ("_open_tasks", "expected_type", "number")

    def __init__(self, open_tasks: OpenTasks, number: int, expected_type: Any) -> None:
        super().__init__(open_tasks.execution)
        self._open_tasks = open_tasks
        self.number = number
        self.expected_type = expected_type

    def _given_up(self) -> Callable[[DurableTask[Any]], object]:
        return self._close

    def _close(self, _: DurableTask[Any]) -> None:
        if self._open_tasks.remove(self):
            self.take_back(self._open_tasks.execution)

    def take_back(self, execution: Execution) -> None:
        """Tell the hub, or nobody, that the answer will not be heard."""


class CallTask(OpenTask[Any]):
    """The call of an activity or a sub-orchestration: what can be carried into the next execution."""

    __slots__ = ()

    def take_back(self, execution: Execution) -> None:
        execution.asked.append(CancelTask(self.number))


class TimerTask(OpenTask[None]):
    """A durable timer."""

    __slots__ = ()

    def take_back(self, execution: Execution) -> None:
        execution.asked.take_timer_back(self.number)


class OpenTasks:
    __slots__ = ("_by_number", "_requests", "execution")

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self._by_number: dict[int, OpenTask[Any]] = {}
        self._requests: dict[str, int] | None = None

    @property
    def work(self) -> int:
        """How many activities, sub-orchestrations and entity calls have not answered."""
        return sum(not isinstance(task, TimerTask) for task in self._by_number.values())

    def add(self, task: OpenTask[Any]) -> None:
        self._by_number[task.number] = task
        self.execution.size_bytes += _TASK_BYTES

    def remove(self, task: OpenTask[Any]) -> bool:
        """Forget a task that was cancelled; return whether it was open."""
        is_open = self._by_number.pop(task.number, None) is not None
        if is_open:
            self.execution.size_bytes -= _TASK_BYTES
        return is_open

    def add_call(self, number: int, expected_type: Any) -> CallTask:
        """Return the task for an activity or a sub-orchestration."""
        task = CallTask(self, number, expected_type)
        self._by_number[number] = task
        self.execution.size_bytes += _TASK_BYTES
        return task

    def is_open(self, number: int) -> bool:
        return number in self._by_number

    def number_of(self, task: DurableTask[Any]) -> int | None:
        """Return the sequence number of an open activity or sub-orchestration; None for anything else."""
        return task.number if isinstance(task, CallTask) and self._by_number.get(task.number) is task else None

    def add_request(self, request_id: str, number: int) -> None:
        """Let the answer to an entity request, which carries its id, find the task of a sequence number."""
        if self._requests is None:
            self._requests = {}
        self._requests[request_id] = number

    def finish(self, task: DurableTask[Any], payload: str | None, expected_type: Any) -> None:
        """Complete a task with a payload, or with the reason why that cannot be decoded."""
        execution = self.execution
        execution.grow(payload)
        try:
            if expected_type is RAW:
                value: Any = payload
            else:
                value = None if payload is None else execution.converter.decode(payload, expected_type)
        except HoldfastError as error:
            kind, message = type(error), str(error)
            task.fail(lambda: kind(message))
        else:
            task.complete(value)

    def completed(self, number: int, payload: str | None) -> None:
        """Take in the result of what was asked for."""
        task = self._settle(number)
        if task is not None:
            self.finish(task, payload, task.expected_type)

    def failed(self, number: int, failure: FailureDetails) -> None:
        """Take in the failure of what was asked for."""
        task = self._settle(number)
        if task is not None:
            task.fail(lambda: exception_from_failure(failure))

    def _settle(self, number: int) -> OpenTask[Any] | None:
        """Return the task that an answer is for, if anything may come of it still."""
        execution = self.execution
        task = None if execution.is_over else self._by_number.pop(number, None)
        if task is not None:
            execution.size_bytes -= _TASK_BYTES
        return task

    def number_of_request(self, request_id: str) -> int:
        """Return the sequence number of an entity request that is answered; one that no task has if it is unknown."""
        return self._requests.pop(request_id, _NO_NUMBER) if self._requests else _NO_NUMBER
