"""The storage port: everything that the engine asks of a store, and nothing that an outsider should implement.

Rows carry JSON texts and whole microseconds since the epoch (UTC); what they mean is known in the rooms above.
An adapter never decides: it writes a group whole or not at all, and refuses one that is not fenced or not exact.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol, TypeAlias

import msgspec

from holdfast.model.messages import DurableKey
from holdfast.storage.mail import Mail
from holdfast.storage.selection import EndedInstance, EntityRow, InstanceConditions

if TYPE_CHECKING:
    from holdfast.storage.transactions import Transactions


class InstanceRow(msgspec.Struct, frozen=True, gc=False):
    """One orchestration or entity. `revision` rises by one with each transition of the instance."""

    partition: int
    instance_id: str
    execution_id: str
    revision: int
    name: str
    status: str
    created_at: int
    updated_at: int
    input: str | None = None
    output: str | None = None
    custom_status: str | None = None
    failure: str | None = None
    parked: str | None = None
    parent: str | None = None
    state: str | None = None
    lock: str | None = None
    episodes: int = 0
    history_events: int = 0
    deliveries: int = 0
    version: str | None = None
    tags: str | None = None
    request_key: str | None = None
    events_buffered: int = 0
    events_awaited: str | None = None


class HistoryRow(msgspec.Struct, frozen=True, gc=False):
    """The history of one episode: the key is (execution_id, episode), episodes count from 0 without gaps."""

    partition: int
    execution_id: str
    episode: int
    events: str


class InboxRow(msgspec.Struct, frozen=True, gc=False):
    """A message that waits. Ids are unique in a hub and rise in the order of sending."""

    partition: int
    message_id: int
    instance_id: str
    execution_id: str | None
    event: str


class ArrivalRow(msgspec.Struct, frozen=True, gc=False):
    """A message from outside the node that owns its receiver, which has not taken it in yet.

    Whoever sends it inserts it, in a transaction of its own. Ids are given by the store, and rise in the order of
    insertion; what one sender sends in transactions one after the other can be read in that order.
    """

    partition: int
    instance_id: str
    execution_id: str | None
    event: str
    arrival_id: int = 0


class ActivityRow(msgspec.Struct, frozen=True, gc=False):
    """An activity that was asked for and whose completion is not consumed yet."""

    partition: int
    execution_id: str
    sequence: int
    instance_id: str
    name: str
    input: str | None
    options: str | None
    attempt: int
    deliveries: int
    scheduled_at: int
    visible_at: int
    progress: str | None = None

    @property
    def key(self) -> DurableKey:
        return (self.execution_id, self.sequence)


class TimerRow(msgspec.Struct, frozen=True, gc=False):
    """A timer that was set, or a signal that was scheduled: then `event` is the message that is delivered when due."""

    partition: int
    execution_id: str
    sequence: int
    instance_id: str
    due_at: int
    event: str | None = None

    @property
    def key(self) -> DurableKey:
        return (self.execution_id, self.sequence)


class ChildRow(msgspec.Struct, frozen=True, gc=False):
    """A sub-orchestration that was started and whose end is not consumed yet; `sequence` is its parent's."""

    partition: int
    execution_id: str
    sequence: int
    instance_id: str
    child_instance_id: str

    @property
    def key(self) -> DurableKey:
        return (self.execution_id, self.sequence)


class OperationKeyRow(msgspec.Struct, frozen=True, gc=False):
    """An idempotency key that an entity remembers. Positions rise in the order of consumption."""

    partition: int
    instance_id: str
    operation_key: str
    position: int
    answer: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        return (self.instance_id, self.operation_key)


WorkKey: TypeAlias = tuple[int, str, int]
"""(partition, execution_id, sequence) of an activity, a timer or a sub-orchestration."""


class Fence(msgspec.Struct, frozen=True, gc=False):
    """What entitles a node to write: its incarnation, and the epoch of each partition that it owns."""

    node_id: str
    incarnation: int
    epochs: dict[int, int]


class Ownership(msgspec.Struct, frozen=True, gc=False):
    """What `acquire` gives. `lsn` is the node's watermark: the last transition that is durable.

    With a `lease_s` it ends by itself so many seconds after the last `renew` or commit; else with the process.
    """

    fence: Fence
    lsn: int
    partition_count: int
    lease_s: float | None = None


class InstanceUpdate(msgspec.Struct, frozen=True, gc=False):
    """The new image of a row which must be stored with `revision_before`.

    `new_execution` tells that fields fixed within an execution (execution_id, name, input, created_at, parent,
    version, tags, request_key) change too; a rewind of the parent changes `parent` alone.
    """

    row: InstanceRow
    revision_before: int
    new_execution: bool = False


class WriteSet(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One group of transitions, coalesced: the transaction that moves the watermark from `lsn_before` to `lsn`.

    Keys are unique within each list. Everything removed or updated must be there, and nothing inserted may be:
    otherwise the whole group is refused. Removals come first, but only an instance and an event key may be removed
    and inserted again in one group; what is updated must not be removed.
    """

    lsn_before: int
    lsn: int
    instances_inserted: list[InstanceRow]
    instances_updated: list[InstanceUpdate]
    instances_removed: list[tuple[int, str, int]]
    """(partition, instance_id, revision that must be stored), of what was purged, and of entities that hold nothing."""
    history_inserted: list[HistoryRow]
    executions_removed: list[tuple[int, str, int]]
    """(partition, execution_id, number of its history rows), when continue-as-new replaced an execution."""
    messages_inserted: list[InboxRow]
    messages_removed: list[tuple[int, int]]
    """(partition, message_id)."""
    arrivals_inserted: list[ArrivalRow]
    """Without their ids. They may be of partitions that the writer does not own: that is what they are for."""
    arrivals_removed: list[tuple[int, int]]
    """(partition, arrival_id)."""
    activities_inserted: list[ActivityRow]
    activities_updated: list[ActivityRow]
    """Only `attempt`, `deliveries`, `visible_at` and `progress` change."""
    activities_removed: list[WorkKey]
    timers_inserted: list[TimerRow]
    timers_removed: list[WorkKey]
    children_inserted: list[ChildRow]
    children_removed: list[WorkKey]
    operation_keys_inserted: list[OperationKeyRow]
    operation_keys_removed: list[tuple[int, str, str]]
    """(partition, instance_id, operation_key). Keys do not go with their instance: a group names each."""


class StoredInstance(msgspec.Struct, frozen=True, gc=False):
    """All that is stored of one instance, except its history. Messages are in the order of their ids.

    `row` is None while there are only messages: for an instance that the first of them will create. Event keys are
    those of entities, whose ids begin with "@", ascending by position.
    """

    instance_id: str
    row: InstanceRow | None
    messages: list[InboxRow]
    activities: list[ActivityRow]
    timers: list[TimerRow]
    children: list[ChildRow]
    operation_keys: list[OperationKeyRow]


PageKey: TypeAlias = tuple[int, str, int]
"""The last row of a page: its time, execution id and sequence. Rows that go away meanwhile do not shift the pages."""


class Store(Protocol):
    """A task hub in some database.

    `mail` is what hosts that share the hub tell each other; None if it is one host's alone. `transactions` are those in
    which activities run that commit together with their results; None if it has none to offer.

    Methods raise `StorageError` or a subclass: `OwnershipLostError` when the fence does not hold any more,
    `CommitFailedError` for a commit that was not applied or (`outcome_unknown`) may have been. Reads see committed
    data only, and may run while a commit is in flight.
    """

    @property
    def mail(self) -> Mail | None: ...

    @property
    def transactions(self) -> Transactions | None: ...

    async def acquire(self, now: int, *, after_crash: bool | None = None, suspect_deliveries: int = 3) -> Ownership:
        """Take ownership of the hub, as a new incarnation with new epochs, in one transaction.

        A hub that can be shared gives each owner its share of the partitions, of those that nobody owns; an owner that
        acquires again keeps what it has, up to its share. Incarnations and watermarks are never less than before.

        If the previous owner did not release (or `after_crash` says so), the deliveries of everything that may have
        been running are counted in the same transaction, before any of it can run again: of activities visible at
        `now`, and of instances not suspended with a message in the inbox or a timer due at `now`. What has
        `suspect_deliveries` already is left to the engine, which runs such work alone and counts it itself.

        Raises:
            StoreInUseError: if others own it that live, all of it.
        """
        ...

    async def renew(self, fence: Fence) -> bool:
        """Return if the ownership still holds; an owner asks now and then, since it may have nothing to commit.

        What is returned is whether partitions should move, to this owner or from it: by `acquire`, when it can.

        Raises:
            OwnershipLostError: if it does not.
        """
        ...

    async def release(self, fence: Fence) -> None:
        """Give up ownership after everything was committed, so that the next owner counts no deliveries."""
        ...

    async def close(self) -> None:
        """Free connections, threads and locks. Does not release ownership; may be called twice."""
        ...

    def commit(self, fence: Fence, writes: WriteSet) -> Awaitable[None]:
        """Apply a group whole, durably, or not at all.

        Checks in the one transaction: the node's incarnation and watermark (`lsn_before`), the epochs of the
        partitions touched, the revision of each instance updated or removed, and the exact count of each kind of row
        removed.
        """
        ...

    async def load(self, instance_ids: list[str]) -> list[StoredInstance]:
        """Return what is stored of those instances that have a row or messages, in any order.

        Event keys alone do not count: an entity that is to remember some keeps its row.
        """
        ...

    async def load_history(
        self, instance_id: str, execution_id: str, first: int = 0, limit: int | None = None
    ) -> list[str]:
        """Return the episodes of an instance's execution as texts, in order: from one on, so many at most, or all."""
        ...

    async def read_instance(self, instance_id: str) -> InstanceRow | None:
        """Return one instance's row, or None."""
        ...

    async def instances(self, after: str, limit: int) -> list[InstanceRow]:
        """Return the rows of orchestrations and entities with ids greater than `after`, ascending by id."""
        ...

    async def find_instances(self, wanted: InstanceConditions, after: str, limit: int) -> list[InstanceRow]:
        """Return the rows of orchestrations for which the conditions hold, with ids greater than `after`, ascending."""
        ...

    async def count_instances(self, wanted: InstanceConditions) -> dict[str, int]:
        """Return how many orchestrations the conditions hold for, by status, without zeros."""
        ...

    async def ended_instances(
        self, wanted: InstanceConditions, after: tuple[int, str], limit: int
    ) -> list[EndedInstance]:
        """Return orchestrations that have ended and for which the conditions hold, by (updated_at, instance_id)."""
        ...

    async def entities(
        self,
        prefix: str,
        after: str,
        limit: int,
        *,
        updated_from: int | None = None,
        updated_until: int | None = None,
        with_state: bool = True,
        with_empty: bool = False,
        only_parked: bool = False,
    ) -> list[EntityRow]:
        """Return entities whose ids begin with `prefix` and are greater than `after`, ascending by id.

        The prefix begins with "@" itself, and no character of it is a wildcard. Both times are inclusive.

        Args:
            with_empty: also those that have neither a state nor a lock.
            only_parked: those that are parked, whatever they hold, and those with a lock that is no JSON.
        """
        ...

    async def entities_locked(self, after: str, limit: int) -> list[EntityRow]:
        """Return entities that are locked, with ids greater than `after`, ascending by id, without state."""
        ...

    async def arrivals(self, after: int, limit: int) -> list[ArrivalRow]:
        """Return what has arrived in the partitions that this store owns, with ids greater than `after`, ascending."""
        ...

    async def instances_with_messages(self, after: str, limit: int) -> list[str]:
        """Return ids, greater than `after` and ascending, of instances with inbox rows.

        This and what follows is about the partitions that this store owns.
        """
        ...

    async def activities_visible(self, until: int, limit: int, after: PageKey | None = None) -> list[ActivityRow]:
        """Return activities with `visible_at <= until`, by (visible_at, execution_id, sequence), after that key."""
        ...

    async def timers_due(self, until: int, limit: int, after: PageKey | None = None) -> list[TimerRow]:
        """Return timers with `due_at <= until`, by (due_at, execution_id, sequence), after that key."""
        ...
