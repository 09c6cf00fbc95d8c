"""Retention: what ended long enough ago is purged in the background, in small steps that leave the engine its time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from datetime import timedelta
from typing import Any, Final

import msgspec

from holdfast.engine.clock import to_microseconds
from holdfast.engine.config import HostConfig
from holdfast.engine.node import Node
from holdfast.engine.purging import purge_instances
from holdfast.errors import OverloadedError, StorageError
from holdfast.model.refs import Orchestrator
from holdfast.model.status import OrchestrationStatus
from holdfast.storage.port import Store
from holdfast.storage.selection import InstanceConditions

logger = logging.getLogger("holdfast.engine")

_INSTANCES_PER_STEP: Final = 400
_PAUSE_S_MIN: Final = 0.1
"""Between two steps. If the store has much to do, a step takes long, and the pause after it as long as the step."""
_ROUND_S_MAX: Final = 60.0
_ROUNDS_FROM_START: Final = 60
"""After so many rounds a rule looks from the beginning again, at what somebody just used before."""
_FAILED: Final = (OrchestrationStatus.FAILED.value,)
_OTHERS: Final = tuple(s.value for s in OrchestrationStatus if s.is_terminal and s is not OrchestrationStatus.FAILED)


class RetentionRule(msgspec.Struct, frozen=True):
    """What is purged once it ended so long ago."""

    wanted: InstanceConditions
    age: timedelta


def retention_rules(config: HostConfig, orchestrators: Collection[Orchestrator[Any, Any]]) -> list[RetentionRule]:
    """Return what a host purges: by the retention of an orchestrator, if it has one, else by the settings.

    Of versions of one orchestrator, the longest retention counts.
    """
    own: dict[str, timedelta] = {}
    for each in orchestrators:
        if each.retention is not None:
            own[each.name] = max(each.retention, own.get(each.name, each.retention))
    rules = [RetentionRule(InstanceConditions(name=name), age) for name, age in own.items()]
    failed_s = config.retention_s if config.retention_failed_s is None else config.retention_failed_s
    for statuses, age_s in ((_OTHERS, config.retention_s), (_FAILED, failed_s)):
        if age_s is not None:
            conditions = InstanceConditions(statuses=statuses, names_excluded=tuple(own))
            rules.append(RetentionRule(conditions, timedelta(seconds=age_s)))
    return rules


async def keep_retention(rules: Collection[RetentionRule], node: Node, store: Store) -> None:
    """Purge by rules, again and again. Never ends, unless there are no rules."""
    if not rules:
        return
    round_s = min(_ROUND_S_MAX, *(rule.age.total_seconds() for rule in rules))
    while True:
        positions = dict.fromkeys(range(len(rules)), "")
        for _ in range(_ROUNDS_FROM_START):
            for number, rule in enumerate(rules):
                positions[number] = await _purge_by(rule, positions[number], node, store)
            await asyncio.sleep(round_s)


async def _purge_by(rule: RetentionRule, after: str, node: Node, store: Store) -> str:
    """Purge what a rule says now; return where to go on later.

    A store that fails, or has too much to do, is left alone until the next round.
    """
    now = asyncio.get_running_loop().time
    until = to_microseconds(node.clock.now() - rule.age)
    wanted = msgspec.structs.replace(rule.wanted, updated_until=until)
    purged = 0
    while True:
        began = now()
        try:
            page = await purge_instances(lambda: _with_room(node), store, wanted, after, _INSTANCES_PER_STEP)
        except (OverloadedError, StorageError) as error:
            logger.warning("Old instances could not be purged, which is tried again later: %s", error)
            return after
        purged += page.purged
        if page.next_after is None:
            break
        after = page.next_after
        await asyncio.sleep(max(_PAUSE_S_MIN, now() - began))
    if purged:
        logger.info("Purged %d instances that ended more than %s ago.", purged, rule.age)
    return after


def _with_room(node: Node) -> Node:
    if node.journal.is_full:
        raise OverloadedError("Too much waits to be stored.")
    return node
