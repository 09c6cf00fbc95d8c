"""Purges: what has ended leaves the store, on request or by the retention of a host, without coming into memory.

A purge reads from the store what has ended, and removes just that. What is changed needs to be in memory: so what is
not there, and neither came nor went while the store was being read, is still as it was read.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Collection
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from holdfast.engine.changes import change_instance
from holdfast.engine.clock import to_microseconds
from holdfast.engine.readable import is_damaged
from holdfast.errors import (
    CorruptRecordError,
    InstanceNotEndedError,
    InstanceNotFoundError,
    InvalidInputError,
    OverloadedError,
)
from holdfast.hub.transition import OpenWork
from holdfast.model.ids import is_entity, validate_instance_id
from holdfast.model.requests import InstanceFilter
from holdfast.model.status import InstancesPurged, OrchestrationStatus
from holdfast.storage.port import Store, StoredInstance
from holdfast.storage.selection import EndedInstance, InstanceConditions

if TYPE_CHECKING:
    from holdfast.engine.node import Node
    from holdfast.engine.residents import Resident

logger = logging.getLogger("holdfast.engine")

_EPISODES_PER_COMMIT: Final = 20_000
"""A commit that removes more lets everybody else wait for long."""
_FIRST: Final = (-(2**63), "")
_ENDED: Final = frozenset(status.value for status in OrchestrationStatus if status.is_terminal)


def conditions(wanted: InstanceFilter) -> InstanceConditions:
    """Return a filter as the store knows it."""
    created_from, created_until, updated_from, updated_until = (
        None if at is None else to_microseconds(at)
        for at in (wanted.created_from, wanted.created_until, wanted.updated_from, wanted.updated_until)
    )
    return InstanceConditions(
        prefix=wanted.prefix,
        name=wanted.name,
        statuses=tuple(sorted(wanted.statuses)),
        created_from=created_from,
        created_until=created_until,
        updated_from=updated_from,
        updated_until=updated_until,
        parent_instance_id=wanted.parent_instance_id,
        tags=wanted.tags,
        custom_status=wanted.custom_status,
        parked=wanted.parked,
    )


async def purge(admitting: Callable[[], Node], store: Store, instance_id: str, if_execution: str | None = None) -> None:
    """Remove all that is stored of an orchestration that has ended, of an entity, or of what nobody can run."""
    if not is_entity(instance_id):
        await _purge_orchestration(admitting, store, validate_instance_id(instance_id), if_execution)
        return
    try:
        await _purge_entity(admitting(), instance_id)
    except CorruptRecordError:
        if not await purge_damaged(admitting, store, instance_id):
            raise


async def _purge_orchestration(
    admitting: Callable[[], Node], store: Store, instance_id: str, if_execution: str | None
) -> None:
    node = admitting()
    node.partitions.check(instance_id)
    with node.residents.noting() as noted, node.loader.reading() as seen_lsn:
        row = await store.read_instance(instance_id)
        if row is None:
            raise InstanceNotFoundError(instance_id)
        if if_execution not in (None, row.execution_id):
            raise InstanceNotFoundError(instance_id, if_execution)
        if row.status not in _ENDED:
            if await purge_damaged(admitting, store, instance_id):
                return
            raise InstanceNotEndedError(instance_id, row.status)
        ended = EndedInstance(row.updated_at, instance_id, row.revision, row.execution_id, row.episodes)
        lsn, purged = _remove(same_node(admitting, node), [ended], noted, seen_lsn)
        gone_at = node.loader.gone_at(instance_id)
    if not purged and gone_at > seen_lsn:
        await node.journal.durable(gone_at)
        raise InstanceNotFoundError(instance_id)  # somebody else has purged it meanwhile
    if not purged:
        raise OverloadedError(f"Instance {instance_id!r} is just being used; nothing was changed. Try again.")
    await node.journal.durable(lsn)


async def purge_instances(
    admitting: Callable[[], Node], store: Store, wanted: InstanceConditions, after: str, limit: int
) -> InstancesPurged:
    """Remove a page of the orchestrations that have ended, the first to end first.

    A page has fewer than `limit` of them if their histories are very long, but one at least.
    """
    node = admitting()
    with node.residents.noting() as noted, node.loader.reading() as seen_lsn:
        found = await store.ended_instances(wanted, _position(after), limit)
        page = _first(found)
        lsn, purged = _remove(same_node(admitting, node), page, noted, seen_lsn)
    await node.journal.durable(lsn)
    is_last = len(page) == len(found) < limit
    return InstancesPurged(
        purged=purged, next_after=None if is_last else f"{page[-1].updated_at}/{page[-1].instance_id}"
    )


def _first(found: list[EndedInstance]) -> list[EndedInstance]:
    """Return as many of them as one commit can remove soon."""
    totals = list(accumulate(each.episodes for each in found))
    return found[: max(1, bisect_right(totals, _EPISODES_PER_COMMIT))]


def same_node(admitting: Callable[[], Node], node: Node) -> Node:
    """Return the node that was asked, if it is still the one that works.

    Raises:
        OverloadedError: otherwise.
    """
    if admitting() is not node:
        raise OverloadedError("The host had to start again; nothing was purged. Try again.")
    return node


def _remove(node: Node, ended: Collection[EndedInstance], noted: set[str], seen_lsn: int) -> tuple[int, int]:
    """Remove those that nobody uses, in one transition; return its number, and how many they are.

    Args:
        noted: what came or went while they were read.
        seen_lsn: up to where they were read; what was purged after that is gone already.
    """
    unused = [
        each
        for each in ended
        if node.partitions.have(each.instance_id)
        and each.instance_id not in noted
        and node.loader.gone_at(each.instance_id) <= seen_lsn
        and _leaves_memory(node, each)
    ]
    if not unused:
        return 0, 0
    transition = node.hub.purge(
        [(each.instance_id, each.revision) for each in unused],
        [(each.instance_id, each.execution_id, each.episodes) for each in unused if each.episodes],
        node.clock.now(),
    )
    node.append(transition)
    node.loader.forget((each.instance_id for each in unused), transition.lsn)
    return transition.lsn, len(unused)


def _leaves_memory(node: Node, ended: EndedInstance) -> bool:
    """Let an instance go, if it is in memory, as it is stored, and idle; return whether it is not there any more."""
    if node.loader.wants(ended.instance_id):
        return False
    resident = node.residents.get(ended.instance_id)
    if resident is None:
        return True
    instance = resident.instance
    is_it = (instance.execution_id, instance.revision) == (ended.execution_id, ended.revision)
    if not is_it or not resident.is_idle(node.journal.durable_lsn):
        return False
    node.residents.remove(resident)
    return True


async def _purge_entity(node: Node, instance_id: str) -> None:
    def remove(resident: Resident | None) -> int:
        if resident is None or resident.instance.revision == 0:
            raise InstanceNotFoundError(instance_id)
        transition = node.hub.purge_entity(resident.instance, node.clock.now())
        node.append(transition)
        node.residents.remove(resident)
        node.loader.forget([instance_id], transition.lsn)
        return transition.lsn

    await change_instance(node, instance_id, remove)


async def purge_damaged(admitting: Callable[[], Node], store: Store, instance_id: str) -> bool:
    """Remove an instance whose row cannot be read, whatever it was doing; return False if it can be."""
    node = admitting()
    node.partitions.check(instance_id)
    with node.residents.noting() as noted, node.loader.reading() as seen_lsn:
        found = await store.load([instance_id])
        stored = next((each for each in found if each.row is not None and is_damaged(each)), None)
        if stored is None or stored.row is None:
            return False
        row = stored.row
        episodes = len(await store.load_history(instance_id, row.execution_id))  # the row may be wrong about it
        loader = same_node(admitting, node).loader
        is_used = instance_id in noted or loader.wants(instance_id) or instance_id in node.residents
        if is_used or loader.gone_at(instance_id) > seen_lsn:
            raise OverloadedError(f"Instance {instance_id!r} is just being used; nothing was changed. Try again.")
        history = (instance_id, row.execution_id, episodes) if episodes else None
        transition = node.hub.purge_unreadable(
            (instance_id, row.revision), history, _open_work(stored), node.clock.now()
        )
        node.append(transition)
        loader.forget([instance_id], transition.lsn)
    logger.warning("Instance %r, which could not be read, was removed with all that was open.", instance_id)
    await node.journal.durable(transition.lsn)
    return True


def _open_work(stored: StoredInstance) -> OpenWork:
    return OpenWork(
        messages=[each.message_id for each in stored.messages],
        activities=[each.key for each in stored.activities],
        timers=[each.key for each in stored.timers],
        children=[each.key for each in stored.children],
        operation_keys=[each.key for each in stored.operation_keys],
    )


def _position(after: str) -> tuple[int, str]:
    if not after:
        return _FIRST
    updated_at, _, instance_id = after.partition("/")
    if not (updated_at.isdecimal() and len(updated_at) < len(str(2**63))):
        raise InvalidInputError(f"{after[:60]!r} is not where a page of a purge ends.")
    return int(updated_at), instance_id
