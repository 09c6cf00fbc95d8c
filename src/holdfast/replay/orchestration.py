"""One live execution of an orchestrator: events in, actions out.

The same code runs new events and replays recorded ones; a replay differs only in that what the code asks for is
compared with the history instead of being passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar, Final

from holdfast.errors import CancelledError, InvalidInputError, NonDeterminismError, OrchestratorMisuseError
from holdfast.model.actions import (
    CancelTask,
    CancelTimer,
    CompleteOrchestration,
    CreateTimer,
    OrchestratorAction,
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
from holdfast.replay.open_tasks import OpenTasks
from holdfast.replay.patches import Patches
from holdfast.replay.stepper import RUNNING, Body, Raised, Returned, run_as
from holdfast.replay.tasks import Completions, DurableTask, TimerTask

_BASE_BYTES = 2_560
_REFUSALS_MAX = 100
_NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})
_VALUE_FACTOR = 3  # decoded Python values take about three times the room of their JSON


class Execution:
    """The live state of one execution between its episodes. All methods run on one thread.

    Very many of them wait in memory; so what few need is made when it is first asked for.
    """

    __slots__ = (
        "_asked", "_cancel", "_context", "_custom_status", "_end_action", "_handlers", "_main", "_next", "_outcome",
        "_refusals", "branches", "carried", "completions", "converter", "episodes", "events", "execution_id",
        "history_events", "identity", "instance_id", "is_inert", "is_replaying", "is_running", "limits", "next_id",
        "now", "open_tasks", "orchestrator", "parent_instance_id", "patches", "size_bytes", "tags", "version",
    )  # fmt: skip

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
        self.converter, self.limits = converter, limits
        self.episodes = self.history_events = self._refusals = 0
        self.size_bytes = _BASE_BYTES
        self.now: datetime | None = None
        self.parent_instance_id: str | None = None
        self.version: str | None = None
        self.tags = _NO_TAGS
        self.is_replaying = self.is_inert = False
        self.is_running = False
        """Whether an episode is being run at this moment."""
        self.completions = Completions()
        self.branches = Branches(self)
        self.open_tasks = OpenTasks(self)
        self.events = EventWaits(self)
        self.carried = CarriedTasks(self)
        self.patches = Patches(self)
        self._handlers: Handlers | None = None
        self._context = make_context(self)
        self._main: Branch | None = None
        self.next_id = 0
        """The sequence number of what is asked for next."""
        self._asked = Asked()
        self._custom_status: str | None = None
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
                raise ended_early(_subject(self), self.episodes - 1, self._end_action.failure)
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
        check_end(_subject(self), self.episodes - 1, recorded, self._end_action)

    def _replay_episode(self, events: Sequence[HistoryEvent]) -> None:
        self.is_replaying = self._asked.with_lines = True
        self.patches.replay_marks(events)
        self.handlers.replay_rejections(events)
        self._run(events)
        self.is_replaying = False
        self._custom_status = None
        self.history_events += len(events)

    def _check_asked(self, events: Sequence[HistoryEvent]) -> None:
        recorded = [event for event in events if isinstance(event, ScheduledEvent)]
        check_episode(_subject(self), self.episodes - 1, recorded, self._asked.events(self.clock()))
        self._asked.with_lines = False

    def run(self, events: Sequence[HistoryEvent]) -> Episode:
        """Run one new episode, whose first event is `OrchestratorStarted`."""
        self._run(events)
        self.history_events += len(events) + self._asked.events_count()
        status, self._custom_status = self._custom_status, None
        return Episode(self._asked.actions(), status, self.events.buffered, self.events.awaited)

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
        return isinstance(self._outcome, Returned) and self._next is not None

    @property
    def is_over(self) -> bool:
        """Whether the code has ended, and nothing that still comes can change how."""
        waits = self.continues_as_new and self._next is not None and self._next.waits_for_open_work
        return self._outcome is not None and not (waits and self.open_tasks.work)

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
    def handlers(self) -> Handlers:
        """Who answers queries and updates."""
        if self._handlers is None:
            self._handlers = Handlers(self)
        return self._handlers

    def schedule(
        self,
        make_action: Callable[[int], OrchestratorAction],
        expected_type: Any = None,
        give_up: Callable[[int], None] | None = None,
    ) -> DurableTask[Any]:
        """Ask for something that has a result, and return the task for it; `give_up` is called if it is cancelled."""
        return self.open_tasks.add_call(self.ask(make_action), expected_type, give_up)

    def ask(self, make_action: Callable[[int], OrchestratorAction]) -> int:
        """Ask for something without a result; return its sequence number.

        Raises:
            InvalidInputError: if the episode has asked for too much already.
        """
        if len(self._asked) >= self.limits.actions_max:
            raise InvalidInputError(
                f"Orchestrator {self.orchestrator.name!r} asked for more than {self.limits.actions_max} things at "
                "once; split the work into sub-orchestrations, or bound it with ctx.map(..., concurrency=...)."
            )
        number = self.next_id
        action = make_action(number)
        self.next_id += 1
        self._asked.append(action)
        return number

    def tell(self, action: OrchestratorAction) -> None:
        """Ask for something that has no sequence number, and no limit either."""
        self._asked.append(action)

    def give_up(self, number: int) -> None:
        """Stop an activity, or ask a sub-orchestration to cancel itself."""
        self.tell(CancelTask(number))

    def create_timer(self, fire_at: datetime) -> TimerTask:
        return self.open_tasks.add_timer(self.ask(lambda number: CreateTimer(number, fire_at)), self._cancel_timer)

    def _cancel_timer(self, number: int) -> None:
        """Take a timer back: unasked if it was created in this very episode, else by an action."""
        if not self._asked.take_back_timer(number):
            self.tell(CancelTimer(number))

    def start_branch(self, body: Body) -> DurableTask[Any]:
        """Run a coroutine beside the body; return the task for its result."""
        return self.branches.start(body).task

    def set_custom_status(self, status: str) -> None:
        self._custom_status = status

    def continue_as_new(self, following: NextExecution) -> None:
        self._next = following

    def clock(self) -> datetime:
        """The time of the current episode, the same on every replay."""
        if self.now is None:
            raise NonDeterminismError(f"{_subject(self)} has a history that does not begin with OrchestratorStarted.")
        return self.now

    def grow(self, payload: str | None) -> None:
        """Count the memory of a payload."""
        if payload is not None:
            self.size_bytes += _VALUE_FACTOR * len(payload)

    # Episodes

    def _run(self, events: Sequence[HistoryEvent]) -> None:
        self._asked.clear()
        self.episodes += 1
        self.is_running = True
        for event in events:
            handler = self._event_handlers.get(type(event))
            if handler is not None:
                handler(self, event)
                self._advance()
        self.is_running = False
        if self._outcome is not None and self._end_action is None and self.is_over:
            if self._handlers is not None:
                self._handlers.abandon_updates()
            self._end_action = completion(self, self._outcome, self._cancel, self._next)
            self._asked.append(self._end_action)

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
        self.carried.take_over(event)
        self.grow(event.input)
        try:
            body = run_as(self, lambda: self._call_orchestrator(event.input))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._outcome = Raised(error)
            return
        if hasattr(body, "send") and hasattr(body, "throw"):
            self._main = self.branches.start(body)
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
        TaskCompleted: lambda self, event: self.open_tasks.answered(event),
        TaskFailed: lambda self, event: self.open_tasks.answered(event),
        SubOrchestrationInstanceCompleted: lambda self, event: self.open_tasks.answered(event),
        SubOrchestrationInstanceFailed: lambda self, event: self.open_tasks.answered(event),
        TimerFired: lambda self, event: self.open_tasks.timer_fired(event),
        EntityOperationCompleted: lambda self, event: self.open_tasks.operation_completed(event),
        EntityOperationFailed: lambda self, event: self.open_tasks.operation_failed(event),
        EntityLockGranted: lambda self, event: self.open_tasks.lock_granted(event),
    }


def _subject(execution: Execution) -> str:
    return f"Instance {execution.instance_id!r} of orchestrator {execution.orchestrator.name!r}"


def _misuse(execution: Execution) -> str:
    subject = f"The context of instance {execution.instance_id!r}"
    if execution.is_inert:
        return f"{subject} was unloaded with it; it is not connected to anything any more."
    return (
        f"{subject} is used from outside of its orchestrator: from another thread, from an asyncio task, from a query "
        "handler, or after the orchestrator gave up control. A replay cannot reproduce that; use it only in the "
        "orchestrator's own code."
    )
