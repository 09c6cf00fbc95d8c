"""When an activity may start: at its time, if there is room in memory, and alone if it is suspected of killing.

And where: at another host, if this one has no room or no code for it, or does not serve its queue.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast.engine.activity_runner import ActivityRunner
from holdfast.engine.answers import Answers
from holdfast.engine.clock import Clock
from holdfast.engine.config import HostConfig
from holdfast.engine.timers import DueTimes
from holdfast.hub.instance import DurableTimer, Instance, ScheduledActivity
from holdfast.model.messages import DurableKey
from holdfast.model.queues import DEFAULT_QUEUE

if TYPE_CHECKING:
    from holdfast.engine.membership import Membership
    from holdfast.engine.node import Node
    from holdfast.engine.residents import Resident
    from holdfast.engine.suspects import Suspects


class ActivityStarts:
    def __init__(
        self,
        clock: Clock,
        timers: DueTimes[DurableTimer | ScheduledActivity],
        suspects: Suspects,
        runner: ActivityRunner,
        answers: Answers,
        config: HostConfig,
        membership: Membership,
    ) -> None:
        self.overflowed = asyncio.Event()
        """Set when activities are left to the store because too many wait in memory; who takes them up clears it."""
        self._clock = clock
        self._timers = timers
        self._suspects = suspects
        self._runner = runner
        self._answers = answers
        self._config = config
        self._lending = membership.lending
        self._unserved = membership.unserved
        self._speculative: dict[DurableKey, int] = {}
        self._expected: set[DurableKey] = set()
        """What will be started once its transition is known to be durable. The store may know that before we do."""

    def expect(self, activity: ScheduledActivity, lsn: int) -> None:
        """Note that a transition in the journal will start an activity; let it start at once if that is allowed."""
        self._expected.add(activity.key)
        if activity.policy.speculative:
            self.start_speculatively(activity, lsn)

    def expect_adoption(self, activity: ScheduledActivity) -> None:
        """Note that a transition in the journal will let an attempt go on as that of an activity."""
        self._expected.add(activity.key)

    def start(self, activity: ScheduledActivity) -> None:
        """Let an activity run whose cause is durable."""
        key = activity.key
        self._expected.discard(key)
        if self._speculative and self._speculative.pop(key, None) is not None:
            return  # it was started when its cause entered the journal
        # The first attempt of a call may run as soon as that is stored, whatever the clock says.
        if activity.visible_at is not activity.scheduled_at and activity.visible_at > self._clock.now():
            self._timers.add(key, activity.visible_at, activity)
        elif self._is_late(activity):
            self._runner.submit(activity)  # which says that it found no place
        elif self._is_nobodys(activity):
            self._keep_in_store(activity)
        elif self._suspects.may_start(activity):
            self._start_in_turn(activity)

    def _start_in_turn(self, activity: ScheduledActivity) -> None:
        if not self._config.serves(activity.policy.queue):
            if self._lending is None or not self._lending.offer(activity):
                self.overflowed.set()
        elif self._lending is not None and self._lending.lacks(activity) and self._lending.offer(activity):
            pass
        elif self._runner.queued < self._config.activity_queue_max or self._suspects.is_released(activity):
            self._runner.submit(activity)
        elif not self._offer(activity):
            self.overflowed.set()

    def _offer(self, activity: ScheduledActivity) -> bool:
        """Let another host run an activity, unless it is one that may kill hosts."""
        return self._lending is not None and activity.deliveries == 0 and self._lending.offer(activity)

    def _is_late(self, activity: ScheduledActivity) -> bool:
        start_by = activity.start_by
        return start_by is not None and start_by <= self._clock.now()

    def _is_nobodys(self, activity: ScheduledActivity) -> bool:
        """Whether there is no host to run an activity: this one does not serve its queue, and has no others."""
        return not self._config.serves(activity.policy.queue) and (self._lending is None or self._lending.is_alone)

    def _keep_in_store(self, activity: ScheduledActivity) -> None:
        self._unserved.note_queue(activity.policy.queue or DEFAULT_QUEUE)
        start_by = activity.start_by
        if start_by is not None:
            self._timers.add(activity.key, start_by, activity)

    def leaves(self, activity: ScheduledActivity) -> bool:
        """Whether an activity found in the store stays there for now, and there is nothing to do about it."""
        if not self._is_nobodys(activity) or activity.policy.start_timeout is not None:
            return False
        self._unserved.note_queue(activity.policy.queue or DEFAULT_QUEUE)
        return True

    def start_speculatively(self, activity: ScheduledActivity, lsn: int) -> None:
        """Let an activity run before its cause is durable, as its author has allowed; only the first attempt."""
        may_run = self._runner.queued < self._config.activity_queue_max and self._config.serves(activity.policy.queue)
        if activity.attempt == 1 and activity.deliveries == 0 and may_run:
            self._speculative[activity.key] = lsn
            self._runner.submit(activity)

    def forget(self, key: DurableKey) -> None:
        """Do not start an activity any more: it is finished, or nobody waits for it."""
        self._timers.discard(key)
        self._runner.forget(key)

    def adopt(self, key: DurableKey, activity: ScheduledActivity) -> None:
        """Let the attempt of another activity go on as that of this one, or start this one if that does not run."""
        self._expected.discard(activity.key)
        if not self._runner.adopt(key, activity):
            self.start(activity)

    def stop(self, key: DurableKey) -> None:
        """Stop the attempt of an activity that is given up, if it runs."""
        self.forget(key)
        self._runner.cancel({key})

    def recover(self, activity: ScheduledActivity, instance: Instance) -> None:
        """Start an activity found in the store, unless it runs, or its completion came in meanwhile."""
        if self.waits_for_start(activity, instance):
            self.start(activity)

    def waits_for_start(self, activity: ScheduledActivity, instance: Instance) -> bool:
        """Whether an activity found in the store is still to be started, as far as is known here."""
        key = activity.key
        is_going_on = key in self._expected or self._runner.knows(key) or key in self._answers
        is_offered = self._lending is not None and self._lending.is_offering(key)
        is_open = instance.activities.get(activity.sequence) == activity and activity.sequence not in instance.answered
        return is_open and not is_going_on and not is_offered

    def abandon(self, durable_lsn: int) -> None:
        """Give up what has started without a durable cause, and what has not started."""
        lost = {key for key, lsn in self._speculative.items() if lsn > durable_lsn}
        self._runner.cancel(lost)
        for key in lost:
            self._answers.discard(key)
        self._runner.forget_queued()


def recover_activity(node: Node, activity: ScheduledActivity, *, was_begun: bool = False) -> None:
    """Start an activity found in the store, if its instance, as it is once it is in memory, still waits for it.

    Args:
        was_begun: a host that had it may have died of it.
    """

    def recover(resident: Resident) -> None:
        instance = resident.instance
        if not was_begun:
            node.starts.recover(activity, instance)
        elif node.starts.waits_for_start(activity, instance):
            node.append(node.hub.count_delivery(instance, activity, node.clock.now()))

    if was_begun or not node.starts.leaves(activity):
        node.when_present(activity.instance_id, recover)
