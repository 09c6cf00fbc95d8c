"""History events: the frozen records of what happened to an instance, named as in the Durable Task protocol.

`event_id` is the sequence number that replay gave to what the orchestrator asked for; completions point back to it.
Payloads (`input`, `result`) are JSON texts; None means that there is none, which differs from JSON null.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal, TypeAlias

import msgspec

from holdfast.model.failure import FailureDetails
from holdfast.model.status import OrchestrationStatus
from holdfast.model.task_policy import TaskPolicy


class _Event(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag_field="type", tag=True):
    timestamp: datetime


class ParentInstance(msgspec.Struct, frozen=True, gc=False):
    """Who waits for a sub-orchestration, and under which sequence number."""

    instance_id: str
    execution_id: str
    task_scheduled_id: int


# What a parent sends to its children carries the parent in `sent_by`: an instance that has another parent by now, or
# none, is not the one that was meant.


class CarriedTask(msgspec.Struct, frozen=True, gc=False):
    """An activity or sub-orchestration of the execution before this one that is still going on.

    `number` is below zero: the sequence number under which this execution hears of it.
    """

    name: str
    number: int


class OrchestratorStarted(_Event, frozen=True, kw_only=True):
    """An episode began; its timestamp is what the orchestrator reads as the current time."""


class ExecutionStarted(_Event, frozen=True, kw_only=True):
    name: str
    instance_id: str
    execution_id: str
    input: str | None = None
    parent: ParentInstance | None = None
    version: str | None = None
    tags: dict[str, str] = {}
    start_at: datetime | None = None
    """Not to run before this instant."""
    expires_at: datetime | None = None
    """To fail if it has not ended by this instant; the same for all executions of an instance."""
    carried: tuple[CarriedTask, ...] = ()
    event_keys: tuple[str, ...] = ()
    """Keys of external events that earlier executions have taken in, so that a repeated one is known."""
    id_rule: Literal["once", "replace"] | None = None
    """Set if it was sent from a transaction of a user: whether an instance of its id that has ended gives way to it."""


class ExecutionCompleted(_Event, frozen=True, kw_only=True):
    status: OrchestrationStatus
    result: str | None = None
    failure: FailureDetails | None = None


class ExecutionTerminated(_Event, frozen=True, kw_only=True):
    reason: str | None = None
    recursive: bool = False
    sent_by: ParentInstance | None = None


class ExecutionSuspended(_Event, frozen=True, kw_only=True):
    reason: str | None = None
    recursive: bool = False
    sent_by: ParentInstance | None = None


class ExecutionResumed(_Event, frozen=True, kw_only=True):
    reason: str | None = None
    recursive: bool = False
    sent_by: ParentInstance | None = None


class CancelRequested(_Event, frozen=True, kw_only=True):
    """Raises `CancelledError` where the orchestrator waits; only the first one of an execution does."""

    reason: str | None = None
    sent_by: ParentInstance | None = None


class ExecutionRewound(_Event, frozen=True, kw_only=True):
    """The history up to here was taken over from another execution; from here on ids are made from this one's.

    As a message, sent to a sub-orchestration, it asks that one to answer `parent`: by rewinding if it has failed, by
    telling its result again if it has completed.
    """

    execution_id: str
    reason: str | None = None
    parent: ParentInstance | None = None
    instance_id: str | None = None
    """Set by a fork: the history up to here is that of another instance, and what follows is that of this one."""
    task_scheduled_id: int | None = None
    """In a message: under which number the parent had asked for the receiver, if not under the one in `parent`."""
    is_carried: bool = False
    """In a message: the parent has continued as new and waits on, so that one that has failed tells that again."""


class TaskScheduled(_Event, frozen=True, kw_only=True):
    event_id: int
    name: str
    input: str | None = None
    tags: dict[str, str] = {}
    version: str | None = None
    policy: TaskPolicy | None = None
    """None for the plainest; not compared on replay."""
    call_id: str | None = None
    """Set if a rewind found that this call was made before: what it had been known as. Not compared on replay."""


class TaskCompleted(_Event, frozen=True, kw_only=True):
    task_scheduled_id: int
    result: str | None = None


class TaskFailed(_Event, frozen=True, kw_only=True):
    task_scheduled_id: int
    failure: FailureDetails


class TaskCancelled(_Event, frozen=True, kw_only=True):
    """The orchestrator gave up an activity or a sub-orchestration; whatever it still says is not heard."""

    task_scheduled_id: int


class SubOrchestrationInstanceCreated(_Event, frozen=True, kw_only=True):
    """Another orchestration was started; nobody waits for one that is `detached`."""

    event_id: int
    name: str
    instance_id: str
    input: str | None = None
    version: str | None = None
    tags: dict[str, str] = {}
    detached: bool = False
    start_at: datetime | None = None
    runs_as: str | None = None
    """The instance that does the work, if a rewind or a fork chose another one; not compared on replay."""


class SubOrchestrationInstanceCompleted(_Event, frozen=True, kw_only=True):
    task_scheduled_id: int
    result: str | None = None


class SubOrchestrationInstanceFailed(_Event, frozen=True, kw_only=True):
    task_scheduled_id: int
    failure: FailureDetails


class TimerCreated(_Event, frozen=True, kw_only=True):
    event_id: int
    fire_at: datetime


class TimerFired(_Event, frozen=True, kw_only=True):
    timer_id: int
    fire_at: datetime


class EventSent(_Event, frozen=True, kw_only=True):
    event_id: int
    instance_id: str
    name: str
    input: str | None = None


class EventRaised(_Event, frozen=True, kw_only=True):
    """An external event; of several with one `key` only the first counts."""

    name: str
    input: str | None = None
    key: str | None = None


class UpdateRequested(_Event, frozen=True, kw_only=True):
    update_id: str
    name: str
    input: str | None = None


class UpdateCompleted(_Event, frozen=True, kw_only=True):
    update_id: str
    result: str | None = None
    failure: FailureDetails | None = None


class PatchMarked(_Event, frozen=True, kw_only=True):
    """`ctx.patched(name)` was True here; it has no sequence number, so that the code may forget it again."""

    name: str


class ContinueAsNew(_Event, frozen=True, kw_only=True):
    input: str | None = None


class WorkRemembered(_Event, frozen=True, kw_only=True):
    """A message of a rewind to the instance itself: what the part of the history that was undone had done already.

    If the code asks for the same again it gets `result`, or the sub-orchestration of then, and the work is not done
    twice; an activity that had not succeeded is at least known by the name that it had then.
    """

    work: TaskScheduled | SubOrchestrationInstanceCreated
    is_completed: bool
    result: str | None = None
    call_id: str | None = None


class EntityOperationCalled(_Event, frozen=True, kw_only=True):
    """An operation whose outcome somebody waits for: an orchestration, or else a client."""

    request_id: str
    target_instance_id: str
    operation: str
    input: str | None = None
    event_id: int | None = None
    parent_instance_id: str | None = None
    parent_execution_id: str | None = None
    critical_section_id: str | None = None
    """Made inside this critical section; if that has lost its lock, the call fails."""
    key: str | None = None
    """Names what a client asks for: of several with one key only the first runs, and all get its answer."""


class EntityOperationSignaled(_Event, frozen=True, kw_only=True):
    request_id: str
    target_instance_id: str
    operation: str
    event_id: int | None = None
    input: str | None = None
    due_at: datetime | None = None
    """Not to be queued before this instant."""
    key: str | None = None
    """Of several with one key only the first counts."""


class EntityOperationCompleted(_Event, frozen=True, kw_only=True):
    request_id: str
    output: str | None = None


class EntityOperationFailed(_Event, frozen=True, kw_only=True):
    request_id: str
    failure: FailureDetails


class EntityLockRequested(_Event, frozen=True, kw_only=True):
    event_id: int
    critical_section_id: str
    lock_set: tuple[str, ...]
    parent_instance_id: str
    parent_execution_id: str
    position: int = 0
    lease: timedelta | None = None
    """How long the locks may be held, from when all of them are."""


class EntityLockGranted(_Event, frozen=True, kw_only=True):
    critical_section_id: str
    lock_set: tuple[str, ...]


class EntityUnlockSent(_Event, frozen=True, kw_only=True):
    critical_section_id: str
    target_instance_id: str
    event_id: int | None = None


OperationAnswer: TypeAlias = EntityOperationCompleted | EntityOperationFailed
"""What comes of an operation that was called."""

ScheduledEvent: TypeAlias = (
    TaskScheduled
    | TaskCancelled
    | PatchMarked
    | UpdateCompleted
    | SubOrchestrationInstanceCreated
    | TimerCreated
    | EventSent
    | EntityOperationCalled
    | EntityOperationSignaled
    | EntityLockRequested
    | EntityUnlockSent
)
"""What an episode appends because the orchestrator asked for it."""

MessageEvent: TypeAlias = (
    ExecutionStarted
    | ExecutionTerminated
    | ExecutionSuspended
    | ExecutionResumed
    | ExecutionRewound
    | WorkRemembered
    | CancelRequested
    | UpdateRequested
    | TaskCompleted
    | TaskFailed
    | SubOrchestrationInstanceCompleted
    | SubOrchestrationInstanceFailed
    | TimerFired
    | EventRaised
    | EntityOperationCalled
    | EntityOperationSignaled
    | EntityOperationCompleted
    | EntityOperationFailed
    | EntityLockRequested
    | EntityLockGranted
    | EntityUnlockSent
)
"""What can arrive in the inbox of an instance."""

HistoryEvent: TypeAlias = MessageEvent | ScheduledEvent | OrchestratorStarted | ExecutionCompleted | ContinueAsNew
