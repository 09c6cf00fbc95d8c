"""A change to an instance on behalf of a request: made once the instance is in memory, answered once it is durable."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from holdfast.engine.residents import Resident
from holdfast.errors import CommitFailedError, HoldfastError, OwnershipLostError

if TYPE_CHECKING:
    from holdfast.engine.node import Node

_STARTED_AGAIN: Final = "The host had to start again; nothing of this request was stored."


async def change_instance(
    node: Node, instance_id: str, change: Callable[[Resident | None], int], *, is_new: bool = False
) -> None:
    """Make a change to an instance once it is in memory, and wait until that is durable.

    Args:
        change: called with the instance; returns the number of the transition to wait for.
        is_new: the id cannot exist yet, so that the store need not be asked.
    """
    resident = node.loader.at_hand(instance_id)
    if resident is not None or (is_new and node.loader.may_create(instance_id)):
        lsn, refusal = node.context.run(_change, node, instance_id, change, resident)
    else:
        lsn, refusal = await _change_once_found(node, instance_id, change, is_new=is_new)
    await confirm(node, lsn)
    if refusal is not None:
        raise refusal


def _change(
    node: Node, instance_id: str, change: Callable[[Resident | None], int], resident: Resident | None
) -> tuple[int, HoldfastError | None]:
    """Make a change now; return up to where the store must be before that is told, and the refusal, if it is one."""
    if node.is_abandoned:
        raise CommitFailedError(_STARTED_AGAIN)
    try:
        return change(resident), None
    except HoldfastError as error:
        # A refusal tells of the instance as it is in memory: it must be true in the store before it is told.
        return (resident.instance.lsn if resident else node.loader.gone_at(instance_id)), error
    except Exception as error:
        node.blame(instance_id, error)
        raise CommitFailedError(f"An internal error; nothing was stored: {error!r}") from error


async def _change_once_found(
    node: Node, instance_id: str, change: Callable[[Resident | None], int], *, is_new: bool
) -> tuple[int, HoldfastError | None]:
    changed: asyncio.Future[tuple[int, HoldfastError | None]] = asyncio.get_running_loop().create_future()

    def arrived(resident: Resident | None) -> None:
        if changed.done():
            return  # the caller has given up; nothing was changed
        try:
            changed.set_result(_change(node, instance_id, change, resident))
        except CommitFailedError as error:
            changed.set_exception(error)

    def refused(error: HoldfastError) -> None:
        if not changed.done():
            changed.set_exception(error)

    find = functools.partial(node.loader.with_resident, instance_id, arrived, refused, is_new=is_new)
    node.context.run(node.guarded, instance_id, find)
    if node.is_abandoned:  # it does nothing any more, and would never call back
        refused(CommitFailedError(_STARTED_AGAIN))
    return await changed


async def confirm(node: Node, lsn: int) -> None:
    """Wait until what memory tells holds in the store as well: until a transition is durable, or by asking.

    A host that was paused may have had a successor meanwhile, and knows of nothing that this one did.

    Raises:
        OwnershipLostError: if it had.
    """
    if lsn > node.journal.durable_lsn:
        await node.journal.durable(lsn)
        return
    if node.is_abandoned:
        raise CommitFailedError(_STARTED_AGAIN)
    try:
        await node.confirmations.confirm()
    except OwnershipLostError as error:
        node.fail(error)
        raise
