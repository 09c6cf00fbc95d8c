"""What must hold of the rows of a task hub that nobody runs on: after a crash, and when all work is done.

`complaints` holds at every moment at which a process may die, since every transition is stored whole:

- activities, timers, children and history belong to the current execution of an instance that is there; the first
  three only while it has not ended;
- the episodes of an execution count from 0 without a gap, as many as its row says, with as many events;
- what the history has asked for and not been told the end of is exactly what there are rows for (or messages, where
  the answer has come): so whoever waits, waits for something;
- a message is for an instance that is there, or that it will make;
- an entity is locked for a section that its holder has; or the message is on its way that will unlock it, or grant it;
- an idempotency key belongs to an entity that is there.

`leftovers` is what there may not be besides, once all orchestrations have ended and all timers have fired.
An execution that was rewound, or that carries work over, is not held to the third rule: it may wait for work that an
earlier one asked for.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from holdfast.codec.history import decode_events, decode_message, decode_record
from holdfast.hub.instance import CriticalSectionState, LockHolder
from holdfast.model.history import (
    EntityLockGranted,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    EntityUnlockSent,
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
from holdfast.model.status import OrchestrationStatus
from holdfast.storage.memory import MemoryData
from holdfast.storage.port import (
    ActivityRow,
    ChildRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    OperationKeyRow,
    TimerRow,
)


class Rows(msgspec.Struct, kw_only=True):
    """Everything that a store holds."""

    lsn: int
    instances: list[InstanceRow]
    history: list[HistoryRow]
    messages: list[InboxRow]
    activities: list[ActivityRow]
    timers: list[TimerRow]
    children: list[ChildRow]
    operation_keys: list[OperationKeyRow]
    partition_count: int = 1


def rows_in_memory(data: MemoryData) -> Rows:
    return Rows(
        lsn=data.lsn,
        instances=list(data.instances.values()),
        history=[
            HistoryRow(0, execution_id, episode, events)
            for execution_id, episodes in data.history.items()
            for episode, events in episodes.items()
        ],
        messages=list(data.messages.values()),
        activities=list(data.activities.values()),
        timers=list(data.timers.values()),
        children=list(data.children.values()),
        operation_keys=list(data.operation_keys.values()),
    )


def rows_in_file(path: Path) -> Rows:
    """Read a file with SQLite alone, which must find it sound. One in which no host has come up yet holds nothing."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}

        def read(kind: Any, table: str) -> list[Any]:
            names = kind.__struct_fields__
            rows = connection.execute(f"SELECT * FROM {table}") if table in tables else ()
            return [kind(**dict(zip(names, row, strict=True))) for row in rows]

        node = connection.execute("SELECT lsn FROM node").fetchone() if "node" in tables else None
        return Rows(
            lsn=node[0] if node else 0,
            instances=read(InstanceRow, "instance"),
            history=read(HistoryRow, "history"),
            messages=read(InboxRow, "inbox"),
            activities=read(ActivityRow, "activity"),
            timers=read(TimerRow, "timer"),
            children=read(ChildRow, "child"),
            operation_keys=read(OperationKeyRow, "operation_key"),
        )


def complaints(rows: Rows, may_wait_for_events: Collection[str]) -> list[str]:
    """Return what is wrong with what a process may have left behind.

    Of what an orchestration waits for, only an event leaves no trace: so name the orchestrators that may wait for one.
    """
    return list(_Check(rows, may_wait_for_events).complaints())


def leftovers(rows: Rows) -> list[str]:
    """Return what is there although all work is done."""
    found = [f"a row is left over: {row}" for row in (*rows.messages, *rows.activities, *rows.timers, *rows.children)]
    found += [f"{row.instance_id} is still locked" for row in rows.instances if row.lock is not None]
    found += [
        f"{row.instance_id} is {row.status}" for row in rows.instances if not _is_entity(row) and not _has_ended(row)
    ]
    return complaints(rows, ()) + found


def _is_entity(row: InstanceRow) -> bool:
    return row.instance_id.startswith("@")


def _has_ended(row: InstanceRow) -> bool:
    return OrchestrationStatus(row.status).is_terminal


def _waits_for_lock(row: InstanceRow) -> bool:
    section = None if row.lock is None else decode_record(row.lock, CriticalSectionState)
    return section is not None and not section.is_granted and not section.is_lost


_ENDS = TaskCompleted | TaskFailed | TaskCancelled | SubOrchestrationInstanceCompleted | SubOrchestrationInstanceFailed


class _Check:
    def __init__(self, rows: Rows, may_wait_for_events: Collection[str]) -> None:
        self._rows = rows
        self._may_wait_for_events = may_wait_for_events
        self._instances = {row.instance_id: row for row in rows.instances}
        self._executions = {row.execution_id: row for row in rows.instances}
        self._inbox: defaultdict[str, list[Any]] = defaultdict(list)
        for message in sorted(rows.messages, key=lambda row: row.message_id):
            self._inbox[message.instance_id].append(decode_message(message.event))
        self._history: defaultdict[str, dict[int, tuple[HistoryEvent, ...]]] = defaultdict(dict)
        for row in rows.history:
            self._history[row.execution_id][row.episode] = decode_events(row.events)
        self._lock_requests = [
            event for events in self._inbox.values() for event in events if isinstance(event, EntityLockRequested)
        ]

    def complaints(self) -> Iterator[str]:
        if len(self._instances) != len(self._rows.instances) or len(self._executions) != len(self._rows.instances):
            yield "two instances have one id, or one execution"
        yield from self._orphans()
        for row in self._rows.instances:
            yield from self._wrong_history(row)
            if _is_entity(row):
                yield from self._wrong_lock(row)
            elif not _has_ended(row):
                yield from self._wrong_work(row)
            elif row.lock is not None:
                yield f"{row.instance_id} has ended in its critical section: {row.lock}"

    def _orphans(self) -> Iterator[str]:
        for work in (*self._rows.activities, *self._rows.timers, *self._rows.children):
            owner = self._executions.get(work.execution_id)
            if owner is None or owner.instance_id != work.instance_id or _has_ended(owner):
                yield f"nobody asks for {work}"
        for execution_id in self._history.keys() - self._executions.keys():
            yield f"nobody has the history of execution {execution_id}"
        for instance_id, events in self._inbox.items():
            is_made = isinstance(events[0], ExecutionStarted) or instance_id.startswith("@")
            if instance_id not in self._instances and not is_made:
                yield f"nobody gets the messages to {instance_id}: {events}"
        for key in self._rows.operation_keys:
            if key.instance_id not in self._instances or not key.instance_id.startswith("@"):
                yield f"nobody remembers {key}"

    def _wrong_history(self, row: InstanceRow) -> Iterator[str]:
        episodes = self._history.get(row.execution_id, {})
        if sorted(episodes) != list(range(row.episodes)):
            yield f"{row.instance_id} has {row.episodes} episodes, but there are {sorted(episodes)}"
        found = sum(len(events) for events in episodes.values())
        if found != row.history_events:
            yield f"{row.instance_id} has {row.history_events} events, but there are {found}"

    def _events(self, row: InstanceRow) -> list[Any]:
        return [event for _, events in sorted(self._history[row.execution_id].items()) for event in events]

    def _wrong_work(self, row: InstanceRow) -> Iterator[str]:
        id_, history, inbox = row.instance_id, self._events(row), self._inbox[row.instance_id]
        activities, timers, children = (
            {each.sequence for each in kind if each.execution_id == row.execution_id}
            for kind in (self._rows.activities, self._rows.timers, self._rows.children)
        )
        if row.status == OrchestrationStatus.PENDING and not inbox and not timers:
            yield f"{id_} is pending, and nothing will start it"
        if any(isinstance(e, ExecutionRewound) or (isinstance(e, ExecutionStarted) and e.carried) for e in history):
            return
        done = {event.task_scheduled_id for event in history if isinstance(event, _ENDS)}
        # A suspect's result is stored as a message, before the next suspect runs.
        kept = {event.task_scheduled_id for event in inbox if isinstance(event, TaskCompleted | TaskFailed)}
        waits_for_activities = {event.event_id for event in history if isinstance(event, TaskScheduled)} - done
        if waits_for_activities - kept != activities:
            yield f"{id_} waits for activities {waits_for_activities - kept}, but stored are {activities}"
        waits_for_children = {
            event.event_id
            for event in history
            if isinstance(event, SubOrchestrationInstanceCreated) and not event.detached
        } - done
        if waits_for_children != children:
            yield f"{id_} waits for sub-orchestrations {waits_for_children}, but stored are {children}"
        fired = {event.timer_id for event in history if isinstance(event, TimerFired)}
        # A lease is a timer too; those below zero belong to the instance. That one was cancelled is not recorded.
        asked = {event.event_id for event in history if isinstance(event, TimerCreated | EntityLockRequested)}
        if not {each for each in timers if each >= 0} <= asked - fired:
            yield f"{id_} has asked for timers {asked}, of which {fired} have fired, but stored are {timers}"
        yield from self._wrong_calls(row, history, inbox)
        calls = self._open_calls(history, inbox)
        has_reason = inbox or activities or timers or children or calls or _waits_for_lock(row)
        if not has_reason and row.name not in self._may_wait_for_events:
            yield f"{id_} waits for nothing"

    def _open_calls(self, history: list[Any], inbox: list[Any]) -> list[EntityOperationCalled]:
        answers = EntityOperationCompleted | EntityOperationFailed
        answered = {event.request_id for event in [*history, *inbox] if isinstance(event, answers)}
        calls = [event for event in history if isinstance(event, EntityOperationCalled)]
        return [call for call in calls if call.request_id not in answered]

    def _wrong_calls(self, row: InstanceRow, history: list[Any], inbox: list[Any]) -> Iterator[str]:
        for call in self._open_calls(history, inbox):
            if call.request_id not in {
                getattr(each, "request_id", "") for each in self._inbox[call.target_instance_id]
            }:
                yield f"{row.instance_id} waits for a call that is nowhere: {call}"
        if row.lock is None or inbox:
            return  # a message may be what grants the lock, or says that it was broken
        section = decode_record(row.lock, CriticalSectionState)
        if section.is_granted and not section.is_lost:
            for instance_id in section.lock_set:
                entity = self._instances.get(instance_id)
                if entity is None or entity.lock is None or section.section_id not in entity.lock:
                    yield f"{row.instance_id} believes to hold the lock of {instance_id}: {section}"
        elif not section.is_lost and section.section_id not in {
            each.critical_section_id for each in self._lock_requests
        }:
            yield f"{row.instance_id} waits for a lock that nobody passes on: {section}"

    def _wrong_lock(self, entity: InstanceRow) -> Iterator[str]:
        if entity.lock is None:
            return
        lock = decode_record(entity.lock, LockHolder)
        if any(
            isinstance(each, EntityUnlockSent) and each.critical_section_id == lock.section_id
            for each in self._inbox[entity.instance_id]
        ):
            return
        holder = self._instances.get(lock.instance_id)
        section = None if holder is None or holder.lock is None else decode_record(holder.lock, CriticalSectionState)
        is_held = section is not None and section.section_id == lock.section_id and not section.is_lost
        on_its_way = {each.critical_section_id for each in self._lock_requests} | {
            each.critical_section_id for each in self._inbox[lock.instance_id] if isinstance(each, EntityLockGranted)
        }
        # A request on its way for somebody who is gone comes back as a grant, which the hub gives back.
        if not is_held and lock.section_id not in on_its_way:
            yield f"{entity.instance_id} is locked for {lock}, who does not hold it"
