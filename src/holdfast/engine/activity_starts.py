"""When an activity may start: at its time, if there is room in memory, and alone if it is suspected of killing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.engine.activity_runner import ActivityRunner
from holdfast.engine.answers import Answers
from holdfast.engine.clock import Clock
from holdfast.engine.timers import DueTimes
from holdfast.hub.instance import DurableTimer, Instance, ScheduledActivity
from holdfast.model.instants import after
from holdfast.model.messages import DurableKey
from holdfast.model.work_items import ActivityWorkItem

if TYPE_CHECKING:
    from holdfast.engine.lending import Lending
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
        queue_max: int,
        lending: Lending | None,
    ) -> None:
        self.has_overflowed = False
        """Whether activities were left to the store because too many wait in memory."""
        self._clock = clock
        self._timers = timers
        self._suspects = suspects
        self._runner = runner
        self._answers = answers
        self._queue_max = queue_max
        self._lending = lending
        self._speculative: dict[DurableKey, int] = {}
        self._expected: set[DurableKey] = set()
        """What will be started once its transition is known to be durable. The store may know that before we do."""

    def expect(self, activity: ScheduledActivity) -> None:
        """Note that a transition in the journal will start an activity."""
        self._expected.add(activity.key)

    def start(self, activity: ScheduledActivity) -> None:
        """Let an activity run whose cause is durable."""
        self._expected.discard(activity.key)
        if self._speculative.pop(activity.key, None) is not None:
            return  # it was started when its cause entered the journal
        if activity.visible_at > self._clock.now():
            self._timers.add(activity.key, activity.visible_at, activity)
        elif not self._suspects.may_start(activity):
            return
        elif self._runner.queued >= self._queue_max and not self._suspects.is_released(activity):
            if not self._offer(activity):
                self.has_overflowed = True
        elif self._lending is not None and self._lending.lacks(activity) and self._offer(activity):
            pass
        else:
            self._runner.submit(work_item_of(activity))

    def _offer(self, activity: ScheduledActivity) -> bool:
        """Let another host run an activity, unless it is one that may kill hosts."""
        return self._lending is not None and activity.deliveries == 0 and self._lending.offer(activity)

    def start_speculatively(self, activity: ScheduledActivity, lsn: int) -> None:
        """Let an activity run before its cause is durable, as its author has allowed; only the first attempt."""
        if activity.attempt == 1 and activity.deliveries == 0 and self._runner.queued < self._queue_max:
            self._speculative[activity.key] = lsn
            self._runner.submit(work_item_of(activity))

    def forget(self, key: DurableKey) -> None:
        """Do not start an activity any more: it is finished, or nobody waits for it."""
        self._timers.discard(key)
        self._runner.forget(key)

    def adopt(self, key: DurableKey, activity: ScheduledActivity) -> None:
        """Let the attempt of another activity go on as that of this one, or start this one if that does not run."""
        self._expected.discard(activity.key)
        if not self._runner.adopt(key, work_item_of(activity)):
            self.start(activity)

    def stop(self, key: DurableKey) -> None:
        """Stop the attempt of an activity that is given up, if it runs."""
        self.forget(key)
        self._runner.cancel({key})

    def recover(self, activity: ScheduledActivity, instance: Instance) -> None:
        """Start an activity found in the store, unless it runs, or its completion came in meanwhile."""
        known = instance.activities.get(activity.sequence)
        is_going_on = (
            activity.key in self._expected or self._runner.knows(activity.key) or activity.key in self._answers
        )
        if known == activity and activity.sequence not in instance.answered and not is_going_on:
            self.start(activity)

    def abandon(self, durable_lsn: int) -> None:
        """Give up what has started without a durable cause, and what has not started."""
        lost = {key for key, lsn in self._speculative.items() if lsn > durable_lsn}
        self._runner.cancel(lost)
        for key in lost:
            self._answers.discard(key)
        self._runner.forget_queued()


def work_item_of(activity: ScheduledActivity) -> ActivityWorkItem:
    """Return what is to run for an activity now."""
    return ActivityWorkItem(
        activity.instance_id,
        activity.execution_id,
        activity.sequence,
        activity.name,
        activity.input,
        activity.attempt,
        activity.deliveries,
        activity.timeout,
        None if activity.start_timeout is None else after(activity.visible_at, activity.start_timeout),
        activity.heartbeat_timeout,
        activity.tags,
        activity.progress,
        activity.version,
        activity.call_id,
    )


def recover_activity(node: Node, activity: ScheduledActivity, *, was_begun: bool = False) -> None:
    """Start an activity found in the store, if its instance, as it is once it is in memory, still waits for it.

    Args:
        was_begun: a host that had it may have died of it.
    """

    def recover(resident: Resident) -> None:
        instance = resident.instance
        if not was_begun:
            node.starts.recover(activity, instance)
        elif instance.activities.get(activity.sequence) == activity and activity.sequence not in instance.answered:
            node.append(node.hub.count_delivery(instance, activity, node.clock.now()))

    node.when_present(activity.instance_id, recover)
