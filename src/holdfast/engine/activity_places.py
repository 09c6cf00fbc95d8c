"""Where an activity runs: `async def` on the loop, `def` in a thread, `process=True` in a process."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, Final

import msgspec

from holdfast.codec.history import decode_record, encode_record
from holdfast.engine.activity_context import CURRENT, ActivityContext, info_of
from holdfast.engine.attempts import Attempt
from holdfast.engine.config import HostConfig
from holdfast.engine.process_messages import ProcessCall
from holdfast.engine.processes import ProcessWorkers, WorkerProcessDiedError
from holdfast.engine.stored import encode_report
from holdfast.errors import ConfigurationError, HoldfastError, PayloadError
from holdfast.model.converter import DataConverter
from holdfast.model.failure import FailureDetails, failure_from_exception
from holdfast.model.refs import Activity, decode_input
from holdfast.model.work_items import COMMITTED_ATTEMPT, Failed, Outcome, Succeeded
from holdfast.storage.port import ArrivalRow
from holdfast.storage.transactions import Transactions

ACTIVITY_THREADS: Final = "holdfast-activity"
"""How the names of the threads begin in which activities run."""

_LEAVE_S: Final = 1.0


class ActivityPlaces:
    """Threads and processes start on first use. Neither is there for an app that has only `async def` activities."""

    def __init__(self, converter: DataConverter, config: HostConfig, transactions: Transactions | None = None) -> None:
        self._transactions = transactions
        self._converter = converter
        self._config = config
        self._threads: ThreadPoolExecutor | None = None
        self._processes: ProcessWorkers | None = None

    def arguments(self, activity: Activity[Any, Any], input: str | None) -> tuple[Any, ...]:
        """Return what the function of an activity is called with.

        Raises:
            PayloadError: if the input does not fit.
        """
        return (decode_input(self._converter, activity, input),) if activity.has_input else ()

    def outcome(self, result: object) -> Outcome:
        """Return the outcome of a function that has returned."""
        try:
            return Succeeded(self._converter.encode(result))
        except PayloadError as error:
            return Failed(failure_from_exception(error, non_retriable=True))  # and so it would be the next time

    def context(self, attempt: Attempt, connection: object = None) -> ActivityContext:
        """Return what an attempt in this process sees of itself."""
        return ActivityContext(attempt.work_item, self._converter, attempt.report, attempt.cancelled, connection)

    async def run_on_loop(self, activity: Activity[Any, Any], attempt: Attempt) -> Outcome:
        """Run one attempt of an `async def`.

        Raises:
            PayloadError: if the input does not fit.
            Exception: whatever the activity raises.
        """
        arguments = self.arguments(activity, attempt.work_item.input)
        CURRENT.set(self.context(attempt))
        attempt.begin()
        return self.outcome(await activity.function(*arguments))

    async def run_in_thread(self, activity: Activity[Any, Any], attempt: Attempt) -> Outcome:
        """Run one attempt. If this is cancelled, the thread goes on, with nobody waiting for it.

        Raises:
            PayloadError: if the input does not fit.
            Exception: whatever the activity raises.
        """
        arguments = self.arguments(activity, attempt.work_item.input)
        CURRENT.set(self.context(attempt))
        copied = contextvars.copy_context()
        call = functools.partial(
            copied.run, _without_stop_iteration, _from_any_thread(attempt.begin), activity.function, *arguments
        )
        return self.outcome(await asyncio.get_running_loop().run_in_executor(self._thread_pool(), call))

    async def run_in_transaction(self, activity: Activity[Any, Any], attempt: Attempt) -> ArrivalRow | None:
        """Run one attempt of a transactional activity; see `Transactions.run`.

        Raises:
            PayloadError: if the input does not fit, or the result cannot be encoded; nothing is committed then.
            Exception: whatever the activity raises, and `StorageError`.
        """
        if self._transactions is None:
            raise ConfigurationError(f"Activity {activity.name!r} is transactional, which needs a hub on PostgreSQL.")
        arguments = self.arguments(activity, attempt.work_item.input)

        async def work(connection: object) -> str:
            CURRENT.set(self.context(attempt, connection))
            attempt.begin()
            result = Succeeded(self._converter.encode(await activity.function(*arguments)))
            return encode_report(msgspec.structs.replace(attempt.work_item, attempt=COMMITTED_ATTEMPT), result)

        return await self._transactions.run(lambda: attempt.work_item, work)

    async def close(self) -> None:
        """End all processes, and start nothing more in a thread; what runs in one is left to itself."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._processes is not None:
            await self._processes.close(_LEAVE_S)

    async def run_in_process(self, activity: Activity[Any, Any], attempt: Attempt) -> Outcome:
        """Run one attempt. If this is cancelled, the process is killed.

        Raises:
            HoldfastError: if the process dies.
        """
        work_item = attempt.work_item
        if self._processes is None:
            self._processes = ProcessWorkers(self._config.processes_max)
        call = ProcessCall(
            activity.function.__module__,
            activity.function.__qualname__,
            work_item.input,
            encode_record(info_of(work_item)),
            self._config.limits.payload_bytes_max,
        )
        try:
            result = await self._processes.run(call, attempt.report, _from_any_thread(attempt.begin))
        except WorkerProcessDiedError as error:
            raise HoldfastError(f"The process that ran activity {work_item.name!r} died.") from error
        return Succeeded(result.text) if result.succeeded else Failed(decode_record(result.text, FailureDetails))

    def _thread_pool(self) -> Executor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._config.threads_max, thread_name_prefix=ACTIVITY_THREADS)
        return self._threads


def _from_any_thread(callback: Callable[[], None]) -> Callable[[], None]:
    loop = asyncio.get_running_loop()

    def call() -> None:
        with contextlib.suppress(RuntimeError):  # a thread may outlive the loop; then nobody counts any more
            loop.call_soon_threadsafe(callback)

    return call


def _without_stop_iteration(began: Callable[[], None], function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function; a future cannot carry a StopIteration, so it becomes what a coroutine makes of it."""
    began()
    try:
        return function(*arguments)
    except StopIteration as error:
        raise RuntimeError(f"{getattr(function, '__name__', function)!r} raised StopIteration") from error
