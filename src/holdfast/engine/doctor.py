"""The check of a whole store: what must hold of its rows at every moment, since every transition is stored whole.

- Activities, timers, children, histories and keys belong to an instance that is there; the first three to an execution
  that goes on.
- The episodes of an execution count from 0 without a gap, as many as its row says, with as many events.
- An execution has one end, at the end of its history, and the status of the instance says the same.
- What the history has asked for and not been told the end of is exactly what there are rows or messages for: whoever
  waits, waits for something.
- Who is locked is locked for a section that its holder has, or the message is on its way that changes that.
- A message is for an instance that is there, or that it will make.
- Instances and messages are in the partition of their id.
- Every record can be read.

An execution that was rewound, or that carries work over, is not held to the fourth: it may wait for work that an
earlier one asked for. That an orchestration waits for an external event leaves no trace, so nothing is said of one
that waits for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeAlias

import msgspec

from holdfast.codec.history import decode_events, decode_message
from holdfast.engine.stored import decode_instance, decode_messages, decode_work
from holdfast.errors import CorruptRecordError
from holdfast.hub.instance import CriticalSectionState, Instance
from holdfast.model.history import (
    EntityLockGranted,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    EntityUnlockSent,
    ExecutionCompleted,
    ExecutionRewound,
    ExecutionStarted,
    HistoryEvent,
    SubOrchestrationInstanceCompleted,
    SubOrchestrationInstanceCreated,
    SubOrchestrationInstanceFailed,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskScheduled,
    TimerCreated,
    TimerFired,
)
from holdfast.model.ids import partition_of
from holdfast.model.status import OrchestrationStatus
from holdfast.storage.port import InstanceRow, StoredInstance

_PAGE: Final = 200
_ENDED: Final = frozenset(status.value for status in OrchestrationStatus if status.is_terminal)
_ENDS: TypeAlias = (
    TaskCompleted | TaskFailed | TaskCancelled | SubOrchestrationInstanceCompleted | SubOrchestrationInstanceFailed
)
_CHILD_ENDS: TypeAlias = SubOrchestrationInstanceCompleted | SubOrchestrationInstanceFailed
_ANSWERS: TypeAlias = EntityOperationCompleted | EntityOperationFailed

_ADVICE: Final = {
    "unreadable": "Look at it with a tool of the database, or restore a backup; a host parks it at first use",
    "history": "Restore a backup, or terminate the instance and restart it: its history cannot be replayed.",
    "end": "Nothing runs any more; restore a backup if the result matters.",
    "lost work": "Terminate and restart the instance, or rewind it once it has failed: it waits for what is not there.",
    "stuck": "Terminate the instance and start it again.",
    "lock": "Start a host on the store, then: holdfast entities clean",
    "orphan": "holdfast doctor --mend removes it; no host may run meanwhile.",
    "message": "It does no harm. It goes when an instance of this id is started.",
    "partition": "Restore a backup, or move the hub with export and import, which gives each row its right partition.",
    "double": "Restore a backup: no host may run on this store.",
}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that does not hold."""

    rule: str
    instance_id: str | None
    what: str
    advice: str


class Rows(Protocol):
    """What a check reads of a store, all of it as of one moment."""

    @property
    def partition_count(self) -> int: ...

    def instances(self, after: str, limit: int) -> list[InstanceRow]: ...

    def load(self, instance_ids: list[str]) -> list[StoredInstance]: ...

    def episodes(self, partition: int, execution_id: str) -> list[tuple[int, str]]: ...

    def doubled_executions(self) -> Iterable[tuple[str, str, str]]: ...

    def messages_about(self, text: str) -> list[str]:
        """Return events that wait for anybody and have a text in them, a bounded number."""
        ...

    def messages_to_nobody(self) -> Iterable[tuple[str, int, str]]: ...


def check_store(rows: Rows, progress: Callable[[int], None]) -> Iterator[Finding]:
    """Return what is wrong, instance by instance, reading page by page.

    Args:
        progress: is told how many instances were checked.
    """
    for execution_id, first, second in rows.doubled_executions():
        yield _finding("double", first, f"it has the same execution {execution_id} as {second!r}")
    after, checked = "", 0
    while page := rows.instances(after, _PAGE):
        for row in page:
            yield from _check_partition("it", row.instance_id, row.partition, rows)
        for stored in rows.load([row.instance_id for row in page]):
            yield from check_instance(stored, rows)
            checked += 1
        progress(checked)
        after = page[-1].instance_id
    for instance_id, message_id, event in rows.messages_to_nobody():
        if not _makes_instance(event):
            yield _finding("message", instance_id, f"there is no such instance, but message {message_id} is for it")


def _check_partition(what: str, instance_id: str, partition: int, rows: Rows) -> Iterator[Finding]:
    right = partition_of(instance_id, rows.partition_count)
    if partition != right:
        yield _finding("partition", instance_id, f"{what} is in partition {partition}, but belongs to {right}")


def _makes_instance(text: str) -> bool:
    try:
        return isinstance(decode_message(text), ExecutionStarted)
    except CorruptRecordError:
        return False


def check_instance(stored: StoredInstance, rows: Rows) -> Iterator[Finding]:
    """Return what is wrong with one instance."""
    row = stored.row
    if row is None:
        return
    try:
        instance = decode_instance(stored)
    except CorruptRecordError as error:
        yield _finding("unreadable", row.instance_id, str(error))
        return
    errors = decode_work(stored, instance)
    messages, message_errors = decode_messages(stored)
    for error in (*errors, *message_errors):
        yield _finding("unreadable", row.instance_id, str(error))
    for message in stored.messages:
        yield from _check_partition(f"message {message.message_id} to it", row.instance_id, message.partition, rows)
    history: list[HistoryEvent] = []
    found = list(_read_history(row, rows.episodes(row.partition, row.execution_id), history))
    yield from found
    if errors or message_errors or found:
        return  # what is missing would be reported as wrong
    inbox: list[Any] = [message.event for message in messages]
    if instance.is_entity:
        yield from _check_lock(instance, inbox, rows)
    else:
        yield from _check_end(instance, history)
        if not instance.is_terminal:
            yield from _Work(instance, history, inbox, rows).findings()


def _finding(rule: str, instance_id: str | None, what: str) -> Finding:
    return Finding(rule=rule, instance_id=instance_id, what=f"{what.rstrip('.')}.", advice=_ADVICE[rule])


def _read_history(
    row: InstanceRow, episodes: Sequence[tuple[int, str]], history: list[HistoryEvent]
) -> Iterator[Finding]:
    numbers = [number for number, _ in episodes]
    if numbers != list(range(row.episodes)):
        yield _finding("history", row.instance_id, f"it has {row.episodes} episodes, but stored are {numbers:}")
    for number, text in episodes:
        try:
            history.extend(decode_events(text))
        except CorruptRecordError as error:
            yield _finding("unreadable", row.instance_id, f"episode {number} of its history: {error}")
            return
    if len(history) != row.history_events:
        yield _finding("history", row.instance_id, f"it has {row.history_events} events, but stored are {len(history)}")


def _check_end(instance: Instance, history: Sequence[HistoryEvent]) -> Iterator[Finding]:
    ends = [event for event in history if isinstance(event, ExecutionCompleted)]
    status = instance.status
    if len(ends) > 1 or (ends and history[-1] is not ends[0]):
        yield _finding("end", instance.instance_id, "something follows the end of its history")
    elif ends and ends[0].status is not status:
        yield _finding(
            "end", instance.instance_id, f"it is {status.value}, but its history ends as {ends[0].status.value}"
        )
    elif not ends and status is OrchestrationStatus.COMPLETED:
        yield _finding("end", instance.instance_id, "it is Completed, but its history has no end")
    if instance.is_terminal and instance.section is not None:
        yield _finding("lock", instance.instance_id, "it has ended inside of a critical section")


def _check_lock(entity: Instance, inbox: Sequence[HistoryEvent], rows: Rows) -> Iterator[Finding]:
    lock = entity.lock
    if lock is None:
        return
    if any(isinstance(each, EntityUnlockSent) and each.critical_section_id == lock.section_id for each in inbox):
        return
    holder = _look(rows, lock.instance_id)
    section = _section_of(holder)
    if section is not None and section.section_id == lock.section_id and not section.is_lost:
        return
    if not _is_on_its_way(lock.section_id, rows):
        yield _finding(
            "lock", entity.instance_id, f"it is locked for {lock.instance_id!r}, which does not hold its lock"
        )


def _section_of(holder: StoredInstance | None) -> CriticalSectionState | None:
    if holder is None or holder.row is None:
        return None
    try:
        return decode_instance(holder).section
    except CorruptRecordError:
        return None


def _is_on_its_way(section_id: str, rows: Rows) -> bool:
    """Whether a message asks on for a section, or grants it: one for somebody who is gone is given back by the hub."""
    for text in rows.messages_about(section_id):
        try:
            event = decode_message(text)
        except CorruptRecordError:
            continue
        if isinstance(event, EntityLockRequested | EntityLockGranted) and event.critical_section_id == section_id:
            return True
    return False


def _look(rows: Rows, instance_id: str) -> StoredInstance | None:
    return next(iter(rows.load([instance_id])), None)


def _events_of(stored: StoredInstance) -> list[Any]:
    return [message.event for message in decode_messages(stored)[0]]


class _Work:
    """What an orchestration that goes on has asked for, against what there is."""

    def __init__(self, instance: Instance, history: Sequence[Any], inbox: Sequence[Any], rows: Rows) -> None:
        self._instance = instance
        self._history = history
        self._inbox = inbox
        self._rows = rows

    def findings(self) -> Iterator[Finding]:
        instance = self._instance
        if instance.status is OrchestrationStatus.PENDING and not self._inbox and not instance.timers:
            yield self._found("stuck", "it is Pending, and nothing will start it")
        yield from self._wrong_children()
        if any(
            isinstance(e, ExecutionRewound) or (isinstance(e, ExecutionStarted) and e.carried) for e in self._history
        ):
            return
        yield from self._wrong_rows()
        yield from self._wrong_calls()
        yield from self._wrong_section()

    def _found(self, rule: str, what: str) -> Finding:
        return _finding(rule, self._instance.instance_id, what)

    def _wrong_rows(self) -> Iterator[Finding]:
        history, instance = self._history, self._instance
        done = {event.task_scheduled_id for event in history if isinstance(event, _ENDS)}
        # A suspect's result is stored as a message, before the next suspect runs.
        kept = {event.task_scheduled_id for event in self._inbox if isinstance(event, TaskCompleted | TaskFailed)}
        asked = {event.event_id: event.name for event in history if isinstance(event, TaskScheduled)}
        awaited = asked.keys() - done - kept
        for number in sorted(awaited - instance.activities.keys()):
            yield self._found("lost work", f"it waits for activity {asked[number]} (#{number}), which is not stored")
        for number in sorted(instance.activities.keys() - awaited):
            yield self._found("lost work", f"activity #{number} is stored, but it does not wait for it")
        created = {
            event.event_id: event.instance_id
            for event in history
            if isinstance(event, SubOrchestrationInstanceCreated) and not event.detached
        }
        for number in sorted((created.keys() - done) ^ instance.children.keys()):
            child = created.get(number) or instance.children[number].child_instance_id
            where = "but that is not stored" if number in created.keys() - done else "which it has not asked for"
            yield self._found("lost work", f"it waits for sub-orchestration {child!r} (#{number}), {where}")
        fired = {event.timer_id for event in history if isinstance(event, TimerFired)}
        # A lease is a timer too; those below zero belong to the instance. That one was cancelled is not recorded.
        set_ = {event.event_id for event in history if isinstance(event, TimerCreated | EntityLockRequested)}
        for number in sorted({each for each in instance.timers if each >= 0} - (set_ - fired)):
            yield self._found("lost work", f"timer #{number} is stored, but it has not set it, or it has fired")

    def _wrong_children(self) -> Iterator[Finding]:
        told = {event.task_scheduled_id for event in self._inbox if isinstance(event, _CHILD_ENDS)}
        for number, child in self._instance.children.items():
            stored = _look(self._rows, child.child_instance_id)
            if number in told or (stored is not None and stored.messages):
                continue
            if stored is None or stored.row is None:
                yield self._found(
                    "lost work", f"it waits for sub-orchestration {child.child_instance_id!r}, which is gone"
                )
            elif stored.row.status in _ENDED and self._is_parent_of(stored):
                status = stored.row.status
                yield self._found(
                    "lost work", f"sub-orchestration {child.child_instance_id!r} is {status}, and it was not told"
                )

    def _is_parent_of(self, stored: StoredInstance) -> bool:
        try:
            parent = decode_instance(stored).parent
        except CorruptRecordError:
            return False
        return parent is not None and parent.execution_id == self._instance.execution_id

    def _wrong_calls(self) -> Iterator[Finding]:
        answered = {event.request_id for event in (*self._history, *self._inbox) if isinstance(event, _ANSWERS)}
        for call in self._history:
            if not isinstance(call, EntityOperationCalled) or call.request_id in answered:
                continue
            target = _look(self._rows, call.target_instance_id)
            waiting = () if target is None else _events_of(target)
            if not any(getattr(each, "request_id", "") == call.request_id for each in waiting):
                yield self._found(
                    "lost work",
                    f"it waits for operation {call.operation!r} of {call.target_instance_id}, which is nowhere",
                )

    def _wrong_section(self) -> Iterator[Finding]:
        section = self._instance.section
        if section is None or section.is_lost or self._inbox:
            return  # a message may be what grants the lock, or says that it was broken
        if not section.is_granted:
            if not _is_on_its_way(section.section_id, self._rows):
                yield self._found("lock", f"it waits for the locks of {section.lock_set}, and nobody passes them on")
            return
        for entity_id in section.lock_set:
            entity = _look(self._rows, entity_id)
            if entity is None or entity.row is None or section.section_id not in (entity.row.lock or ""):
                yield self._found("lock", f"it believes to hold the lock of {entity_id}, and does not")
