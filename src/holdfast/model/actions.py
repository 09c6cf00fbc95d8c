"""Actions: what an orchestrator asks the hub for, in the order of asking; and the history event each leaves behind."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeAlias

import msgspec

from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationSignaled,
    EntityUnlockSent,
    EventRaised,
    EventSent,
    PatchMarked,
    ScheduledEvent,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    UpdateCompleted,
    UpdateRequested,
)
from holdfast.model.retry import RetryRule
from holdfast.model.status import OrchestrationStatus
from holdfast.model.task_policy import TaskPolicy

TaskAnswer: TypeAlias = TaskCompleted | TaskFailed | SubOrchestrationInstanceCompleted | SubOrchestrationInstanceFailed
EntityMessage: TypeAlias = EntityOperationCalled | EntityOperationSignaled | EntityLockRequested | EntityUnlockSent


class ScheduleTask(msgspec.Struct, frozen=True, gc=False):
    id: int
    name: str
    input: str | None
    retry: RetryRule | None = None
    timeout: timedelta | None = None
    speculative: bool = False
    start_timeout: timedelta | None = None
    heartbeat_timeout: timedelta | None = None
    tags: dict[str, str] = {}
    version: str | None = None
    queue: str | None = None

    @property
    def policy(self) -> TaskPolicy | None:
        """What the history keeps of how it is to be run; None if nothing was chosen."""
        chosen = (self.retry, self.timeout, self.start_timeout, self.heartbeat_timeout, self.queue)
        if chosen == (None, None, None, None, None) and not self.speculative:
            return None
        return TaskPolicy(
            retry=self.retry,
            timeout=self.timeout,
            speculative=self.speculative,
            start_timeout=self.start_timeout,
            heartbeat_timeout=self.heartbeat_timeout,
            queue=self.queue,
        )


class CreateSubOrchestration(msgspec.Struct, frozen=True, gc=False):
    """Nobody waits for a `detached` one, and nothing that happens to its starter concerns it."""

    id: int
    name: str
    instance_id: str
    input: str | None
    version: str | None = None
    tags: dict[str, str] = {}
    detached: bool = False
    start_at: datetime | None = None


class CreateTimer(msgspec.Struct, frozen=True, gc=False):
    id: int
    fire_at: datetime


class CancelTimer(msgspec.Struct, frozen=True, gc=False):
    """Leaves no event: after it, the timer of this id simply never fires."""

    id: int


class CancelTask(msgspec.Struct, frozen=True, gc=False):
    """Gives up an activity, which is stopped, or a sub-orchestration, which is asked to cancel itself."""

    id: int


class MarkPatch(msgspec.Struct, frozen=True, gc=False):
    name: str


class CompleteUpdate(msgspec.Struct, frozen=True, gc=False):
    update_id: str
    result: str | None = None
    failure: FailureDetails | None = None


class SendEvent(msgspec.Struct, frozen=True, gc=False):
    id: int
    instance_id: str
    name: str
    input: str | None


class SendEntityMessage(msgspec.Struct, frozen=True, gc=False):
    event: EntityMessage

    @property
    def target_instance_id(self) -> str:
        """The entity that the message goes to first."""
        event = self.event
        return event.lock_set[0] if isinstance(event, EntityLockRequested) else event.target_instance_id


class Carried(msgspec.Struct, frozen=True, gc=False):
    """A task that the next execution takes over; `answer` is set if it came in with the last episode."""

    name: str
    number: int
    answer: TaskAnswer | None = None


class CompleteOrchestration(msgspec.Struct, frozen=True, gc=False):
    """The last action of an execution.

    With the status `ContinuedAsNew`, `result` is the input of the next execution and `carryover_events` are the
    external events and the updates that it finds waiting. `version` replaces the version of the instance,
    `event_keys` are those of the events taken in so far, `carried` the tasks that the next execution takes over.
    """

    status: OrchestrationStatus
    result: str | None = None
    failure: FailureDetails | None = None
    carryover_events: tuple[EventRaised | UpdateRequested, ...] = ()
    version: str | None = None
    event_keys: tuple[str, ...] = ()
    carried: tuple[Carried, ...] = ()


SchedulingAction: TypeAlias = (
    ScheduleTask
    | CreateSubOrchestration
    | CreateTimer
    | SendEvent
    | SendEntityMessage
    | CancelTask
    | MarkPatch
    | CompleteUpdate
)
OrchestratorAction: TypeAlias = SchedulingAction | CancelTimer | CompleteOrchestration
EntityAction: TypeAlias = SendEntityMessage | CreateSubOrchestration
"""What an operation of an entity may ask for: signals, and orchestrations that nobody waits for."""


def scheduled_event(action: SchedulingAction, timestamp: datetime) -> ScheduledEvent:
    """Return the history event that records an action.

    The hub appends it; a replay makes it again and compares. Both use this function, so they cannot drift apart.
    """
    match action:
        case ScheduleTask():
            return TaskScheduled(
                timestamp=timestamp,
                event_id=action.id,
                name=action.name,
                input=action.input,
                tags=action.tags,
                version=action.version,
                policy=action.policy,
            )
        case CreateSubOrchestration():
            return SubOrchestrationInstanceCreated(
                timestamp=timestamp,
                event_id=action.id,
                name=action.name,
                instance_id=action.instance_id,
                input=action.input,
                version=action.version,
                tags=action.tags,
                detached=action.detached,
                start_at=action.start_at,
            )
        case CreateTimer():
            return TimerCreated(timestamp=timestamp, event_id=action.id, fire_at=action.fire_at)
        case SendEvent():
            return EventSent(
                timestamp=timestamp,
                event_id=action.id,
                instance_id=action.instance_id,
                name=action.name,
                input=action.input,
            )
        case SendEntityMessage():
            return action.event
        case CancelTask():
            return TaskCancelled(timestamp=timestamp, task_scheduled_id=action.id)
        case MarkPatch():
            return PatchMarked(timestamp=timestamp, name=action.name)
        case CompleteUpdate():
            return UpdateCompleted(
                timestamp=timestamp, update_id=action.update_id, result=action.result, failure=action.failure
            )
