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
from holdfast.engine.activity_context import CURRENT, ActivityContext, CancelFlag, info_of
from holdfast.engine.config import HostConfig
from holdfast.engine.process_messages import ProcessCall
from holdfast.engine.processes import ProcessWorkers, WorkerProcessDiedError
from holdfast.engine.stored import encode_report
from holdfast.errors import ConfigurationError, HoldfastError, PayloadError
from holdfast.model.converter import DataConverter
from holdfast.model.failure import FailureDetails, failure_from_exception
from holdfast.model.refs import Activity, decode_input
from holdfast.model.work_items import COMMITTED_ATTEMPT, ActivityWorkItem, Failed, Outcome, Succeeded
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

    async def run(
        self,
        activity: Activity[Any, Any],
        work_item: ActivityWorkItem,
        report: Callable[[str], None],
        cancelled: CancelFlag,
        began: Callable[[], None],
    ) -> Outcome:
        """Run one attempt. If this is cancelled, a process is killed; a thread goes on, with nobody waiting for it.

        Args:
            report: gets the progress of each heartbeat, as JSON, from whatever thread.
            began: called on the loop when user code begins, after a thread or a process was free.
            cancelled: what the attempt sees as `activity_context().cancelled`, unless it runs in a process.

        Raises:
            PayloadError: if the input does not fit, or the result cannot be encoded.
            Exception: whatever an activity on the loop or in a thread raises.
        """
        if activity.runs_in == "process":
            return await self._run_in_process(activity, work_item, report, _from_any_thread(began))
        arguments: list[Any] = []
        if activity.has_input:
            arguments.append(decode_input(self._converter, activity, work_item.input))
        CURRENT.set(ActivityContext(work_item, self._converter, report, cancelled))
        if activity.runs_in == "loop":
            began()
            result = await activity.function(*arguments)
        else:
            copied = contextvars.copy_context()
            call = functools.partial(
                copied.run, _without_stop_iteration, _from_any_thread(began), activity.function, *arguments
            )
            result = await asyncio.get_running_loop().run_in_executor(self._thread_pool(), call)
        try:
            return Succeeded(self._converter.encode(result))
        except PayloadError as error:
            return Failed(failure_from_exception(error, non_retriable=True))  # and so it would be the next time

    async def run_in_transaction(
        self,
        activity: Activity[Any, Any],
        context: Callable[[object], ActivityContext],
        began: Callable[[], None],
        attempt: Callable[[], ActivityWorkItem],
    ) -> ArrivalRow | None:
        """Run one attempt of a transactional activity; see `Transactions.run`.

        Args:
            context: what the attempt sees, given its connection.

        Raises:
            PayloadError: if the input does not fit, or the result cannot be encoded; nothing is committed then.
            Exception: whatever the activity raises, and `StorageError`.
        """
        if self._transactions is None:
            raise ConfigurationError(f"Activity {activity.name!r} is transactional, which needs a hub on PostgreSQL.")
        given = attempt().input
        arguments = [decode_input(self._converter, activity, given)] if activity.has_input else []

        async def work(connection: object) -> str:
            CURRENT.set(context(connection))
            began()
            result = Succeeded(self._converter.encode(await activity.function(*arguments)))
            return encode_report(msgspec.structs.replace(attempt(), attempt=COMMITTED_ATTEMPT), result)

        return await self._transactions.run(attempt, work)

    async def close(self) -> None:
        """End all processes, and start nothing more in a thread; what runs in one is left to itself."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        if self._processes is not None:
            await self._processes.close(_LEAVE_S)

    async def _run_in_process(
        self,
        activity: Activity[Any, Any],
        work_item: ActivityWorkItem,
        report: Callable[[str], None],
        began: Callable[[], None],
    ) -> Outcome:
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
            result = await self._processes.run(call, report, began)
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
