"""A task hub as one thing: for what reads or writes all of it, not on behalf of a host.

What a store exports, any other takes over: the rows are those of the port, without what only one store knows. Both
sides block, since nothing else goes on beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from holdfast.model.ids import partition_of
from holdfast.storage.port import (
    ActivityRow,
    ArrivalRow,
    ChildRow,
    InboxRow,
    InstanceRow,
    OperationKeyRow,
    StoredInstance,
    TimerRow,
)

ROWS_VERSION: Final = 1
"""What an export and the store that takes it over must agree on: the tables below, their fields, and what they mean.
The schemas of the stores are numbered for themselves."""


class EpisodeRow(msgspec.Struct, frozen=True):
    """A row of the history, and whose it is: the stored row knows its execution alone. None is a row of nobody."""

    partition: int
    execution_id: str
    episode: int
    events: str
    instance_id: str | None


AnyRow: TypeAlias = (
    InstanceRow | EpisodeRow | InboxRow | ArrivalRow | ActivityRow | TimerRow | ChildRow | OperationKeyRow
)

TABLES: Final[dict[str, type[AnyRow]]] = {
    "instance": InstanceRow,
    "history": EpisodeRow,
    "inbox": InboxRow,
    "arrival": ArrivalRow,
    "activity": ActivityRow,
    "timer": TimerRow,
    "child": ChildRow,
    "operation_key": OperationKeyRow,
}
"""What goes along, table by table. Whatever is not here is how a store keeps its owners apart."""

TABLE_OF: Final[dict[type[AnyRow], str]] = {kind: table for table, kind in TABLES.items()}

COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    table: kind.__struct_fields__[:-1] if kind in (EpisodeRow, ArrivalRow) else kind.__struct_fields__
    for table, kind in TABLES.items()
}
"""The columns of each table, in the order of the fields of its rows; arrivals get new ids."""


class HubRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a hub is besides its rows.

    `incarnation` and `lsn` are the highest that any owner had: ids made of them must not come again. It is not
    `released` if an owner may have been running something when all was read: the next one counts deliveries.
    """

    hub_id: str
    created_at: int
    incarnation: int
    lsn: int
    released: bool


class Orphan(msgspec.Struct, frozen=True):
    """A row, or the whole history of an execution, that belongs to nobody. `key` identifies it in its table."""

    table: str
    instance_id: str | None
    key: tuple[str, str | int]


class Snapshot(Protocol):
    """All of a hub as of one moment, while hosts may go on writing. No method holds more than a page in memory."""

    def hub(self) -> HubRecord | None:
        """Return what the hub is, or None if no host has come up on it yet."""
        ...

    def rows(self, table: str) -> Iterator[AnyRow]:
        """Return all rows of one of `TABLES`, in any order, as they are stored: also those that nobody can read."""
        ...

    @property
    def partition_count(self) -> int:
        """Into how many partitions it is divided."""
        ...

    def remarks(self) -> list[str]:
        """Return what whoever checks the hub should know: who owns it, what this store leaves unchecked."""
        ...

    def damages(self) -> list[str]:
        """Return what the database itself finds wrong with its file."""
        ...

    def orphans(self) -> Iterator[Orphan]:
        """Return what belongs to no instance, or to one that has ended."""
        ...

    def instances(self, after: str, limit: int) -> list[InstanceRow]:
        """Return the rows of orchestrations and entities with ids greater than `after`, ascending by id."""
        ...

    def load(self, instance_ids: list[str]) -> list[StoredInstance]:
        """Return all that is stored of instances, except their histories."""
        ...

    def episodes(self, partition: int, execution_id: str) -> list[tuple[int, str]]:
        """Return the episodes of an execution with their numbers, in order."""
        ...

    def doubled_executions(self) -> Iterator[tuple[str, str, str]]:
        """Return executions that two instances have, with two of these."""
        ...

    def messages_about(self, text: str) -> list[str]:
        """Return messages to anybody that have a text in them, at most 1,000."""
        ...

    def messages_to_nobody(self) -> Iterator[tuple[str, int, str]]:
        """Return (instance id, message id, event) of the first message to each orchestration that is not there."""
        ...


class WholeHub(Protocol):
    """A hub that can be looked at as a whole, and, while no host owns it, be filled or mended."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """Read the hub as it is now.

        Raises:
            StorageError: if there is none, or it cannot be read; also out of the block.
        """
        ...

    def restore(self, hub: HubRecord, rows: Iterable[AnyRow]) -> None:
        """Put all rows of a hub into one that is new or was never used, in one transaction.

        Each row gets the partition that it has here. Whatever `rows` raises leaves everything as it was.

        Raises:
            StoreInUseError: if a host owns it.
            StorageError: if something is stored there, or it cannot be written.
        """
        ...

    def remove_orphans(self) -> int:
        """Remove what belongs to nobody, in one transaction; return how many rows and histories that were.

        Raises:
            StoreInUseError: if a host owns it.
            StorageError: if it cannot be written.
        """
        ...


def columns_for(row: AnyRow, partition_count: int) -> tuple[str | int | None, ...]:
    """Return what to store of a row in a hub with so many partitions, in the order of `COLUMNS`."""
    owner = row.instance_id
    partition = row.partition % partition_count if owner is None else partition_of(owner, partition_count)
    fields = msgspec.structs.astuple(row)[1 : len(COLUMNS[TABLE_OF[type(row)]])]
    return (partition, *fields)


def row_of(table: str, columns: Iterable[Any]) -> AnyRow:
    """Return the row of one of `TABLES` that its columns make, and for the history its owner behind them."""
    kind = TABLES[table]
    return kind(**dict(zip(kind.__struct_fields__, columns, strict=True)))


def with_arrivals(found: Iterable[StoredInstance], arrivals: Iterable[InboxRow]) -> list[StoredInstance]:
    """Return instances with what has arrived for them behind their messages, as if a host had taken it in."""
    by_id = {stored.instance_id: stored for stored in found}
    for row in arrivals:
        id_ = row.instance_id
        by_id.setdefault(id_, StoredInstance(id_, None, [], [], [], [], [])).messages.append(row)
    return list(by_id.values())
