"""Runs attempts of activities, so many at a time: when each begins, how it is stopped, what came of it."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from holdfast.engine.activity_places import ActivityPlaces
from holdfast.engine.attempts import Attempt, Listener, not_started
from holdfast.engine.clock import Clock
from holdfast.engine.config import HostConfig
from holdfast.engine.lanes import Lanes, go_on, step
from holdfast.errors import ConfigurationError, NotRegisteredError, PayloadError, VersionMismatchError
from holdfast.model.converter import DataConverter
from holdfast.model.failure import failure_from_exception
from holdfast.model.messages import DurableKey
from holdfast.model.refs import Activity
from holdfast.model.work_items import ActivityWorkItem, Failed, Outcome
from holdfast.storage.port import ArrivalRow
from holdfast.storage.transactions import Transactions


def _ignore(work_item: ActivityWorkItem, progress: str) -> None:
    """Nobody asked to be told of heartbeats."""


class ActivityRunner:
    """A queue of attempts, and those that run. Each outcome is reported once, on the loop."""

    def __init__(
        self,
        find: Callable[[str, str | None], Activity[Any, Any]],
        converter: DataConverter,
        config: HostConfig,
        clock: Clock,
        finished: Callable[[ActivityWorkItem, Outcome], None],
        progressed: Callable[[ActivityWorkItem, str], None] = _ignore,
        transactions: Transactions | None = None,
        committed: Callable[[ArrivalRow], None] | None = None,
    ) -> None:
        """Start nothing yet.

        Args:
            find: returns an activity by name and version, or raises NotRegisteredError or VersionMismatchError.
            progressed: is told, on the loop, what a running attempt reports, as JSON; of what comes faster than the
                loop turns, only the newest, but always the last before the outcome.
            transactions: those of the store, if it has any.
            committed: is told of the report of a transactional activity, instead of its outcome.
        """
        self._find = find
        self._clock = clock
        self._config = config
        self._finished = finished
        self._progressed = progressed
        self._committed = committed
        self._places = ActivityPlaces(converter, config, transactions)
        self._queue: deque[ActivityWorkItem] = deque()
        self._queued: dict[DurableKey, ActivityWorkItem] = {}
        self._running: dict[DurableKey, Attempt] = {}
        self._lanes = Lanes(self._take)
        self._listener = Listener(self._heard)
        self._is_draining = False

    @property
    def queued(self) -> int:
        return len(self._queued)

    @property
    def room(self) -> int:
        """How many more could begin at once."""
        return max(self._config.activities_max - len(self._running) - len(self._queued), 0)

    def known_keys(self) -> set[DurableKey]:
        """The keys of all attempts that are queued or running."""
        return self._queued.keys() | self._running.keys()

    def running(self) -> list[ActivityWorkItem]:
        """The attempts that run."""
        return [attempt.work_item for attempt in self._running.values()]

    def knows(self, key: DurableKey) -> bool:
        """Whether an attempt is queued or running."""
        return key in self._queued or key in self._running

    def progress(self, key: DurableKey) -> str | None:
        """What a running attempt reported last, as JSON; None if it has reported nothing, or does not run."""
        attempt = self._running.get(key)
        return None if attempt is None else attempt.progress

    def submit(self, work_item: ActivityWorkItem) -> None:
        """Run an attempt as soon as there is a place."""
        key = (work_item.execution_id, work_item.sequence)
        if key not in self._queued:
            self._queued[key] = work_item
            self._queue.append(work_item)
            self._fill()
            if work_item.start_by is not None and key in self._queued:
                delay = (work_item.start_by - self._clock.now()).total_seconds()
                asyncio.get_running_loop().call_later(max(delay, 0.0), self._expire, key, work_item)

    def _expire(self, key: DurableKey, work_item: ActivityWorkItem) -> None:
        """Fail an attempt that has waited for too long."""
        if self._queued.get(key) is work_item:
            del self._queued[key]
            self._finished(work_item, Failed(not_started(work_item)))

    def adopt(self, key: DurableKey, work_item: ActivityWorkItem) -> bool:
        """Let a running attempt answer for another activity; return whether there is one."""
        attempt = self._running.pop(key, None)
        if attempt is None:
            return False
        attempt.key, attempt.work_item = (work_item.execution_id, work_item.sequence), work_item
        self._running[attempt.key] = attempt
        return True

    def forget(self, key: DurableKey) -> None:
        """Drop one activity, if it has not started."""
        self._queued.pop(key, None)

    def forget_queued(self) -> None:
        """Drop what has not started; the store still has it."""
        self._queue.clear()
        self._queued.clear()

    def cancel(self, keys: set[DurableKey]) -> None:
        """Stop attempts and do not report them: nobody waits for them any more."""
        for key in keys & self._running.keys():
            self._running.pop(key).stop()
        # Not now: the caller may be about to drop what is queued, too.
        asyncio.get_running_loop().call_soon(self._fill)

    async def drain(self, seconds: float) -> None:
        """Start nothing more, and give what runs some time; what does not finish runs again after the next start."""
        self._is_draining = True
        self.forget_queued()
        running = [attempt.job for attempt in self._running.values()]
        if running:
            await asyncio.wait(running, timeout=seconds)
        for attempt in self._running.values():
            attempt.stop()
        await self._places.close()

    def _fill(self) -> None:
        if self._queue and len(self._running) < self._config.activities_max and not self._is_draining:
            self._lanes.wake()

    def _next(self) -> ActivityWorkItem | None:
        """Take the next attempt from the queue, if there is a place for one."""
        while self._queue and len(self._running) < self._config.activities_max and not self._is_draining:
            work_item = self._queue.popleft()
            key = work_item.key
            if self._queued.get(key) is not work_item:
                continue  # it was forgotten meanwhile
            if work_item.start_by is not None and work_item.start_by <= self._clock.now():
                self._expire(key, work_item)
                continue
            del self._queued[key]
            if key not in self._running:
                return work_item
        return None

    def _take(self, lane: asyncio.Task[None]) -> Coroutine[None, None, None] | bool:
        """Run the next attempt up to its first wait; most `async def` have ended then."""
        work_item = self._next()
        if work_item is None:
            return False
        attempt = Attempt(work_item, work_item.key, lane, self._listener)
        self._running[attempt.key] = attempt
        context = contextvars.copy_context()
        try:
            runs = self._runs(attempt)
            awaited = step(context, runs.send, None, work_item.name)
        except StopIteration as stop:
            self._end(attempt, stop.value)
        except BaseException as error:
            self._end(attempt, _outcome_of(attempt, error))
        else:
            return self._go_on(attempt, go_on(context, runs, awaited, work_item.name))
        return True

    async def _go_on(self, attempt: Attempt, rest: Awaitable[Outcome | None]) -> None:
        outcome: Outcome | None = None
        try:
            outcome = await rest
        except BaseException as error:
            outcome = _outcome_of(attempt, error)
        finally:
            self._end(attempt, outcome)

    def _end(self, attempt: Attempt, outcome: Outcome | None) -> None:
        """Report an attempt, unless nobody waits for it any more."""
        attempt.end()
        if self._running.get(attempt.key) is attempt:
            del self._running[attempt.key]
            if isinstance(outcome, Failed) and attempt.progress is not None:
                outcome = Failed(outcome.details, attempt.progress)
            if outcome is not None:
                self._finished(attempt.work_item, outcome)

    def _runs(self, attempt: Attempt) -> Coroutine[Any, Any, Outcome | None]:
        """Return what runs an attempt in the place that is meant for it.

        Raises:
            NotRegisteredError, VersionMismatchError: if this host does not have the activity.
        """
        work_item, places = attempt.work_item, self._places
        activity = self._find(work_item.name, work_item.version)
        if work_item.start_by is not None:
            attempt.limit("start", (work_item.start_by - self._clock.now()).total_seconds(), not_started(work_item))
        if activity.transactional:
            return self._transact(attempt, activity)
        match activity.runs_in:
            case "loop":
                return places.run_on_loop(activity, attempt)
            case "thread":
                return places.run_in_thread(activity, attempt)
            case "process":
                return places.run_in_process(activity, attempt)

    async def _transact(self, attempt: Attempt, activity: Activity[Any, Any]) -> Outcome | None:
        """Run a transactional activity; one that succeeds has no outcome: its report says it, from the store."""
        try:
            report = await self._places.run_in_transaction(activity, attempt)
        except (ConfigurationError, PayloadError) as error:
            return Failed(failure_from_exception(error, non_retriable=True))
        if report is not None and self._committed is not None:
            self._committed(report)
        return None

    def _heard(self, attempt: Attempt, progress: str) -> None:
        if self._running.get(attempt.key) is attempt:
            attempt.progress = progress
            attempt.expect_heartbeat()
            self._progressed(attempt.work_item, progress)


def _outcome_of(attempt: Attempt, error: BaseException) -> Outcome | None:
    """Return what becomes of an attempt that has raised. A cancelled one (the host stops) runs again.

    Raises:
        KeyboardInterrupt, GeneratorExit: the error, if it is no outcome.
    """
    match error:
        case asyncio.CancelledError() | TimeoutError() if attempt.given_up is not None:
            return Failed(attempt.given_up)
        case asyncio.CancelledError() if attempt.job.cancelling():
            return None
        case NotRegisteredError() | VersionMismatchError():
            return Failed(failure_from_exception(error, non_retriable=True))
        case KeyboardInterrupt() | GeneratorExit():
            raise error
        case _:  # of user code, which may also have cancelled itself
            return Failed(failure_from_exception(error))
