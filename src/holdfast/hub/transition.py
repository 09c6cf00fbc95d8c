"""A transition: one atomic step of one instance. The hub fills it in; the engine makes it durable, then acts on it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TypeAlias

import msgspec

from holdfast.hub.instance import DurableTimer, Instance, OpenChild, OperationKey, ScheduledActivity
from holdfast.model.history import (
    EventRaised,
    ExecutionStarted,
    HistoryEvent,
    MessageEvent,
    OperationAnswer,
    UpdateCompleted,
)
from holdfast.model.messages import DurableKey, Message
from holdfast.model.status import OrchestrationState


class StartActivity(msgspec.Struct, frozen=True, gc=False):
    """Let an activity start, no sooner than its `visible_at`."""

    activity: ScheduledActivity


class InstanceStopped(msgspec.Struct, frozen=True, gc=False):
    """Tell whoever waits that an instance has ended or was parked."""

    state: OrchestrationState


class AdoptActivity(msgspec.Struct, frozen=True, gc=False):
    """Let a running attempt go on as that of another activity, or start that one if it does not run."""

    key: DurableKey
    activity: ScheduledActivity


class StopActivity(msgspec.Struct, frozen=True, gc=False):
    """Stop the running attempt of an activity whose result nobody waits for any more."""

    key: DurableKey


class UpdateAnswered(msgspec.Struct, frozen=True, gc=False):
    """Tell whoever sent an update what came of it."""

    instance_id: str
    event: UpdateCompleted


class HistoryWarning(msgspec.Struct, frozen=True, gc=False):
    """Warn that the history of an instance has become long."""

    instance_id: str
    name: str
    history_events: int


class OperationAnswered(msgspec.Struct, frozen=True, gc=False):
    """Tell the client that called an operation of an entity what came of it."""

    instance_id: str
    request_id: str
    answer: OperationAnswer


class StateWarning(msgspec.Struct, frozen=True, gc=False):
    """Warn that the state of an entity has become large."""

    instance_id: str
    state_bytes: int


class MessageDropped(msgspec.Struct, frozen=True, gc=False):
    """Tell the operators of an event for nobody, or of a start whose id is in use: nobody else can be told."""

    instance_id: str
    event: EventRaised | ExecutionStarted


Output: TypeAlias = (
    StartActivity
    | AdoptActivity
    | StopActivity
    | InstanceStopped
    | UpdateAnswered
    | OperationAnswered
    | HistoryWarning
    | StateWarning
    | MessageDropped
)


class OpenWork(msgspec.Struct, frozen=True, gc=False):
    """The keys of all rows of an instance, beside its own and its history."""

    messages: Sequence[int]
    activities: Sequence[DurableKey]
    timers: Sequence[DurableKey]
    children: Sequence[DurableKey]
    operation_keys: Sequence[tuple[str, str]]


class KeyChanges:
    """The keys that an entity begins to remember, or forgets."""

    __slots__ = ("added", "removed")

    def __init__(self) -> None:
        self.added: list[OperationKey] = []
        self.removed: list[tuple[str, str]] = []


class Transition:
    """What one step changes. Everything in it becomes durable together, or nothing does.

    `outputs` leave the process only once `lsn` is durable; `sent` messages may be consumed on this node before that.
    """

    __slots__ = (
        "activities_removed",
        "activities_scheduled",
        "activities_updated",
        "arrivals_removed",
        "children_created",
        "children_removed",
        "consumed",
        "executions_removed",
        "history",
        "history_copied",
        "instance",
        "instance_id",
        "instances_removed",
        "is_new_execution",
        "key_changes",
        "lsn",
        "message_ids",
        "now",
        "outputs",
        "revision_before",
        "sent",
        "timers_created",
        "timers_removed",
    )

    def __init__(self, lsn: int, instance_id: str, now: datetime, message_ids: Iterator[int]) -> None:
        self.lsn = lsn
        self.message_ids = message_ids
        """The ids that the node has not given yet."""
        self.instance_id = instance_id
        self.now = now
        self.instance: Instance | None = None
        """The instance whose row changes; None for a transition that only moves messages."""
        self.revision_before = 0
        self.instances_removed: Sequence[tuple[str, int]] = ()
        """The ids and the stored revisions of instances whose rows go."""
        self.is_new_execution = False
        """Whether what is fixed within an execution changes."""
        self.history: tuple[HistoryEvent, ...] = ()
        self.history_copied: tuple[tuple[HistoryEvent, ...], ...] = ()
        """The first episodes of a new execution, taken over from another one."""
        self.executions_removed: Sequence[tuple[str, str, int]] = ()
        """Executions whose histories go, after their instances, with their numbers of episodes."""
        self.sent: list[Message] = []
        self.consumed: list[int] = []
        self.arrivals_removed: Sequence[tuple[str, int]] = ()
        """What came from outside this node and is taken in: (instance id, arrival id)."""
        self.activities_scheduled: list[ScheduledActivity] = []
        self.activities_updated: list[ScheduledActivity] = []
        self.activities_removed: list[DurableKey] = []
        self.timers_created: list[DurableTimer] = []
        self.timers_removed: list[DurableKey] = []
        self.children_created: list[OpenChild] = []
        self.children_removed: list[DurableKey] = []
        self.key_changes: KeyChanges | None = None
        """None for the most: few transitions are about keys, and each has its price in memory."""
        self.outputs: list[Output] = []

    def change(self, instance: Instance) -> None:
        """Declare that the row of an instance changes; once for each transition."""
        assert self.instance is None, "a transition changes one instance, once"
        self.instance = instance
        self.revision_before = instance.revision
        instance.revision += 1
        instance.lsn = self.lsn
        instance.updated_at = self.now

    def touch(self, instance: Instance) -> None:
        """Declare that rows of an instance change, though not its own: it stays in memory until they are durable."""
        instance.lsn = self.lsn

    def send(self, instance_id: str, event: MessageEvent, execution_id: str | None = None) -> Message:
        """Send a message; ids rise in the order of sending, over all transitions of the node."""
        message = Message(instance_id, event, execution_id=execution_id, message_id=next(self.message_ids))
        self.sent.append(message)
        return message

    def consume(self, instance: Instance, messages: Iterable[Message]) -> None:
        """Remove what made messages durable: their inbox rows, or the activity or timer that they come from."""
        for message in messages:
            if message.message_id is not None:
                self.consumed.append(message.message_id)
            elif message.activity is not None:
                self.remove_activity(instance, message.activity[1])
            elif message.timer is not None:
                self.remove_timer(instance, message.timer[1])

    def change_keys(self) -> KeyChanges:
        """Return what changes among the keys of an entity, to be added to."""
        if self.key_changes is None:
            self.key_changes = KeyChanges()
        return self.key_changes

    def remove_activity(self, instance: Instance, sequence: int) -> None:
        self.activities_removed.append(instance.activities.pop(sequence).key)
        instance.answered.pop(sequence, None)

    def remove_timer(self, instance: Instance, sequence: int) -> None:
        self.timers_removed.append(instance.timers.pop(sequence).key)
        instance.answered.pop(sequence, None)

    def stop_activity(self, instance: Instance, sequence: int) -> None:
        """Remove an activity whose result nobody will hear, and stop it if it runs."""
        key = instance.activities[sequence].key
        self.remove_activity(instance, sequence)
        self.outputs = [
            each for each in self.outputs if not (isinstance(each, StartActivity) and each.activity.key == key)
        ]
        self.outputs.append(StopActivity(key))

    def add_timer(self, instance: Instance, sequence: int, due_at: datetime) -> None:
        self.set_timer(instance, DurableTimer(instance.instance_id, instance.execution_id, sequence, due_at))

    def set_timer(self, instance: Instance, timer: DurableTimer) -> None:
        instance.timers[timer.sequence] = timer
        self.timers_created.append(timer)

    def add_child(self, instance: Instance, sequence: int, child_instance_id: str) -> None:
        child = OpenChild(instance.instance_id, instance.execution_id, sequence, child_instance_id)
        instance.children[sequence] = child
        self.children_created.append(child)

    def remove_child(self, instance: Instance, sequence: int) -> None:
        self.children_removed.append(instance.children.pop(sequence).key)

    def remove_all_work(self, instance: Instance) -> None:
        """Remove every open activity, timer and sub-orchestration of an execution that is over.

        Activities are stopped; the sub-orchestrations go on by themselves.
        """
        self.outputs = [each for each in self.outputs if not isinstance(each, StartActivity)]
        for sequence in list(instance.activities):
            key = instance.activities[sequence].key
            self.remove_activity(instance, sequence)
            self.outputs.append(StopActivity(key))
        for sequence in list(instance.children):
            self.remove_child(instance, sequence)
        for sequence in list(instance.timers):
            self.remove_timer(instance, sequence)
