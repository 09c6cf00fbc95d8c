"""Applying one group to the tables: the hot path.

All of it goes to SQLite in one statement (`apply_group.sql`), with a JSON array for each kind of row. What SQLite does
with them it does without the interpreter, which the event loop has meanwhile; row by row, or kind by kind, the two
would wait for each other again and again.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Final, TypeAlias

import msgspec
from msgspec.structs import astuple

from holdfast.errors import CommitFailedError, OwnershipLostError, StorageError
from holdfast.storage.groups import check_disjoint, check_partitions
from holdfast.storage.port import Fence, WriteSet
from holdfast.storage.sqlite.queries import QUERIES

# The parameters of the update statements, in their order.
_FIXED = attrgetter("execution_id", "name", "created_at", "input", "parent", "version", "tags", "request_key")
_IMAGE = attrgetter(
    *("revision", "status", "updated_at", "output", "custom_status", "failure", "parked", "state", "lock"),
    *("episodes", "history_events", "deliveries", "events_buffered", "events_awaited", "partition", "instance_id"),
)
_ATTEMPT = attrgetter("attempt", "deliveries", "visible_at", "progress", "partition", "execution_id", "sequence")

Value: TypeAlias = str | int | None
_Rows: TypeAlias = Sequence[Sequence[Value]]

_ENCODER: Final = msgspec.json.Encoder()
_NUL: Final = b"\\u0000"
_IS_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The character itself, not the letters that stand for it in the JSON of a payload."""

_IS_THERE: Final = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)

_PARTITION = 0
"""The only one: see `queries.sql`."""


Group: TypeAlias = tuple[Value, ...]
"""The parameters of `APPLY`."""


def encode(fence: Fence, writes: WriteSet) -> Group:
    """Return a group as SQLite takes it.

    Raises:
        CommitFailedError: if it removes what it inserts, or has a text that cannot be stored.
    """
    check_disjoint(writes)
    rows = [_encoded(take(writes)) for take in _KINDS.values()]
    return (fence.node_id, fence.incarnation, fence.epochs.get(_PARTITION), writes.lsn_before, writes.lsn, *rows)


def apply(connection: sqlite3.Connection, fence: Fence, writes: WriteSet, group: Group) -> None:
    """Check the fence and write the group, in the open transaction: removals, then updates, then inserts.

    Raises:
        OwnershipLostError: if the fence does not hold any more.
        CommitFailedError: if the group does not follow the watermark, or is not exact.
    """
    try:
        connection.execute(APPLY, group)
    except sqlite3.IntegrityError as error:
        raise _refusal(connection, fence, writes, error) from error


def _refusal(
    connection: sqlite3.Connection, fence: Fence, writes: WriteSet, error: sqlite3.IntegrityError
) -> StorageError | sqlite3.IntegrityError:
    """Say what a group was refused for."""
    reason = str(error)
    if reason == "fence":
        lsn = check_fence(connection, fence)
        return CommitFailedError(f"The group follows lsn {writes.lsn_before}, but the store is at {lsn}.")
    check_partitions(fence, writes)  # it says more, if that is the reason
    if error.sqlite_errorcode in _IS_THERE:
        return CommitFailedError(f"The group inserts a row which is there already ({reason}).")
    if reason in _TABLES:
        count, table = len(_KINDS[reason](writes)), _TABLES[reason]
        return CommitFailedError(
            f"The group changes {count} rows of table {table}, which are not all there as it says."
        )
    return error


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


def _encoded(rows: Sequence[Sequence[Value]]) -> str | None:
    """Return rows as the JSON that the trigger goes through.

    Raises:
        CommitFailedError: for a NUL, at which SQLite would cut a text off.
    """
    if not rows:
        return None
    encoded = _ENCODER.encode(rows)
    if _NUL in encoded and _IS_NUL.search(encoded):
        raise CommitFailedError("The group has a text with a NUL, which cannot be stored.")
    return encoded.decode()


def _updates(writes: WriteSet) -> _Rows:
    return [(*_IMAGE(each.row), each.revision_before) for each in writes.instances_updated if not each.new_execution]


def _restarts(writes: WriteSet) -> _Rows:
    updates = writes.instances_updated
    return [(*_FIXED(each.row), *_IMAGE(each.row), each.revision_before) for each in updates if each.new_execution]


def _columns(rows: Callable[[WriteSet], Sequence[msgspec.Struct]]) -> Callable[[WriteSet], _Rows]:
    return lambda writes: [astuple(row) for row in rows(writes)]


_REMOVED: Final = {
    "executions_removed": "history",
    "messages_removed": "inbox",
    "arrivals_removed": "arrival",
    "activities_removed": "activity",
    "timers_removed": "timer",
    "children_removed": "child",
    "operation_keys_removed": "operation_key",
    "instances_removed": "instance",
}
_UPDATED: Final = {"instances_updated": "instance", "instances_restarted": "instance", "activities_updated": "activity"}
_TABLES: Final = {**_REMOVED, **_UPDATED}
"""Of the kinds that want something to be there."""

_INSERTED: Final = (
    "instances_inserted",
    "history_inserted",
    "messages_inserted",
    "arrivals_inserted",
    "activities_inserted",
    "timers_inserted",
    "children_inserted",
    "operation_keys_inserted",
)
_KINDS: Final[dict[str, Callable[[WriteSet], _Rows]]] = {
    **{kind: attrgetter(kind) for kind in _REMOVED},
    "instances_updated": _updates,
    "instances_restarted": _restarts,
    "activities_updated": lambda writes: [_ATTEMPT(row) for row in writes.activities_updated],
    **{kind: _columns(attrgetter(kind)) for kind in _INSERTED},
}
"""What a group does to the tables: the columns of the view `commit_group`, in their order, after those of the fence."""

APPLY: Final = f"INSERT INTO commit_group VALUES (?, ?, ?, ?, ?, {', '.join('?' * len(_KINDS))})"
"""A commit: the fence, the watermarks before and after, and the JSON of each kind of row."""
