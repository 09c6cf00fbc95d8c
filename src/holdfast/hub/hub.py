"""The hub of one node: it numbers the transitions, and says what each arrival leads to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from holdfast.errors import InstanceAlreadyExistsError
from holdfast.hub.activities import completion_message, next_attempt, open_attempt, record_progress, replace_activity
from holdfast.hub.asking import remember
from holdfast.hub.entities import (
    PendingBatch,
    apply_lock_changes,
    check_may_go,
    complete_batch,
    give_back_batch,
    has_batch,
    is_early,
    is_empty,
    next_batch,
    next_lock_change,
    remove_entity,
    schedule,
)
from holdfast.hub.episodes import (
    PendingEpisode,
    apply_control,
    complete_episode,
    give_back,
    has_episode,
    is_control,
    next_episode,
)
from holdfast.hub.instance import Instance, ScheduledActivity
from holdfast.hub.lifecycle import begin_execution, drop_messages, keep_answers, park, waits_for_start
from holdfast.hub.operation_keys import answer_repetition, key_of
from holdfast.hub.requests import Requests
from holdfast.hub.sections import begin_section, grant, unlock_all
from holdfast.hub.transition import MessageDropped, OpenWork, StopActivity, Transition
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    EntityLockGranted,
    EntityUnlockSent,
    EventRaised,
    ExecutionRewound,
    ExecutionStarted,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    WorkRemembered,
)
from holdfast.model.ids import is_entity, name_of
from holdfast.model.messages import Message
from holdfast.model.status import OrchestrationStatus
from holdfast.model.work_items import ActivityWorkItem, EntityBatch, Episode, Failed, Outcome


class Hub(Requests):
    """All transitions of a node, in one total order.

    Each method that returns a `Transition` has numbered it. The caller appends all that it has got to the journal, in
    the order of their numbers, before it delivers what they have sent, or lets anything else happen. A method that
    returns None changed nothing that must be stored.
    """

    # Arrivals

    def deliver(
        self, instance: Instance | None, message: Message, now: datetime
    ) -> tuple[Instance | None, Transition | None]:
        """Put a message into the inbox of its instance, which a start or an entity's first message brings to life.

        What concerns nobody any more is dropped, with whatever must follow from that.
        """
        if instance is not None and instance.is_terminal and instance.is_working:
            instance.held.append(message)  # whether it rewinds is decided once its history is there
            return instance, None
        if isinstance(message.event, ExecutionRewound):
            return instance, self._answer_again(instance, message, message.event, now)
        if instance is None or instance.is_terminal:
            return self._deliver_to_nobody(instance, message, now)
        is_wanted = _is_open(instance, message) and _is_meant(instance, message)
        if message.execution_id not in (None, instance.execution_id) or not is_wanted:
            return instance, self._drop(instance, message, now)
        if isinstance(message.event, ExecutionStarted) and message.event.execution_id != instance.execution_id:
            return instance, self._refuse_start(instance, message, message.event, now)
        if isinstance(message.event, WorkRemembered):
            remember(instance, message, message.event)
            return instance, None
        if message.timer is not None:
            instance.answered[message.timer[1]] = message
        if is_control(instance, message):
            instance.controls.append(message)
            return instance, None
        if instance.is_entity:
            return instance, self._take_in(instance, message, now)
        if isinstance(message.event, ExecutionStarted):
            instance.inbox.insert(0, message)  # a planned start comes after what was sent before it
        else:
            instance.inbox.append(message)
        if isinstance(message.event, EntityLockGranted) and grant(instance):
            transition = self._begin(instance.instance_id, now)
            begin_section(transition, instance)
            return instance, transition
        return instance, None

    def _take_in(self, instance: Instance, message: Message, now: datetime) -> Transition | None:
        """Queue an operation or a lock change, unless it is a repetition, or comes too early."""
        key = key_of(message)
        if key is not None and key in instance.operation_keys:
            transition = self._begin(instance.instance_id, now)
            answer_repetition(transition, instance, message, key)
            return transition
        if is_early(message, now):
            transition = self._begin(instance.instance_id, now)
            schedule(transition, instance, message)
            return transition
        if key is not None:
            instance.operation_keys[key] = None
        instance.inbox.append(message)
        if instance.revision > 0:
            return None
        instance.created_at = now
        transition = self._begin(instance.instance_id, now)
        transition.change(instance)  # it needs a row for its deliveries to be counted
        return transition

    def _deliver_to_nobody(
        self, ended: Instance | None, message: Message, now: datetime
    ) -> tuple[Instance | None, Transition | None]:
        event = message.event
        if isinstance(event, ExecutionStarted) and (ended is None or event.id_rule != "once"):
            transition = self._begin(message.instance_id, now)
            instance = ended or Instance(message.instance_id, event.execution_id, event.name, now)
            instance.request_key = None
            begin_execution(transition, instance, event)
            if waits_for_start(instance):
                transition.consume(instance, (message,))
            else:
                instance.inbox.append(message)
            return instance, transition
        is_for_entity = is_entity(message.instance_id) and not isinstance(event, EntityUnlockSent)
        if ended is None and is_for_entity and message.message_id is not None:
            instance = self._new_entity(message, now)
            return instance, self._take_in(instance, message, now)
        return ended, self._drop(ended, message, now)

    def _new_entity(self, message: Message, now: datetime) -> Instance:
        """Return an entity that is not stored yet."""
        assert message.message_id is not None, "nobody has a timer yet"
        execution_id = self._entity_execution_id(message.message_id)
        return Instance(message.instance_id, execution_id, name_of(message.instance_id), now)

    def _drop(self, instance: Instance | None, message: Message, now: datetime) -> Transition | None:
        """Forget a message, and do what must follow from that."""
        if message.message_id is None:
            return None  # the row of its activity or timer went together with the execution
        transition = self._begin(message.instance_id, now)
        if instance is not None:
            transition.touch(instance)
        transition.consumed.append(message.message_id)
        _follow_up(transition, message)
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

    def keep_answers(self, instance: Instance, now: datetime) -> Transition | None:
        """Store the results of activities that wait for an instance, which may have to wait for its turn."""
        if not any(message.activity is not None for message in instance.inbox):
            return None
        transition = self._begin(instance.instance_id, now)
        transition.touch(instance)
        keep_answers(transition, instance)
        return transition

    def finish_activity(
        self, instance: Instance, work_item: ActivityWorkItem, outcome: Outcome, now: datetime
    ) -> tuple[bool, Transition | None]:
        """Take in how an attempt has ended, and plan the next one if there is to be one.

        Returns:
            Whether anybody waited for it, and what is to be stored now, if anything is.
        """
        activity = open_attempt(instance, work_item)
        if activity is None:
            return False, None
        if isinstance(outcome, Failed):
            again = next_attempt(activity, outcome, now)
            if again is not None:
                transition = self._begin(instance.instance_id, now)
                replace_activity(transition, instance, again)
                return True, transition
        message = completion_message(activity, outcome, now)
        instance.answered[activity.sequence] = message
        instance.inbox.append(message)
        if instance.status is OrchestrationStatus.SUSPENDED:
            return True, self.keep_answers(instance, now)
        return True, None

    def record_progress(
        self, instance: Instance, work_item: ActivityWorkItem, progress: str, now: datetime
    ) -> Transition | None:
        """Store what a running attempt reports, if anybody still waits for it."""
        activity = open_attempt(instance, work_item)
        if activity is None:
            return None
        transition = self._begin(instance.instance_id, now)
        record_progress(transition, instance, activity, progress)
        return transition

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
            apply_control(transition, instance, instance.controls.pop(0))
            return transition
        change = next_lock_change(instance) if instance.is_entity else None
        if change is None:
            return None
        transition = self._begin(instance.instance_id, now)
        apply_lock_changes(transition, instance, change, self.limits.episode_messages_max)
        return transition

    def has_work(self, instance: Instance) -> bool:
        """Whether something waits for the user code of an instance, which may run."""
        return has_batch(instance) if instance.is_entity else has_episode(instance)

    def next_work(self, instance: Instance, now: datetime) -> PendingEpisode | PendingBatch:
        """Take the work that waits for the user code of an instance, if there is some."""
        if instance.is_entity:
            return next_batch(instance, self.limits, now)
        return next_episode(instance, now, self.limits)

    def give_back(self, instance: Instance, pending: PendingEpisode | PendingBatch) -> None:
        """Undo `next_work` for work that was not done."""
        if isinstance(pending, PendingBatch):
            give_back_batch(instance, pending)
        else:
            give_back(instance, pending)

    def complete_episode(
        self, instance: Instance, pending: PendingEpisode, episode: Episode, now: datetime
    ) -> Transition:
        transition = self._begin(instance.instance_id, now)
        new = self._new_executions(transition)
        complete_episode(transition, instance, pending, episode, self.limits, new)
        return transition

    def reject(self, instance: Instance, pending: PendingEpisode, now: datetime) -> Transition | None:
        """Let an episode wait for a host of its version, which may be long: nothing is held against it meanwhile."""
        give_back(instance, pending)
        if not instance.deliveries and not any(message.activity is not None for message in instance.inbox):
            return None
        transition = self._begin(instance.instance_id, now)
        transition.change(instance)
        instance.deliveries = 0
        keep_answers(transition, instance)
        return transition

    def complete_batch(
        self, instance: Instance, pending: PendingBatch, batch: EntityBatch, now: datetime
    ) -> Transition:
        transition = self._begin(instance.instance_id, now)
        new = self._new_executions(transition)
        complete_batch(transition, instance, pending, batch, self.limits, new)
        return transition

    def remove_entity(self, instance: Instance, now: datetime) -> Transition | None:
        """Remove what is stored of an entity, if that is nothing to speak of."""
        if instance.revision == 0 or not is_empty(instance):
            return None
        transition = self._begin(instance.instance_id, now)
        remove_entity(transition, instance, self._new_executions(transition).execution_id)
        return transition

    def purge(
        self, instances: Sequence[tuple[str, int]], executions: Sequence[tuple[str, str, int]], now: datetime
    ) -> Transition:
        """Remove orchestrations that have ended, and their histories; none of them may be in memory.

        Args:
            instances: at least one, (id, revision).
            executions: (instance id, execution id, number of episodes).
        """
        transition = self._begin(instances[0][0], now)
        transition.instances_removed, transition.executions_removed = instances, executions
        return transition

    def purge_unreadable(
        self, instance: tuple[str, int], execution: tuple[str, str, int] | None, work: OpenWork, now: datetime
    ) -> Transition:
        """Remove an instance that cannot come into memory, with all that is open; nobody is told of its end."""
        transition = self.purge([instance], [] if execution is None else [execution], now)
        transition.consumed.extend(work.messages)
        transition.activities_removed.extend(work.activities)
        transition.timers_removed.extend(work.timers)
        transition.children_removed.extend(work.children)
        if work.operation_keys:
            transition.change_keys().removed.extend(work.operation_keys)
        transition.outputs.extend(map(StopActivity, work.activities))
        return transition

    def purge_entity(self, instance: Instance, now: datetime) -> Transition:
        """Remove an entity with its state and all that it remembers; it must leave memory with that.

        Raises:
            InstanceNotEndedError: if it is locked, or busy, or something waits for it; but a parked one goes with that.
        """
        check_may_go(instance)
        transition = self._begin(instance.instance_id, now)
        drop_messages(transition, instance)
        transition.remove_all_work(instance)
        remove_entity(transition, instance, self._new_executions(transition).execution_id)
        return transition

    def park(
        self, instance: Instance, pending: PendingEpisode | PendingBatch | None, details: FailureDetails, now: datetime
    ) -> Transition:
        """Set an instance aside; what it was about to consume goes back to its inbox."""
        if pending is not None:
            self.give_back(instance, pending)
        transition = self._begin(instance.instance_id, now)
        park(transition, instance, details)
        return transition


def _is_open(instance: Instance, message: Message) -> bool:
    """Whether what a message answers is still waited for, and has not answered before."""
    if message.timer is not None:
        return message.timer[1] in instance.timers and message.timer[1] not in instance.answered
    event = message.event
    if isinstance(event, EntityLockGranted):
        return instance.section is not None and instance.section.section_id == event.critical_section_id
    if isinstance(event, (SubOrchestrationInstanceCompleted, SubOrchestrationInstanceFailed)):
        # Below zero, it was handed on by the execution before this one, which may have heard the answer itself.
        return event.task_scheduled_id in instance.children or event.task_scheduled_id < 0
    return True


def _is_meant(instance: Instance, message: Message) -> bool:
    """Whether an instance is still the child of the parent that sent it a request."""
    sent_by = getattr(message.event, "sent_by", None)
    return sent_by is None or sent_by == instance.parent


def _follow_up(transition: Transition, message: Message) -> None:
    """Give back a lock that is granted to nobody, and report what its sender hopes to have an effect."""
    event = message.event
    if isinstance(event, EntityLockGranted):
        unlock_all(transition, event.critical_section_id, event.lock_set)
    elif isinstance(event, EventRaised) or (isinstance(event, ExecutionStarted) and event.id_rule):
        transition.outputs.append(MessageDropped(message.instance_id, event))
