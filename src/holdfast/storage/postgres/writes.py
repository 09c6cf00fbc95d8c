"""Applying a group: one call of the function `apply_group` in the schema, which does it whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Final

import asyncpg
import msgspec

from holdfast.errors import CommitFailedError, OwnershipLostError, StorageError
from holdfast.storage.groups import partitions_of
from holdfast.storage.port import Fence, InstanceUpdate, WriteSet
from holdfast.storage.postgres.connections import Connection, Connections
from holdfast.storage.postgres.location import Location
from holdfast.storage.postgres.patience import execute_patiently
from holdfast.storage.postgres.queries import QUERIES

_NOT_FENCED: Final = "HF001"
_NOT_EXACT: Final = "HF002"
"""Errors that the function raises."""

_EPISODES_SOON_REMOVED: Final = 20_000
"""More may take longer than a statement usually may."""

_FIXED: Final = ("execution_id", "name", "created_at", "input", "parent", "version", "tags", "request_key")
_IMAGE: Final = (
    *("revision", "status", "updated_at", "output", "custom_status", "failure", "parked", "state", "lock"),
    *("episodes", "history_events", "deliveries", "events_buffered", "events_awaited"),
)
_ATTEMPT: Final = ("partition", "execution_id", "sequence", "attempt", "deliveries", "visible_at", "progress")

_Rows = Sequence[object]
"""What becomes a JSON object for each row, with the names of the columns."""


class _Kind(msgspec.Struct, frozen=True):
    """One thing that a group does to a table; the function has a case of its name."""

    name: str
    table: str
    rows: Callable[[WriteSet], _Rows]
    verb: str = "changes"


async def apply(connections: Connections, location: Location, fence: Fence, writes: WriteSet) -> None:
    """Check the fence and write the group, in one transaction: removals, then updates, then inserts.

    Raises:
        OwnershipLostError: if the fence does not hold any more.
        CommitFailedError: if the group does not follow the watermark, or is not exact.
    """
    found = [(kind, rows) for kind in _KINDS if (rows := kind.rows(writes))]
    touched = sorted(partitions_of(writes))
    try:
        changes = [msgspec.json.encode(rows).decode() for _, rows in found]
    except UnicodeEncodeError as error:
        raise CommitFailedError(f"Nothing was committed to {location.text}: {error}") from error
    try:
        await _call(
            connections,
            writes,
            f'SELECT "{location.schema}".apply_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)',
            location.search_path,
            fence.node_id,
            fence.incarnation,
            writes.lsn_before,
            writes.lsn,
            location.lease_s,
            touched,
            [fence.epochs[partition] for partition in touched],
            [kind.name for kind, _ in found],
            changes,
            [len(rows) for _, rows in found],
        )
    except CommitFailedError as error:
        if not isinstance(error.__cause__, asyncpg.PostgresError):
            raise
        if error.__cause__.sqlstate == _NOT_FENCED:
            lsn = await connections.write(lambda connection: check_fence(connection, fence))
            message = f"The group follows lsn {writes.lsn_before}, but the store is at {lsn}."
            raise CommitFailedError(message) from error
        raise (_refusal(error.__cause__, found) or error) from error.__cause__


async def _call(connections: Connections, writes: WriteSet, call: str, *parameters: object) -> None:
    """Make the call, within a transaction if a limit of its own must be set for it first."""
    if sum(episodes for _, _, episodes in writes.executions_removed) <= _EPISODES_SOON_REMOVED:
        await connections.commit(call, *parameters)
    else:
        await connections.write(lambda connection: execute_patiently(connection, call, *parameters))


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


def _refusal(error: asyncpg.PostgresError, found: Sequence[tuple[_Kind, _Rows]]) -> StorageError | None:
    """Say in which table the group is not exact, if that is what the error means."""
    if error.sqlstate == _NOT_EXACT:
        kind, rows = next(each for each in found if each[0].name == error.constraint_name)
        return CommitFailedError(
            f"The group {kind.verb} {len(rows)} rows of table {kind.table}, but {error.detail} are there as it says."
        )
    if isinstance(error, asyncpg.UniqueViolationError) and error.table_name:
        return CommitFailedError(
            f"The group inserts a row of table {error.table_name} which is there already ({error.detail or error})."
        )
    return None


def _objects(*names: str) -> Callable[[Iterable[Sequence[object]]], _Rows]:
    """Give the values of rows their names; what is None need not be sent."""
    fields: list[tuple[str, type, None]] = [(name, object, None) for name in names]
    row = msgspec.defstruct("Row", fields, omit_defaults=True)
    return lambda rows: [row(*values) for values in rows]


def _updates(names: tuple[str, ...]) -> Callable[[Iterable[InstanceUpdate]], _Rows]:
    """Take some fields of instances, besides the key and the revision that must be stored."""
    objects, values = _objects("partition", "instance_id", "revision_before", *names), attrgetter(*names)
    return lambda updates: objects(
        (each.row.partition, each.row.instance_id, each.revision_before, *values(each.row)) for each in updates
    )


_arrivals: Final = _objects("partition", "arrival_id")
_executions: Final = _objects("partition", "execution_id", "episodes")
_messages: Final = _objects("partition", "message_id")
_work: Final = _objects("partition", "execution_id", "sequence")
_operation_keys: Final = _objects("partition", "instance_id", "operation_key")
_instances: Final = _objects("partition", "instance_id", "revision")
_restarts: Final = _updates(_FIXED)
_images: Final = _updates(_IMAGE)
_attempts: Final = _objects(*_ATTEMPT)

_KINDS: Final = (
    _Kind("remove_history", "history", lambda group: _executions(group.executions_removed), "removes the episodes of"),
    _Kind("remove_messages", "inbox", lambda group: _messages(group.messages_removed)),
    _Kind("remove_arrivals", "arrival", lambda group: _arrivals(group.arrivals_removed)),
    _Kind("remove_activities", "activity", lambda group: _work(group.activities_removed)),
    _Kind("remove_timers", "timer", lambda group: _work(group.timers_removed)),
    _Kind("remove_children", "child", lambda group: _work(group.children_removed)),
    _Kind("remove_operation_keys", "operation_key", lambda group: _operation_keys(group.operation_keys_removed)),
    _Kind("remove_instances", "instance", lambda group: _instances(group.instances_removed)),
    _Kind(
        "restart_instances",
        "instance",
        lambda group: _restarts(each for each in group.instances_updated if each.new_execution),
    ),
    _Kind("update_instances", "instance", lambda group: _images(group.instances_updated)),
    _Kind(
        "update_activities", "activity", lambda group: _attempts(map(attrgetter(*_ATTEMPT), group.activities_updated))
    ),
    _Kind("insert_instances", "instance", lambda group: group.instances_inserted),
    _Kind("insert_history", "history", lambda group: group.history_inserted),
    _Kind("insert_messages", "inbox", lambda group: group.messages_inserted),
    _Kind("insert_arrivals", "arrival", lambda group: group.arrivals_inserted),
    _Kind("insert_activities", "activity", lambda group: group.activities_inserted),
    _Kind("insert_timers", "timer", lambda group: group.timers_inserted),
    _Kind("insert_children", "child", lambda group: group.children_inserted),
    _Kind("insert_operation_keys", "operation_key", lambda group: group.operation_keys_inserted),
)
"""What a group may do, in the order in which it is done. A key may be removed and inserted again."""
