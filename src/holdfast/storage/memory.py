"""A task hub in memory: the reference adapter, small enough to be the specification of the port."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Final, TypeVar

import msgspec

from holdfast.errors import CommitFailedError, OwnershipLostError, StorageError, StoreInUseError
from holdfast.model.messages import DurableKey
from holdfast.model.status import OrchestrationStatus
from holdfast.storage.groups import check_partitions
from holdfast.storage.port import (
    ActivityRow,
    ArrivalRow,
    ChildRow,
    Fence,
    InboxRow,
    InstanceRow,
    OperationKeyRow,
    Ownership,
    PageKey,
    StoredInstance,
    TimerRow,
    WorkKey,
    WriteSet,
)
from holdfast.storage.selection import EndedInstance, EntityRow, InstanceConditions

_STATUSES: Final = frozenset(status.value for status in OrchestrationStatus)
_ENDED: Final = frozenset(status.value for status in OrchestrationStatus if status.is_terminal)
_Key = TypeVar("_Key", int, str, DurableKey, tuple[str, str])
_Row = TypeVar("_Row", InboxRow, ActivityRow, TimerRow, ChildRow, OperationKeyRow)


class MemoryData:
    """What the connections to one task hub share, as a file would. `owner` stands for the lock of a living owner."""

    def __init__(self, partition_count: int = 1) -> None:
        self.owner: MemoryStore | None = None
        self.incarnation = 0
        self.lsn = 0
        self.released = True
        self.epochs = dict.fromkeys(range(partition_count), 0)
        self.instances: dict[str, InstanceRow] = {}
        self.history: dict[str, dict[int, str]] = {}
        self.messages: dict[int, InboxRow] = {}
        self.arrivals: dict[int, ArrivalRow] = {}
        self.arrival_id = 0
        self.activities: dict[DurableKey, ActivityRow] = {}
        self.timers: dict[DurableKey, TimerRow] = {}
        self.children: dict[DurableKey, ChildRow] = {}
        self.operation_keys: dict[tuple[str, str], OperationKeyRow] = {}


class MemoryStore:
    """One connection to a task hub that is lost, all of it, when the process ends.

    Two stores over the same `MemoryData` behave as two processes over one file. As in a file, activities and timers
    belong to the current execution of their instance.
    """

    mail = None
    transactions = None

    def __init__(self, data: MemoryData | None = None) -> None:
        self._data = MemoryData() if data is None else data
        self._closed = False

    async def acquire(self, now: int, *, after_crash: bool | None = None, suspect_deliveries: int = 3) -> Ownership:
        data = self._open_data()
        if data.owner not in (None, self):
            raise StoreInUseError("Another store of this process owns the task hub; close it first.")
        crashed = not data.released if after_crash is None else after_crash
        data.owner = self
        data.incarnation += 1
        data.released = False
        data.epochs = {partition: epoch + 1 for partition, epoch in data.epochs.items()}
        if crashed:
            self._count_deliveries(data, now, suspect_deliveries)
        return Ownership(Fence("local", data.incarnation, dict(data.epochs)), data.lsn, len(data.epochs))

    @staticmethod
    def _count_deliveries(data: MemoryData, now: int, suspect_deliveries: int) -> None:
        for key, activity in data.activities.items():
            if activity.visible_at <= now and activity.deliveries < suspect_deliveries:
                data.activities[key] = msgspec.structs.replace(activity, deliveries=activity.deliveries + 1)
        woken = {message.instance_id for message in data.messages.values()}
        woken.update(timer.instance_id for timer in data.timers.values() if timer.due_at <= now)
        for instance_id in woken & data.instances.keys():
            row = data.instances[instance_id]
            if row.status != OrchestrationStatus.SUSPENDED and row.deliveries < suspect_deliveries:
                data.instances[instance_id] = msgspec.structs.replace(row, deliveries=row.deliveries + 1)

    async def renew(self, fence: Fence) -> bool:
        self._check_fence(self._open_data(), fence)
        return False

    async def release(self, fence: Fence) -> None:
        data = self._open_data()
        self._check_fence(data, fence)
        data.released = True
        data.owner = None

    async def close(self) -> None:
        self._closed = True
        if self._data.owner is self:
            self._data.owner = None

    async def commit(self, fence: Fence, writes: WriteSet) -> None:
        data = self._open_data()
        self._check_fence(data, fence)
        if data.lsn != writes.lsn_before:
            raise CommitFailedError(f"The group follows lsn {writes.lsn_before}, but the store is at {data.lsn}.")
        check_partitions(fence, writes)
        self._check_counts(data, writes)
        self._apply(data, writes)

    @staticmethod
    def _check_fence(data: MemoryData, fence: Fence) -> None:
        if data.released or data.incarnation != fence.incarnation or data.epochs != fence.epochs:
            raise OwnershipLostError("Another owner took the task hub over, or it was released.")

    @staticmethod
    def _check_counts(data: MemoryData, writes: WriteSet) -> None:
        revisions = [(update.row.instance_id, update.revision_before) for update in writes.instances_updated]
        revisions += [(instance_id, revision) for _, instance_id, revision in writes.instances_removed]
        for instance_id, revision in revisions:
            stored = data.instances.get(instance_id)
            if stored is None or stored.revision != revision:
                raise CommitFailedError(f"Instance {instance_id!r} is not stored with revision {revision}.")
        if len({instance_id for instance_id, _ in revisions}) != len(revisions):
            raise CommitFailedError("The group updates or removes the same instance twice.")
        removed = {instance_id for _, instance_id, _ in writes.instances_removed}
        new = [row.instance_id for row in writes.instances_inserted if row.instance_id not in removed]
        _expect_absent("instance", data.instances, new)
        for row in writes.history_inserted:
            _expect_absent("history", data.history.get(row.execution_id, {}), [row.episode])
        for _, execution_id, count in writes.executions_removed:
            found = len(data.history.get(execution_id, {}))
            if found != count:
                raise CommitFailedError(f"The group removes {count} rows of table history, but {found} are there.")
        _expect_present("inbox", data.messages, [message_id for _, message_id in writes.messages_removed])
        _expect_absent("inbox", data.messages, [row.message_id for row in writes.messages_inserted])
        _expect_present("arrival", data.arrivals, [arrival_id for _, arrival_id in writes.arrivals_removed])
        changed = [*_keys(writes.activities_removed), *(row.key for row in writes.activities_updated)]
        _expect_present("activity", data.activities, changed)
        _expect_absent("activity", data.activities, [row.key for row in writes.activities_inserted])
        _expect_present("timer", data.timers, _keys(writes.timers_removed))
        _expect_absent("timer", data.timers, [row.key for row in writes.timers_inserted])
        _expect_present("child", data.children, _keys(writes.children_removed))
        _expect_absent("child", data.children, [row.key for row in writes.children_inserted])
        forgotten = [(instance_id, key) for _, instance_id, key in writes.operation_keys_removed]
        _expect_present("operation_key", data.operation_keys, forgotten)
        remembered = [row.key for row in writes.operation_keys_inserted if row.key not in forgotten]
        _expect_absent("operation_key", data.operation_keys, remembered)

    @staticmethod
    def _apply(data: MemoryData, writes: WriteSet) -> None:
        data.lsn = writes.lsn
        for _, execution_id, _ in writes.executions_removed:
            data.history.pop(execution_id, None)
        for _, message_id in writes.messages_removed:
            del data.messages[message_id]
        for _, arrival_id in writes.arrivals_removed:
            del data.arrivals[arrival_id]
        for key in _keys(writes.activities_removed):
            del data.activities[key]
        for key in _keys(writes.timers_removed):
            del data.timers[key]
        for key in _keys(writes.children_removed):
            del data.children[key]
        for _, instance_id, operation_key in writes.operation_keys_removed:
            del data.operation_keys[instance_id, operation_key]
        for _, instance_id, _ in writes.instances_removed:
            del data.instances[instance_id]
        data.instances.update((update.row.instance_id, update.row) for update in writes.instances_updated)
        data.instances.update((row.instance_id, row) for row in writes.instances_inserted)
        for row in writes.history_inserted:
            data.history.setdefault(row.execution_id, {})[row.episode] = row.events
        data.messages.update((row.message_id, row) for row in writes.messages_inserted)
        for row in writes.arrivals_inserted:
            data.arrival_id += 1
            data.arrivals[data.arrival_id] = msgspec.structs.replace(row, arrival_id=data.arrival_id)
        data.activities.update((row.key, row) for row in chain(writes.activities_updated, writes.activities_inserted))
        data.timers.update((row.key, row) for row in writes.timers_inserted)
        data.children.update((row.key, row) for row in writes.children_inserted)
        data.operation_keys.update((row.key, row) for row in writes.operation_keys_inserted)

    async def load(self, instance_ids: list[str]) -> list[StoredInstance]:
        data = self._open_data()
        ids = set(instance_ids)
        messages = _wanted(sorted(data.messages.values(), key=lambda row: row.message_id), ids)
        current = {row.execution_id for row in data.instances.values() if row.instance_id in ids}
        activities = _wanted(_of(current, data.activities), ids)
        timers = _wanted(_of(current, data.timers), ids)
        children = _wanted(_of(current, data.children), ids)
        remembered = sorted(data.operation_keys.values(), key=lambda row: row.position)
        keys = _wanted((row for row in remembered if row.instance_id.startswith("@")), ids)
        stored = [
            StoredInstance(i, data.instances.get(i), messages[i], activities[i], timers[i], children[i], keys[i])
            for i in ids
        ]
        return [each for each in stored if each.row is not None or each.messages]

    async def load_history(
        self, instance_id: str, execution_id: str, first: int = 0, limit: int | None = None
    ) -> list[str]:
        episodes = sorted(self._open_data().history.get(execution_id, {}).items())
        return [events for episode, events in episodes if episode >= first][:limit]

    async def read_instance(self, instance_id: str) -> InstanceRow | None:
        return self._open_data().instances.get(instance_id)

    async def instances(self, after: str, limit: int) -> list[InstanceRow]:
        rows = self._open_data().instances
        return [rows[instance_id] for instance_id in sorted(rows) if instance_id > after][:limit]

    async def find_instances(self, wanted: InstanceConditions, after: str, limit: int) -> list[InstanceRow]:
        return [row for row in self._orchestrations(wanted) if row.instance_id > after][:limit]

    async def count_instances(self, wanted: InstanceConditions) -> dict[str, int]:
        return dict(Counter(row.status for row in self._orchestrations(wanted)))

    async def ended_instances(
        self, wanted: InstanceConditions, after: tuple[int, str], limit: int
    ) -> list[EndedInstance]:
        ended = (row for row in self._orchestrations(wanted) if row.status in _ENDED)
        rows = sorted(ended, key=lambda row: (row.updated_at, row.instance_id))
        return [
            EndedInstance(row.updated_at, row.instance_id, row.revision, row.execution_id, row.episodes)
            for row in rows
            if (row.updated_at, row.instance_id) > after
        ][:limit]

    def _orchestrations(self, wanted: InstanceConditions) -> list[InstanceRow]:
        rows = self._open_data().instances
        ids = sorted(each for each in rows if each[:1] != "@" and each.startswith(wanted.prefix))
        return [rows[each] for each in ids if _fits(rows[each], wanted)]

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
        rows = [
            row
            for row in self._entities_after(after)
            if row.instance_id.startswith(prefix)
            and (updated_from is None or row.updated_at >= updated_from)
            and (updated_until is None or row.updated_at <= updated_until)
            and (with_empty or only_parked or row.state is not None or row.lock is not None)
            and (not only_parked or row.parked is not None or not _is_readable(row.lock))
        ]
        return [self._entity_row(row, with_state=with_state) for row in rows[:limit]]

    async def entities_locked(self, after: str, limit: int) -> list[EntityRow]:
        rows = [row for row in self._entities_after(after) if row.lock is not None]
        return [self._entity_row(row, with_state=False) for row in rows[:limit]]

    def _entities_after(self, after: str) -> list[InstanceRow]:
        rows = self._open_data().instances
        return [
            rows[instance_id] for instance_id in sorted(rows) if instance_id.startswith("@") and instance_id > after
        ]

    def _entity_row(self, row: InstanceRow, *, with_state: bool) -> EntityRow:
        return EntityRow(
            instance_id=row.instance_id,
            created_at=row.created_at,
            updated_at=row.updated_at,
            status=row.status,
            version=row.version,
            has_state=row.state is not None,
            state=row.state if with_state else None,
            lock=row.lock,
            parked=row.parked,
            messages=sum(message.instance_id == row.instance_id for message in self._data.messages.values()),
            timers=sum(timer.execution_id == row.execution_id for timer in self._data.timers.values()),
        )

    async def arrivals(self, after: int, limit: int) -> list[ArrivalRow]:
        rows = self._open_data().arrivals
        return [rows[arrival_id] for arrival_id in sorted(rows) if arrival_id > after][:limit]

    async def instances_with_messages(self, after: str, limit: int) -> list[str]:
        return sorted({row.instance_id for row in self._open_data().messages.values() if row.instance_id > after})[
            :limit
        ]

    async def activities_visible(self, until: int, limit: int, after: PageKey | None = None) -> list[ActivityRow]:
        rows = {(row.visible_at, *row.key): row for row in self._open_data().activities.values()}
        return [rows[key] for key in sorted(rows) if key[0] <= until and (after is None or key > after)][:limit]

    async def timers_due(self, until: int, limit: int, after: PageKey | None = None) -> list[TimerRow]:
        rows = {(row.due_at, *row.key): row for row in self._open_data().timers.values()}
        return [rows[key] for key in sorted(rows) if key[0] <= until and (after is None or key > after)][:limit]

    def _open_data(self) -> MemoryData:
        if self._closed:
            raise StorageError("The store is closed.")
        return self._data


def _fits(row: InstanceRow, wanted: InstanceConditions) -> bool:
    times = (row.created_at, wanted.created_from, wanted.created_until)
    updates = (row.updated_at, wanted.updated_from, wanted.updated_until)
    return (
        wanted.name in (None, row.name)
        and row.name not in wanted.names_excluded
        and (not wanted.statuses or row.status in wanted.statuses)
        and all(low is None or at >= low for at, low, _ in (times, updates))
        and all(high is None or at <= high for at, _, high in (times, updates))
        and wanted.parent_instance_id in (None, _members(row.parent).get("instance_id"))
        and _members(row.tags).items() >= wanted.tags.items()
        and wanted.custom_status in (None, row.custom_status)
        and wanted.parked in (None, row.parked is not None or _is_damaged(row))
    )


def _is_damaged(row: InstanceRow) -> bool:
    records = (row.failure, row.parent, row.lock, row.tags, row.events_awaited)
    return row.status not in _STATUSES or not all(map(_is_readable, records))


def _is_readable(record: str | None) -> bool:
    try:
        msgspec.json.decode(record or "null")
    except msgspec.DecodeError:
        return False
    return True


def _members(record: str | None) -> dict[str, object]:
    """Return the members of a JSON object; none if it cannot be read."""
    try:
        return {} if record is None else msgspec.json.decode(record, type=dict[str, object])
    except msgspec.DecodeError:
        return {}


def _of(execution_ids: Collection[str], rows: Mapping[DurableKey, _Row]) -> list[_Row]:
    return [row for key, row in rows.items() if key[0] in execution_ids]


def _wanted(rows: Iterable[_Row], instance_ids: Collection[str]) -> dict[str, list[_Row]]:
    found: dict[str, list[_Row]] = {instance_id: [] for instance_id in instance_ids}
    for row in rows:
        if row.instance_id in found:
            found[row.instance_id].append(row)
    return found


def _keys(removed: Sequence[WorkKey]) -> list[DurableKey]:
    return [key[1:] for key in removed]


def _expect_present(table: str, stored: Mapping[_Key, object], keys: list[_Key]) -> None:
    found = sum(key in stored for key in set(keys))
    if found != len(keys):
        raise CommitFailedError(f"The group changes {len(keys)} rows of table {table}, but {found} are there.")


def _expect_absent(table: str, stored: Mapping[_Key, object], keys: list[_Key]) -> None:
    if not stored.keys().isdisjoint(keys):
        raise CommitFailedError(f"The group inserts a row of table {table} which is there already.")
