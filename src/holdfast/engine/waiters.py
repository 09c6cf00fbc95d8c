"""Who waits for an instance to stop, to change, or to answer a request: any number of waiters, no polling."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Generator, Iterable
from datetime import timedelta
from typing import Any, TypeAlias

from holdfast.model.history import OperationAnswer, UpdateCompleted
from holdfast.model.status import OrchestrationState

Answer: TypeAlias = UpdateCompleted | OperationAnswer


class Waiters:
    def __init__(self) -> None:
        self._by_id: dict[str, list[asyncio.Future[OrchestrationState]]] = {}
        self._answers: dict[tuple[str, str], list[asyncio.Future[Answer]]] = {}
        self._watched: dict[str, list[asyncio.Event]] = {}

    def add(self, instance_id: str) -> asyncio.Future[OrchestrationState]:
        """Return a future for the next time that the instance ends or is parked; cancel it to stop waiting."""
        future: asyncio.Future[OrchestrationState] = asyncio.get_running_loop().create_future()
        self._by_id.setdefault(instance_id, []).append(future)
        return future

    def discard(self, instance_id: str, future: asyncio.Future[OrchestrationState]) -> None:
        """Stop waiting; what the future may have been told is not asked for any more."""
        _give_up(future)
        waiting = self._by_id.get(instance_id, [])
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._by_id.pop(instance_id, None)

    def stopped(self, state: OrchestrationState) -> None:
        """Wake whoever waits for an instance; called once its end is durable."""
        for future in self._by_id.pop(state.instance_id, ()):
            if not future.done():
                future.set_result(state)

    @contextlib.contextmanager
    def watch(self, instance_id: str) -> Generator[asyncio.Event]:
        """Hold an event that is set whenever something of an instance has changed in the store."""
        changed = asyncio.Event()
        self._watched.setdefault(instance_id, []).append(changed)
        try:
            yield changed
        finally:
            watching = self._watched[instance_id]
            watching.remove(changed)
            if not watching:
                del self._watched[instance_id]

    def changed(self, instance_ids: Iterable[str]) -> None:
        """Wake whoever watches one of these; called once the changes are durable. Without watchers it costs nothing."""
        if self._watched:
            for instance_id in instance_ids:
                for event in self._watched.get(instance_id, ()):
                    event.set()

    def all_changed(self) -> None:
        """Wake whoever watches anything, since changes may have become durable unheard."""
        self.changed(list(self._watched))

    def add_request(self, instance_id: str, request_id: str) -> asyncio.Future[Answer]:
        """Return a future for the answer to an update, or to a call of an operation; cancel it to stop waiting."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._answers.setdefault((instance_id, request_id), []).append(future)
        return future

    def discard_request(self, instance_id: str, request_id: str, future: asyncio.Future[Answer]) -> None:
        """Stop waiting, as `discard` does."""
        _give_up(future)
        waiting = self._answers.get((instance_id, request_id), [])
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._answers.pop((instance_id, request_id), None)

    async def ask(
        self, instance_id: str, request_id: str, send: Callable[[], Awaitable[None]], timeout: timedelta | None
    ) -> Answer | OrchestrationState:
        """Send a request and return its answer, or the state of its instance if that stops without one.

        Raises:
            TimeoutError: if sending and waiting take longer than `timeout`; the request may be answered all the same.
        """
        answered = self.add_request(instance_id, request_id)
        stopped = self.add(instance_id)  # before it is sent: the end may become durable together with the request
        try:
            async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
                await send()
                await asyncio.wait((answered, stopped), return_when=asyncio.FIRST_COMPLETED)
            return answered.result() if answered.done() else stopped.result()
        finally:
            self.discard(instance_id, stopped)
            self.discard_request(instance_id, request_id, answered)

    def answered(self, instance_id: str, request_id: str, answer: Answer) -> None:
        """Answer whoever waits for a request; called once the answer is durable."""
        for future in self._answers.pop((instance_id, request_id), ()):
            if not future.done():
                future.set_result(answer)

    def fail(self, instance_id: str, error: Exception) -> None:
        """Tell whoever waits for an instance that there is nothing to wait for."""
        for future in self._by_id.pop(instance_id, ()):
            if not future.done():
                future.set_exception(error)

    def instance_ids(self) -> list[str]:
        return list(self._by_id)

    def fail_requests(self, error: Exception) -> None:
        """Tell whoever waits for an answer that it is not known what became of the request."""
        for waiting in self._answers.values():
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
        self._answers.clear()

    def fail_all(self, error: Exception) -> None:
        self.fail_requests(error)
        for instance_id in self.instance_ids():
            self.fail(instance_id, error)


def _give_up(future: asyncio.Future[Any]) -> None:
    future.cancel()
    if not future.cancelled():
        future.exception()  # asked for, so that asyncio does not complain that nobody did
