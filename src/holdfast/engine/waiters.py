"""Who waits for an instance to stop: any number of waiters, no polling."""

from __future__ import annotations

import asyncio

from holdfast.model.history import UpdateCompleted
from holdfast.model.status import OrchestrationState


class Waiters:
    def __init__(self) -> None:
        self._by_id: dict[str, list[asyncio.Future[OrchestrationState]]] = {}
        self._updates: dict[tuple[str, str], list[asyncio.Future[UpdateCompleted]]] = {}

    def add(self, instance_id: str) -> asyncio.Future[OrchestrationState]:
        """Return a future for the next time that the instance ends or is parked; cancel it to stop waiting."""
        future: asyncio.Future[OrchestrationState] = asyncio.get_running_loop().create_future()
        self._by_id.setdefault(instance_id, []).append(future)
        return future

    def discard(self, instance_id: str, future: asyncio.Future[OrchestrationState]) -> None:
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

    def add_update(self, instance_id: str, update_id: str) -> asyncio.Future[UpdateCompleted]:
        """Return a future for the answer to an update; cancel it to stop waiting."""
        future: asyncio.Future[UpdateCompleted] = asyncio.get_running_loop().create_future()
        self._updates.setdefault((instance_id, update_id), []).append(future)
        return future

    def discard_update(self, instance_id: str, update_id: str, future: asyncio.Future[UpdateCompleted]) -> None:
        waiting = self._updates.get((instance_id, update_id), [])
        if future in waiting:
            waiting.remove(future)
        if not waiting:
            self._updates.pop((instance_id, update_id), None)

    def updated(self, instance_id: str, event: UpdateCompleted) -> None:
        """Answer whoever waits for an update; called once the answer is durable."""
        for future in self._updates.pop((instance_id, event.update_id), ()):
            if not future.done():
                future.set_result(event)

    def fail(self, instance_id: str, error: Exception) -> None:
        """Tell whoever waits for an instance that there is nothing to wait for."""
        for future in self._by_id.pop(instance_id, ()):
            if not future.done():
                future.set_exception(error)

    def instance_ids(self) -> list[str]:
        return list(self._by_id)

    def fail_updates(self, error: Exception) -> None:
        """Tell whoever waits for an update that it is not known what became of it."""
        for waiting in self._updates.values():
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
        self._updates.clear()

    def fail_all(self, error: Exception) -> None:
        self.fail_updates(error)
        for instance_id in self.instance_ids():
            self.fail(instance_id, error)
