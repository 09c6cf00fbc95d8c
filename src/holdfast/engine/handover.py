"""The end of a node in good order: when its host stops, and when partitions move to or from it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from holdfast.engine.readable import readable_state
from holdfast.errors import CommitFailedError, InstanceElsewhereError, InstanceNotFoundError, StorageError
from holdfast.model.ids import is_entity

if TYPE_CHECKING:
    from holdfast.engine.membership import Membership
    from holdfast.engine.node import Node
    from holdfast.engine.waiters import Waiters
    from holdfast.storage.port import Store

logger = logging.getLogger("holdfast.engine")

LEAVE_S: Final = 5.0
_LOOK_AGAIN_S: Final = 0.001


async def leave(node: Node, store: Store) -> None:
    """Take in what has finished, make it durable, and mark the store as left in good order."""
    try:
        with contextlib.suppress(TimeoutError):  # some orchestrations never come to rest by themselves
            async with asyncio.timeout(LEAVE_S):
                while not node.is_quiet:
                    await node.journal.settled()
                    await asyncio.sleep(_LOOK_AGAIN_S)
        node.pause()
        await node.journal.settled()
        await store.release(node.fence)
    except StorageError as error:
        logger.error("The store was not left in good order; nothing stored is lost: %r", error)  # noqa: TRY400
    node.journal.fail(CommitFailedError("The host stopped before this was stored.", outcome_unknown=True))
    node.abandon()


async def hand_over(node: Node, membership: Membership) -> None:
    """Store everything that was begun, tell the next owners of activities what runs on here, and end a node."""
    try:
        await _settle(node)
        await membership.lend(node)
    except Exception:  # a bug of ours; what was not stored is forgotten then, as after a failure
        logger.exception("An internal error while partitions were moving.")
    node.journal.fail(CommitFailedError("Partitions have moved before this was stored.", outcome_unknown=True))
    node.abandon()


async def _settle(node: Node) -> None:
    await node.batches.drain(LEAVE_S)
    node.pause()
    with contextlib.suppress(StorageError, TimeoutError):
        async with asyncio.timeout(LEAVE_S):
            while not node.journal.is_settled:
                await node.journal.settled()


async def wake_waiters(node: Node, waiters: Waiters, store: Store) -> None:
    """Tell those whose instance ended or changed in a commit of which we never heard whether it was applied.

    Those whose instances have another owner now have to ask there.
    """
    waiters.all_changed()
    for instance_id in waiters.instance_ids():
        if not node.partitions.have(instance_id):
            waiters.fail(instance_id, InstanceElsewhereError(instance_id))
            continue
        row = await store.read_instance(instance_id)
        if row is None and is_entity(instance_id):
            continue  # the call that somebody waits for is about to bring it into being
        if row is None:
            waiters.fail(instance_id, InstanceNotFoundError(instance_id))
            continue
        state = readable_state(row)
        if state.runtime_status.is_terminal or state.parked is not None:
            waiters.stopped(state)
