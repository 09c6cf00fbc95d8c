"""One instance as the hub holds it in memory: what is stored of it, plus the transitions that are on their way."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, TypeAlias

import msgspec

from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    EntityOperationCompleted,
    EntityOperationSignaled,
    OperationAnswer,
    ParentInstance,
    SubOrchestrationInstanceCreated,
    TaskScheduled,
)
from holdfast.model.ids import is_entity
from holdfast.model.messages import DurableKey, Message
from holdfast.model.status import TERMINAL, OrchestrationState, OrchestrationStatus
from holdfast.model.work_items import ActivityWorkItem

RUN_TIMEOUT: Final = -1
SCHEDULED_START: Final = -2
"""The sequence numbers of the timers that belong to the instance, not to its code."""


_Call: TypeAlias = tuple[type[TaskScheduled | SubOrchestrationInstanceCreated], str, str | None]


class ScheduledActivity(ActivityWorkItem, frozen=True, gc=False, kw_only=True):
    """An activity that was asked for and whose completion is not consumed yet: its attempt that runs, or is planned."""

    scheduled_at: datetime
    visible_at: datetime


class DurableTimer(msgspec.Struct, frozen=True, gc=False):
    """A timer; with an `event`, a signal to an entity that is delivered when it is due."""

    instance_id: str
    execution_id: str
    sequence: int
    due_at: datetime
    event: EntityOperationSignaled | None = None

    @property
    def key(self) -> DurableKey:
        return (self.execution_id, self.sequence)


class OpenChild(msgspec.Struct, frozen=True, gc=False):
    """A sub-orchestration that was started and whose end is not consumed yet."""

    instance_id: str
    execution_id: str
    sequence: int
    child_instance_id: str

    @property
    def key(self) -> DurableKey:
        return (self.execution_id, self.sequence)


class CriticalSectionState(msgspec.Struct, frozen=True, gc=False):
    """The section that an orchestration has asked for. Once `is_lost`, it holds no locks, and gets none any more.

    `number` is the sequence number of the request. The timer of the lease has it too: a key of a timer is used once.
    """

    section_id: str
    lock_set: tuple[str, ...]
    number: int
    lease: timedelta | None = None
    is_granted: bool = False
    is_lost: bool = False


class LockHolder(msgspec.Struct, frozen=True, gc=False):
    """The section, and the orchestration, for which an entity is locked."""

    section_id: str
    instance_id: str
    locked_at: datetime


class OperationKey(msgspec.Struct, frozen=True, gc=False):
    """An idempotency key that an entity remembers, with what came of its operation.

    There is no answer yet for a signal that is scheduled.
    """

    instance_id: str
    operation_key: str
    position: int
    answer: OperationAnswer | None = None

    @property
    def key(self) -> tuple[str, str]:
        return (self.instance_id, self.operation_key)

    @property
    def answer_bytes(self) -> int:
        return len(self.answer.output or "") if isinstance(self.answer, EntityOperationCompleted) else 0


class Instance:
    """Mutable, and changed by transitions only. `lsn` is the last of them; `revision` counts them."""

    __slots__ = (
        "activities",
        "answered",
        "children",
        "controls",
        "created_at",
        "custom_status",
        "deliveries",
        "episodes",
        "events_awaited",
        "events_buffered",
        "execution_id",
        "failure",
        "held",
        "history_events",
        "inbox",
        "input",
        "instance_id",
        "is_entity",
        "is_working",
        "lock",
        "lsn",
        "name",
        "operation_keys",
        "operation_keys_bytes",
        "output",
        "parent",
        "parked",
        "remembered",
        "request_key",
        "revision",
        "section",
        "state",
        "status",
        "tags",
        "timers",
        "updated_at",
        "version",
    )

    def __init__(self, instance_id: str, execution_id: str, name: str, now: datetime) -> None:
        self.instance_id = instance_id
        self.is_entity = is_entity(instance_id)
        self.execution_id = execution_id
        self.name = name
        self.status = OrchestrationStatus.PENDING
        self.created_at = now
        self.updated_at = now
        self.revision = 0
        self.lsn = 0
        self.input: str | None = None
        self.output: str | None = None
        self.custom_status: str | None = None
        self.failure: FailureDetails | None = None
        self.parked: FailureDetails | None = None
        self.parent: ParentInstance | None = None
        self.version: str | None = None
        """Of the code that runs an orchestration; of an entity's state."""
        self.tags: dict[str, str] = {}
        self.request_key: str | None = None
        """Names the client request that started this instance, so that its repetition is known."""
        self.state: str | None = None
        self.section: CriticalSectionState | None = None
        """Of an orchestration."""
        self.lock: LockHolder | None = None
        """Of an entity."""
        self.operation_keys: dict[str, OperationKey | None] = {}
        """What an entity remembers, oldest first; None for a key whose operation still waits to run."""
        self.operation_keys_bytes = 0
        """An estimate of the memory that the answers among them take."""
        self.episodes = 0
        self.history_events = 0
        self.deliveries = 0
        self.events_buffered = 0
        self.events_awaited: tuple[str, ...] = ()
        """Which events are let in although very many are buffered; None if that is not known, and all are."""
        # Lists, as they are short as a rule: an empty deque alone takes 760 bytes. Whoever takes many cuts a slice.
        self.inbox: list[Message] = []
        self.held: list[Message] = []
        """What a lock has made wait; it comes before the inbox once that is released."""
        self.controls: list[Message] = []
        """Messages that terminate, suspend or resume; they do not queue behind the others."""
        self.remembered: dict[_Call, list[Message]] = {}
        """By kind, name and input, what a rewind has undone, but which need not be done again."""
        self.activities: dict[int, ScheduledActivity] = {}
        self.answered: dict[int, Message] = {}
        """The completions of open activities and timers that wait in the inbox, by sequence number."""
        self.timers: dict[int, DurableTimer] = {}
        self.children: dict[int, OpenChild] = {}
        self.is_working = False
        """Whether a work item of this instance is with a worker."""

    @property
    def is_terminal(self) -> bool:
        return self.status in TERMINAL

    def remember(self, key: OperationKey) -> OperationKey | None:
        """Keep a key; return what was kept under it before."""
        known = self.operation_keys.get(key.operation_key)
        self.operation_keys[key.operation_key] = key
        self.operation_keys_bytes += key.answer_bytes - (known.answer_bytes if known else 0)
        return known

    def forget(self, key: OperationKey) -> None:
        del self.operation_keys[key.operation_key]
        self.operation_keys_bytes -= key.answer_bytes

    @property
    def has_messages(self) -> bool:
        """Whether something has arrived that it may act on."""
        return bool(self.inbox or self.controls or (self.held and self.lock is None))

    def snapshot(self) -> OrchestrationState:
        """Return what a client may see of the instance as it is now."""
        return OrchestrationState(
            instance_id=self.instance_id,
            execution_id=self.execution_id,
            name=self.name,
            runtime_status=self.status,
            created_at=self.created_at,
            last_updated_at=self.updated_at,
            input=self.input,
            output=self.output,
            custom_status=self.custom_status,
            failure=self.failure,
            parked=self.parked,
            parent_instance_id=self.parent.instance_id if self.parent else None,
            version=self.version,
            tags=self.tags,
            events_awaited=self.events_awaited,
        )
