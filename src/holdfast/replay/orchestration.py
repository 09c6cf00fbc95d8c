"""One live execution of an orchestrator: events in, actions out.

The same code runs new events and replays recorded ones; a replay differs only in that what the code asks for is
compared with the history instead of being passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar, Final

from holdfast.errors import CancelledError, NonDeterminismError, OrchestratorMisuseError
from holdfast.model.actions import (
    CompleteOrchestration,
    CreateTimer,
)
from holdfast.model.converter import DataConverter
from holdfast.model.history import (
    CancelRequested,
    EntityLockGranted,
    EntityOperationCompleted,
    EntityOperationFailed,
    EventRaised,
    ExecutionCompleted,
    ExecutionRewound,
    ExecutionStarted,
    HistoryEvent,
    OrchestratorStarted,
    ScheduledEvent,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TimerFired,
    UpdateRequested,
)
from holdfast.model.limits import Limits
from holdfast.model.refs import Orchestrator, decode_input
from holdfast.model.work_items import Episode
from holdfast.replay.asked import Asked
from holdfast.replay.branches import Branch, Branches
from holdfast.replay.carried import CarriedTasks
from holdfast.replay.completion import NextExecution, completion
from holdfast.replay.event_waits import EventWaits
from holdfast.replay.handlers import Handlers
from holdfast.replay.matching import check_end, check_episode, ended_early
from holdfast.replay.open_tasks import OpenTasks, TimerTask
from holdfast.replay.stepper import RUNNING, Body, Raised, Returned, context_of
from holdfast.replay.tasks import Completions, DurableTask

_BASE_BYTES = 2_560
_REFUSALS_MAX = 100
_NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})
_VALUE_FACTOR = 3  # decoded Python values take about three times the room of their JSON


# What completes a task


def _completed(execution: Execution, event: TaskCompleted | SubOrchestrationInstanceCompleted) -> None:
    if execution.continues_as_new:
        execution.carried.answered(event)
    execution.open_tasks.completed(event.task_scheduled_id, event.result)


def _failed(execution: Execution, event: TaskFailed | SubOrchestrationInstanceFailed) -> None:
    if execution.continues_as_new:
        execution.carried.answered(event)
    execution.open_tasks.failed(event.task_scheduled_id, event.failure)


def _operation_completed(execution: Execution, event: EntityOperationCompleted) -> None:
    execution.open_tasks.completed(execution.open_tasks.number_of_request(event.request_id), event.output)


def _operation_failed(execution: Execution, event: EntityOperationFailed) -> None:
    execution.open_tasks.failed(execution.open_tasks.number_of_request(event.request_id), event.failure)


def _lock_granted(execution: Execution, event: EntityLockGranted) -> None:
    execution.open_tasks.completed(execution.open_tasks.number_of_request(event.critical_section_id), None)


class Execution:
    """The live state of one execution between its episodes. All methods run on one thread.

    Very many of them wait in memory, so what only some need is made when it is asked for.
    """

    __slots__ = (
        "_cancel",
        "_carried",
        "_context",
        "_end_action",
        "_handlers",
        "_main",
        "_next",
        "_outcome",
        "_refusals",
        "asked",
        "branches",
        "completions",
        "converter",
        "episodes",
        "events",
        "execution_id",
        "history_events",
        "identity",
        "instance_id",
        "is_inert",
        "is_replaying",
        "is_running",
        "limits",
        "now",
        "open_tasks",
        "orchestrator",
        "parent_instance_id",
        "size_bytes",
        "tags",
        "version",
    )

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
        """In the part of a fork's history that was another instance's, the id of that one: see `ExecutionRewound`."""
        self.execution_id = execution_id
        self.identity = execution_id
        """What ids of children and requests, UUIDs and random numbers are made of: see `ExecutionRewound`."""
        self.converter = converter
        self.limits = limits
        self.episodes = self.history_events = 0
        self.size_bytes = _BASE_BYTES
        self.now: datetime | None = None
        self.parent_instance_id: str | None = None
        self.version: str | None = None
        self.tags = _NO_TAGS
        self.is_replaying = self.is_inert = self.is_running = False
        """Whether an episode is being run at this moment."""
        self.asked = Asked(orchestrator.name, limits.actions_max)
        self.completions = Completions()
        self.branches = Branches(self)
        self.open_tasks = OpenTasks(self)
        self.events = EventWaits(self)
        self._carried: CarriedTasks | None = None
        self._handlers: Handlers | None = None
        self._context = make_context(self)
        self._main: Branch | None = None
        self._refusals = 0
        self._cancel: CancelRequested | None = None
        self._next: NextExecution | None = None
        self._outcome: Returned | Raised | None = None
        self._end_action: CompleteOrchestration | None = None

    # What the engine calls

    def replay(self, episodes: Iterable[Sequence[HistoryEvent]]) -> None:
        """Run recorded episodes.

        Raises:
            NonDeterminismError: if the code does not ask for what is recorded.
        """
        for events in episodes:
            self._replay_episode(events)
            if self._end_action is not None:
                raise ended_early(self._subject(), self.episodes - 1, self._end_action.failure)
            self._check_asked(events)

    def replay_end(self, events: Sequence[HistoryEvent]) -> None:
        """Run the recorded episode in which the code has ended, to see whether it still does.

        Raises:
            NonDeterminismError: if the code does not ask for what is recorded, or ends otherwise.
        """
        self._replay_episode(events)
        self._check_asked(events)
        recorded = events[-1]
        assert isinstance(recorded, ExecutionCompleted), "the last event of the last episode"
        check_end(self._subject(), self.episodes - 1, recorded, self._end_action)

    def _replay_episode(self, events: Sequence[HistoryEvent]) -> None:
        self.is_replaying = True
        self.asked.begin_replay(events)
        self.handlers.replay_rejections(events)
        self._run(events)
        self.is_replaying = False
        self.history_events += len(events)

    def _check_asked(self, events: Sequence[HistoryEvent]) -> None:
        recorded = [event for event in events if isinstance(event, ScheduledEvent)]
        check_episode(self._subject(), self.episodes - 1, recorded, self.asked.end_replay(self.clock()))

    def run(self, events: Sequence[HistoryEvent]) -> Episode:
        """Run one new episode, whose first event is `OrchestratorStarted`."""
        self._run(events)
        asked = self.asked
        self.history_events += len(events) + asked.events_count()
        return Episode(tuple(asked.actions), asked.custom_status, self.events.buffered, self.events.awaited)

    def can_unload(self) -> bool:
        """Whether the execution can be dropped from memory without user code noticing."""
        return self.branches.can_discard()

    def unload(self) -> None:
        """Drop the coroutines. Whatever user code still runs while they are closed finds an inert context."""
        self.is_inert = True
        self.branches.discard()

    @property
    def continues_as_new(self) -> bool:
        """Whether the code has returned, to continue as new."""
        return self._next is not None and isinstance(self._outcome, Returned)

    @property
    def is_over(self) -> bool:
        """Whether the code has ended, and nothing that still comes can change how."""
        if self._outcome is None:
            return False
        waits = self.continues_as_new and self._next is not None and self._next.waits_for_open_work
        return not (waits and self.open_tasks.work)

    # What the context calls

    def check_usable(self) -> None:
        """Refuse a call that is not made by the orchestrator's own code, while that runs."""
        if self.is_running and RUNNING.get() is self:
            return
        if self.is_inert:
            self._refusals += 1
            if self._refusals > _REFUSALS_MAX:
                return  # it swallows everything, in a loop: let it wait, which ends the closing of its coroutine
        raise OrchestratorMisuseError(_misuse(self))

    @property
    def carried(self) -> CarriedTasks:
        """The tasks that come from the execution before, or go on to the next."""
        if self._carried is None:
            self._carried = CarriedTasks(self)
        return self._carried

    @property
    def handlers(self) -> Handlers:
        """Who answers queries and updates."""
        if self._handlers is None:
            self._handlers = Handlers(self)
        return self._handlers

    def create_timer(self, fire_at: datetime) -> TimerTask:
        """Ask for a timer, and return the task that it completes."""
        number = self.asked.take_number()
        self.asked.append(CreateTimer(number, fire_at))
        timer = TimerTask(self.open_tasks, number, None)
        self.open_tasks.add(timer)
        return timer

    def start_branch(self, body: Body) -> DurableTask[Any]:
        """Run a coroutine beside the body; return the task for its result."""
        return self.branches.start(body, context_of(self)).task

    def continue_as_new(self, following: NextExecution) -> None:
        self._next = following

    def clock(self) -> datetime:
        """The time of the current episode, the same on every replay."""
        if self.now is None:
            raise NonDeterminismError(f"{self._subject()} has a history that does not begin with OrchestratorStarted.")
        return self.now

    def grow(self, payload: str | None) -> None:
        """Count the memory of a payload."""
        if payload is not None:
            self.size_bytes += _VALUE_FACTOR * len(payload)

    # Episodes

    def _run(self, events: Sequence[HistoryEvent]) -> None:
        self.asked.begin_episode()
        self.episodes += 1
        self.is_running = True
        ready = self.branches.ready
        for event in events:
            handler = self._event_handlers.get(type(event))
            if handler is not None:
                handler(self, event)
                if ready:
                    self._advance()
        self.is_running = False
        if self._outcome is not None and self._end_action is None and self.is_over:
            if self._handlers is not None:
                self._handlers.abandon_updates()
            self._end_action = completion(self, self._outcome, self._cancel, self._next)
            self.asked.append(self._end_action)

    def _advance(self) -> None:
        """Run the code for as long as something that it waits for is completed."""
        main = self._main
        if main is None or self._outcome is not None:
            return
        self.branches.run(main)
        if main.task.is_completed:
            self._outcome = main.outcome

    def _on_orchestrator_started(self, event: OrchestratorStarted) -> None:
        self.now = event.timestamp

    def _on_execution_started(self, event: ExecutionStarted) -> None:
        self.parent_instance_id = event.parent.instance_id if event.parent else None
        self.version, self.tags = event.version, event.tags
        self.instance_id, self.identity = event.instance_id, event.execution_id
        self.events.start_with(event.event_keys)
        if event.carried:
            self.carried.take_over(event)
        self.grow(event.input)
        context = context_of(self)
        try:
            body = context.run(self._call_orchestrator, event.input)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._outcome = Raised(error)
            return
        if hasattr(body, "send") and hasattr(body, "throw"):
            self._main = self.branches.start(body, context)
        else:
            self._outcome = Returned(body)  # a plain function, and finished already

    def _call_orchestrator(self, input: str | None) -> Any:
        """Call the user's function; return its body, or its result if it was a plain function."""
        arguments: list[Any] = [self._context]
        if self.orchestrator.has_input:
            arguments.append(decode_input(self.converter, self.orchestrator, input))
        return self.orchestrator.function(*arguments)

    def _on_execution_rewound(self, event: ExecutionRewound) -> None:
        self.identity = event.execution_id
        if event.instance_id is not None:
            self.instance_id = event.instance_id
            self.parent_instance_id = None

    def _on_cancel_requested(self, event: CancelRequested) -> None:
        has_ended = isinstance(self._outcome, Raised) or (self._outcome is not None and self._next is None)
        if self._cancel is not None or has_ended:
            return
        self._cancel = event
        error = CancelledError("The orchestration was asked to cancel itself.")
        if self._main is not None and self._outcome is None:
            self._main.interrupt(error)
        else:
            self._outcome = Raised(error)  # it has returned, to continue as new: that it does not

    def _subject(self) -> str:
        return f"Instance {self.instance_id!r} of orchestrator {self.orchestrator.name!r}"

    def _on_event_raised(self, event: EventRaised) -> None:
        if self._outcome is None:
            self.events.deliver(event)
        else:
            self.events.keep(event)  # it came after the last wait of this execution, but for the next one

    _event_handlers: ClassVar[dict[type[Any], Callable[[Any, Any], None]]] = {
        OrchestratorStarted: _on_orchestrator_started,
        ExecutionStarted: _on_execution_started,
        ExecutionRewound: _on_execution_rewound,
        CancelRequested: _on_cancel_requested,
        EventRaised: _on_event_raised,
        UpdateRequested: lambda self, event: self.handlers.begin_update(event),
        TaskCompleted: _completed,
        TaskFailed: _failed,
        SubOrchestrationInstanceCompleted: _completed,
        SubOrchestrationInstanceFailed: _failed,
        TimerFired: lambda self, event: self.open_tasks.completed(event.timer_id, None),
        EntityOperationCompleted: _operation_completed,
        EntityOperationFailed: _operation_failed,
        EntityLockGranted: _lock_granted,
    }


def _misuse(execution: Execution) -> str:
    subject = f"The context of instance {execution.instance_id!r}"
    if execution.is_inert:
        return f"{subject} was unloaded with it; it is not connected to anything any more."
    return (
        f"{subject} is used from outside of its orchestrator: from another thread, from an asyncio task, from a query "
        "handler, or after the orchestrator gave up control. A replay cannot reproduce that; use it only in the "
        "orchestrator's own code."
    )
