"""Work that may have killed the process: it runs alone, and each start is counted durably before it happens.

What was running when a process died is counted when the store is acquired again. After a few such deaths an activity
or an instance is a suspect. Suspects run one at a time, the least suspect first, so that the guilty one is found and
parked, and the innocent, that were merely running beside it, finish.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING, Final

from holdfast.hub.instance import Instance, ScheduledActivity
from holdfast.model.failure import FailureDetails
from holdfast.model.messages import DurableKey

if TYPE_CHECKING:
    from holdfast.engine.node import Node

SUSPECT_DELIVERIES: Final = 3


class Suspects:
    def __init__(self, node: Node) -> None:
        self._node = node
        self._queue: list[tuple[int, int, ScheduledActivity | str]] = []
        self._order = itertools.count()
        self._queued: set[DurableKey | str] = set()
        self._job: asyncio.Task[None] | None = None
        self._released: DurableKey | str | None = None
        self._done = asyncio.Event()

    def close(self) -> None:
        if self._job is not None:
            self._job.cancel()

    def is_counted(self, activity: ScheduledActivity) -> bool:
        """Whether this very start was counted, so that it may go ahead."""
        return self._released == activity.key

    def add_activity(self, activity: ScheduledActivity) -> None:
        self._add(activity.key, activity.deliveries, activity)

    def may_step(self, instance: Instance) -> bool:
        """Whether an instance may run now; a suspect is queued instead, and comes back when it is its turn."""
        if instance.deliveries < SUSPECT_DELIVERIES or instance.parked is not None:
            return True
        if self._released == instance.instance_id:
            return True
        self._add(instance.instance_id, instance.deliveries, instance.instance_id)
        return False

    def finished(self, key: DurableKey) -> None:
        """Note that an activity has an outcome."""
        if self._released == key:
            self._done.set()

    def _add(self, key: DurableKey | str, deliveries: int, suspect: ScheduledActivity | str) -> None:
        if key in self._queued:
            return
        self._queued.add(key)
        heapq.heappush(self._queue, (deliveries, next(self._order), suspect))
        if self._job is None or self._job.done():
            self._job = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._queue:
            suspect = heapq.heappop(self._queue)[2]
            if isinstance(suspect, str):
                self._queued.discard(suspect)
                await self._run_instance(suspect)
            else:
                self._queued.discard(suspect.key)
                await self._run_activity(suspect)

    async def _run_activity(self, activity: ScheduledActivity) -> None:
        node = self._node
        instance = await self._instance(activity.instance_id)
        if instance is None or instance.activities.get(activity.sequence) != activity:
            return
        if activity.deliveries >= node.hub.limits.deliveries_max:
            node.park(instance, _guilty(f"activity {activity.name!r}", activity.deliveries))
            return
        self._done.clear()
        self._released = activity.key
        transition = node.hub.count_delivery(instance, activity, node.clock.now())
        node.append(transition)
        await self._done.wait()
        self._released = None
        await node.journal.durable(node.hub.lsn)

    async def _run_instance(self, instance_id: str) -> None:
        node = self._node
        instance = await self._instance(instance_id)
        if instance is None or instance.is_terminal:
            return
        if instance.deliveries >= node.hub.limits.deliveries_max:
            node.park(instance, _guilty("an episode of its orchestrator or entity", instance.deliveries))
            return
        transition = node.hub.count_episode(instance, node.clock.now())
        node.append(transition)
        await node.journal.durable(transition.lsn)
        self._released = instance_id
        node.make_runnable(instance)
        while instance.deliveries and not instance.is_terminal and instance.parked is None:  # noqa: ASYNC110 - rare
            await asyncio.sleep(0.001)
        self._released = None
        await node.journal.durable(node.hub.lsn)

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
        f"The process died {deliveries} times while {what} was running, the last times while nothing else was.",
    )
