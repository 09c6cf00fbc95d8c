"""The way from clients to hosts: slow, and now and then a request arrives twice, or an answer does not."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, Final, NoReturn, TypeVar

from holdfast.engine.task_hub import LocalTaskHub
from holdfast.errors import CommitFailedError, HostStoppedError, OverloadedError, StorageError
from holdfast.model.exported import ExportedHistory
from holdfast.model.history import (
    EventRaised,
    HistoryEvent,
    MessageEvent,
    OperationAnswer,
    UpdateCompleted,
    UpdateRequested,
)
from holdfast.model.requests import EntityFilter, InstanceFilter, OperationRequest, StartRequest
from holdfast.model.status import (
    EntitiesRemoved,
    EntityState,
    InstancesPurged,
    LockState,
    OrchestrationState,
    OrchestrationStatus,
)
from holdfast.testing.faults import Trouble
from holdfast.testing.hosts import SimulatedHost
from holdfast.testing.ledger import Ledger
from holdfast.testing.loop import InvariantViolation, SimulatedLoop

T = TypeVar("T")

_LATENCY_US: Final = (50, 3_000)
_LOOK_AGAIN_S: Final = 0.02
_PATIENCE_S: Final = 1.0
_RANKS: Final = {OrchestrationStatus.PENDING: 0, OrchestrationStatus.RUNNING: 1, OrchestrationStatus.SUSPENDED: 1}


class RequestLostError(CommitFailedError):
    """The host that was asked died, or its answer got lost; it may have done what it was asked for, or not."""

    def __init__(self) -> None:
        super().__init__("The request was sent, but no answer came back.", outcome_unknown=True)


class SimulatedTaskHub:
    """Implements the port of the client room over whatever hosts are there.

    A request that can be repeated without harm is, until it is answered; another one may raise `RequestLostError`.
    """

    def __init__(
        self, loop: SimulatedLoop, hosts: Callable[[], Sequence[SimulatedHost]], trouble: Trouble, ledger: Ledger
    ) -> None:
        self._loop = loop
        self._hosts = hosts
        self._trouble = trouble
        self._ledger = ledger
        self.answered: Callable[[OperationRequest], None] = lambda _: None
        """Called for each operation when its answer leaves the host."""
        self._seen: dict[str, tuple[str, int]] = {}
        """By instance, the execution that a client has seen, and how far it was."""

    async def start_orchestration(self, request: StartRequest) -> None:
        def stored(_: None) -> None:
            if request.instance_id not in self._ledger.instances.keys() | self._ledger.purged:
                _broken("answers are durable", f"{request.instance_id!r} was started, but is not stored")

        is_safe = request.request_key is not None
        await self._ask(lambda hub: hub.start_orchestration(request), stored, repeatable=is_safe)

    async def send(self, instance_id: str, event: MessageEvent) -> None:
        is_safe = isinstance(event, EventRaised) and event.key is not None
        await self._ask(lambda hub: hub.send(instance_id, event), repeatable=is_safe)

    async def query(self, instance_id: str, name: str, input: str | None) -> str:
        return await self._ask(lambda hub: hub.query(instance_id, name, input))

    async def update(self, instance_id: str, request: UpdateRequested, timeout: timedelta | None) -> UpdateCompleted:
        return await self._ask(lambda hub: hub.update(instance_id, request, timeout))

    async def rewind(self, instance_id: str, reason: str | None) -> None:
        await self._ask(lambda hub: hub.rewind(instance_id, reason), repeatable=False)

    async def fork(self, instance_id: str, new_instance_id: str, episodes: int | None) -> None:
        await self._ask(lambda hub: hub.fork(instance_id, new_instance_id, episodes), repeatable=False)

    async def signal_entities(self, requests: Sequence[OperationRequest]) -> None:
        is_safe = all(request.key is not None for request in requests)
        await self._ask(
            lambda hub: hub.signal_entities(requests), lambda _: self._check_kept(requests), repeatable=is_safe
        )

    async def call_entity(self, request: OperationRequest, timeout: timedelta | None) -> OperationAnswer:
        is_safe = request.key is not None
        return await self._ask(
            lambda hub: hub.call_entity(request, timeout), lambda _: self._check_kept([request]), repeatable=is_safe
        )

    async def get_entity(self, instance_id: str) -> EntityState | None:
        return await self._ask(lambda hub: hub.get_entity(instance_id))

    async def list_entities(self, wanted: EntityFilter, after: str, limit: int) -> Sequence[EntityState]:
        return await self._ask(lambda hub: hub.list_entities(wanted, after, limit))

    async def break_lock(self, instance_id: str) -> LockState | None:
        return await self._ask(lambda hub: hub.break_lock(instance_id), repeatable=False)

    async def clean_entities(
        self, idle_for: timedelta, *, remove_empty: bool, release_orphaned: bool
    ) -> EntitiesRemoved:
        return await self._ask(
            lambda hub: hub.clean_entities(idle_for, remove_empty=remove_empty, release_orphaned=release_orphaned),
            repeatable=False,
        )

    async def list_instances(self, wanted: InstanceFilter, after: str, limit: int) -> Sequence[OrchestrationState]:
        return await self._ask(lambda hub: hub.list_instances(wanted, after, limit))

    async def count_instances(self, wanted: InstanceFilter) -> dict[OrchestrationStatus, int]:
        return await self._ask(lambda hub: hub.count_instances(wanted))

    async def purge(self, instance_id: str, if_execution: str | None = None) -> None:
        await self._ask(
            lambda hub: hub.purge(instance_id, if_execution), lambda _: self._check_gone(instance_id), repeatable=False
        )

    async def purge_instances(self, wanted: InstanceFilter, after: str, limit: int) -> InstancesPurged:
        return await self._ask(lambda hub: hub.purge_instances(wanted, after, limit))

    async def get_state(self, instance_id: str) -> OrchestrationState | None:
        seen = self._seen_of(instance_id)
        state = await self._ask(lambda hub: hub.get_state(instance_id), self._check_stored)
        return state if state is None else self._told(state, seen)

    async def get_history(self, instance_id: str) -> Sequence[HistoryEvent]:
        return await self._ask(lambda hub: hub.get_history(instance_id))

    async def export_history(self, instance_id: str, *, first: int = 0, limit: int | None = None) -> ExportedHistory:
        return await self._ask(lambda hub: hub.export_history(instance_id, first=first, limit=limit))

    async def wait_until_stopped(self, instance_id: str, timeout: timedelta | None) -> OrchestrationState:
        seen = self._seen_of(instance_id)
        state = await self._ask(lambda hub: hub.wait_until_stopped(instance_id, timeout), self._check_stored)
        return self._told(state, seen)

    def _check_kept(self, requests: Sequence[OperationRequest]) -> None:
        """Hold that what was accepted with a key is known by it in the store."""
        for request in requests:
            self.answered(request)
            if request.key is not None and not self._ledger.ever_had_key(request.instance_id, request.key):
                _broken(
                    "answers are durable", f"{request.key!r} was accepted for {request.instance_id}, and is not stored"
                )

    def _check_stored(self, state: OrchestrationState | None) -> None:
        """Hold that what a host tells is stored."""
        if state is None:
            return
        row = self._ledger.instances.get(state.instance_id)
        if row is None and state.instance_id in self._ledger.purged:
            return
        if row is None:
            _broken("answers are durable", f"a client is told of {state.instance_id!r}, which is not stored")
        status = state.runtime_status
        is_same = row.execution_id == state.execution_id
        is_ahead = _rank(OrchestrationStatus(row.status)) < _rank(status)
        is_other = status.is_terminal and (row.status, row.output) != (status, state.output)
        if is_same and (is_ahead or is_other):
            _broken("answers are durable", f"{state.instance_id!r} is told to be {status}, but is stored {row.status}")

    def _check_gone(self, instance_id: str) -> None:
        if instance_id not in self._ledger.purged:
            _broken("answers are durable", f"{instance_id!r} is told to be purged, but was not")

    def _told(self, state: OrchestrationState, seen: tuple[str, int]) -> OrchestrationState:
        """Hold that a client is told no earlier status than it had seen when it asked."""
        rank = _rank(state.runtime_status)
        if seen[0] == state.execution_id and rank < seen[1]:
            _broken("status goes forward", f"{state.instance_id!r} is told to be {state.runtime_status} again")
        self._seen[state.instance_id] = (state.execution_id, max(rank, seen[1] if seen[0] == state.execution_id else 0))
        return state

    def _seen_of(self, instance_id: str) -> tuple[str, int]:
        return self._seen.get(instance_id, ("", 0))

    async def _ask(
        self,
        request: Callable[[LocalTaskHub], Coroutine[Any, Any, T]],
        check: Callable[[T], None] = lambda _: None,
        *,
        repeatable: bool = True,
    ) -> T:
        """Send a request until it is answered; `check` sees each answer as it leaves its host."""
        pause_s = _LOOK_AGAIN_S
        while True:
            answer: asyncio.Future[T] = self._loop.create_future()
            copies = 1 + (
                repeatable and self._trouble.happens("request_repeated", self._trouble.faults.request_repeated)
            )
            for _ in range(copies):
                self._loop.call_outside_later(self._trouble.between(*_LATENCY_US), self._arrive, request, check, answer)
            try:
                return await answer
            except RequestLostError:
                if not repeatable:
                    raise
            except OverloadedError:
                pass  # nothing was stored
            except (StorageError, HostStoppedError):
                if not repeatable:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _PATIENCE_S)

    def _arrive(
        self,
        request: Callable[[LocalTaskHub], Coroutine[Any, Any, T]],
        check: Callable[[T], None],
        answer: asyncio.Future[T],
    ) -> None:
        ready = [host for host in self._hosts() if host.is_ready]
        if not ready:
            _fail(answer, OverloadedError("No host is ready."))
            return
        host = ready[self._trouble.between(0, len(ready) - 1)]
        assert host.process is not None and host.task_hub is not None, "it is ready"  # noqa: PT018
        process, job = host.process, host.process.start(request(host.task_hub))

        def lost() -> None:
            _fail(answer, RequestLostError())

        def done(job: asyncio.Task[T]) -> None:
            process.died.remove(lost)
            if not job.cancelled() and job.exception() is None:
                check(job.result())
            self._loop.call_outside_later(self._trouble.between(*_LATENCY_US), self._answer, job, answer)

        process.died.append(lost)
        job.add_done_callback(done, context=contextvars.Context())

    def _answer(self, job: asyncio.Task[T], answer: asyncio.Future[T]) -> None:
        if job.cancelled() or self._trouble.happens("reply_lost", self._trouble.faults.reply_lost):
            _fail(answer, RequestLostError())
            return
        error = job.exception()
        if error is not None:
            _fail(answer, error)
        elif not answer.done():
            answer.set_result(job.result())


def _rank(status: OrchestrationStatus) -> int:
    return _RANKS.get(status, 2)


def _fail(answer: asyncio.Future[Any], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)


def _broken(rule: str, what: str) -> NoReturn:
    raise InvariantViolation(rule, what)
