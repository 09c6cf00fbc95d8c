"""Applying a group inside a transaction; the caller begins and ends it. Each kind of row is one statement."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final

import asyncpg
import msgspec
from msgspec.structs import astuple

from holdfast.errors import CommitFailedError, OwnershipLostError
from holdfast.storage.groups import partitions_of
from holdfast.storage.port import Fence, WriteSet
from holdfast.storage.postgres.connections import Connection
from holdfast.storage.postgres.patience import fetchval_patiently
from holdfast.storage.postgres.queries import QUERIES

_EPISODES_SOON_REMOVED: Final = 20_000
"""More may take longer than a statement usually may."""
_FIXED = attrgetter("execution_id", "name", "created_at", "input", "parent", "version", "tags", "request_key")
_IMAGE = attrgetter(
    *("revision", "status", "updated_at", "output", "custom_status", "failure", "parked", "state", "lock"),
    *("episodes", "history_events", "deliveries", "events_buffered", "events_awaited"),
)
_ATTEMPT = attrgetter("partition", "execution_id", "sequence", "attempt", "deliveries", "visible_at", "progress")


async def apply(connection: Connection, fence: Fence, writes: WriteSet, lease_s: float) -> None:
    """Check the fence and write the group, in the open transaction: removals, then updates, then inserts.

    Raises:
        OwnershipLostError: if the fence does not hold any more.
        CommitFailedError: if the group does not follow the watermark, or is not exact.
    """
    began = time.monotonic()
    await _advance(connection, fence, writes, lease_s)
    await _remove_histories(connection, writes.executions_removed)
    await _change(connection, "inbox", "remove_messages", writes.messages_removed)
    await _change(connection, "arrival", "remove_arrivals", writes.arrivals_removed)
    await _change(connection, "activity", "remove_activities", writes.activities_removed)
    await _change(connection, "timer", "remove_timers", writes.timers_removed)
    await _change(connection, "child", "remove_children", writes.children_removed)
    await _change(connection, "operation_key", "remove_operation_keys", writes.operation_keys_removed)
    await _change(connection, "instance", "remove_instances", writes.instances_removed)
    updates = [
        ((each.row.partition, each.row.instance_id, each.revision_before), each) for each in writes.instances_updated
    ]
    restarts = [(*key, *_FIXED(each.row)) for key, each in updates if each.new_execution]
    await _change(connection, "instance", "restart_instances", restarts)
    await _change(connection, "instance", "update_instances", [(*key, *_IMAGE(each.row)) for key, each in updates])
    await _change(connection, "activity", "update_activities", [_ATTEMPT(row) for row in writes.activities_updated])
    await _insert(connection, "instance", "insert_instances", writes.instances_inserted)
    await _insert(connection, "history", "insert_history", writes.history_inserted)
    await _insert(connection, "inbox", "insert_messages", writes.messages_inserted)
    if writes.arrivals_inserted:
        arrivals = [(row.partition, row.instance_id, row.execution_id, row.event) for row in writes.arrivals_inserted]
        await connection.execute(QUERIES["insert_arrivals"], *_columns(arrivals))
    await _insert(connection, "activity", "insert_activities", writes.activities_inserted)
    await _insert(connection, "timer", "insert_timers", writes.timers_inserted)
    await _insert(connection, "child", "insert_children", writes.children_inserted)
    await _insert(connection, "operation_key", "insert_operation_keys", writes.operation_keys_inserted)
    if time.monotonic() - began > lease_s / 3:  # else the lease would be over soon after so long a commit
        await connection.execute(QUERIES["renew_lease"], fence.node_id, fence.incarnation, lease_s)


async def check_fence(connection: Connection, fence: Fence) -> int:
    """Return the watermark, if the fence still holds.

    Raises:
        OwnershipLostError: if it does not.
    """
    partitions, epochs = list(fence.epochs), list(fence.epochs.values())
    lsn = await connection.fetchval(QUERIES["check_fence"], fence.node_id, fence.incarnation, partitions, epochs)
    if lsn is None:
        raise OwnershipLostError("Another host took the task hub over, or it was released.")
    return lsn


async def _advance(connection: Connection, fence: Fence, writes: WriteSet, lease_s: float) -> None:
    touched = sorted(partitions_of(writes))
    advanced = await connection.execute(
        QUERIES["advance_watermark"],
        writes.lsn,
        fence.node_id,
        fence.incarnation,
        writes.lsn_before,
        lease_s,
        touched,
        [fence.epochs[partition] for partition in touched],
    )
    if _count(advanced) != 1:
        lsn = await check_fence(connection, fence)
        raise CommitFailedError(f"The group follows lsn {writes.lsn_before}, but the store is at {lsn}.")


async def _remove_histories(connection: Connection, removed: Sequence[tuple[int, str, int]]) -> None:
    if not removed:
        return
    query, columns = QUERIES["remove_history"], _columns(removed)
    if sum(episodes for _, _, episodes in removed) <= _EPISODES_SOON_REMOVED:
        exact = await connection.fetchval(query, *columns)
    else:
        exact = await fetchval_patiently(connection, query, *columns)
    _expect("removes the episodes of", len(removed), "history", exact)


async def _change(connection: Connection, table: str, query: str, rows: Sequence[tuple[str | int | None, ...]]) -> None:
    if rows:
        _expect("changes", len(rows), table, _count(await connection.execute(QUERIES[query], *_columns(rows))))


async def _insert(connection: Connection, table: str, query: str, rows: Sequence[msgspec.Struct]) -> None:
    if not rows:
        return
    try:
        await connection.execute(QUERIES[query], *_columns([astuple(row) for row in rows]))
    except asyncpg.UniqueViolationError as error:
        raise CommitFailedError(
            f"The group inserts a row of table {table} which is there already ({error.detail or error})."
        ) from error


def _columns(rows: Iterable[tuple[str | int | None, ...]]) -> list[tuple[str | int | None, ...]]:
    return list(zip(*rows, strict=True))


def _count(said: str) -> int:
    """Return the number of rows from what the server says of a statement, such as `DELETE 3`."""
    return int(said.rpartition(" ")[2])


def _expect(verb: str, wanted: int, table: str, found: object) -> None:
    if found != wanted:
        raise CommitFailedError(f"The group {verb} {wanted} rows of table {table}, but {found} are there as it says.")
