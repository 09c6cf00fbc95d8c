"""One orchestration that is driven by hand: the test gives the answers, there is no store, no host and no loop."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Generic, TypedDict, TypeVar, Unpack, cast, overload

from holdfast.errors import OrchestrationFailedError, UpdateRejectedError
from holdfast.model.actions import CompleteOrchestration, SchedulingAction, scheduled_event
from holdfast.model.failure import exception_from_failure
from holdfast.model.history import (
    CancelRequested,
    EventRaised,
    ExecutionCompleted,
    ExecutionStarted,
    HistoryEvent,
    OrchestratorStarted,
    ParentInstance,
    TimerFired,
    UpdateCompleted,
    UpdateRequested,
)
from holdfast.model.http_call import DurableHttpRequest, DurableHttpResponse
from holdfast.model.ids import EntityId
from holdfast.model.refs import NO_INPUT, Activity, ExternalEvent, Orchestrator, encode_input
from holdfast.model.status import OrchestrationStatus
from holdfast.replay.context import OrchestrationContext
from holdfast.replay.orchestration import Execution
from holdfast.testing.contexts import BEGINS_AT, CONVERTER, LIMITS
from holdfast.testing.http import HTTP
from holdfast.testing.open_work import OpenCall, OpenOperation, OpenWork
from holdfast.testing.sent import Sent, plain

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the typed API
O = TypeVar("O")  # noqa: E741
A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")


class InstanceOptions(TypedDict, total=False):
    """What may be said about the instance under test."""

    instance_id: str
    parent_instance_id: str
    version: str
    tags: dict[str, str]
    now: datetime


class OrchestratorTest(Generic[O]):
    """One orchestration under test: `test = OrchestratorTest(refund, Claim(200))` runs it to its first wait.

    Then look at what it asks for, and answer: `test.call(fee).complete(20)`, `test.raise_event(ANSWER, True)`,
    `test.advance(days=3)`. After every step the history so far is replayed, so that code that is not deterministic
    raises `NonDeterminismError` at once. Locks are granted when they are asked for.
    """

    @overload
    def __init__(self, orchestrator: Orchestrator[None, O], /, **options: Unpack[InstanceOptions]) -> None: ...
    @overload
    def __init__(self, orchestrator: Orchestrator[I, O], input: I, /, **options: Unpack[InstanceOptions]) -> None: ...
    def __init__(
        self, orchestrator: Orchestrator[Any, Any], input: Any = NO_INPUT, /, **options: Unpack[InstanceOptions]
    ) -> None:
        """Start an instance.

        Options: `instance_id`, `parent_instance_id`, `version`, `tags`, and `now`, the time at which it begins.
        """
        self.orchestrator = orchestrator
        self.now = options.get("now", BEGINS_AT)
        """The time of the last step; `advance` moves it."""
        self.custom_status: Any = None
        """What the code has shown last, as plain JSON values."""
        self.sent: list[Sent] = []
        """What it has sent without waiting for an answer: `SentSignal`, `SentEvent`, `SentStart`."""
        self._instance_id = options.get("instance_id", "instance")
        self._history: list[tuple[HistoryEvent, ...]] = []
        self._end: CompleteOrchestration | None = None
        self._work = OpenWork(self._run)
        self._live = self._execution()
        parent = options.get("parent_instance_id")
        self._run(
            ExecutionStarted(
                timestamp=self.now,
                name=orchestrator.name,
                instance_id=self._instance_id,
                execution_id="execution",
                input=encode_input(CONVERTER, orchestrator, input),
                parent=None if parent is None else ParentInstance(parent, "parent", 0),
                version=options.get("version"),
                tags=options.get("tags", {}),
            )
        )

    # What it waits for

    @overload
    def call(self, function: Activity[A, R] | Orchestrator[A, R], /) -> OpenCall[A, R]: ...
    @overload
    def call(self, function: str, /) -> OpenCall[Any, Any]: ...
    def call(self, function: Activity[Any, Any] | Orchestrator[Any, Any] | str, /) -> OpenCall[Any, Any]:
        """Return the oldest call of an activity or a sub-orchestration that has no answer.

        Raises:
            AssertionError: if there is none; it says what there is.
        """
        found = self.calls(function)
        if not found:
            name = function if isinstance(function, str) else function.name
            raise AssertionError(f"No call of {name!r} waits for an answer. {self._summary()}")
        return found[0]

    def http_call(self) -> OpenCall[DurableHttpRequest, DurableHttpResponse]:
        """Return the oldest request of `ctx.call_http` that has no answer.

        Raises:
            AssertionError: if there is none; it says what there is.
        """
        return self.call(HTTP)

    @overload
    def calls(self, function: Activity[A, R] | Orchestrator[A, R], /) -> list[OpenCall[A, R]]: ...
    @overload
    def calls(self, function: str | None = None, /) -> list[OpenCall[Any, Any]]: ...
    def calls(self, function: Activity[Any, Any] | Orchestrator[Any, Any] | str | None = None, /) -> list[Any]:
        """Return the calls of one function, or of all, that have no answer, in the order in which they were made."""
        name = function.name if isinstance(function, Activity | Orchestrator) else function
        known = function if isinstance(function, Activity | Orchestrator) else None
        return self._work.calls(name, known)

    def operation(self, entity: EntityId[Any], operation: Callable[..., Any] | str, /) -> OpenOperation:
        """Return the oldest call of an entity that has no answer.

        Raises:
            AssertionError: if there is none; it says what there is.
        """
        name = operation if isinstance(operation, str) else operation.__name__
        for found in self.operations:
            if found.entity == entity and found.operation.lower() == name.lower():
                return found
        raise AssertionError(f"No call of {name!r} of {entity} waits for an answer. {self._summary()}")

    @property
    def operations(self) -> list[OpenOperation]:
        """The calls of entities that have no answer, in the order in which they were made."""
        return self._work.operations

    def waits_for(self, event: ExternalEvent[Any] | str, /) -> bool:
        """Return whether the code waits for an external event of this name now."""
        name = event if isinstance(event, str) else event.name
        return name.casefold() in self._awaited()

    @property
    def timers(self) -> list[datetime]:
        """When the timers that are open are due, those of waits with a timeout among them, in order."""
        return sorted(self._work.timers.values())

    @property
    def pending(self) -> list[str]:
        """Everything that the code waits for, as texts for a reader."""
        return [*self._work.texts(), *(f"event {name!r}" for name in sorted(self._awaited()))]

    # What happens to it

    def advance(self, **duration: float) -> None:
        """Let time pass, by the arguments of `timedelta`; what is due on the way fires at its time."""
        until = self.now + timedelta(**duration)
        while self._end is None and self.timers and self.timers[0] <= until:
            self.fire_timer()
        self.now = max(self.now, until)

    def fire_timer(self) -> None:
        """Let time pass until the next timer is due, which fires.

        Raises:
            AssertionError: if there is none.
        """
        if not self.timers:
            raise AssertionError(f"No timer is open. {self._summary()}")
        fire_at = self.timers[0]
        number = next(number for number, due in self._work.timers.items() if due == fire_at)
        self.now = max(self.now, fire_at)
        del self._work.timers[number]
        self._run(TimerFired(timestamp=self.now, timer_id=number, fire_at=fire_at))

    @overload
    def raise_event(self, event: ExternalEvent[None], /) -> None: ...
    @overload
    def raise_event(self, event: ExternalEvent[T], data: T, /) -> None: ...
    @overload
    def raise_event(self, event: str, data: Any = ..., /) -> None: ...
    def raise_event(self, event: ExternalEvent[Any] | str, data: Any = None, /) -> None:
        """Send an external event; as always, it is kept if nobody waits for it yet."""
        name = event if isinstance(event, str) else event.name
        self._run(EventRaised(timestamp=self.now, name=name, input=CONVERTER.encode(data)))

    def cancel(self, reason: str | None = None) -> None:
        """Ask it to cancel itself: `CancelledError` is raised where it waits."""
        text = None if reason is None else CONVERTER.encode(reason)
        self._run(CancelRequested(timestamp=self.now, reason=text))

    def query(self, name: str, input: object = None, /) -> Any:
        """Return what the query handler answers, as plain JSON values; raises what it raises."""
        return plain(CONVERTER, self._live.handlers.answer_query(name, CONVERTER.encode(input)))

    def update(self, name: str, input: object = None, /) -> Callable[[], Any]:
        """Send an update; return a function for its answer, to be called once the handler has ended.

        That raises `UpdateRejectedError` if the update was refused, and `TaskFailedError` if the handler raised.
        """
        update_id = f"update-{len(self._history)}"
        self._run(UpdateRequested(timestamp=self.now, update_id=update_id, name=name, input=CONVERTER.encode(input)))
        return lambda: self._answer(update_id)

    def _answer(self, update_id: str) -> Any:
        events = [event for episode in self._history for event in episode]
        for event in events:
            if isinstance(event, UpdateCompleted) and event.update_id == update_id:
                if event.failure is None:
                    return plain(CONVERTER, event.result)
                if event.failure.error_type.endswith(".UpdateRejectedError"):
                    raise UpdateRejectedError(self._instance_id, event.failure.error_message)
                raise exception_from_failure(event.failure)
        raise AssertionError(f"The update has no answer yet. {self._summary()}")

    # How it ends

    @property
    def status(self) -> OrchestrationStatus:
        """`Running` until it ends: then `Completed`, `Failed`, `Canceled` or `ContinuedAsNew`."""
        return OrchestrationStatus.RUNNING if self._end is None else self._end.status

    @property
    def result(self) -> O:
        """What it has returned, as its caller gets it.

        Raises:
            TaskFailedError: if it has failed; also an instance of the original class.
            OrchestrationFailedError: if it was cancelled.
            AssertionError: if it goes on.
        """
        end = self._end
        if end is None:
            raise AssertionError(f"The orchestration goes on. {self._summary()}")
        if end.failure is not None:
            raise exception_from_failure(end.failure)
        if end.status is OrchestrationStatus.CONTINUED_AS_NEW:
            raise AssertionError(f"The orchestration has continued as new, with the input {end.result}.")
        if end.status is not OrchestrationStatus.COMPLETED:
            raise OrchestrationFailedError(self._instance_id, end.status.value, None)
        return cast(O, CONVERTER.decode(end.result or "null", self.orchestrator.output_type))

    @property
    def next_input(self) -> Any:
        """The input with which it continues as new, of the type that the orchestrator declares.

        Raises:
            AssertionError: if it does not.
        """
        if self._end is None or self._end.status is not OrchestrationStatus.CONTINUED_AS_NEW:
            raise AssertionError(f"The orchestration has not continued as new: it is {self.status}.")
        return CONVERTER.decode(self._end.result or "null", self.orchestrator.input_type)

    # One episode

    def _run(self, *events: HistoryEvent) -> None:
        if self._end is not None:
            raise AssertionError(f"The orchestration has ended: it is {self.status}. Nothing reaches it any more.")
        started = (OrchestratorStarted(timestamp=self.now), *events)
        episode = self._live.run(started)
        asked = [scheduled_event(each, self.now) for each in episode.actions if isinstance(each, SchedulingAction)]
        self._history.append((*started, *asked))
        if episode.custom_status is not None:
            self.custom_status = plain(CONVERTER, episode.custom_status)
        for action in episode.actions:
            if isinstance(action, CompleteOrchestration):
                self._end = action
        self.sent += self._work.take(episode.actions)
        self._check_replay()
        if self._end is None:
            self._go_on()

    def _go_on(self) -> None:
        """Let happen at once what nobody has to do anything for."""
        granted = self._work.next_grant(self.now)
        if granted is not None:
            self._run(granted)
        elif self.timers and self.timers[0] <= self.now:
            self.fire_timer()

    def _check_replay(self) -> None:
        again = self._execution()
        try:
            if self._end is None:
                again.replay(self._history)
                return
            *before, last = self._history
            end = ExecutionCompleted(
                timestamp=self.now, status=self._end.status, result=self._end.result, failure=self._end.failure
            )
            again.replay(before)
            again.replay_end((*last, end))
        finally:
            again.unload()

    def _execution(self) -> Execution:
        return Execution(self.orchestrator, self._instance_id, "execution", CONVERTER, LIMITS, OrchestrationContext)

    def _awaited(self) -> frozenset[str]:
        if self._end is not None:
            return frozenset()
        return frozenset(name.casefold() for name in self._live.events.awaited)

    def _summary(self) -> str:
        if self._end is not None:
            failure = self._end.failure
            why = "" if failure is None else f", by {failure.error_type}: {failure.error_message.rstrip('.')}"
            return f"It is {self.status}{why}."
        return f"It waits for: {'; '.join(self.pending) or 'nothing that a test can give'}."

    def __repr__(self) -> str:
        waits = f", waits for: {'; '.join(self.pending)}" if self._end is None else ""
        return f"<OrchestratorTest of {self.orchestrator.name!r}, {self.status}{waits}>"
