"""A store as seen over a connection that is slow, fails, or is cut; below it is a real one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from holdfast.errors import CommitFailedError, StorageError
from holdfast.storage.memory import MemoryData, MemoryStore
from holdfast.storage.port import (
    ActivityRow,
    ArrivalRow,
    ChildRow,
    Fence,
    InboxRow,
    InstanceRow,
    OperationKeyRow,
    Ownership,
    PageKey,
    Store,
    StoredInstance,
    TimerRow,
    WriteSet,
)
from holdfast.storage.selection import EndedInstance, EntityRow, InstanceConditions
from holdfast.storage.sqlite.store import SqliteStore
from holdfast.testing.crashes import Side
from holdfast.testing.faults import Trouble
from holdfast.testing.ledger import Ledger
from holdfast.testing.loop import InvariantViolation, Process, SimulatedLoop

T = TypeVar("T")

_LATENCY_US: Final = (100, 3_000)
_SLOW_US: Final = (1_000_000, 20_000_000)
_LEASE_US: Final = 5_000_000
_FAILURES_ALONE_MAX: Final = 3
"""A store that refuses the same instance more often has a reason, and the engine is right to park it."""
_KEYED: Final = {"activity": ActivityRow, "timer": TimerRow, "child": ChildRow, "operation_key": OperationKeyRow}


class Database:
    """What all hosts of a simulation share: a hub in memory, or in a file, and the ledger of what is in it."""

    def __init__(self, loop: SimulatedLoop, trouble: Trouble, ledger: Ledger, path: Path | None) -> None:
        self.loop = loop
        self.trouble = trouble
        self.ledger = ledger
        self.path = path
        self.data = MemoryData()
        self.crashes: Callable[[Side, int], bool] = lambda side, commit: False
        """Whether all hosts crash before, or after, the commit of a number; it is asked at both."""
        self.failed_alone: Counter[str] = Counter()
        """How often a commit that changes nothing but one instance has failed, by chance."""
        self._owner: SimulatedStore | None = None

    def connect(self, process: Process) -> SimulatedStore:
        """Return a new connection, which goes with its process."""
        inner = MemoryStore(self.data) if self.path is None else SqliteStore(self.path)
        return SimulatedStore(self, inner, process)

    def everything(self) -> dict[str, dict[Any, Any]]:
        """Return all rows by table and key, read from the store itself."""
        if self.path is None:
            data = self.data
            return {
                "instance": dict(data.instances),
                "history": {key: [text for _, text in sorted(rows.items())] for key, rows in data.history.items()},
                "inbox": dict(data.messages),
                "arrival": dict(data.arrivals),
                "activity": dict(data.activities),
                "timer": dict(data.timers),
                "child": dict(data.children),
                "operation_key": dict(data.operation_keys),
            }
        return _rows_of_file(self.path)

    def taken_by(self, store: SimulatedStore) -> None:
        self._owner = store

    def expire_lease(self) -> None:
        """Let somebody else have the hub if its owner has not been heard of for longer than a lease.

        Only of the hub in memory: a file is locked by its owner for as long as that exists.
        """
        owner = self._owner
        paused_at_us = None if owner is None else owner.process.paused_at_us
        if self.path is None and paused_at_us is not None and self.loop.now_us - paused_at_us > _LEASE_US:
            self.data.owner = None


class SimulatedStore:
    """One connection. What is asked for happens in the world outside, between the request and its answer."""

    mail = None
    transactions = None

    def __init__(self, database: Database, inner: Store, process: Process) -> None:
        self.process = process
        self._database = database
        self._inner = inner
        self._loop = database.loop
        self._trouble = database.trouble
        self._ledger = database.ledger
        self._on_the_way: dict[asyncio.Future[Any], Callable[[], Coroutine[Any, Any, Any]]] = {}
        process.died.append(self._cut)

    async def acquire(self, now: int, *, after_crash: bool | None = None, suspect_deliveries: int = 3) -> Ownership:
        async def acquire() -> Ownership:
            self._database.expire_lease()
            ownership = await self._inner.acquire(now, after_crash=after_crash, suspect_deliveries=suspect_deliveries)
            self._database.taken_by(self)
            self._ledger.acquired(ownership)
            return ownership

        return await self._call("acquire", acquire)

    async def renew(self, fence: Fence) -> bool:
        return await self._call("renew", lambda: self._inner.renew(fence))

    async def release(self, fence: Fence) -> None:
        await self._call("release", lambda: self._inner.release(fence))

    async def close(self) -> None:
        await self._inner.close()

    async def commit(self, fence: Fence, writes: WriteSet) -> None:
        async def commit() -> None:
            try:
                await self._inner.commit(fence, writes)
            except CommitFailedError as error:  # of itself, a store refuses only what is not exact
                raise InvariantViolation("exact counts", str(error)) from error
            self._ledger.apply(fence, writes)
            self._loop.note(self._ledger.lsn)
            self._loop.note(self._ledger.rows_changed)
            self._database.crashes("after", self._ledger.commits)

        await self._call("commit", commit, _only_instance(writes))

    async def load(self, instance_ids: list[str]) -> list[StoredInstance]:
        return await self._call("load", lambda: self._inner.load(instance_ids))

    async def load_history(
        self, instance_id: str, execution_id: str, first: int = 0, limit: int | None = None
    ) -> list[str]:
        return await self._call(
            "load_history", lambda: self._inner.load_history(instance_id, execution_id, first, limit)
        )

    async def read_instance(self, instance_id: str) -> InstanceRow | None:
        return await self._call("read_instance", lambda: self._inner.read_instance(instance_id))

    async def instances(self, after: str, limit: int) -> list[InstanceRow]:
        return await self._call("instances", lambda: self._inner.instances(after, limit))

    async def find_instances(self, wanted: InstanceConditions, after: str, limit: int) -> list[InstanceRow]:
        return await self._call("find_instances", lambda: self._inner.find_instances(wanted, after, limit))

    async def count_instances(self, wanted: InstanceConditions) -> dict[str, int]:
        return await self._call("count_instances", lambda: self._inner.count_instances(wanted))

    async def ended_instances(
        self, wanted: InstanceConditions, after: tuple[int, str], limit: int
    ) -> list[EndedInstance]:
        return await self._call("ended_instances", lambda: self._inner.ended_instances(wanted, after, limit))

    async def entities(
        self,
        prefix: str,
        after: str,
        limit: int,
        *,
        updated_from: int | None = None,
        updated_until: int | None = None,
        with_state: bool = True,
        with_empty: bool = False,
        only_parked: bool = False,
    ) -> list[EntityRow]:
        return await self._call(
            "entities",
            lambda: self._inner.entities(
                prefix,
                after,
                limit,
                updated_from=updated_from,
                updated_until=updated_until,
                with_state=with_state,
                with_empty=with_empty,
                only_parked=only_parked,
            ),
        )

    async def entities_locked(self, after: str, limit: int) -> list[EntityRow]:
        return await self._call("entities_locked", lambda: self._inner.entities_locked(after, limit))

    async def arrivals(self, after: int, limit: int) -> list[ArrivalRow]:
        return await self._call("arrivals", lambda: self._inner.arrivals(after, limit))

    async def instances_with_messages(self, after: str, limit: int) -> list[str]:
        return await self._call("instances_with_messages", lambda: self._inner.instances_with_messages(after, limit))

    async def activities_visible(self, until: int, limit: int, after: PageKey | None = None) -> list[ActivityRow]:
        return await self._call("activities_visible", lambda: self._inner.activities_visible(until, limit, after))

    async def timers_due(self, until: int, limit: int, after: PageKey | None = None) -> list[TimerRow]:
        return await self._call("timers_due", lambda: self._inner.timers_due(until, limit, after))

    async def _call(self, name: str, work: Callable[[], Coroutine[Any, Any, T]], alone: str | None = None) -> T:
        answer: asyncio.Future[T] = self._loop.create_future()

        def do() -> None:
            if self.process.is_alive:
                del self._on_the_way[answer]
                self._do(name, work, answer, alone)

        self._on_the_way[answer] = work
        self._loop.call_outside_later(self._latency_us(), do)
        return await answer

    def _latency_us(self) -> int:
        slow = self._trouble.happens("call_slow", self._trouble.faults.call_slow)
        return self._trouble.between(*(_SLOW_US if slow else _LATENCY_US))

    def _do(
        self, name: str, work: Callable[[], Coroutine[Any, Any, T]], answer: asyncio.Future[T], alone: str | None
    ) -> None:
        trouble, faults = self._trouble, self._trouble.faults
        crash = trouble.happens("crash_in_call", faults.crash_in_call)
        error: StorageError | None = None
        if crash and trouble.coin():
            self.process.kill()
            return
        if name == "commit" and self._database.crashes("before", self._ledger.commits + 1):
            return
        failures = self._database.failed_alone
        may_fail = name == "commit" and (alone is None or failures[alone] < _FAILURES_ALONE_MAX)
        if may_fail and trouble.happens("commit_refused", faults.commit_refused):
            error = CommitFailedError("The simulated store refuses this commit.")
        elif may_fail and trouble.happens("commit_unknown", faults.commit_unknown):
            error = CommitFailedError("The simulated connection was cut.", outcome_unknown=True)
            if trouble.coin():
                _at_once(work, self._loop.create_future())
        elif name != "commit" and trouble.happens("call_failed", faults.call_failed):
            error = StorageError(f"The simulated store fails to {name}.")
        if may_fail and error is not None and alone is not None:
            failures[alone] += 1
        outcome: asyncio.Future[T] = self._loop.create_future()
        if error is None:
            _at_once(work, outcome)
        else:
            outcome.set_exception(error)
        if crash:
            self.process.kill()
        self._loop.call_outside_later(self._latency_us(), _hand_over, outcome, answer)

    def _cut(self) -> None:
        """Let what a killed process had asked for be done, or not, and close its connection."""
        waiting, self._on_the_way = list(self._on_the_way.values()), {}
        for work in waiting:
            if self._trouble.coin():
                _at_once(work, self._loop.create_future())
        _run(self._inner.close())


def _rows_of_file(path: Path) -> dict[str, dict[Any, Any]]:
    """Return all rows of all tables, by a connection of its own."""

    def select(table: str, columns: Sequence[str]) -> list[tuple[Any, ...]]:
        return connection.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()

    connection = sqlite3.connect(path)
    try:
        instances = [
            InstanceRow(**dict(zip(InstanceRow.__struct_fields__, row, strict=True)))
            for row in select("instance", InstanceRow.__struct_fields__)
        ]
        history: dict[str, list[str]] = {}
        for execution_id, _, events in sorted(select("history", ("execution_id", "episode", "events"))):
            history.setdefault(execution_id, []).append(events)
        messages = [InboxRow(*row) for row in select("inbox", InboxRow.__struct_fields__)]
        arrivals = [ArrivalRow(*row) for row in select("arrival", ArrivalRow.__struct_fields__)]
        return {
            "instance": {row.instance_id: row for row in instances},
            "history": history,
            "inbox": {row.message_id: row for row in messages},
            "arrival": {row.arrival_id: row for row in arrivals},
            **{
                table: {row.key: row for row in (kind(*each) for each in select(table, kind.__struct_fields__))}
                for table, kind in _KEYED.items()
            },
        }
    finally:
        connection.close()


def _at_once(work: Callable[[], Coroutine[Any, Any, T]], outcome: asyncio.Future[T]) -> None:
    try:
        outcome.set_result(_run(work()))
    except StorageError as error:
        outcome.set_exception(error)
    outcome.exception()  # that nobody looks at it is no mistake


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run what does not wait."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    work.close()
    raise AssertionError("in the world outside nothing of a store waits")


def _only_instance(writes: WriteSet) -> str | None:
    """Return the instance of a group that is a single transition of one."""
    rows = [*writes.instances_inserted, *(update.row for update in writes.instances_updated)]
    return rows[0].instance_id if writes.lsn == writes.lsn_before + 1 and len(rows) == 1 else None


def _hand_over(outcome: asyncio.Future[T], answer: asyncio.Future[T]) -> None:
    if answer.done():
        return
    error = outcome.exception()
    if error is None:
        answer.set_result(outcome.result())
    else:
        answer.set_exception(error)
