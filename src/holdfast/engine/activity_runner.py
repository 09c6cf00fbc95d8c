"""Runs activities: `async def` on the loop, `def` in threads, `process=True` in processes; so many at a time."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import importlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta
from typing import Any, Final

from holdfast.codec.converter import JsonConverter
from holdfast.codec.history import decode_record, encode_record
from holdfast.engine.activity_context import CURRENT, ActivityContext
from holdfast.engine.config import HostConfig
from holdfast.errors import HoldfastError, NotRegisteredError
from holdfast.model.converter import DataConverter
from holdfast.model.failure import FailureDetails, failure_from_exception
from holdfast.model.messages import DurableKey
from holdfast.model.refs import Activity, decode_input
from holdfast.model.work_items import ActivityWorkItem, Failed, Outcome, Succeeded
from holdfast.registry.registry import Registry

ACTIVITY_THREADS: Final = "holdfast-activity"
"""How the names of the threads begin in which activities run."""


class ActivityRunner:
    """A queue of attempts, and the places where they run. Each outcome is reported once, on the loop."""

    def __init__(
        self,
        registry: Registry,
        converter: DataConverter,
        config: HostConfig,
        finished: Callable[[ActivityWorkItem, Outcome], None],
    ) -> None:
        self._registry = registry
        self._converter = converter
        self._config = config
        self._finished = finished
        self._queue: deque[ActivityWorkItem] = deque()
        self._queued: dict[DurableKey, ActivityWorkItem] = {}
        self._running: dict[DurableKey, tuple[ActivityWorkItem, asyncio.Task[None]]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._processes: ProcessPoolExecutor | None = None
        self._is_draining = False

    @property
    def queued(self) -> int:
        return len(self._queued)

    def known_keys(self) -> set[DurableKey]:
        """The keys of all attempts that are queued or running."""
        return self._queued.keys() | self._running.keys()

    def knows(self, key: DurableKey) -> bool:
        """Whether an attempt is queued or running."""
        return key in self._queued or key in self._running

    def submit(self, work_item: ActivityWorkItem) -> None:
        """Run an attempt as soon as there is a place."""
        key = (work_item.execution_id, work_item.sequence)
        if key not in self._queued:
            self._queued[key] = work_item
            self._queue.append(work_item)
            self._fill()

    def forget(self, key: DurableKey) -> None:
        """Drop one activity, if it has not started."""
        self._queued.pop(key, None)

    def forget_queued(self) -> None:
        """Drop what has not started; the store still has it."""
        self._queue.clear()
        self._queued.clear()

    def cancel(self, keys: set[DurableKey]) -> None:
        """Stop attempts and do not report them: their cause was lost."""
        for key in keys & self._running.keys():
            self._running.pop(key)[1].cancel()

    async def drain(self, seconds: float) -> None:
        """Start nothing more, and give what runs some time; what does not finish runs again after the next start."""
        self._is_draining = True
        self.forget_queued()
        running = [job for _, job in self._running.values()]
        if running:
            await asyncio.wait(running, timeout=seconds)
        for _, job in list(self._running.values()):
            job.cancel()
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._processes is not None:
            self._processes.shutdown(wait=False, cancel_futures=True)

    def _fill(self) -> None:
        loop = asyncio.get_running_loop()
        while self._queue and len(self._running) < self._config.activities_max and not self._is_draining:
            work_item = self._queue.popleft()
            key = (work_item.execution_id, work_item.sequence)
            if self._queued.get(key) is not work_item:
                continue  # it was forgotten meanwhile
            del self._queued[key]
            if key not in self._running:
                self._running[key] = (work_item, loop.create_task(self._attempt(work_item, key)))

    async def _attempt(self, work_item: ActivityWorkItem, key: DurableKey) -> None:
        outcome: Outcome | None = None
        try:
            outcome = await self._outcome(work_item)
        finally:
            entry = self._running.get(key)
            is_mine = entry is not None and entry[0] is work_item
            if is_mine:
                del self._running[key]
            if outcome is not None and is_mine:
                self._finished(work_item, outcome)
            if not self._is_draining:
                self._fill()

    async def _outcome(self, work_item: ActivityWorkItem) -> Outcome:
        """Run one attempt. A cancelled one (the host stops) has no outcome and will run again."""
        try:
            activity = self._registry.activity(work_item.name)
            if work_item.timeout is None:
                return await self._call(activity, work_item)
            return await self._call_within(work_item.timeout, activity, work_item)
        except asyncio.CancelledError as error:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            return Failed(failure_from_exception(error))  # user code cancelled itself
        except NotRegisteredError as error:
            return Failed(failure_from_exception(error, non_retriable=True))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return Failed(failure_from_exception(error))

    async def _call_within(
        self, timeout: timedelta, activity: Activity[Any, Any], work_item: ActivityWorkItem
    ) -> Outcome:
        limit = asyncio.timeout(timeout.total_seconds())
        try:
            async with limit:
                return await self._call(activity, work_item)
        except TimeoutError as error:
            return Failed(_timed_out(work_item) if limit.expired() else failure_from_exception(error))

    async def _call(self, activity: Activity[Any, Any], work_item: ActivityWorkItem) -> Outcome:
        context = ActivityContext(
            work_item.instance_id,
            work_item.execution_id,
            work_item.sequence,
            work_item.name,
            work_item.attempt,
            work_item.call_id,
        )
        if activity.runs_in == "process":
            return await self._call_in_process(activity, work_item, context)
        arguments: list[Any] = []
        if activity.has_input:
            arguments.append(decode_input(self._converter, activity, work_item.input))
        CURRENT.set(context)
        if activity.runs_in == "loop":
            result = await activity.function(*arguments)
        else:
            copied = contextvars.copy_context()
            call = functools.partial(copied.run, _without_stop_iteration, activity.function, *arguments)
            result = await asyncio.get_running_loop().run_in_executor(self._thread_pool(), call)
        return Succeeded(self._converter.encode(result))

    async def _call_in_process(
        self, activity: Activity[Any, Any], work_item: ActivityWorkItem, context: ActivityContext
    ) -> Outcome:
        function = activity.function
        call = functools.partial(
            run_in_process,
            function.__module__,
            function.__qualname__,
            work_item.input,
            encode_record(context),
            self._config.limits.payload_bytes_max,
        )
        try:
            succeeded, text = await asyncio.get_running_loop().run_in_executor(self._process_pool(), call)
        except BrokenProcessPool as error:
            self._processes = None
            raise HoldfastError(f"The process that ran activity {work_item.name!r} died.") from error
        return Succeeded(text) if succeeded else Failed(decode_record(text, FailureDetails))

    def _thread_pool(self) -> Executor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._config.threads_max, thread_name_prefix=ACTIVITY_THREADS)
        return self._threads

    def _process_pool(self) -> Executor:
        if self._processes is None:
            # "spawn" on every platform: a forked child would share connections and locks with this process.
            spawn = multiprocessing.get_context("spawn")
            self._processes = ProcessPoolExecutor(
                self._config.processes_max, mp_context=spawn, initializer=follow_parent
            )
        return self._processes


def _without_stop_iteration(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; a future cannot carry a StopIteration, so it becomes what a coroutine makes of it."""
    try:
        return function(*arguments)
    except StopIteration as error:
        raise RuntimeError(f"{getattr(function, '__name__', function)!r} raised StopIteration") from error


def _timed_out(work_item: ActivityWorkItem) -> FailureDetails:
    return FailureDetails(
        "builtins.TimeoutError",
        f"Attempt {work_item.attempt} of activity {work_item.name!r} took longer than {work_item.timeout}.",
    )


def follow_parent() -> None:
    """Let a worker process end with the host, however that ends; an interrupt of both is left to the host."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def run_in_process(
    module: str, qualname: str, input: str | None, context: str, payload_bytes_max: int
) -> tuple[bool, str]:
    """Run an activity in a worker process, found by its name; only texts cross the boundary.

    Returns:
        True and the result as JSON, or False and the failure as JSON.
    """
    converter = JsonConverter(payload_bytes_max=payload_bytes_max)
    try:
        found: Any = importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
        CURRENT.set(decode_record(context, ActivityContext))
        arguments: list[Any] = []
        if found.has_input:
            arguments.append(decode_input(converter, found, input))
        return True, converter.encode(found.function(*arguments))
    except Exception as error:
        return False, encode_record(failure_from_exception(error))
