"""The states of an instance, and what a client sees of one."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Final

import msgspec

from holdfast.model.failure import FailureDetails


class OrchestrationStatus(enum.StrEnum):
    """The runtime status of an instance, spelled as on the wire."""

    PENDING = "Pending"
    RUNNING = "Running"
    COMPLETED = "Completed"
    FAILED = "Failed"
    TERMINATED = "Terminated"
    SUSPENDED = "Suspended"
    CONTINUED_AS_NEW = "ContinuedAsNew"
    CANCELED = "Canceled"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can happen to the instance any more."""
        return self in TERMINAL


TERMINAL: Final = frozenset(
    {
        OrchestrationStatus.COMPLETED,
        OrchestrationStatus.FAILED,
        OrchestrationStatus.TERMINATED,
        OrchestrationStatus.CANCELED,
    }
)
"""Where nothing can happen to an instance any more."""


class OrchestrationState(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What the store says about one instance.

    `input`, `output` and `custom_status` are JSON texts; None means that there is none (JSON null is `"null"`).
    The output of what is suspended, terminated or cancelled is the reason, if one was given. `parked` says why an
    operator is needed; the status is then `Suspended`.
    """

    instance_id: str
    execution_id: str
    name: str
    runtime_status: OrchestrationStatus
    created_at: datetime
    last_updated_at: datetime
    input: str | None = None
    output: str | None = None
    custom_status: str | None = None
    failure: FailureDetails | None = None
    parked: FailureDetails | None = None
    parent_instance_id: str | None = None
    version: str | None = None
    tags: dict[str, str] = {}
    events_awaited: tuple[str, ...] = ()
    """The names of external events that its code waits for, the first `EVENTS_AWAITED_MAX`."""


class LockState(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The orchestration that holds, or wants, the lock of an entity, and since when."""

    instance_id: str
    critical_section_id: str
    since: datetime


class EntityState(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What the store says about one entity. `state` is JSON; None if there is none, or if it was not asked for."""

    instance_id: str
    created_at: datetime
    last_updated_at: datetime
    has_state: bool
    state: str | None = None
    state_version: str | None = None
    lock: LockState | None = None
    lock_requests: tuple[LockState, ...] = ()
    """Who waits for the lock, in order; looked up for a single entity only."""
    messages: int = 0
    """How many operations and lock requests wait."""
    scheduled_signals: int = 0
    """How many signals wait for their time."""
    parked: FailureDetails | None = None
    """Why it needs an operator, if it does; it runs nothing meanwhile."""


class InstancesPurged(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What the purge of one page has done. `next_after` is where the next page begins, None at the end."""

    purged: int
    next_after: str | None


class EntitiesRemoved(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What the cleaning of entity storage has done."""

    empty_entities_removed: int
    orphaned_locks_released: int
