"""The hub of one node: it numbers the transitions, and says what each arrival leads to."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from holdfast.errors import InstanceAlreadyExistsError, OverloadedError
from holdfast.hub.activities import completion_message, next_attempt, open_attempt, record_progress, replace_activity
from holdfast.hub.asking import NewExecutions, remember
from holdfast.hub.entities import (
    PendingBatch,
    answer_again,
    apply_lock_change,
    complete_batch,
    give_back_batch,
    is_early,
    is_empty,
    key_of,
    next_batch,
    next_lock_change,
    remove_entity,
    schedule,
)
from holdfast.hub.episodes import (
    CONTROL,
    PendingEpisode,
    apply_control,
    complete_episode,
    give_back,
    is_control,
    next_episode,
)
from holdfast.hub.instance import Instance, ScheduledActivity
from holdfast.hub.lifecycle import begin_execution, keep_answers, park, waits_for_start
from holdfast.hub.rewinds import Rewinds
from holdfast.hub.sections import grant
from holdfast.hub.transition import Transition
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    EntityLockGranted,
    EntityOperationSignaled,
    EntityUnlockSent,
    EventRaised,
    ExecutionRewound,
    ExecutionStarted,
    ExecutionTerminated,
    MessageEvent,
    OrchestratorStarted,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceFailed,
    WorkRemembered,
)
from holdfast.model.ids import is_entity
from holdfast.model.instants import after
from holdfast.model.limits import Limits
from holdfast.model.messages import Message
from holdfast.model.requests import StartRequest
from holdfast.model.status import OrchestrationStatus
from holdfast.model.work_items import ActivityWorkItem, EntityBatch, Episode, Failed, Outcome


class Admission(enum.Enum):
    """What a start does, if it is not rejected."""

    START = "start"
    REPLACE = "end the existing instance, then start"
    RETURN_EXISTING = "leave the existing instance"


class Hub(Rewinds):
    """All transitions of a node, in one total order.

    Each method that returns a `Transition` has numbered it; the caller appends it to the journal at once, so that
    numbers and order agree, and delivers what the transition sent. A method that returns None changed nothing that
    must be stored.
    """

    def __init__(self, lsn: int, node: str, limits: Limits, default_version: str | None = None) -> None:
        super().__init__(lsn, node, default_version)
        self.limits = limits

    # Requests of clients

    def admit(self, existing: Instance | None, request: StartRequest) -> Admission:
        """Say what a start does, given the instance that has its id: its policy, and its request key, decide.

        Raises:
            InstanceAlreadyExistsError: if the policy rejects.
        """
        if existing is None:
            return Admission.START
        is_repetition = request.request_key is not None and request.request_key == existing.request_key
        if not is_repetition and request.id_policy.replaces(existing.status):
            return Admission.START if existing.is_terminal else Admission.REPLACE
        if is_repetition or request.id_policy.otherwise == "return":
            return Admission.RETURN_EXISTING
        raise InstanceAlreadyExistsError(request.instance_id, existing.status.value)

    def start(self, existing: Instance | None, request: StartRequest, now: datetime) -> tuple[Instance, Transition]:
        """Start an orchestration under an id that is free, or whose last owner has ended."""
        transition = self._begin(request.instance_id, now)
        begins_at = max(now, request.start_at or now)
        started = ExecutionStarted(
            timestamp=now,
            name=request.name,
            instance_id=request.instance_id,
            execution_id=self._execution_id(transition.lsn),
            input=request.input,
            version=request.version or self._default_version,
            tags=request.tags,
            start_at=request.start_at,
            expires_at=None if request.run_timeout is None else after(begins_at, request.run_timeout),
        )
        instance = existing or Instance(request.instance_id, started.execution_id, request.name, now)
        if not request.is_restart:
            instance.request_key = request.request_key
        begin_execution(transition, instance, started)
        if not waits_for_start(instance):
            transition.send(request.instance_id, started)
        return instance, transition

    def make_way(self, existing: Instance, now: datetime) -> Transition:
        """End an instance that is to be replaced."""
        transition = self._begin(existing.instance_id, now)
        event = ExecutionTerminated(timestamp=now, reason='"It was replaced by a new start with its instance id."')
        apply_control(transition, existing, Message(existing.instance_id, event))
        return transition

    def post(self, instance: Instance | None, instance_id: str, event: MessageEvent, now: datetime) -> Transition:
        """Accept a message from a client; what it leads to is decided when it is delivered.

        Raises:
            OverloadedError: if the inbox is full.
        """
        waiting = len(instance.inbox) + len(instance.held) if instance else 0
        if isinstance(event, EventRaised) and instance and self._is_full_for(instance, event):
            raise OverloadedError(
                f"Instance {instance_id!r} has taken in {instance.events_buffered} external events that it has not "
                "waited for, which is the limit. Try again later."
            )
        if isinstance(event, CONTROL):  # a full inbox must not keep anybody from ending what fills it
            waiting = len(instance.controls) if instance else 0
        if waiting >= self.limits.inbox_messages_max:
            raise OverloadedError(
                f"Instance {instance_id!r} has {waiting} messages waiting, which is the limit. Try again later."
            )
        transition = self._begin(instance_id, now)
        transition.send(instance_id, event)
        return transition

    def signal(
        self, instances: Mapping[str, Instance], events: Sequence[EntityOperationSignaled], now: datetime
    ) -> Transition:
        """Accept signals from a client, at least one, all of them or none.

        Args:
            instances: those of the entities that are in memory, by id; for the others nothing waits.

        Raises:
            OverloadedError: if the queue of an entity would become too long.
        """
        for instance_id, added in Counter(event.target_instance_id for event in events).items():
            instance = instances.get(instance_id)
            waiting = len(instance.inbox) + len(instance.held) + len(instance.timers) if instance else 0
            if waiting + added > self.limits.inbox_messages_max:
                raise OverloadedError(
                    f"Entity {instance_id} has {waiting} operations waiting, and {added} more would be above the "
                    "limit. Try again later."
                )
        transition = self._begin(events[0].target_instance_id, now)
        for event in events:
            transition.send(event.target_instance_id, event)
        return transition

    def _is_full_for(self, instance: Instance, event: EventRaised) -> bool:
        """Whether an instance has buffered too many events to take in one more that it does not wait for."""
        if instance.events_buffered < self.limits.events_buffered_max or instance.events_awaited is None:
            return False
        return event.name.casefold() not in instance.events_awaited

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
        if message.execution_id not in (None, instance.execution_id) or not _is_open(instance, message):
            return instance, self._drop(instance, message, now)
        if isinstance(message.event, ExecutionStarted) and message.event.execution_id != instance.execution_id:
            return instance, self._refuse_start(instance, message, message.event, now)
        if not _is_meant(instance, message):
            return instance, self._drop(instance, message, now)
        if isinstance(message.event, WorkRemembered):
            remember(instance, message, message.event)
            return instance, None
        if message.timer is not None:
            instance.answered.add(message.timer[1])
        if is_control(instance, message):
            instance.controls.append(message)
            return instance, None
        if message.activity is not None:
            instance.answered.add(message.activity[1])
            if instance.status is OrchestrationStatus.SUSPENDED:
                return instance, self._keep_answer(instance, message, now)
        if instance.is_entity:
            return instance, self._queue(instance, message, now)
        if isinstance(message.event, ExecutionStarted):
            instance.inbox.appendleft(message)  # a planned start comes after what was sent before it
        else:
            instance.inbox.append(message)
        if isinstance(message.event, EntityLockGranted):
            return instance, self._granted(instance, now)
        return instance, None

    def _queue(self, instance: Instance, message: Message, now: datetime) -> Transition | None:
        """Queue an operation or a lock change, unless it is a repetition, or comes too early."""
        key = key_of(message)
        if key is not None and key in instance.event_keys:
            transition = self._begin(instance.instance_id, now)
            answer_again(transition, instance, message, key)
            return transition
        if is_early(message, now):
            transition = self._begin(instance.instance_id, now)
            schedule(transition, instance, message)
            return transition
        if key is not None:
            instance.event_keys[key] = None
        instance.inbox.append(message)
        return None

    def _granted(self, instance: Instance, now: datetime) -> Transition | None:
        section = instance.section
        if section is None or section.is_granted:
            return None  # it was seen before, and is read from the store again
        transition = self._begin(instance.instance_id, now)
        grant(transition, instance)
        return transition

    def _deliver_to_nobody(
        self, ended: Instance | None, message: Message, now: datetime
    ) -> tuple[Instance | None, Transition | None]:
        event = message.event
        if isinstance(event, ExecutionStarted):
            transition = self._begin(message.instance_id, now)
            instance = ended or Instance(message.instance_id, event.execution_id, event.name, now)
            instance.request_key = None
            begin_execution(transition, instance, event)
            if waits_for_start(instance):
                transition.consume(instance, (message,))
            else:
                instance.inbox.append(message)
            return instance, transition
        if ended is None and is_entity(message.instance_id) and not isinstance(event, EntityUnlockSent):
            instance = self._new_entity(message, now)
            return instance, self._queue(instance, message, now)
        return ended, self._drop(ended, message, now)

    def _new_entity(self, message: Message, now: datetime) -> Instance:
        """Return an entity that is stored with the first thing that happens to it."""
        assert message.message_id is not None, "nobody has a timer yet"
        name = message.instance_id[1:].partition("@")[0]
        return Instance(message.instance_id, self._entity_execution_id(message.message_id), name, now)

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
            again = next_attempt(activity, outcome, now)
            if again is not None:
                transition = self._begin(instance.instance_id, now)
                replace_activity(transition, instance, again)
                return transition
        return completion_message(activity, outcome, now)

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
            return next_batch(instance, self.limits, now)
        return next_episode(instance, OrchestratorStarted(timestamp=now), self.limits)

    def complete_episode(
        self, instance: Instance, pending: PendingEpisode, episode: Episode, now: datetime
    ) -> Transition:
        transition = self._begin(instance.instance_id, now)
        new = NewExecutions(self._execution_id(transition.lsn), self._default_version)
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
        new = NewExecutions(self._execution_id(transition.lsn), self._default_version)
        complete_batch(transition, instance, pending, batch, self.limits, new)
        return transition

    def remove_entity(self, instance: Instance, now: datetime) -> Transition | None:
        """Remove what is stored of an entity, if that is nothing to speak of."""
        if instance.revision == 0 or not is_empty(instance):
            return None
        transition = self._begin(instance.instance_id, now)
        remove_entity(transition, instance)
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
    event = message.event
    if isinstance(event, EntityLockGranted):
        return instance.section is not None and instance.section.section_id == event.critical_section_id
    if isinstance(event, SubOrchestrationInstanceCompleted | SubOrchestrationInstanceFailed):
        # Below zero, it was handed on by the execution before this one, which may have heard the answer itself.
        return event.task_scheduled_id in instance.children or event.task_scheduled_id < 0
    return True


def _is_meant(instance: Instance, message: Message) -> bool:
    """Whether an instance is still the child of the parent that sent it a request."""
    sent_by = getattr(message.event, "sent_by", None)
    return sent_by is None or sent_by == instance.parent
