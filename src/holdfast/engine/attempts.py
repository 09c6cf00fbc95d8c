"""One attempt of an activity that runs: its clocks, what it reports, and the ways to stop it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from holdfast.engine.activity_context import CancelFlag
from holdfast.engine.activity_heartbeats import Heartbeats
from holdfast.model.failure import FailureDetails
from holdfast.model.messages import DurableKey
from holdfast.model.task_policy import PLAIN
from holdfast.model.work_items import ActivityWorkItem


class Listener:
    """Who hears what attempts report, on the loop."""

    def __init__(self, heard: Callable[[Attempt, str], None]) -> None:
        self.heard = heard
        self.lock = threading.Lock()
        """Guards a few fields of each attempt, which threads use too."""


class Attempt:
    """Runs in `job`, which may run others before and after it."""

    __slots__ = (
        "_heartbeats",
        "_is_over",
        "_limits",
        "_listener",
        "cancelled",
        "given_up",
        "job",
        "key",
        "progress",
        "work_item",
    )

    def __init__(
        self, work_item: ActivityWorkItem, key: DurableKey, job: asyncio.Task[None], listener: Listener
    ) -> None:
        self.work_item = work_item
        self.key = key
        self.job = job
        self.cancelled = CancelFlag()
        self.given_up: FailureDetails | None = None
        """Why it was stopped, if that is its outcome."""
        self.progress: str | None = None
        self._listener = listener
        self._heartbeats: Heartbeats | None = None
        self._is_over = False
        self._limits: dict[str, asyncio.TimerHandle] | None = None

    def report(self, progress: str) -> None:
        """Tell the listener of progress, as JSON; it may be called in every thread, also once the attempt is over."""
        listener = self._listener
        with listener.lock:
            if self._is_over:
                return
            if self._heartbeats is None:
                self._heartbeats = Heartbeats(self.job.get_loop(), listener.lock, self._hear)
        self._heartbeats.report(progress)

    def _hear(self, progress: str) -> None:
        self._listener.heard(self, progress)

    def begin(self) -> None:
        """Start the clocks of an attempt whose code begins to run."""
        if self._is_over:
            return
        self.unlimit()
        policy = self.work_item.policy
        if policy is not PLAIN:
            if policy.timeout is not None:
                self.limit("timeout", policy.timeout.total_seconds(), _timed_out(self.work_item))
            self.expect_heartbeat()

    def expect_heartbeat(self) -> None:
        """Give the attempt up if it is not heard of within its heartbeat timeout from now."""
        if self.work_item.policy.heartbeat_timeout is not None:
            seconds = self.work_item.policy.heartbeat_timeout.total_seconds()
            self.limit("heartbeat", seconds, _silent(self.work_item))

    def limit(self, name: str, seconds: float, failure: FailureDetails) -> None:
        """Give the attempt up after a time; a limit of the same name is replaced."""
        if self._limits is None:
            self._limits = {}
        known = self._limits.pop(name, None)
        if known is not None:
            known.cancel()
        self._limits[name] = self.job.get_loop().call_later(max(seconds, 0.0), self.give_up, failure)

    def unlimit(self) -> None:
        """Stop all clocks."""
        if self._limits is not None:  # most attempts have none
            for handle in self._limits.values():
                handle.cancel()
            self._limits = None

    def end(self) -> None:
        """Note that its code runs no more, but for one in a thread that does not look."""
        with self._listener.lock:
            self._is_over = True
        if self._limits is not None:
            self.unlimit()
        if self._heartbeats is not None:
            self._heartbeats.end()

    def stop(self) -> None:
        """Let the attempt end now, without an outcome; only one in a thread may go on, if it does not look."""
        self.cancelled.set()
        self.job.cancel()

    def give_up(self, failure: FailureDetails) -> None:
        """Let the attempt end now, with a failure for an outcome."""
        if self.given_up is None:
            self.given_up = failure
            self.stop()


def _timed_out(work_item: ActivityWorkItem) -> FailureDetails:
    return FailureDetails(
        "builtins.TimeoutError",
        f"Attempt {work_item.attempt} of activity {work_item.name!r} took longer than {work_item.policy.timeout}.",
    )


def _silent(work_item: ActivityWorkItem) -> FailureDetails:
    return FailureDetails(
        "builtins.TimeoutError",
        f"Attempt {work_item.attempt} of activity {work_item.name!r} gave no heartbeat for "
        f"{work_item.policy.heartbeat_timeout}.",
    )


def not_started(work_item: ActivityWorkItem) -> FailureDetails:
    return FailureDetails(
        "builtins.TimeoutError",
        f"Attempt {work_item.attempt} of activity {work_item.name!r} found no place to run before its start_timeout.",
        is_non_retriable=True,
    )
