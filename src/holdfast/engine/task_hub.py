"""The task hub as clients in this process see it: each request is answered once what it caused is durable."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Final

import msgspec

from holdfast.client.timeouts import not_stopped, not_updated
from holdfast.engine.bulk import bulk_activity
from holdfast.engine.changes import change_instance, confirm
from holdfast.engine.engine import Engine
from holdfast.engine.entity_requests import EntityRequests
from holdfast.engine.exports import read_history
from holdfast.engine.live import check_update, query
from holdfast.engine.node import Node
from holdfast.engine.purging import conditions, purge, purge_instances
from holdfast.engine.readable import readable_state
from holdfast.engine.residents import Resident
from holdfast.engine.rewinding import fork, rewind
from holdfast.errors import (
    InstanceNotFoundError,
    InstanceNotRunningError,
    InvalidInputError,
    NotRegisteredError,
    OverloadedError,
    StorageError,
)
from holdfast.hub.instance import Instance
from holdfast.hub.lifecycle import TRANSITIONS, Trigger
from holdfast.hub.requests import Admission
from holdfast.model.exported import ExportedHistory
from holdfast.model.history import (
    CancelRequested,
    EventRaised,
    ExecutionResumed,
    ExecutionRewound,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    MessageEvent,
    OperationAnswer,
    UpdateCompleted,
    UpdateRequested,
)
from holdfast.model.ids import is_entity, validate_instance_id
from holdfast.model.requests import EntityFilter, InstanceFilter, OperationRequest, StartRequest
from holdfast.model.status import (
    EntitiesRemoved,
    EntityState,
    InstancesPurged,
    LockState,
    OrchestrationState,
)
from holdfast.model.status import OrchestrationStatus as S

_STATUSES: Final = frozenset(each.value for each in S)
_TRIGGERS: dict[type[MessageEvent], Trigger] = {
    EventRaised: Trigger.RUN,
    UpdateRequested: Trigger.RUN,
    CancelRequested: Trigger.CANCEL,
    ExecutionTerminated: Trigger.TERMINATE,
    ExecutionSuspended: Trigger.SUSPEND,
    ExecutionResumed: Trigger.RESUME,
    ExecutionRewound: Trigger.REWIND,
}


class LocalTaskHub:
    """Implements the port of the client room over an engine in this process, which starts after this was made.

    By then the engine has the activity of bulk jobs, which is a client of this hub.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._entities = EntityRequests(engine, self._admitting_node)
        engine.builtins.add(bulk_activity(self, engine.clock))

    async def start_orchestration(self, request: StartRequest) -> None:
        version = request.version or self._engine.config.default_version
        try:
            orchestrator = self._engine.registry.orchestrator(request.name, version)
        except NotRegisteredError:  # another host may have it, also one that has just come
            await self._engine.membership.learn()
            if not self._engine.membership.knows_orchestrator(request.name):
                raise
        else:
            self._engine.worker.check_input(orchestrator, request.input)
            if request.name != orchestrator.name:
                request = msgspec.structs.replace(request, name=orchestrator.name)
        if not request.is_new_id:
            validate_instance_id(request.instance_id)
        node = self._admitting_node()

        def start(resident: Resident | None) -> int:
            existing = resident.instance if resident else None
            now = node.clock.now()
            admission = node.hub.admit(existing, request)
            if admission is Admission.START and existing is not None and existing.is_working:
                raise OverloadedError(f"Instance {request.instance_id!r} is just being rewound; try again.")
            if existing is not None and admission is not Admission.START:
                if admission is Admission.RETURN_EXISTING:
                    return existing.lsn
                if existing.is_working:
                    raise OverloadedError(f"Instance {request.instance_id!r} is just being read; try again.")
                node.append(node.hub.make_way(existing, now))
            instance, transition = node.hub.start(existing, request, now)
            if resident is None:
                node.residents.add(instance)
            node.append(transition)
            return instance.lsn

        await change_instance(node, request.instance_id, start, is_new=request.is_new_id)

    async def send(self, instance_id: str, event: MessageEvent) -> None:
        if not is_entity(instance_id):
            validate_instance_id(instance_id)
        elif not isinstance(event, ExecutionResumed):
            raise InvalidInputError(
                f"{instance_id!r} is an entity. It can be signalled, and resumed when it is parked; nothing else."
            )
        node = self._admitting_node()

        def send(resident: Resident | None) -> int:
            if resident is None:
                raise InstanceNotFoundError(instance_id)
            _check_receives(resident, event)
            transition = node.hub.post(resident.instance, instance_id, event, node.clock.now())
            node.append(transition)
            return transition.lsn

        await change_instance(node, instance_id, send)

    async def rewind(self, instance_id: str, reason: str | None) -> None:
        validate_instance_id(instance_id)
        await rewind(self._admitting_node, self._engine.store, instance_id, reason)

    async def fork(self, instance_id: str, new_instance_id: str, episodes: int | None) -> None:
        validate_instance_id(instance_id)
        validate_instance_id(new_instance_id)
        await fork(self._admitting_node, self._engine.store, instance_id, new_instance_id, episodes)

    async def query(self, instance_id: str, name: str, input: str | None) -> str:
        return await query(self._engine, validate_instance_id(instance_id), name, input)

    async def update(self, instance_id: str, request: UpdateRequested, timeout: timedelta | None) -> UpdateCompleted:
        validate_instance_id(instance_id)

        async def send() -> None:
            await check_update(self._engine, instance_id, request)
            await self.send(instance_id, request)

        try:
            answer = await self._engine.waiters.ask(instance_id, request.update_id, send, timeout)
        except TimeoutError:
            raise not_updated(instance_id, request.update_id, timeout) from None
        if isinstance(answer, OrchestrationState):
            raise InstanceNotRunningError(instance_id, answer.runtime_status.value, "update")
        assert isinstance(answer, UpdateCompleted), "an orchestration has no operations"
        return answer

    async def signal_entities(self, requests: Sequence[OperationRequest]) -> None:
        await self._entities.signal(requests)

    async def call_entity(self, request: OperationRequest, timeout: timedelta | None) -> OperationAnswer:
        return await self._entities.call(request, timeout)

    async def get_entity(self, instance_id: str) -> EntityState | None:
        return await self._entities.get(instance_id)

    async def list_entities(self, wanted: EntityFilter, after: str, limit: int) -> Sequence[EntityState]:
        return await self._entities.list(wanted, after, limit)

    async def break_lock(self, instance_id: str) -> LockState | None:
        return await self._entities.break_lock(instance_id)

    async def clean_entities(
        self, idle_for: timedelta, *, remove_empty: bool, release_orphaned: bool
    ) -> EntitiesRemoved:
        return await self._entities.clean(idle_for, remove_empty=remove_empty, release_orphaned=release_orphaned)

    async def list_instances(self, wanted: InstanceFilter, after: str, limit: int) -> Sequence[OrchestrationState]:
        rows = await self._engine.store.find_instances(conditions(wanted), after, limit)
        return [readable_state(row) for row in rows]

    async def count_instances(self, wanted: InstanceFilter) -> dict[S, int]:
        found = await self._engine.store.count_instances(conditions(wanted))
        odd = sum(number for status, number in found.items() if status not in _STATUSES)
        found[S.SUSPENDED] = found.get(S.SUSPENDED, 0) + odd  # as which what is damaged is shown
        return {status: found[status] for status in S if found.get(status)}

    async def purge(self, instance_id: str, if_execution: str | None = None) -> None:
        await purge(self._admitting_node, self._engine.store, instance_id, if_execution)

    async def purge_instances(self, wanted: InstanceFilter, after: str, limit: int) -> InstancesPurged:
        return await purge_instances(self._admitting_node, self._engine.store, conditions(wanted), after, limit)

    async def get_state(self, instance_id: str) -> OrchestrationState | None:
        row = await self._engine.store.read_instance(instance_id)
        return None if row is None else readable_state(row)

    async def get_history(self, instance_id: str) -> Sequence[HistoryEvent]:
        exported = await self.export_history(instance_id)
        return [event for episode in exported.episodes for event in episode]

    async def export_history(self, instance_id: str, *, first: int = 0, limit: int | None = None) -> ExportedHistory:
        return await read_history(self._engine.store, instance_id, first, limit)

    async def wait_until_stopped(self, instance_id: str, timeout: timedelta | None) -> OrchestrationState:
        waiters = self._engine.waiters
        if self._engine.is_ready:
            self._engine.node.partitions.check(instance_id)
        future = waiters.add(instance_id)
        try:
            # Asked after the waiter is in place: an end between the two is seen by one of them.
            state = await self._state_unless_it_goes_on(instance_id, future)
            if state is not None:
                return state
            if timeout is None:
                return await future
            async with asyncio.timeout(timeout.total_seconds()):
                return await future
        except TimeoutError:
            raise not_stopped(instance_id, timeout) from None
        finally:
            waiters.discard(instance_id, future)

    def watch(self, instance_id: str) -> AbstractContextManager[asyncio.Event]:
        """Return what holds an event that is set whenever something of an instance has changed in the store."""
        return self._engine.waiters.watch(instance_id)

    async def _state_unless_it_goes_on(
        self, instance_id: str, told: asyncio.Future[OrchestrationState]
    ) -> OrchestrationState | None:
        """Return the state of an instance that has stopped, or None if its waiter is still to be told."""
        if self._engine.is_ready:
            node = self._engine.node
            resident = node.residents.get(instance_id)
            if resident is not None:
                if not _has_stopped(resident.instance):
                    return None
                state, lsn = resident.instance.snapshot(), resident.instance.lsn
                # Its end may have been told before the waiter came, and something after it is not stored yet.
                if lsn > node.journal.durable_lsn:
                    node.journal.durable(lsn).add_done_callback(functools.partial(_tell, told, state))
                    return None
                with contextlib.suppress(StorageError):  # then the store knows
                    await confirm(node, lsn)
                    return state
        state = await self.get_state(instance_id)
        if state is None:
            raise InstanceNotFoundError(instance_id)
        return state if state.runtime_status.is_terminal or state.parked is not None else None

    def _admitting_node(self) -> Node:
        node = self._engine.node
        if node.journal.is_full:
            raise OverloadedError(
                f"More than {self._engine.config.journal_transitions_max} changes wait to be stored; nothing of this "
                "request was. Try again later."
            )
        return node


def _has_stopped(instance: Instance) -> bool:
    return instance.is_terminal or instance.parked is not None


def _tell(told: asyncio.Future[OrchestrationState], state: OrchestrationState, durable: asyncio.Future[None]) -> None:
    """Tell a waiter of a state that is durable now; if it was lost, the next node looks at whoever waits."""
    if durable.exception() is None and not told.done():
        told.set_result(state)


def _check_receives(resident: Resident, event: MessageEvent) -> None:
    """Refuse what cannot have an effect any more; what arrives too late all the same is dropped by the hub."""
    instance = resident.instance
    trigger = _TRIGGERS[type(event)]
    status = instance.status
    if getattr(event, "recursive", False) and not status.is_terminal:
        return  # the instance may be there already, and its children not
    for control in instance.controls:  # accepted, but not applied yet
        waiting = _TRIGGERS.get(type(control.event))  # a timer of the instance has none
        status = status if waiting is None else TRANSITIONS.get((status, waiting), status)
    if (status, trigger) not in TRANSITIONS and (trigger is not Trigger.RUN or status.is_terminal):
        request = "raise an event for" if trigger is Trigger.RUN else trigger.value
        raise InstanceNotRunningError(instance.instance_id, status.value, request)
