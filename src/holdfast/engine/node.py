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
from holdfast.engine.stored import decode_instance, decode_messages, decode_work
from holdfast.engine.suspects import Suspects
from holdfast.engine.timers import DueTimes
from holdfast.engine.turns import Turns
from holdfast.engine.waiters import Waiters
from holdfast.engine.worker import Worker
from holdfast.errors import CommitFailedError
from holdfast.hub.entities import PendingBatch
from holdfast.hub.episodes import PendingEpisode
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
from holdfast.model.work_items import (
    Blocked,
    EntityBatch,
    Episode,
    EpisodeResult,
    VersionRejected,
)
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
        self._worker = worker
        self._answers = answers
        self._outputs = Outputs(self.starts, waiters)
        self._failed = failed
        self._turns = Turns(self._take_turn, self.journal, self.residents)
        self._sent: deque[Message] = deque()
        self._is_pumping = False
        self._is_abandoned = False
        self._dropped = Dropped()
        self.parking = Parking(self)
        self._rewinds = ChildRewinds(self)
        self.batches = Batches(self, worker)

    @property
    def is_abandoned(self) -> bool:
        """Whether it was given up, and another one is in its place, or none."""
        return self._is_abandoned

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being read, stepped or stored at this moment."""
        return self.loader.is_idle and self._turns.is_idle and self.batches.is_idle and self.journal.is_settled

    def pause(self) -> None:
        """Take no more steps; what was begun can still become durable."""
        self._turns.pause()

    def abandon(self) -> None:
        """Forget everything. Nothing of this node reaches the store or the outside any more."""
        self._is_abandoned = True
        self._turns.clear()
        self.timers.clear()
        self.loader.close(CommitFailedError("The host had to start again; nothing of this request was stored."))
        self.suspects.close()
        self.batches.close()
        self.starts.abandon(self.journal.durable_lsn)
        self.residents.clear()

    # Transitions

    def append(self, transition: Transition) -> None:
        """Put a transition into the journal, and deliver what it sent on this node."""
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
        if transition.sent:
            self._sent.extend(transition.sent)
            self._deliver_sent()

    def _deliver_sent(self) -> None:
        if self._is_pumping:
            return  # the caller up the stack goes on with what was added
        self._is_pumping = True
        try:
            while self._sent:
                self.route(self._sent.popleft())
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
            self._turns.add(resident)

    def _take_turn(self, resident: Resident) -> None:
        if resident.is_present and not self._is_abandoned:
            try:
                self._step(resident)
            except BaseException as error:
                self.blame(resident.instance.instance_id, error)

    def guarded(self, instance_id: str, work: Callable[[], None]) -> None:
        """Do something to an instance. An error here is a bug of ours: the node is given up, the instance suspected."""
        if self._is_abandoned:
            return
        try:
            work()
        except BaseException as error:
            self.blame(instance_id, error)

    def blame(self, instance_id: str, error: BaseException) -> None:
        """Give the node up because of an error that came from work on an instance."""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise error
        self.fail(error if isinstance(error, Exception) else RuntimeError(repr(error)), instance_id)

    def fail(self, error: Exception, instance_id: str | None = None) -> None:
        """Give this node up."""
        if not self._is_abandoned:
            self._failed(error, instance_id)

    def _step(self, resident: Resident) -> None:
        instance, now = resident.instance, self.clock.now()
        if self._rewinds.begin(resident):
            return
        transition = self.hub.step(instance, now)
        if transition is not None:
            self.finish_step(resident, transition)
        elif not self.hub.has_work(instance):
            self.suspects.has_worked(instance)
        elif self.suspects.may_work(instance):
            match self.hub.next_work(instance, now):
                case PendingEpisode() as work:
                    self._run_episode(resident, work)
                case PendingBatch() as work:
                    self.batches.run(resident, work)

    def finish_step(self, resident: Resident, transition: Transition) -> None:
        """Append a transition of an instance, and let it take its next step."""
        self.append(transition)
        instance, execution = resident.instance, resident.execution
        self.suspects.has_worked(instance)
        if execution is not None and (instance.is_terminal or instance.execution_id != execution.execution_id):
            execution.unload()
            resident.execution = None
        self.residents.touch(resident)
        self.make_runnable(resident)

    def _run_episode(self, resident: Resident, pending: PendingEpisode) -> None:
        work_item, live = pending.work_item, resident.execution
        if live is not None and (live.execution_id, live.episodes) != (work_item.execution_id, work_item.past_episodes):
            live.unload()
            live = resident.execution = None
        if live is not None or work_item.past_episodes == 0:
            result, resident.execution = self._worker.run_episode(work_item, live, None)
            self.complete(resident, pending, result)
        else:
            self.with_history(resident.instance, lambda history: self._replay_episode(resident, pending, history))

    def with_history(self, instance: Instance, arrived: Callable[[list[str]], None]) -> None:
        """Call back with the episodes of the execution that an instance has now, once all of them are stored."""
        id_, durable = instance.instance_id, self.journal.durable(instance.lsn)
        self.loader.with_history(
            id_, instance.execution_id, durable, lambda rows: self.guarded(id_, lambda: arrived(rows))
        )

    def _replay_episode(self, resident: Resident, pending: PendingEpisode, history: list[str]) -> None:
        result, resident.execution = self._worker.run_episode(pending.work_item, None, history)
        self.complete(resident, pending, result)

    def complete(
        self, resident: Resident, pending: PendingEpisode | PendingBatch, result: EpisodeResult | EntityBatch
    ) -> None:
        """Make of what user code has done a transition, or set its instance aside."""
        instance, now = resident.instance, self.clock.now()
        guilty = self.parking.take_guilty(instance)
        if guilty is not None:
            result = Blocked(guilty)
        match pending, result:
            case PendingEpisode(), Episode():
                self.finish_step(resident, self.hub.complete_episode(instance, pending, result, now))
            case PendingBatch(), EntityBatch():
                self.finish_step(resident, self.hub.complete_batch(instance, pending, result, now))
            case PendingEpisode(), VersionRejected():
                _let_wait(self, resident, pending)
            case _, Blocked():
                self.parking.set_aside(resident, pending, result.details)
            case _:
                raise AssertionError(f"{result!r} is no result of {pending!r}")

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
        self._turns.schedule()

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


def _let_wait(node: Node, resident: Resident, pending: PendingEpisode) -> None:
    """Let an instance wait for a host with its code; what came meanwhile for it as a whole is still done here."""
    instance = resident.instance
    transition = node.hub.reject(instance, pending, node.clock.now())
    if transition is not None:
        node.append(transition)
    node.suspects.has_worked(instance)
    if instance.controls:
        node.make_runnable(resident)


def _is_fresh(message: Message) -> bool:
    """Whether a message starts a sub-orchestration under an id that was made for it, which cannot exist yet."""
    event = message.event
    return (
        isinstance(event, ExecutionStarted)
        and event.parent is not None
        and message.instance_id == f"{event.parent.execution_id}:{event.parent.task_scheduled_id}"
    )
