"""Work that may have killed the process: it runs alone, and each start is counted durably before it happens.

What was running when a process died is counted when the store is acquired again. After a few such deaths an activity
or an instance is a suspect. Suspects run one at a time, the least suspect first, and what was counted at all waits
meanwhile; so the guilty one is found and parked, and the innocent, that were merely running beside it, finish.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from holdfast.engine.activity_starts import recover_activity
from holdfast.hub.instance import Instance, ScheduledActivity
from holdfast.model.failure import FailureDetails
from holdfast.model.messages import DurableKey

if TYPE_CHECKING:
    from holdfast.engine.node import Node

SUSPECT_DELIVERIES: Final = 3
_CONSUMED_S = 1.0
_ALONE_S = 30.0
"""How long a suspect has the process for itself; one that kills later is counted all the same."""


class Suspects:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._queue: list[tuple[int, int, ScheduledActivity | str]] = []
        self._order = itertools.count()
        self._queued: set[DurableKey | str] = set()
        self._waiting: dict[DurableKey | str, ScheduledActivity | str] = {}
        """What was counted, but is no suspect: it runs after them."""
        self._is_scanning = True
        self._job: asyncio.Task[None] | None = None
        self._released: DurableKey | str | None = None
        self._done = asyncio.Event()

    def close(self) -> None:
        self._waiting.clear()
        if self._job is not None:
            self._job.cancel()

    def scanned(self) -> None:
        """Note that all work in the store is known, so that the suspects among it are."""
        self._is_scanning = False
        self._let_others_go()

    def may_start(self, activity: ScheduledActivity) -> bool:
        """Whether an activity may start now; if not, it is kept here until it may."""
        if activity.deliveries == 0 or self._released == activity.key:
            return True
        return self._may_go(activity.key, activity.deliveries, activity)

    def may_work(self, instance: Instance) -> bool:
        """Whether user code of an instance may run now; if not, it is kept here until it may."""
        if instance.deliveries == 0 or self._released == instance.instance_id:
            return True
        return self._may_go(instance.instance_id, instance.deliveries, instance.instance_id)

    def _may_go(self, key: DurableKey | str, deliveries: int, work: ScheduledActivity | str) -> bool:
        if deliveries >= SUSPECT_DELIVERIES:
            if key not in self._queued:
                self._queued.add(key)
                heapq.heappush(self._queue, (deliveries, next(self._order), work))
                self._investigate()
            return False
        if self._is_quiet():
            return True
        self._waiting[key] = work
        return False

    def is_released(self, activity: ScheduledActivity) -> bool:
        """Whether it is the turn of a suspect activity."""
        return self._released == activity.key

    def has_worked(self, instance: Instance) -> None:
        """Note that an instance whose turn it was has done what it could."""
        if self._released == instance.instance_id and not instance.is_working:
            self._done.set()

    def finished(self, key: DurableKey) -> None:
        """Note that an activity has an outcome."""
        if self._released == key:
            self._done.set()

    def _is_quiet(self) -> bool:
        return not self._is_scanning and not self._queue and (self._job is None or self._job.done())

    def _investigate(self) -> None:
        if not self._is_scanning and (self._job is None or self._job.done()):
            self._job = asyncio.get_running_loop().create_task(self._run())

    def _let_others_go(self) -> None:
        if self._queue:
            self._investigate()
            return
        waiting, self._waiting = self._waiting, {}
        for work in waiting.values():
            if isinstance(work, str):
                self._node.wake(work)
            else:
                recover_activity(self._node, work)

    async def _run(self) -> None:
        try:
            while self._queue:
                work = heapq.heappop(self._queue)[2]
                if isinstance(work, str):
                    self._queued.discard(work)
                    await self._run_instance(work)
                else:
                    self._queued.discard(work.key)
                    await self._run_activity(work)
                self._released = None
        except Exception as error:  # of a store, or a bug of ours; both end this node
            self._node.fail(error)
        else:
            self._job = None
            self._let_others_go()

    async def _run_activity(self, activity: ScheduledActivity) -> None:
        node = self._node
        instance = await self._instance(activity.instance_id)
        if instance is None or instance.activities.get(activity.sequence) != activity:
            return
        if activity.deliveries >= node.hub.limits.deliveries_max:
            node.parking.park(instance, _guilty(f"activity {activity.name!r}", activity.deliveries))
            return
        self._released = activity.key
        self._done.clear()
        node.append(node.hub.count_delivery(instance, activity, node.clock.now()))
        await self._alone()
        await self._kept(activity)

    async def _run_instance(self, instance_id: str) -> None:
        node = self._node
        instance = await self._instance(instance_id)
        if instance is None or not node.hub.has_work(instance):
            return  # nothing of it runs: it is suspended, say, or what it has waits for a lock
        if instance.deliveries >= node.hub.limits.deliveries_max:
            node.parking.park(instance, _guilty("an episode of its orchestrator or entity", instance.deliveries))
            return
        transition = node.hub.count_episode(instance, node.clock.now())
        node.append(transition)
        await node.journal.durable(transition.lsn)
        self._released = instance_id
        self._done.clear()
        node.wake(instance_id)
        await self._alone()

    async def _alone(self) -> None:
        """Wait until the suspect has done its work, and that is durable."""
        try:
            async with asyncio.timeout(_ALONE_S):
                await self._done.wait()
        except TimeoutError:
            return
        await self._node.journal.durable(self._node.hub.lsn)

    async def _kept(self, activity: ScheduledActivity) -> None:
        """Store the outcome of a suspect, since the next one may kill the process.

        Its orchestration may be a suspect too, or be held back until all of them have run: so it is stored as a
        message.
        """
        instance = await self._instance(activity.instance_id)
        if instance is None:
            return
        kept = self._node.hub.keep_answers(instance, self._node.clock.now())
        if kept is not None:
            self._node.append(kept)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CONSUMED_S):
                while activity.sequence in instance.answered:  # noqa: ASYNC110 - rare: an episode that is being replayed
                    await asyncio.sleep(0.001)
        await self._node.journal.durable(self._node.hub.lsn)

    async def _instance(self, instance_id: str) -> Instance | None:
        found: asyncio.Future[Instance | None] = asyncio.get_running_loop().create_future()
        self._node.loader.with_resident(
            instance_id,
            lambda resident: found.set_result(resident.instance if resident else None),
            lambda _: found.set_result(None),
        )
        return await found


def _guilty(what: str, deliveries: int) -> FailureDetails:
    return FailureDetails(
        "holdfast.errors.InstanceParkedError",
        f"The process died {deliveries} times while {what} was running, the last times while it ran alone.",
    )
