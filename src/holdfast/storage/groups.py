"""What can be said of a group of changes without a look at the store; every adapter asks it."""

from __future__ import annotations

from itertools import chain
from operator import attrgetter
from typing import Final

from holdfast.errors import CommitFailedError, OwnershipLostError
from holdfast.storage.port import Fence, WriteSet

# Keys of rows as removals name them.
_EXECUTION: Final = attrgetter("partition", "execution_id")
_MESSAGE: Final = attrgetter("partition", "message_id")
_WORK: Final = attrgetter("partition", "execution_id", "sequence")


def check_partitions(fence: Fence, writes: WriteSet) -> None:
    """Refuse a group that touches a partition for which the fence does not hold.

    Raises:
        OwnershipLostError: naming the partitions.
    """
    strangers = sorted(partitions_of(writes) - fence.epochs.keys())
    if strangers:
        raise OwnershipLostError(f"The group touches partitions {strangers}, which its writer does not own.")


def partitions_of(writes: WriteSet) -> set[int]:
    """Return the partitions that a group touches, but for those to which it only sends."""
    rows = chain(
        writes.instances_inserted,
        (update.row for update in writes.instances_updated),
        writes.history_inserted,
        writes.messages_inserted,
        writes.activities_inserted,
        writes.activities_updated,
        writes.timers_inserted,
        writes.children_inserted,
        writes.operation_keys_inserted,
    )
    removed = chain[tuple[int | str, ...]](
        writes.instances_removed,
        writes.executions_removed,
        writes.messages_removed,
        writes.arrivals_removed,
        writes.activities_removed,
        writes.timers_removed,
        writes.children_removed,
        writes.operation_keys_removed,
    )
    return {row.partition for row in rows} | {int(key[0]) for key in removed}


def check_disjoint(writes: WriteSet) -> None:
    """Refuse a key that is removed and inserted again: one of the two cannot be exact, but tables would take it.

    Not so of instances and event keys: an entity may begin anew, and a key may be used again once it is forgotten.

    Raises:
        CommitFailedError: naming the table.
    """
    replaced = [(partition, execution_id) for partition, execution_id, _ in writes.executions_removed]
    for table, removed, inserted, key in (
        ("history", replaced, writes.history_inserted, _EXECUTION),
        ("inbox", writes.messages_removed, writes.messages_inserted, _MESSAGE),
        ("activity", writes.activities_removed, writes.activities_inserted, _WORK),
        ("timer", writes.timers_removed, writes.timers_inserted, _WORK),
        ("child", writes.children_removed, writes.children_inserted, _WORK),
    ):
        if removed and inserted and not set[tuple[int | str, ...]](removed).isdisjoint(map(key, inserted)):
            raise CommitFailedError(f"The group removes and inserts the same row of table {table}.")
