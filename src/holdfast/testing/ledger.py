"""A second opinion on what is in a store: it follows every commit, and says at once when one of them breaks a rule.

It shares no code with the stores. What it checks is listed, with names, in the documentation of the simulator.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from typing import Final, NoReturn, TypeVar, cast

import msgspec

from holdfast.codec.history import decode_events
from holdfast.model.history import ExecutionRewound, HistoryEvent, TaskScheduled
from holdfast.model.status import OrchestrationStatus
from holdfast.storage.port import (
    ActivityRow,
    ArrivalRow,
    ChildRow,
    Fence,
    InboxRow,
    InstanceRow,
    OperationKeyRow,
    Ownership,
    TimerRow,
    WriteSet,
)
from holdfast.testing.fold import ExecutionFold
from holdfast.testing.loop import InvariantViolation

_Key = TypeVar("_Key", bound=Hashable)
_Row = TypeVar("_Row")

_ENDED: Final = frozenset(status for status in OrchestrationStatus if status.is_terminal)
_CHILD_ENDS: Final = re.compile(r'"type":"SubOrchestrationInstance(?:Completed|Failed)".*"task_scheduled_id":(-?\d+)')


class Ledger:
    """What is durable, by the sum of all commits."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self.incarnation = 0
        self.lsn = 0
        self.instances: dict[str, InstanceRow] = {}
        self.history: dict[str, list[str]] = {}
        self.folds: dict[str, ExecutionFold] = {}
        self.messages: dict[int, InboxRow] = {}
        self.arrivals: dict[int, ArrivalRow] = {}
        """By id; the store gives ids without gaps."""
        self.activities: dict[tuple[str, int], ActivityRow] = {}
        self.timers: dict[tuple[str, int], TimerRow] = {}
        self.children: dict[tuple[str, int], ChildRow] = {}
        self.operation_keys: dict[tuple[str, str], OperationKeyRow] = {}
        self.texts: list[str] = []
        """Every message, episode and entity state that ever became durable, in order."""
        self.attempts: dict[tuple[str, int], int] = {}
        """For each activity that ever became durable, the attempts that did."""
        self.scheduled: list[tuple[str, TaskScheduled]] = []
        """Every call of an activity, with its execution, in the order in which they became durable."""
        self.purged: set[str] = set()
        """Orchestrations that were removed once; there may be others by now with the same ids."""
        self.commits = 0
        self.rows_changed = 0
        self._message_ids: set[int] = set()
        self._arrived = 0
        self._timer_keys: set[tuple[str, int]] = set()
        self._executions_gone: set[str] = set()
        self._keys_ever: set[tuple[str, str]] = set()
        self._now_us = now_us

    def acquired(self, ownership: Ownership) -> None:
        """Follow a change of owner."""
        if ownership.fence.incarnation <= self.incarnation:
            self._broken("one owner", f"incarnation {ownership.fence.incarnation} was given before")
        if ownership.lsn != self.lsn:
            self._broken("one order", f"the new owner begins at {ownership.lsn}, but {self.lsn} is durable")
        self.incarnation = ownership.fence.incarnation

    def apply(self, fence: Fence, writes: WriteSet) -> None:
        """Follow a group that a store has taken in.

        Raises:
            InvariantViolation: if it should not have.
        """
        if fence.incarnation != self.incarnation:
            self._broken("one owner", f"incarnation {fence.incarnation} writes; the owner is {self.incarnation}")
        if writes.lsn_before != self.lsn or writes.lsn <= self.lsn:
            self._broken("one order", f"a group from {writes.lsn_before} to {writes.lsn} follows {self.lsn}")
        self.commits += 1
        self.rows_changed += _count(writes)
        self.lsn = writes.lsn
        replaced = self._replaced(writes)
        self._take_out(writes)
        self._put_in(writes)
        self._change_instances(writes)
        self._add_history(writes)
        for row in writes.instances_inserted:
            self._check_instance(row)
        for update in writes.instances_updated:
            self._check_instance(update.row)
        self._check_ends_leave_nothing(writes)
        self._check_orphans(writes, replaced)
        self._check_children(writes)

    def ever_said(self, token: str) -> bool:
        """Whether something durable ever contained a text."""
        return any(token in text for text in reversed(self.texts))

    def ever_had_key(self, instance_id: str, key: str) -> bool:
        """Whether an entity remembers, or remembered, an idempotency key, or is about to."""
        if (instance_id, key) in self._keys_ever:
            return True
        said = f'"key":{msgspec.json.encode(key).decode()}'
        waiting = [row.event for row in self.messages.values() if row.instance_id == instance_id]
        waiting += [
            row.event for row in self.timers.values() if row.instance_id == instance_id and row.event is not None
        ]
        return any(said in event for event in waiting)

    # The tables

    def _take_out(self, writes: WriteSet) -> None:
        for _, message_id in writes.messages_removed:
            self._remove("message", self.messages, message_id)
        for _, arrival_id in writes.arrivals_removed:
            self._remove("arrival", self.arrivals, arrival_id)
        for key in writes.activities_removed:
            self._remove("activity", self.activities, key[1:])
        for key in writes.timers_removed:
            self._remove("timer", self.timers, key[1:])
        for key in writes.children_removed:
            self._remove("child", self.children, key[1:])
        for key in writes.operation_keys_removed:
            self._remove("operation key", self.operation_keys, key[1:])
        for _, execution_id, count in writes.executions_removed:
            if len(self.history.pop(execution_id, [])) != count:
                self._broken("exact counts", f"execution {execution_id} has not {count} episodes to remove")
            self.folds.pop(execution_id, None)
            self._executions_gone.add(execution_id)

    def _put_in(self, writes: WriteSet) -> None:
        for row in writes.messages_inserted:
            self._once("message", self._message_ids, row.message_id)
            self.messages[row.message_id] = row
            self.texts.append(row.event)
        for row in writes.arrivals_inserted:
            self._arrived += 1
            self.arrivals[self._arrived] = msgspec.structs.replace(row, arrival_id=self._arrived)
            self.texts.append(row.event)
        for row in writes.activities_inserted:
            if row.key in self.attempts:
                self._broken("once", f"activity {row.key} was there before")
            self.activities[row.key] = row
            self.attempts[row.key] = row.attempt
        for row in writes.activities_updated:
            if row.key not in self.activities:
                self._broken("exact counts", f"activity {row.key} is changed, but is not there")
            self.activities[row.key] = row
            self.attempts[row.key] = max(row.attempt, self.attempts[row.key])
        for row in writes.timers_inserted:
            self._once("timer", self._timer_keys, row.key)
            self.timers[row.key] = row
            if row.event is not None:
                self.texts.append(row.event)
        for row in writes.children_inserted:
            self._insert("child", self.children, row.key, row)
        for row in writes.operation_keys_inserted:
            self._insert("operation key", self.operation_keys, row.key, row)
            self._keys_ever.add(row.key)

    def _change_instances(self, writes: WriteSet) -> None:
        before = dict(self.instances) if writes.instances_removed else self.instances
        for _, instance_id, revision in writes.instances_removed:
            known = self._remove("instance", self.instances, instance_id)
            if known.revision != revision:
                self._broken("exact counts", f"{instance_id} is removed with revision {revision}, not {known.revision}")
            if not instance_id.startswith("@"):
                self._check_purge(known)
        steps = 0
        for update in writes.instances_updated:
            known = before.get(update.row.instance_id)
            if known is None or known.revision != update.revision_before:
                stored = None if known is None else known.revision
                self._broken(
                    "revisions",
                    f"{update.row.instance_id} is changed from revision {update.revision_before}; stored is {stored}",
                )
            steps += update.row.revision - update.revision_before
            self._check_change(known, update.row)
            self.instances[update.row.instance_id] = update.row
        for row in writes.instances_inserted:
            self._insert("instance", self.instances, row.instance_id, row)
            steps += row.revision
        if steps > writes.lsn - writes.lsn_before and not writes.instances_removed:
            self._broken("revisions", f"{steps} steps of instances in {writes.lsn - writes.lsn_before} transitions")

    def _check_purge(self, row: InstanceRow) -> None:
        self.purged.add(row.instance_id)
        if OrchestrationStatus(row.status) not in _ENDED:
            self._broken("only ends are purged", f"{row.instance_id} is removed, but is {row.status}")
        if row.execution_id in self.history:
            self._broken("only ends are purged", f"{row.instance_id} is removed, but its history is not")

    def _check_change(self, before: InstanceRow, after: InstanceRow) -> None:
        if after.revision <= before.revision:
            self._broken("revisions", f"{after.instance_id} goes from {before.revision} to {after.revision}")
        if before.execution_id != after.execution_id:
            if after.execution_id in self._executions_gone:
                self._broken("executions", f"execution {after.execution_id} is used again")
            return
        was, now = OrchestrationStatus(before.status), OrchestrationStatus(after.status)
        result = (before.status, before.output, before.failure)
        if was in _ENDED and result != (after.status, after.output, after.failure):
            self._broken("final results", f"{after.instance_id} had ended {result}; now it is {after.status}")
        if was is not OrchestrationStatus.PENDING and now is OrchestrationStatus.PENDING:
            self._broken("status goes forward", f"{after.instance_id} goes from {was} back to {now}")
        if after.episodes < before.episodes:
            self._broken("history", f"{after.instance_id} goes from {before.episodes} episodes to {after.episodes}")

    def _add_history(self, writes: WriteSet) -> None:
        for row in writes.history_inserted:
            episodes = self.history.setdefault(row.execution_id, [])
            if row.episode != len(episodes):
                self._broken("history", f"episode {row.episode} of {row.execution_id} comes after {len(episodes)}")
            if row.execution_id in self._executions_gone:
                self._broken("executions", f"execution {row.execution_id} is written to after its end")
            episodes.append(row.events)
            self.texts.append(row.events)
            fold = self.folds.setdefault(row.execution_id, ExecutionFold())
            events = decode_events(row.events)
            self._note_calls(row.execution_id, events)
            problem = fold.add(events, self._now_us())
            if problem is not None:
                self._broken(problem[0], f"execution {row.execution_id}, episode {row.episode}: {problem[1]}")

    def _note_calls(self, execution_id: str, events: tuple[HistoryEvent, ...]) -> None:
        for event in events:
            if isinstance(event, ExecutionRewound):  # what came before was taken over, and is here already
                self.scheduled = [each for each in self.scheduled if each[0] != execution_id]
            elif isinstance(event, TaskScheduled):
                self.scheduled.append((execution_id, event))

    def _check_instance(self, row: InstanceRow) -> None:
        if row.instance_id.startswith("@"):
            if row.state is not None:
                self.texts.append(row.state)
            return
        episodes = self.history.get(row.execution_id, [])
        if row.episodes != len(episodes):
            self._broken("history", f"{row.instance_id} says {row.episodes} episodes; stored are {len(episodes)}")
        fold = self.folds.get(row.execution_id)
        ended = OrchestrationStatus(row.status) in _ENDED
        recorded = None if fold is None else fold.completed
        if ended != (recorded is not None):
            self._broken("status is the history's", f"{row.instance_id} is {row.status}; its history says {recorded}")
        if recorded is not None and recorded.status != row.status:
            self._broken("status is the history's", f"{row.instance_id} is {row.status}, not {recorded.status}")

    def _work_of(self, execution_id: str) -> list[tuple[str, int]]:
        """Return the keys of what is open for an execution."""
        return [
            key for table in (self.activities, self.timers, self.children) for key in table if key[0] == execution_id
        ]

    def _check_ends_leave_nothing(self, writes: WriteSet) -> None:
        changed = [update.row for update in writes.instances_updated]
        for row in (*changed, *writes.instances_inserted):
            if row.instance_id.startswith("@") or OrchestrationStatus(row.status) not in _ENDED:
                continue
            if left := self._work_of(row.execution_id):
                self._broken("ends leave nothing", f"{row.instance_id} has ended, and still has {left}")

    def _replaced(self, writes: WriteSet) -> list[tuple[str, str]]:
        """Return what a group is about to replace: (instance, its execution so far)."""
        return [
            (update.row.instance_id, known.execution_id)
            for update in writes.instances_updated
            if (known := self.instances.get(update.row.instance_id)) is not None
            and known.execution_id != update.row.execution_id
        ]

    def _check_orphans(self, writes: WriteSet, replaced: list[tuple[str, str]]) -> None:
        for instance_id, execution_id in replaced:
            left = self._work_of(execution_id)
            if left or execution_id in self.history:
                self._broken("no orphans", f"{instance_id} is in another execution; of {execution_id} is left: {left}")
        for work in (*writes.activities_inserted, *writes.timers_inserted, *writes.children_inserted):
            owner = self.instances.get(work.instance_id)
            if owner is None or owner.execution_id != work.execution_id:
                self._broken("no orphans", f"work {work.key} of {work.instance_id} belongs to no current execution")

    def _check_children(self, writes: WriteSet) -> None:
        """Hold that a sub-orchestration that has ended has told its parent, as long as that waits for it."""
        touched = {update.row.instance_id for update in writes.instances_updated}
        touched.update(row.instance_id for row in writes.instances_inserted)
        for child in self.children.values():
            if child.child_instance_id not in touched:
                continue
            row = self.instances.get(child.child_instance_id)
            if row is None or OrchestrationStatus(row.status) not in _ENDED or not _is_child_of(row, child):
                continue
            if not any(_tells(message, child) for message in self.messages.values()):
                self._broken(
                    "parents are told", f"{child.child_instance_id} is {row.status}; {child.instance_id} is not told"
                )

    def _remove(self, what: str, table: dict[_Key, _Row], key: _Key) -> _Row:
        if key not in table:
            self._broken("exact counts", f"{what} {key} is removed, but is not there")
        return table.pop(key)

    def _insert(self, what: str, table: dict[_Key, _Row], key: _Key, row: _Row) -> None:
        if key in table:
            self._broken("exact counts", f"{what} {key} is inserted twice")
        table[key] = row

    def _once(self, what: str, known: set[_Key], key: _Key) -> None:
        if key in known:
            self._broken("once", f"{what} {key} was there before")
        known.add(key)

    def _broken(self, rule: str, what: str) -> NoReturn:
        raise InvariantViolation(rule, f"{what} (commit {self.commits}, lsn {self.lsn})")


def _count(writes: WriteSet) -> int:
    fields = cast(tuple[object, ...], msgspec.structs.astuple(writes))
    return sum(len(cast(list[object], rows)) for rows in fields if isinstance(rows, list))


def _is_child_of(row: InstanceRow, child: ChildRow) -> bool:
    return row.parent is not None and child.execution_id in row.parent


def _tells(message: InboxRow, child: ChildRow) -> bool:
    if (message.instance_id, message.execution_id) != (child.instance_id, child.execution_id):
        return False
    found = _CHILD_ENDS.search(message.event)
    return found is not None and int(found[1]) == child.sequence
