"""The node: where messages meet instances, instances meet user code, and transitions meet the journal.

All of it runs on one event loop. Within it nothing waits between reading the state of an instance and appending the
transition that changes it, so every transition sees the effects of all earlier ones.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable

from holdfast.engine.activity_reports import ActivityReports
from holdfast.engine.activity_runner import ActivityRunner
from holdfast.engine.activity_starts import ActivityStarts
from holdfast.engine.answers import Answers
from holdfast.engine.arrivals import Arrivals
from holdfast.engine.batches import Batches
from holdfast.engine.clock import Clock
from holdfast.engine.config import HostConfig
from holdfast.engine.confirmations import Confirmations
from holdfast.engine.dropped import Dropped
from holdfast.engine.journal import Journal
from holdfast.engine.loader import Loader
from holdfast.engine.membership import Membership
from holdfast.engine.outputs import Outputs
from holdfast.engine.parking import Parking
from holdfast.engine.partitions import OwnPartitions
from holdfast.engine.residents import Resident, Residents
from holdfast.engine.rewinding import ChildRewinds
from holdfast.engine.steps import Steps
from holdfast.engine.stored import decode_instance, decode_messages, decode_work
from holdfast.engine.suspects import Suspects
from holdfast.engine.timers import DueTimes
from holdfast.engine.turns import Turns
from holdfast.engine.waiters import Waiters
from holdfast.engine.worker import Worker
from holdfast.errors import CommitFailedError
from holdfast.hub.hub import Hub
from holdfast.hub.instance import DurableTimer, Instance, ScheduledActivity
from holdfast.hub.transition import (
    AdoptActivity,
    Output,
    StartActivity,
    Transition,
)
from holdfast.model.failure import failure_from_exception
from holdfast.model.history import ExecutionStarted, TimerFired
from holdfast.model.messages import Message
from holdfast.storage.port import Ownership, Store, StoredInstance

logger = logging.getLogger("holdfast.engine")


class Node:
    """The engine's state between taking ownership of a store and losing it, or a failed commit.

    After a failed commit the whole object is thrown away (`abandon`) and a new one is made: dropping memory is the
    complete undo of everything that is not durable.
    """

    def __init__(
        self,
        store: Store,
        ownership: Ownership,
        worker: Worker,
        runner: ActivityRunner,
        answers: Answers,
        waiters: Waiters,
        clock: Clock,
        config: HostConfig,
        left_alone: set[str],
        failed: Callable[[Exception, str | None], None],
        membership: Membership,
    ) -> None:
        self.fence = fence = ownership.fence
        self.context = contextvars.copy_context()
        """For what clients make the node do: nothing of theirs is to be seen by the code that runs because of it."""
        self.clock = clock
        self.config = config
        self.hub = Hub(ownership.lsn, fence.node_id, fence.incarnation, config.limits, config.default_version)
        self.partitions = OwnPartitions(ownership)
        self.journal = Journal(
            store, ownership, config, self._release, waiters.changed, membership.sent_elsewhere, self.partitions
        )
        self.residents = Residents(config.cache_bytes_max)
        self.timers: DueTimes[DurableTimer | ScheduledActivity] = DueTimes(
            clock, config.timer_horizon_s, config.timers_max, config.clock_check_s, self._due
        )
        self.left_alone = left_alone
        self.loader = Loader(
            store,
            self.journal,
            self.residents,
            left_alone,
            lambda stored: _take_in(self, stored, self._dropped),
            self.fail,
            self.partitions.have,
        )
        self.arrivals = Arrivals(self, store, answers)
        self.has_doubts = asyncio.Event()
        """Set when the ownership should be asked about soon, as hosts have come or gone."""
        self.suspects = Suspects(self)
        self.starts = ActivityStarts(clock, self.timers, self.suspects, runner, answers, config, membership)
        self.reports = ActivityReports(self, answers, membership.lending)
        self.confirmations = Confirmations(lambda: store.renew(self.fence))
        self._answers = answers
        self._outputs = Outputs(self.starts, waiters)
        self._failed = failed
        self.steps = Steps(self, worker)
        self.turns = Turns(self.steps.take, self.journal, self.residents)
        self._sent: deque[tuple[str, Message]] = deque()
        """What is to be delivered, with the ids of those who have sent it."""
        self._is_pumping = False
        self._is_abandoned = False
        self._dropped = Dropped()
        self.parking = Parking(self)
        self.rewinds = ChildRewinds(self)
        self.batches = Batches(self, worker)

    @property
    def is_abandoned(self) -> bool:
        """Whether it was given up, and another one is in its place, or none."""
        return self._is_abandoned

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being read, stepped or stored at this moment."""
        return self.loader.is_idle and self.turns.is_idle and self.batches.is_idle and self.journal.is_settled

    def pause(self) -> None:
        """Take no more steps; what was begun can still become durable."""
        self.turns.pause()

    def abandon(self) -> None:
        """Forget everything. Nothing of this node reaches the store or the outside any more."""
        self._is_abandoned = True
        self.turns.clear()
        self.timers.clear()
        self.loader.close(CommitFailedError("The host had to start again; nothing of this request was stored."))
        self.suspects.close()
        self.batches.close()
        self.starts.abandon(self.journal.durable_lsn)
        self.residents.clear()

    # Transitions

    def append(self, transition: Transition) -> None:
        """Put a transition into the journal, and deliver what it sent on this node."""
        self.enter(transition)
        self.deliver_sent()

    def enter(self, transition: Transition) -> None:
        """Put a transition into the journal; what it sent is delivered by `deliver_sent`, which must follow."""
        self.journal.append(transition)
        for timer in transition.timers_created:
            self.timers.add(timer.key, timer.due_at, timer)
        for key in transition.timers_removed:
            self.timers.discard(key)
        for key in transition.activities_removed:
            if not self._answers.consumed(key, transition.lsn):
                self.starts.forget(key)  # it may be about to start
        for activity in transition.activities_updated:
            self._answers.consumed(activity.key, transition.lsn)
        if transition.instance is None and transition.instance_id not in self.residents:
            self._dropped.add(transition.consumed, transition.lsn)
        for output in transition.outputs:
            if isinstance(output, StartActivity):
                self.starts.expect(output.activity, transition.lsn)
            elif isinstance(output, AdoptActivity):
                self.starts.expect_adoption(output.activity)
        for message in transition.sent:
            self._sent.append((transition.instance_id, message))

    def deliver_sent(self) -> None:
        """Deliver on this node what transitions in the journal have sent."""
        if self._is_pumping or not self._sent:
            return  # if it is being done already, the caller up the stack goes on with what was added
        self._is_pumping, sender = True, ""
        try:
            while self._sent:
                sender, message = self._sent.popleft()
                self.route(message)
        except BaseException as error:
            self.blame(sender, error)
        finally:
            self._is_pumping = False

    def route(self, message: Message) -> None:
        """Deliver a message to its instance, once that is in memory; on another node it arrives by the store."""
        resident = self.loader.at_hand(message.instance_id)
        if resident is not None:
            self.deliver(resident, message)
            return
        if not self.partitions.have(message.instance_id):
            return
        self.loader.with_resident(
            message.instance_id,
            lambda resident: self.deliver(resident, message),
            message_id=message.message_id,
            is_new=_is_fresh(message),
        )

    def deliver(self, resident: Resident | None, message: Message) -> None:
        known = resident.instance if resident else None
        instance, transition = self.hub.deliver(known, message, self.clock.now())
        if instance is not None and resident is None:
            resident = self.residents.add(instance)
        if transition is not None:
            self.append(transition)
        if resident is not None:
            self.make_runnable(resident)

    def make_runnable(self, resident: Resident) -> None:
        """Let an instance take its next step soon, each in its turn."""
        if not resident.is_runnable and resident.instance.has_messages and not self._is_abandoned:
            self.turns.add(resident)

    def guarded(self, instance_id: str, work: Callable[[], None]) -> None:
        """Do something to an instance. An error here is a bug of ours: the node is given up, the instance suspected."""
        if self._is_abandoned:
            return
        try:
            work()
        except BaseException as error:
            self.blame(instance_id, error)

    def blame(self, instance_id: str | None, error: BaseException) -> None:
        """Give the node up because of an error that came from work on an instance, if it is known on which."""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error
        self.fail(error if isinstance(error, Exception) else RuntimeError(repr(error)), instance_id)

    def fail(self, error: Exception, instance_id: str | None = None) -> None:
        """Give this node up."""
        if not self._is_abandoned:
            self._failed(error, instance_id)

    def with_history(self, instance: Instance, arrived: Callable[[list[str]], None]) -> None:
        """Call back with the episodes of the execution that an instance has now, once all of them are stored."""
        id_, durable = instance.instance_id, self.journal.durable(instance.lsn)
        self.loader.with_history(
            id_, instance.execution_id, durable, lambda rows: self.guarded(id_, lambda: arrived(rows))
        )

    # Arrivals from the store

    def wake(self, instance_id: str) -> None:
        """Bring an instance into memory, and let it go on with whatever waits for it."""
        self.when_present(instance_id, self.make_runnable)

    def when_present(self, instance_id: str, then: Callable[[Resident], None]) -> None:
        """Do something to an instance once it is in memory, if it exists and is of this node."""
        self.loader.with_resident(instance_id, lambda resident: then(resident) if resident else None)

    # Outputs

    def _release(self, outputs: list[Output]) -> None:
        """Act on outputs whose transitions are durable now."""
        if self._is_abandoned:
            return
        self._dropped.forget(self.loader.known_lsn())
        self._answers.stored(self.journal.durable_lsn)
        for output in outputs:
            self._outputs.act_on(output)
        self.turns.schedule()

    def _due(self, item: DurableTimer | ScheduledActivity) -> None:
        if isinstance(item, ScheduledActivity):
            self.starts.start(item)
            return
        fired = item.event or TimerFired(timestamp=self.clock.now(), timer_id=item.sequence, fire_at=item.due_at)
        message = Message(item.instance_id, fired, execution_id=item.execution_id, timer=item.key)
        self.guarded(item.instance_id, lambda: self.route(message))


def _take_in(node: Node, stored: StoredInstance, dropped: Dropped) -> None:
    """Take in what the loader read.

    An instance with a message, activity or timer that cannot be read is parked, and the others wait with it.

    Raises:
        CorruptRecordError: if the instance itself cannot be read; it is left alone then.
    """
    messages, errors = decode_messages(stored)
    if stored.row is not None:
        instance = decode_instance(stored)
        errors += decode_work(stored, instance)
        node.residents.add(instance)
        for timer in instance.timers.values():
            node.timers.add(timer.key, timer.due_at, timer)
    for message in messages:
        if message.message_id not in dropped:
            node.deliver(node.residents.get(stored.instance_id), message)
    resident = node.residents.get(stored.instance_id)
    if errors and resident is not None:
        node.parking.park(resident.instance, failure_from_exception(errors[0]))


def _is_fresh(message: Message) -> bool:
    """Whether a message starts a sub-orchestration under an id that was made for it, which cannot exist yet."""
    event = message.event
    return (
        isinstance(event, ExecutionStarted)
        and event.parent is not None
        and message.instance_id == f"{event.parent.execution_id}:{event.parent.task_scheduled_id}"
    )
