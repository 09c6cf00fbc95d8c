"""Requests of clients: whether they are let in, and the transitions that accept them."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from holdfast.errors import InstanceAlreadyExistsError, OverloadedError
from holdfast.hub.episodes import CONTROL, apply_control
from holdfast.hub.instance import Instance
from holdfast.hub.lifecycle import begin_execution, waits_for_start
from holdfast.hub.rewinds import Rewinds
from holdfast.hub.transition import Transition
from holdfast.model.history import (
    EntityOperationSignaled,
    EventRaised,
    ExecutionStarted,
    ExecutionTerminated,
    MessageEvent,
)
from holdfast.model.instants import after
from holdfast.model.limits import EVENTS_AWAITED_MAX, Limits
from holdfast.model.messages import Arrival, Message
from holdfast.model.requests import StartRequest


class Admission(enum.Enum):
    """What a start does, if it is not rejected."""

    START = "start"
    REPLACE = "end the existing instance, then start"
    RETURN_EXISTING = "leave the existing instance"


class Requests(Rewinds):
    """Part of the hub: see `Hub`."""

    def __init__(
        self, lsn: int, node: str, incarnation: int, limits: Limits, default_version: str | None = None
    ) -> None:
        super().__init__(lsn, node, incarnation, default_version)
        self.limits = limits

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

    def receive(self, arrivals: Sequence[Arrival], now: datetime) -> Transition:
        """Take in what came from outside this node, at least one, as if it had been sent here in this order."""
        transition = self.forget_arrivals([(each.instance_id, each.arrival_id) for each in arrivals], now)
        for each in arrivals:
            transition.send(each.instance_id, self._complete(each.event, now), each.execution_id)
        return transition

    def forget_arrivals(self, arrivals: Sequence[tuple[str, int]], now: datetime) -> Transition:
        """Remove what has arrived, (instance id, arrival id), and has had its effect, or can have none any more."""
        transition = self._begin(arrivals[0][0], now)
        transition.arrivals_removed = arrivals
        return transition

    def start(self, existing: Instance | None, request: StartRequest, now: datetime) -> tuple[Instance, Transition]:
        """Start an orchestration under an id that is free, or whose last owner has ended."""
        transition = self._begin(request.instance_id, now)
        begins_at = max(now, request.start_at or now)
        started = ExecutionStarted(
            timestamp=now,
            name=request.name,
            instance_id=request.instance_id,
            execution_id=self._new_executions(transition).execution_id,
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

    def _complete(self, event: MessageEvent, now: datetime) -> MessageEvent:
        """Fill in what a start that comes from a transaction of a user leaves to this host."""
        if not isinstance(event, ExecutionStarted) or event.id_rule is None:
            return event
        return msgspec.structs.replace(event, timestamp=now, version=event.version or self._default_version)

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
        waiting = _waiting(instance) if instance else 0
        if isinstance(event, EventRaised) and instance and self._is_full_for(instance, event):
            raise OverloadedError(
                f"Instance {instance_id!r} has taken in {instance.events_buffered} external events that it has not "
                "waited for, which is the limit. Try again later."
            )
        if isinstance(event, CONTROL):  # a full inbox must not keep anybody from ending what fills it
            waiting = len(instance.controls) if instance else 0
        if waiting >= self.limits.inbox_messages_max:
            raise OverloadedError(
                f"Instance {instance_id!r} has {waiting} messages waiting; requests are taken in up to "
                f"{self.limits.inbox_messages_max}. Try again later."
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
        added_to: dict[str, int] = {}  # not a `Counter`, which costs as much as all else here for one signal
        for event in events:
            added_to[event.target_instance_id] = added_to.get(event.target_instance_id, 0) + 1
        for instance_id, added in added_to.items():
            instance = instances.get(instance_id)
            waiting = _waiting(instance) if instance else 0
            if waiting + added > self.limits.inbox_messages_max:
                raise OverloadedError(
                    f"Entity {instance_id} has {waiting} operations waiting, and {added} more were asked for; requests "
                    f"are taken in up to {self.limits.inbox_messages_max}. Try again later."
                )
        transition = self._begin(events[0].target_instance_id, now)
        for event in events:
            transition.send(event.target_instance_id, event)
        return transition

    def _is_full_for(self, instance: Instance, event: EventRaised) -> bool:
        """Whether an instance has buffered too many events to take in one more that it does not wait for."""
        awaited = instance.events_awaited
        if instance.events_buffered < self.limits.events_buffered_max or len(awaited) >= EVENTS_AWAITED_MAX:
            return False  # it may wait for more names than are known here
        return event.name.casefold() not in {name.casefold() for name in awaited}


def _waiting(instance: Instance) -> int:
    """How much an instance has taken in and not consumed; the timers of an entity are signals that are scheduled."""
    scheduled = len(instance.timers) if instance.is_entity else 0
    return len(instance.inbox) + len(instance.held) + scheduled
