"""One live execution of an orchestrator: events in, actions out.

The same code runs new events and replays recorded ones; a replay differs only in that what the code asks for is
compared with the history instead of being passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, ClassVar

from holdfast.errors import HoldfastError, InvalidInputError, NonDeterminismError, WaitTimeoutError
from holdfast.model.actions import (
    CancelTimer,
    CompleteOrchestration,
    CreateTimer,
    OrchestratorAction,
)
from holdfast.model.converter import DataConverter
from holdfast.model.failure import FailureDetails, exception_from_failure, failure_from_exception
from holdfast.model.history import (
    EntityLockGranted,
    EntityOperationCompleted,
    EntityOperationFailed,
    EventRaised,
    ExecutionStarted,
    HistoryEvent,
    OrchestratorStarted,
    ScheduledEvent,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TimerFired,
)
from holdfast.model.limits import Limits
from holdfast.model.refs import Orchestrator, decode_input
from holdfast.model.status import OrchestrationStatus
from holdfast.model.work_items import Episode
from holdfast.replay.asked import Asked
from holdfast.replay.discard import can_discard
from holdfast.replay.event_queues import EventQueues, Wait
from holdfast.replay.matching import check_episode, ended_early
from holdfast.replay.stepper import Raised, Returned, Stepper
from holdfast.replay.tasks import DurableTask, TimerTask

_BASE_BYTES = 4_096
_TASK_BYTES = 512
_VALUE_FACTOR = 3  # decoded Python values take about three times the room of their JSON


class Execution:
    """The live state of one execution between its episodes. All methods run on one thread."""

    def __init__(
        self,
        orchestrator: Orchestrator[Any, Any],
        instance_id: str,
        execution_id: str,
        converter: DataConverter,
        limits: Limits,
        make_context: Callable[[Execution], object],
    ) -> None:
        self.orchestrator = orchestrator
        self.instance_id = instance_id
        self.execution_id = execution_id
        self.converter = converter
        self.limits = limits
        self.episodes = 0
        self.size_bytes = _BASE_BYTES
        self.now: datetime | None = None
        self.parent_instance_id: str | None = None
        self.is_replaying = False
        self.is_inert = False
        self._context = make_context(self)
        self._stepper: Stepper | None = None
        self._next_id = 0
        self._asked = Asked()
        self._open: dict[int, tuple[DurableTask[Any], Any]] = {}
        self._requests: dict[str, int] = {}
        self._events = EventQueues()
        self._custom_status: str | None = None
        self._continue_as_new: tuple[str | None, bool] | None = None
        self._outcome: Returned | Raised | None = None
        self._end_action: CompleteOrchestration | None = None

    # What the engine calls

    def replay(self, episodes: Iterable[Sequence[HistoryEvent]]) -> None:
        """Run recorded episodes.

        Raises:
            NonDeterminismError: if the code does not ask for what is recorded.
        """
        self.is_replaying = self._asked.with_lines = True
        for events in episodes:
            self._run(events)
            if self._end_action is not None:
                raise ended_early(self._subject(), self.episodes - 1, self._end_action.failure)
            recorded = [event for event in events if isinstance(event, ScheduledEvent)]
            check_episode(self._subject(), self.episodes - 1, recorded, self._asked.events(self.clock()))
        self.is_replaying = self._asked.with_lines = False
        self._custom_status = None

    def run(self, events: Sequence[HistoryEvent]) -> Episode:
        """Run one new episode, whose first event is `OrchestratorStarted`."""
        self._run(events)
        status, self._custom_status = self._custom_status, None
        return Episode(self._asked.actions(), status)

    def can_unload(self) -> bool:
        """Whether the execution can be dropped from memory without user code noticing."""
        return self._stepper is None or can_discard(self._stepper.body)

    def unload(self) -> None:
        """Drop the coroutine. Whatever user code still runs while it is closed finds an inert context."""
        self.is_inert = True
        if self._stepper is not None:
            self._stepper.close()
            self._stepper = None

    # What the context calls

    def schedule(self, make_action: Callable[[int], OrchestratorAction], expected_type: Any = None) -> DurableTask[Any]:
        """Ask for something that has a result, and return the task for it."""
        return self.open_task(self.ask(make_action), expected_type)

    def open_task(self, number: int, expected_type: Any = None) -> DurableTask[Any]:
        """Return the task that the completion of a sequence number will complete."""
        task: DurableTask[Any] = DurableTask(self)
        self._open[number] = (task, expected_type)
        self.size_bytes += _TASK_BYTES
        return task

    def ask(self, make_action: Callable[[int], OrchestratorAction]) -> int:
        """Ask for something without a result; return its sequence number.

        Raises:
            InvalidInputError: if the episode has asked for too much already.
        """
        if len(self._asked) >= self.limits.actions_max:
            raise InvalidInputError(
                f"Orchestrator {self.orchestrator.name!r} asked for more than {self.limits.actions_max} things at "
                "once; split the work into sub-orchestrations."
            )
        number = self._next_id
        action = make_action(number)
        self._next_id += 1
        self._asked.append(action)
        return number

    def open_request(self, request_id: str, number: int) -> None:
        """Let the answer to an entity request, which carries its id, find the task of a sequence number."""
        self._requests[request_id] = number

    def create_timer(self, fire_at: datetime) -> TimerTask:
        number = self.ask(lambda number: CreateTimer(number, fire_at))
        task = TimerTask(self, number)
        self._open[number] = (task, None)
        self.size_bytes += _TASK_BYTES
        return task

    def cancel_timer(self, timer_id: int) -> None:
        """Take a timer back: unasked if it was created in this very episode, else by an action."""
        self._open.pop(timer_id, None)
        if not self._asked.take_back_timer(timer_id):
            self._asked.append(CancelTimer(timer_id))

    def wait_for_event(self, name: str, expected_type: Any, fire_at: datetime | None) -> DurableTask[Any]:
        """Return a task for the next event of a name: a buffered one, or the next that comes, first waiter first."""
        task: DurableTask[Any] = DurableTask(self)
        buffered = self._events.take(name)
        if buffered is not None:
            self.size_bytes -= _TASK_BYTES
            self._complete(task, buffered.input, expected_type)
            return task
        wait = Wait(task, expected_type)
        self._events.add(name, wait)
        self.size_bytes += _TASK_BYTES
        if fire_at is not None:
            self._limit_wait(name, wait, fire_at)
        return task

    def set_custom_status(self, status: str) -> None:
        self._custom_status = status

    def continue_as_new(self, input: str | None, preserve_unprocessed_events: bool) -> None:
        self._continue_as_new = (input, preserve_unprocessed_events)

    def clock(self) -> datetime:
        """The time of the current episode, the same on every replay."""
        if self.now is None:
            raise NonDeterminismError(f"{self._subject()} has a history that does not begin with OrchestratorStarted.")
        return self.now

    # Episodes

    def _run(self, events: Sequence[HistoryEvent]) -> None:
        self._asked.clear()
        self.episodes += 1
        for event in events:
            if self._outcome is not None:
                if isinstance(event, EventRaised):
                    self._events.keep(event)  # it came with the last episode, but for the next execution
                continue
            handler = self._handlers.get(type(event))
            if handler is not None:
                handler(self, event)
        if self._outcome is not None and self._end_action is None:
            self._end_action = self._completion(self._outcome)
            self._asked.append(self._end_action)

    def _on_orchestrator_started(self, event: OrchestratorStarted) -> None:
        self.now = event.timestamp

    def _on_execution_started(self, event: ExecutionStarted) -> None:
        self.parent_instance_id = event.parent.instance_id if event.parent else None
        self._grow(event.input)
        try:
            body = self._call_orchestrator(event.input)
        except Exception as error:
            self._outcome = Raised(error)
            return
        if body is not None:
            self._stepper = Stepper(body, self)
            self._advance()

    def _call_orchestrator(self, input: str | None) -> Any:
        """Call the user's function; return its body, or None if it was a plain function and is finished already."""
        arguments: list[Any] = [self._context]
        if self.orchestrator.has_input:
            arguments.append(decode_input(self.converter, self.orchestrator, input))
        result = self.orchestrator.function(*arguments)
        if hasattr(result, "send") and hasattr(result, "throw"):
            return result
        self._outcome = Returned(result)
        return None

    def _advance(self) -> None:
        """Run the body for as long as what it waits for is completed."""
        stepper = self._stepper
        while stepper is not None and self._outcome is None:
            waiting_for = stepper.waiting_for
            if waiting_for is not None and not waiting_for.is_completed:
                return
            self._outcome = stepper.step()

    def _completion(self, outcome: Returned | Raised) -> CompleteOrchestration:
        if isinstance(outcome, Raised):
            return CompleteOrchestration(OrchestrationStatus.FAILED, failure=failure_from_exception(outcome.error))
        if self._continue_as_new is not None:
            next_input, preserve = self._continue_as_new
            events = self._events.unprocessed() if preserve else ()
            return CompleteOrchestration(
                OrchestrationStatus.CONTINUED_AS_NEW, result=next_input, carryover_events=events
            )
        try:
            result = self.converter.encode(outcome.value)
        except HoldfastError as error:
            return CompleteOrchestration(OrchestrationStatus.FAILED, failure=failure_from_exception(error))
        return CompleteOrchestration(OrchestrationStatus.COMPLETED, result=result)

    def _subject(self) -> str:
        return f"Instance {self.instance_id!r} of orchestrator {self.orchestrator.name!r}"

    # Completions

    def _complete(self, task: DurableTask[Any], payload: str | None, expected_type: Any) -> None:
        self._grow(payload)
        try:
            value = None if payload is None else self.converter.decode(payload, expected_type)
        except HoldfastError as error:
            kind, message = type(error), str(error)
            task.fail(lambda: kind(message))
        else:
            task.complete(value)

    def _settle(self, number: int, payload: str | None = None, failure: FailureDetails | None = None) -> None:
        entry = self._open.pop(number, None)
        if entry is None:
            return  # a timer that was cancelled in the same episode, say
        task, expected_type = entry
        self.size_bytes -= _TASK_BYTES
        if failure is not None:
            details = failure
            task.fail(lambda: exception_from_failure(details))
        else:
            self._complete(task, payload, expected_type)
        self._advance()

    def _on_task_completed(self, event: TaskCompleted | SubOrchestrationInstanceCompleted) -> None:
        self._settle(event.task_scheduled_id, event.result)

    def _on_task_failed(self, event: TaskFailed | SubOrchestrationInstanceFailed) -> None:
        self._settle(event.task_scheduled_id, failure=event.failure)

    def _on_timer_fired(self, event: TimerFired) -> None:
        self._settle(event.timer_id)

    def _on_entity_completed(self, event: EntityOperationCompleted) -> None:
        self._settle(self._requests.pop(event.request_id, -1), event.output)

    def _on_entity_failed(self, event: EntityOperationFailed) -> None:
        self._settle(self._requests.pop(event.request_id, -1), failure=event.failure)

    def _on_lock_granted(self, event: EntityLockGranted) -> None:
        self._settle(self._requests.pop(event.critical_section_id, -1))

    def _on_event_raised(self, event: EventRaised) -> None:
        wait = self._events.deliver(event)
        if wait is None:
            self.size_bytes += _TASK_BYTES
            return
        self.size_bytes -= _TASK_BYTES
        self._complete(wait.task, event.input, wait.expected_type)
        self._advance()

    def _limit_wait(self, name: str, wait: Wait, fire_at: datetime) -> None:
        """Race a wait with a timer; whichever comes first takes the other back."""
        timer = self.create_timer(fire_at)

        def timed_out(_: DurableTask[Any]) -> None:
            self._events.discard(name, wait)
            self.size_bytes -= _TASK_BYTES
            wait.task.fail(lambda: WaitTimeoutError(f"No external event {name!r} came before {fire_at.isoformat()}."))

        def came(_: DurableTask[Any]) -> None:
            timer.cancel()

        wait.task.observe(came)
        timer.observe(timed_out)

    def _grow(self, payload: str | None) -> None:
        if payload is not None:
            self.size_bytes += _VALUE_FACTOR * len(payload)

    _handlers: ClassVar[dict[type[Any], Callable[[Any, Any], None]]] = {
        OrchestratorStarted: _on_orchestrator_started,
        ExecutionStarted: _on_execution_started,
        TaskCompleted: _on_task_completed,
        TaskFailed: _on_task_failed,
        SubOrchestrationInstanceCompleted: _on_task_completed,
        SubOrchestrationInstanceFailed: _on_task_failed,
        TimerFired: _on_timer_fired,
        EventRaised: _on_event_raised,
        EntityOperationCompleted: _on_entity_completed,
        EntityOperationFailed: _on_entity_failed,
        EntityLockGranted: _on_lock_granted,
    }
