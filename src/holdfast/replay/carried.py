"""Tasks that are handed from one execution to the next, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from holdfast.errors import InvalidInputError
from holdfast.model.actions import Carried, TaskAnswer
from holdfast.model.history import ExecutionStarted
from holdfast.model.refs import validate_name
from holdfast.replay.open_tasks import RAW
from holdfast.replay.tasks import DurableTask, failure_of

if TYPE_CHECKING:
    from holdfast.replay.orchestration import Execution

_NONE: Final[Mapping[Any, Any]] = MappingProxyType({})


class CarriedTasks:
    """The tasks that one execution was given, and those that it hands on."""

    __slots__ = ("_decoded", "_execution", "_given", "_handed_on")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._given: Mapping[str, DurableTask[Any]] = _NONE
        self._decoded: tuple[tuple[DurableTask[Any], DurableTask[Any]], ...] = ()
        """What the code holds of each given task, with that task."""
        self._handed_on: Mapping[int, Carried] = _NONE

    @property
    def handed_on(self) -> tuple[Carried, ...]:
        """What the next execution takes over: not what the code has cancelled after it had handed it on."""
        return tuple(
            each
            for each in self._handed_on.values()
            if each.answer is not None or self._execution.open_tasks.is_open(each.number)
        )

    def take_over(self, started: ExecutionStarted) -> None:
        """Open the tasks that the execution before this one has handed on."""
        execution = self._execution
        if started.carried:
            self._given = {task.name: execution.open_tasks.add_call(task.number, RAW) for task in started.carried}

    def get(self, name: str, expected_type: Any) -> DurableTask[Any]:
        """Return the task that was handed on under a name.

        Raises:
            InvalidInputError: if there is none.
        """
        given = self._given.get(name)
        if given is None:
            known = ", ".join(sorted(self._given)) or "none"
            raise InvalidInputError(f"No task {name!r} was carried into this execution; it has {known}.")
        decoded: DurableTask[Any] = DurableTask(self._execution, given.cancel)

        def ended(task: DurableTask[Any]) -> None:
            if task.is_failed:
                decoded.fail(failure_of(task))
            else:
                self._execution.open_tasks.finish(decoded, task.result, expected_type)

        given.observe(ended)
        self._decoded = (*self._decoded, (decoded, given))
        return decoded

    def hand_on(self, tasks: Mapping[str, DurableTask[Any]]) -> None:
        """Hand tasks on to the next execution.

        Raises:
            InvalidInputError: for one that is no open call of an activity or a sub-orchestration.
        """
        handed_on: dict[int, Carried] = {}
        for name, task in tasks.items():
            given = next((given for decoded, given in self._decoded if decoded is task), task)
            number = self._execution.open_tasks.number_of(given)
            if number is None:
                raise InvalidInputError(
                    f"The task {name!r} cannot be carried: only an activity or a sub-orchestration that goes on can, "
                    "one without a retry handler or a timeout of its own. Hand its result on with the input."
                )
            if number in handed_on:
                raise InvalidInputError(f"The task {name!r} is carried as {handed_on[number].name!r} already.")
            handed_on[number] = Carried(validate_name(name), number)
        self._handed_on = handed_on

    def answered(self, event: TaskAnswer) -> None:
        """Keep an answer that came in after the code had ended, for the next execution."""
        carried = self._handed_on.get(event.task_scheduled_id)
        if carried is not None:
            answered = Carried(carried.name, carried.number, event)
            self._handed_on = {**self._handed_on, event.task_scheduled_id: answered}
