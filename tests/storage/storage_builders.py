"""Rows and groups with defaults, and hubs that can be connected to more than once."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from holdfast.storage.memory import MemoryData, MemoryStore
from holdfast.storage.open_store import open_store
from holdfast.storage.port import (
    ActivityRow,
    ChildRow,
    Fence,
    HistoryRow,
    InboxRow,
    InstanceRow,
    InstanceUpdate,
    OperationKeyRow,
    Ownership,
    Store,
    StoredInstance,
    TimerRow,
    WriteSet,
)
from holdfast.storage.selection import EntityRow
from holdfast.storage.sqlite import SqliteStore

NOW = 1_000_000


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(and_close(*args, **kwargs))

    async def and_close(*args: Any, **kwargs: Any) -> None:
        try:
            await test(*args, **kwargs)
        finally:  # connections belong to the loop in which they were opened
            for hub in (each for each in (*args, *kwargs.values()) if isinstance(each, Hub)):
                await hub.close()

    return run


class Hub:
    """A task hub of one kind. Each `connect` stands for a process."""

    def __init__(self, kind: str, path: Path, url: str = "") -> None:
        self.kind = kind
        self.path = path
        self.url = url
        """Of a database, in which the hub has a schema of its own, of one partition."""
        self._data = MemoryData()
        self._stores: list[Store] = []

    def connect(self) -> Store:
        store = self._make()
        self._stores.append(store)
        return store

    def _make(self) -> Store:
        match self.kind:
            case "memory":
                return MemoryStore(self._data)
            case "sqlite":
                return SqliteStore(self.path)
            case _:
                return open_store(self.url)

    async def lose_lock(self) -> None:
        """Let another process take over although the owner lives."""
        self._data.owner = None
        if self.url:
            from postgres_kit import execute  # not there in a process that was started with this room's path only

            await execute(self.url, "UPDATE node SET lease_until = '-infinity'")
        self.path.with_name(f"{self.path.name}-owner").unlink(missing_ok=True)

    async def close(self) -> None:
        for store in self._stores:
            await store.close()


class Owner:
    """A store that was acquired, and commits groups in order."""

    def __init__(self, store: Store, ownership: Ownership) -> None:
        self.store = store
        self.ownership = ownership
        self.lsn = ownership.lsn

    @property
    def fence(self) -> Fence:
        return self.ownership.fence

    async def commit(self, **lists: list[Any]) -> None:
        await self.store.commit(self.fence, group(self.lsn, self.lsn + 1, **lists))
        self.lsn += 1

    async def load_one(self, instance_id: str = "i") -> StoredInstance:
        [stored] = await self.store.load([instance_id])
        return stored


async def own(hub: Hub, **options: Any) -> Owner:
    store = hub.connect()
    return Owner(store, await store.acquire(NOW, **options))


def group(lsn_before: int, lsn: int, **lists: list[Any]) -> WriteSet:
    """Make a group; what it removes is given without the partition, which is 0."""
    fields = [field for field in WriteSet.__struct_fields__ if not field.startswith("lsn")]
    given = {field: lists.get(field, []) for field in fields}
    for field in fields:
        if field.endswith("_removed"):
            given[field] = [(0, *key) if isinstance(key, tuple) else (0, key) for key in given[field]]
    return WriteSet(lsn_before=lsn_before, lsn=lsn, **given)


def instance(instance_id: str = "i", revision: int = 1, **fields: Any) -> InstanceRow:
    defaults: dict[str, Any] = {
        "partition": 0,
        "execution_id": f"{instance_id}-e",
        "name": "greet",
        "status": "Running",
        "created_at": NOW,
        "updated_at": NOW,
    }
    return InstanceRow(instance_id=instance_id, revision=revision, **(defaults | fields))


def update(instance_id: str = "i", revision_before: int = 1, **fields: Any) -> InstanceUpdate:
    new_execution = fields.pop("new_execution", False)
    return InstanceUpdate(instance(instance_id, revision_before + 1, **fields), revision_before, new_execution)


def history(execution_id: str = "i-e", episode: int = 0, events: str = "[]") -> HistoryRow:
    return HistoryRow(0, execution_id, episode, events)


def message(message_id: int = 1, instance_id: str = "i", execution_id: str | None = None) -> InboxRow:
    return InboxRow(0, message_id, instance_id, execution_id, f'{{"message":{message_id}}}')


def activity(
    sequence: int = 0,
    instance_id: str = "i",
    *,
    attempt: int = 1,
    deliveries: int = 0,
    visible_at: int = NOW,
    progress: str | None = None,
) -> ActivityRow:
    execution_id = f"{instance_id}-e"
    return ActivityRow(
        0, execution_id, sequence, instance_id, "say", '"x"', None, attempt, deliveries, NOW, visible_at, progress
    )


def timer(sequence: int = 0, instance_id: str = "i", *, due_at: int = NOW, event: str | None = None) -> TimerRow:
    return TimerRow(0, f"{instance_id}-e", sequence, instance_id, due_at, event)


def child(sequence: int = 0, instance_id: str = "i") -> ChildRow:
    return ChildRow(0, f"{instance_id}-e", sequence, instance_id, f"{instance_id}-e:{sequence}")


def operation_key(
    operation_key: str = "k", position: int = 0, instance_id: str = "@c@i", *, answer: str | None = None
) -> OperationKeyRow:
    return OperationKeyRow(0, instance_id, operation_key, position, answer)


def entity_row(instance_id: str, state: str | None = "0", messages: int = 0, **fields: Any) -> EntityRow:
    """What a list shows of `instance(instance_id, state=state)`."""
    defaults: dict[str, Any] = {
        "created_at": NOW,
        "updated_at": NOW,
        "status": "Running",
        "version": None,
        "has_state": state is not None,
        "lock": None,
        "parked": None,
        "timers": 0,
    }
    return EntityRow(instance_id=instance_id, state=state, messages=messages, **(defaults | fields))


async def contents(store: Store, instance_ids: list[str], execution_ids: list[str]) -> object:
    """All that the port shows of some instances and executions, in an order that can be compared."""
    stored = sorted(await store.load(instance_ids), key=lambda each: each.instance_id)
    return (
        [
            (
                each.row,
                each.messages,
                sorted(each.activities, key=lambda row: row.key),
                sorted(each.timers, key=lambda row: row.key),
                sorted(each.children, key=lambda row: row.key),
                each.operation_keys,
            )
            for each in stored
        ],
        {execution_id: await store.load_history(execution_id[:-2], execution_id) for execution_id in execution_ids},
        await store.instances("", 1000),
        await store.entities("@", "", 1000, with_empty=True),
        await store.entities_locked("", 1000),
        await store.instances_with_messages("", 1000),
        await store.activities_visible(NOW * 10, 1000),
        await store.timers_due(NOW * 10, 1000),
    )
