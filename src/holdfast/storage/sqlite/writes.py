"""Applying one group to the tables: the hot path.

All rows of a kind go to SQLite in one statement, as a JSON array. What it does with them it does without the
interpreter, which the event loop has meanwhile; row by row, the two would wait for each other at each row.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from operator import attrgetter
from typing import Final, TypeAlias

import msgspec
from msgspec.structs import astuple

from holdfast.errors import CommitFailedError, OwnershipLostError
from holdfast.storage.groups import check_disjoint, check_partitions
from holdfast.storage.port import ArrivalRow, Fence, WriteSet
from holdfast.storage.sqlite.queries import QUERIES

# The parameters of the update statements, in their order.
_FIXED = attrgetter("execution_id", "name", "created_at", "input", "parent", "version", "tags", "request_key")
_IMAGE = attrgetter(
    *("revision", "status", "updated_at", "output", "custom_status", "failure", "parked", "state", "lock"),
    *("episodes", "history_events", "deliveries", "events_buffered", "events_awaited", "partition", "instance_id"),
)
_ATTEMPT = attrgetter("attempt", "deliveries", "visible_at", "progress", "partition", "execution_id", "sequence")

Value: TypeAlias = str | int | None

_ENCODER: Final = msgspec.json.Encoder()
_NUL: Final = b"\\u0000"
_IS_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The character itself, not the letters that stand for it in the JSON of a payload."""

_IS_THERE: Final = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)

_PARTITION = 0
"""The only one: see `queries.sql`."""


def apply(connection: sqlite3.Connection, fence: Fence, writes: WriteSet) -> None:
    """Check the fence and write the group, in the open transaction: removals, then updates, then inserts.

    Raises:
        OwnershipLostError: if the fence does not hold any more.
        CommitFailedError: if the group does not follow the watermark, or is not exact.
    """
    _advance(connection, fence, writes)
    check_disjoint(writes)
    try:
        _apply(connection, writes)
    except (sqlite3.IntegrityError, CommitFailedError):
        check_partitions(fence, writes)  # it says more, if that is the reason
        raise


def _apply(connection: sqlite3.Connection, writes: WriteSet) -> None:
    for partition, execution_id, count in writes.executions_removed:
        removed = connection.execute(QUERIES["remove_history"], (partition, execution_id)).rowcount
        _expect("removes", count, "history", removed)
    _change(connection, "inbox", "remove_message", writes.messages_removed)
    _change(connection, "arrival", "remove_arrival", writes.arrivals_removed)
    _change(connection, "activity", "remove_activity", writes.activities_removed)
    _change(connection, "timer", "remove_timer", writes.timers_removed)
    _change(connection, "child", "remove_child", writes.children_removed)
    _change(connection, "operation_key", "remove_operation_key", writes.operation_keys_removed)
    _change(connection, "instance", "remove_instance", writes.instances_removed)
    updates = writes.instances_updated
    _change(
        connection,
        "instance",
        "update_instance",
        [(*_IMAGE(each.row), each.revision_before) for each in updates if not each.new_execution],
    )
    _change(
        connection,
        "instance",
        "restart_instance",
        [(*_FIXED(each.row), *_IMAGE(each.row), each.revision_before) for each in updates if each.new_execution],
    )
    _change(connection, "activity", "update_activity", [_ATTEMPT(row) for row in writes.activities_updated])
    _insert(connection, "instance", "insert_instance", writes.instances_inserted)
    _insert(connection, "history", "insert_history", writes.history_inserted)
    _insert(connection, "inbox", "insert_message", writes.messages_inserted)
    _insert_arrivals(connection, writes.arrivals_inserted)
    _insert(connection, "activity", "insert_activity", writes.activities_inserted)
    _insert(connection, "timer", "insert_timer", writes.timers_inserted)
    _insert(connection, "child", "insert_child", writes.children_inserted)
    _insert(connection, "operation_key", "insert_operation_key", writes.operation_keys_inserted)


def check_fence(connection: sqlite3.Connection, fence: Fence) -> int:
    """Return the watermark, if the fence still holds.

    Raises:
        OwnershipLostError: if it does not.
    """
    parameters = (fence.node_id, fence.incarnation, fence.epochs.get(_PARTITION))
    owned = connection.execute(QUERIES["check_fence"], parameters).fetchone()
    if owned is None:
        raise OwnershipLostError("Another process took the task hub over, or it was released.")
    return owned[0]


def _advance(connection: sqlite3.Connection, fence: Fence, writes: WriteSet) -> None:
    epoch = fence.epochs.get(_PARTITION)
    parameters = (writes.lsn, fence.node_id, fence.incarnation, writes.lsn_before, epoch)
    if connection.execute(QUERIES["advance_watermark"], parameters).rowcount != 1:
        lsn = check_fence(connection, fence)
        raise CommitFailedError(f"The group follows lsn {writes.lsn_before}, but the store is at {lsn}.")


def _change(connection: sqlite3.Connection, table: str, query: str, rows: Sequence[Sequence[Value]]) -> None:
    if rows:
        _expect("changes", len(rows), table, connection.execute(QUERIES[query], (encode(rows),)).rowcount)


def _insert(connection: sqlite3.Connection, table: str, query: str, rows: Sequence[msgspec.Struct]) -> None:
    if not rows:
        return
    try:
        connection.execute(QUERIES[query], (encode([astuple(row) for row in rows]),))
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode not in _IS_THERE:
            raise
        raise CommitFailedError(
            f"The group inserts a row of table {table} which is there already ({error})."
        ) from error


def _insert_arrivals(connection: sqlite3.Connection, rows: Sequence[ArrivalRow]) -> None:
    if rows:
        columns = [(row.partition, row.instance_id, row.execution_id, row.event) for row in rows]
        connection.execute(QUERIES["insert_arrival"], (encode(columns),))


def encode(rows: Sequence[Sequence[Value]]) -> str:
    """Return rows as the JSON that a statement goes through.

    Raises:
        CommitFailedError: for a NUL, at which SQLite would cut a text off.
    """
    encoded = _ENCODER.encode(rows)
    if _NUL in encoded and _IS_NUL.search(encoded):
        raise CommitFailedError("The group has a text with a NUL, which cannot be stored.")
    return encoded.decode()


def _expect(verb: str, wanted: int, table: str, found: int) -> None:
    if found != wanted:
        raise CommitFailedError(f"The group {verb} {wanted} rows of table {table}, but {found} are there as it says.")
