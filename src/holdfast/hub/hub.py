"""The hub of one node: it numbers the transitions, and says what each arrival leads to."""

from __future__ import annotations

from datetime import datetime

import msgspec

from holdfast.errors import InstanceAlreadyExistsError, OverloadedError
from holdfast.hub.activities import completion_message, next_attempt, open_attempt, replace_activity
from holdfast.hub.entities import (
    PendingBatch,
    apply_lock_change,
    complete_batch,
    give_back_batch,
    next_batch,
    next_lock_change,
)
from holdfast.hub.episodes import CONTROL, PendingEpisode, apply_control, complete_episode, give_back, next_episode
from holdfast.hub.instance import Instance, ScheduledActivity
from holdfast.hub.lifecycle import begin_execution, park
from holdfast.hub.transition import Transition
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    EntityLockGranted,
    EntityUnlockSent,
    ExecutionStarted,
    MessageEvent,
    OrchestratorStarted,
    SubOrchestrationInstanceFailed,
)
from holdfast.model.ids import is_entity
from holdfast.model.limits import Limits
from holdfast.model.messages import Message
from holdfast.model.status import OrchestrationStatus
from holdfast.model.work_items import ActivityWorkItem, EntityBatch, Episode, Failed, Outcome


class Hub:
    """All transitions of a node, in one total order.

    Each method that returns a `Transition` has numbered it; the caller appends it to the journal at once, so that
    numbers and order agree, and delivers what the transition sent. A method that returns None changed nothing that
    must be stored.
    """

    def __init__(self, lsn: int, node: str, limits: Limits) -> None:
        self.lsn = lsn
        self.limits = limits
        self._node = node

    def _begin(self, instance_id: str, now: datetime) -> Transition:
        self.lsn += 1
        return Transition(self.lsn, instance_id, now)

    def _execution_id(self, lsn: int) -> str:
        """Ids rise with time, so that the history of what runs at the same time is stored close together."""
        return f"{lsn:013x}-{self._node}"

    # Requests of clients

    def start(
        self, existing: Instance | None, instance_id: str, name: str, input: str | None, now: datetime
    ) -> tuple[Instance, Transition]:
        """Start an orchestration under an id that is free, or whose last owner has ended.

        Raises:
            InstanceAlreadyExistsError: otherwise.
        """
        if existing is not None and not existing.is_terminal:
            raise InstanceAlreadyExistsError(instance_id, existing.status.value)
        transition = self._begin(instance_id, now)
        started = ExecutionStarted(
            timestamp=now,
            name=name,
            instance_id=instance_id,
            execution_id=self._execution_id(transition.lsn),
            input=input,
        )
        instance = existing or Instance(instance_id, started.execution_id, name, now)
        begin_execution(transition, instance, started)
        transition.send(instance_id, started)
        return instance, transition

    def post(self, instance: Instance | None, instance_id: str, event: MessageEvent, now: datetime) -> Transition:
        """Accept a message from a client; what it leads to is decided when it is delivered.

        Raises:
            OverloadedError: if the inbox is full.
        """
        waiting = len(instance.inbox) + len(instance.held) if instance else 0
        if isinstance(event, CONTROL):  # a full inbox must not keep anybody from ending what fills it
            waiting = len(instance.controls) if instance else 0
        if waiting >= self.limits.inbox_messages_max:
            raise OverloadedError(
                f"Instance {instance_id!r} has {waiting} messages waiting, which is the limit. Try again later."
            )
        transition = self._begin(instance_id, now)
        transition.send(instance_id, event)
        return transition

    # Arrivals

    def deliver(
        self, instance: Instance | None, message: Message, now: datetime
    ) -> tuple[Instance | None, Transition | None]:
        """Put a message into the inbox of its instance, which a start or an entity's first message brings to life.

        What concerns nobody any more is dropped, with whatever must follow from that.
        """
        if instance is None or instance.is_terminal:
            return self._deliver_to_nobody(instance, message, now)
        if message.execution_id not in (None, instance.execution_id) or not _is_open(instance, message):
            return instance, self._drop(instance, message, now)
        if isinstance(message.event, ExecutionStarted) and message.event.execution_id != instance.execution_id:
            return instance, self._refuse_start(instance, message, message.event, now)
        if isinstance(message.event, CONTROL):
            instance.controls.append(message)
            return instance, None
        if message.timer is not None:
            instance.answered.add(message.timer[1])
        if message.activity is not None:
            instance.answered.add(message.activity[1])
            if instance.status is OrchestrationStatus.SUSPENDED:
                return instance, self._keep_answer(instance, message, now)
        instance.inbox.append(message)
        return instance, None

    def _deliver_to_nobody(
        self, ended: Instance | None, message: Message, now: datetime
    ) -> tuple[Instance | None, Transition | None]:
        event = message.event
        if isinstance(event, ExecutionStarted):
            transition = self._begin(message.instance_id, now)
            instance = ended or Instance(message.instance_id, event.execution_id, event.name, now)
            begin_execution(transition, instance, event)
            instance.inbox.append(message)
            return instance, transition
        if ended is None and is_entity(message.instance_id) and not isinstance(event, EntityUnlockSent):
            transition = self._begin(message.instance_id, now)
            name = message.instance_id[1:].partition("@")[0]
            instance = Instance(message.instance_id, self._execution_id(transition.lsn), name, now)
            transition.change(instance)
            instance.inbox.append(message)
            return instance, transition
        return ended, self._drop(ended, message, now)

    def _drop(self, instance: Instance | None, message: Message, now: datetime) -> Transition | None:
        """Forget a message. A lock that is granted to nobody is given back."""
        if message.message_id is None:
            return None  # the row of its activity or timer went together with the execution
        transition = self._begin(message.instance_id, now)
        if instance is not None:
            transition.touch(instance)
        transition.consumed.append(message.message_id)
        if isinstance(message.event, EntityLockGranted):
            for target in message.event.lock_set:
                unlock = EntityUnlockSent(
                    timestamp=now, critical_section_id=message.event.critical_section_id, target_instance_id=target
                )
                transition.send(target, unlock)
        return transition

    def _refuse_start(
        self, instance: Instance, message: Message, event: ExecutionStarted, now: datetime
    ) -> Transition | None:
        """Tell the parent of a sub-orchestration that its id is taken."""
        transition = self._drop(instance, message, now)
        if transition is not None and event.parent is not None:
            error = InstanceAlreadyExistsError(instance.instance_id, instance.status.value)
            failed = SubOrchestrationInstanceFailed(
                timestamp=now,
                task_scheduled_id=event.parent.task_scheduled_id,
                failure=FailureDetails("holdfast.errors.InstanceAlreadyExistsError", str(error)),
            )
            transition.send(event.parent.instance_id, failed, event.parent.execution_id)
        return transition

    def _keep_answer(self, instance: Instance, message: Message, now: datetime) -> Transition:
        """An instance that may not run for a long time must not hold a result in memory only."""
        assert message.activity is not None
        transition = self._begin(instance.instance_id, now)
        transition.touch(instance)
        transition.remove_activity(instance, message.activity[1])
        transition.send(instance.instance_id, message.event, instance.execution_id)
        return transition

    def finish_activity(
        self, instance: Instance, work_item: ActivityWorkItem, outcome: Outcome, now: datetime
    ) -> Message | Transition | None:
        """Return the message that a finished attempt leads to, or the transition that plans the next attempt."""
        activity = open_attempt(instance, work_item)
        if activity is None:
            return None
        if isinstance(outcome, Failed):
            again = next_attempt(activity, outcome.details, now)
            if again is not None:
                transition = self._begin(instance.instance_id, now)
                replace_activity(transition, instance, again)
                return transition
        return completion_message(activity, outcome, now)

    def count_delivery(self, instance: Instance, activity: ScheduledActivity, now: datetime) -> Transition:
        """Count a start of an activity before it happens."""
        transition = self._begin(instance.instance_id, now)
        counted = msgspec.structs.replace(activity, deliveries=activity.deliveries + 1)
        replace_activity(transition, instance, counted)
        return transition

    def count_episode(self, instance: Instance, now: datetime) -> Transition:
        """Count the run of an episode before it happens."""
        transition = self._begin(instance.instance_id, now)
        transition.change(instance)
        instance.deliveries += 1
        return transition

    # Work

    def step(self, instance: Instance, now: datetime) -> Transition | None:
        """Return the next step of an instance that needs no user code, if there is one."""
        if instance.is_working:
            return None
        if instance.controls:
            transition = self._begin(instance.instance_id, now)
            apply_control(transition, instance, instance.controls.popleft())
            return transition
        change = next_lock_change(instance) if instance.is_entity else None
        if change is None:
            return None
        transition = self._begin(instance.instance_id, now)
        apply_lock_change(transition, instance, change)
        return transition

    def next_work(self, instance: Instance, now: datetime) -> PendingEpisode | PendingBatch | None:
        """Take the work that waits for the user code of an instance, if it may run."""
        if instance.is_entity:
            return next_batch(instance, self.limits)
        return next_episode(instance, OrchestratorStarted(timestamp=now), self.limits)

    def complete_episode(
        self, instance: Instance, pending: PendingEpisode, episode: Episode, now: datetime
    ) -> Transition:
        transition = self._begin(instance.instance_id, now)
        new_id = self._execution_id(transition.lsn)
        complete_episode(transition, instance, pending, episode, self.limits, new_id)
        return transition

    def complete_batch(
        self, instance: Instance, pending: PendingBatch, batch: EntityBatch, now: datetime
    ) -> Transition:
        transition = self._begin(instance.instance_id, now)
        complete_batch(transition, instance, pending, batch)
        return transition

    def park(
        self, instance: Instance, pending: PendingEpisode | PendingBatch | None, details: FailureDetails, now: datetime
    ) -> Transition:
        """Set an instance aside; what it was about to consume goes back to its inbox."""
        match pending:
            case PendingEpisode():
                give_back(instance, pending)
            case PendingBatch():
                give_back_batch(instance, pending)
            case None:
                pass
        transition = self._begin(instance.instance_id, now)
        park(transition, instance, details)
        return transition


def _is_open(instance: Instance, message: Message) -> bool:
    """Whether the activity or timer that a message comes from is still waited for, and has not answered before."""
    if message.activity is not None:
        return message.activity[1] in instance.activities and message.activity[1] not in instance.answered
    if message.timer is not None:
        return message.timer[1] in instance.timers and message.timer[1] not in instance.answered
    return True
