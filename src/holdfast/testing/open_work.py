"""What an orchestration that is driven by hand has asked for, and what has no answer yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar, cast

from holdfast.model.actions import (
    CancelTask,
    CancelTimer,
    CreateSubOrchestration,
    CreateTimer,
    OrchestratorAction,
    ScheduleTask,
    SendEntityMessage,
    SendEvent,
)
from holdfast.model.failure import failure_from_exception
from holdfast.model.history import (
    EntityLockGranted,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    HistoryEvent,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
)
from holdfast.model.ids import EntityId
from holdfast.model.refs import FunctionReference
from holdfast.testing.contexts import BEGINS_AT, CONVERTER
from holdfast.testing.sent import Sent, plain, sent_by

A_co = TypeVar("A_co", covariant=True)
R_contra = TypeVar("R_contra", contravariant=True)

_Reply: TypeAlias = Callable[[HistoryEvent], None]


class _Open:
    """Something that waits for one answer."""

    def __init__(self, reply: _Reply) -> None:
        self._reply = reply
        self.is_open = True
        """Whether it has no answer yet, and was not cancelled."""

    def _close(self, answer: HistoryEvent) -> None:
        if not self.is_open:
            raise AssertionError(f"{self} was answered or cancelled before.")
        self.is_open = False
        self._reply(answer)


class OpenCall(_Open, Generic[A_co, R_contra]):
    """One call of an activity or a sub-orchestration.

    Retries that a host makes by itself are not seen: `fail` says that the last of them has failed.
    """

    def __init__(self, action: ScheduleTask | CreateSubOrchestration, reply: _Reply) -> None:
        super().__init__(reply)
        self.action = action
        """All that was said about the call: retries, timeouts, tags, the version, the instance id."""
        self._function: FunctionReference | None = None

    @property
    def name(self) -> str:
        return self.action.name

    @property
    def has_input(self) -> bool:
        return self.action.input is not None

    def is_of(self, function: FunctionReference) -> None:
        """Say which function is called, so that `input` has the type that it declares."""
        self._function = function

    @property
    def input(self) -> A_co:
        """The input, of the type that the function declares; plain JSON values if it is known by name only."""
        expected_type = Any if self._function is None else self._function.input_type
        text = self.action.input
        value: Any = None if text is None else CONVERTER.decode(text, expected_type)
        return cast(A_co, value)

    def complete(self, result: R_contra) -> None:
        """Let it return; the orchestrator runs on to its next wait."""
        number, text = self.action.id, CONVERTER.encode(result)
        if isinstance(self.action, ScheduleTask):
            self._close(TaskCompleted(timestamp=BEGINS_AT, task_scheduled_id=number, result=text))
        else:
            self._close(SubOrchestrationInstanceCompleted(timestamp=BEGINS_AT, task_scheduled_id=number, result=text))

    def fail(self, error: Exception) -> None:
        """Let it raise; the orchestrator gets a `TaskFailedError` that is also of this class, and runs on."""
        number, failure = self.action.id, failure_from_exception(error)
        if isinstance(self.action, ScheduleTask):
            self._close(TaskFailed(timestamp=BEGINS_AT, task_scheduled_id=number, failure=failure))
        else:
            self._close(SubOrchestrationInstanceFailed(timestamp=BEGINS_AT, task_scheduled_id=number, failure=failure))

    def __repr__(self) -> str:
        return f"{self.name}({'' if self.action.input is None else self.action.input})"


class OpenOperation(_Open):
    """One call of an entity."""

    def __init__(self, event: EntityOperationCalled, reply: _Reply) -> None:
        super().__init__(reply)
        self.entity: EntityId[Any] = EntityId.parse(event.target_instance_id)
        self.operation = event.operation
        self.input: Any = plain(CONVERTER, event.input)
        """As plain JSON values, None also where there is none."""
        self.has_input = event.input is not None
        self._request_id = event.request_id

    def complete(self, result: object = None) -> None:
        """Let it return; the orchestrator runs on to its next wait."""
        text = CONVERTER.encode(result)
        self._close(EntityOperationCompleted(timestamp=BEGINS_AT, request_id=self._request_id, output=text))

    def fail(self, error: Exception) -> None:
        """Let it raise; the orchestrator gets a `TaskFailedError` that is also of this class, and runs on."""
        failure = failure_from_exception(error)
        self._close(EntityOperationFailed(timestamp=BEGINS_AT, request_id=self._request_id, failure=failure))

    def __repr__(self) -> str:
        return f"{self.operation} of {self.entity.instance_id}"


class OpenWork:
    """All that is open, in the order in which it was asked for."""

    def __init__(self, reply: _Reply) -> None:
        self.timers: dict[int, datetime] = {}
        """By number, when it is due."""
        self._reply = reply
        self._calls: list[OpenCall[Any, Any]] = []
        self._operations: list[OpenOperation] = []
        self._locks: list[EntityLockRequested] = []

    @property
    def operations(self) -> list[OpenOperation]:
        return [each for each in self._operations if each.is_open]

    def calls(self, name: str | None, function: FunctionReference | None) -> list[OpenCall[Any, Any]]:
        found = [each for each in self._calls if each.is_open and (name is None or each.name == name)]
        if function is not None:
            for each in found:
                each.is_of(function)
        return found

    def take(self, actions: Iterable[OrchestratorAction]) -> list[Sent]:
        """Take in what was asked for; return what was sent one way."""
        sent: list[Sent] = []
        for action in actions:
            match action:
                case CreateTimer():
                    self.timers[action.id] = action.fire_at
                case CancelTimer():
                    self.timers.pop(action.id, None)
                case CancelTask():
                    self._cancel(action.id)
                case ScheduleTask() | CreateSubOrchestration(detached=False):
                    self._calls.append(OpenCall(action, self._reply))
                case SendEvent() | SendEntityMessage() | CreateSubOrchestration():
                    self._ask_entity(action)
                    found = sent_by(action, CONVERTER)
                    sent += [] if found is None else [found]
                case _:
                    pass
        return sent

    def next_grant(self, now: datetime) -> EntityLockGranted | None:
        """Return the answer to a request for locks, if there is one that has none: a test has them to itself."""
        if not self._locks:
            return None
        asked = self._locks.pop(0)
        return EntityLockGranted(timestamp=now, critical_section_id=asked.critical_section_id, lock_set=asked.lock_set)

    def texts(self) -> list[str]:
        """Return all that is open as texts."""
        return [
            *(repr(each) for each in self.calls(None, None)),
            *(repr(each) for each in self.operations),
            *(f"timer at {due.isoformat()}" for due in sorted(self.timers.values())),
        ]

    def _cancel(self, number: int) -> None:
        for call in self._calls:
            if call.action.id == number:
                call.is_open = False

    def _ask_entity(self, action: OrchestratorAction) -> None:
        event = action.event if isinstance(action, SendEntityMessage) else None
        if isinstance(event, EntityOperationCalled):
            self._operations.append(OpenOperation(event, self._reply))
        elif isinstance(event, EntityLockRequested):
            self._locks.append(event)
