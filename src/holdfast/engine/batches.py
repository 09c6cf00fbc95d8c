"""Runs batches of entity operations: at once, or beside the loop if they may wait, which happens only once all that
they can have been caused by is durable."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from holdfast.engine.blocking import tell_if_blocked
from holdfast.engine.residents import Resident
from holdfast.engine.worker import Worker
from holdfast.errors import HostStoppedError, StorageError
from holdfast.hub.entities import PendingBatch, give_back_batch
from holdfast.model.failure import failure_from_exception
from holdfast.model.work_items import Blocked, EntityBatch
from holdfast.replay.entity import BatchRun

if TYPE_CHECKING:
    from holdfast.engine.node import Node


logger = logging.getLogger("holdfast.engine")

_BATCH_S = 0.05  # the loop has others to serve


class Batches:
    def __init__(self, node: Node, worker: Worker) -> None:
        self._node = node
        self._worker = worker
        self._places = asyncio.Semaphore(node.config.entity_batches_max)
        self._jobs: set[asyncio.Task[None]] = set()
        self._is_draining = False

    @property
    def is_idle(self) -> bool:
        return not self._jobs

    async def drain(self, limit_s: float) -> None:
        """Begin no more operations that may wait, and let those that run finish, for so long; then stop them."""
        self._is_draining = True
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=limit_s)
        self.close()

    def close(self) -> None:
        """Give up what runs: its operations run again when the entities are loaded next."""
        for job in self._jobs:
            job.cancel()

    async def closed(self, limit_s: float) -> None:
        """Wait until what was given up has ended; code that swallows its cancellation is not waited for much longer."""
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=limit_s)

    def run(self, resident: Resident, pending: PendingBatch) -> EntityBatch | Blocked | None:
        """Run a batch; return its result, or None if it is completed later."""
        begun = self._worker.begin_batch(pending.work_item, resident.state)
        if not isinstance(begun, BatchRun):
            return begun
        if not self._worker.may_wait(pending.work_item):
            return _ended(resident, begun, _run(pending, begun))
        if self._is_draining:
            give_back_batch(resident.instance, pending)
            return None
        job = asyncio.get_running_loop().create_task(self._run_async(resident, pending, begun))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return None

    async def _run_async(self, resident: Resident, pending: PendingBatch, begun: BatchRun) -> None:
        node = self._node
        try:
            await node.journal.durable(node.hub.lsn)
        except StorageError:
            return  # the node is given up; nothing of the batch has run
        async with self._places:
            try:
                result: EntityBatch | Blocked = await begun.run_async(
                    functools.partial(self._wait, resident.instance.instance_id)
                )
            except _HasStoppedError:
                return
            except Exception as error:  # the state that an operation has left behind cannot be read
                result = Blocked(failure_from_exception(error))
        node.guarded(
            resident.instance.instance_id,
            lambda: node.steps.complete(resident, pending, _ended(resident, begun, result)),
        )

    async def _wait(self, instance_id: str, operation: Awaitable[Any]) -> Any:
        """Wait for an operation for as long as it may take; what it raises is an Exception, or the end of this job.

        It is a job of its own, so that code which cancels the one that it is in ends nothing but the operation.
        """
        limit_s = self._node.config.operation_timeout_s
        job = asyncio.get_running_loop().create_task(_awaited(operation))
        try:
            in_time, _ = await asyncio.wait((job,), timeout=limit_s)
            if not in_time:
                job.cancel()
                await self._ended(instance_id, job)
        except asyncio.CancelledError:
            job.cancel()
            await asyncio.wait((job,))
            raise
        error = asyncio.CancelledError() if job.cancelled() else job.exception()
        if not in_time:
            raise TimeoutError(f"The operation took longer than operation_timeout_s, {limit_s} s.") from (
                error if isinstance(error, Exception) else None
            )
        if job.cancelled():
            raise RuntimeError("The operation cancelled itself.")
        if self._is_draining and isinstance(error, HostStoppedError):
            raise _HasStoppedError
        return job.result()

    async def _ended(self, instance_id: str, job: asyncio.Task[Any]) -> None:
        """Wait until an operation that was cancelled has ended: while it goes on, no other may run."""
        limit_s = self._node.config.operation_timeout_s
        while not (await asyncio.wait((job,), timeout=limit_s))[0]:
            logger.error(
                "An operation of entity %s goes on although it was cancelled after operation_timeout_s, %s s; the "
                "entity does nothing else until it ends.",
                instance_id,
                limit_s,
            )


async def _awaited(operation: Awaitable[Any]) -> Any:
    try:
        return await operation
    except (Exception, KeyboardInterrupt, asyncio.CancelledError):
        raise
    except BaseException as error:  # SystemExit would end the loop
        raise RuntimeError(f"The operation raised {error!r}.") from error


class _HasStoppedError(BaseException):
    """The operation could not do its work because the host is stopping: it has not run, and runs again."""


def _ended(resident: Resident, begun: BatchRun, result: EntityBatch | Blocked) -> EntityBatch | Blocked:
    """Keep the state of an entity as an object, if the batch has left one; return the result of the batch."""
    resident.state = begun.live if isinstance(result, EntityBatch) else None
    return result


def _run(pending: PendingBatch, begun: BatchRun) -> EntityBatch | Blocked:
    clock = asyncio.get_running_loop().time
    began_at = clock()
    try:
        return begun.run(lambda: clock() < began_at + _BATCH_S)
    except Exception as error:  # the state that an operation has left behind cannot be read
        return Blocked(failure_from_exception(error))
    finally:
        tell_if_blocked(
            clock() - began_at,
            f"A plain operation of entity {pending.work_item.instance_id}",
            "write what takes long as `async def`, or let an activity do it",
        )
