"""What clients ask of entities: operations, one by one or many at once, reading them, and mending what is stuck."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta

from holdfast.client.timeouts import not_answered
from holdfast.codec.history import decode_message, decode_record
from holdfast.engine.changes import change_instance
from holdfast.engine.clock import from_microseconds, to_microseconds
from holdfast.engine.engine import Engine
from holdfast.engine.node import Node
from holdfast.engine.readable import readable_instant
from holdfast.engine.residents import Resident
from holdfast.engine.stored import check_status, decode_instance_lock, decode_section
from holdfast.errors import CorruptRecordError, InstanceElsewhereError, InstanceParkedError
from holdfast.hub.instance import LockHolder
from holdfast.model.entities import EntityFunction, check_operation
from holdfast.model.failure import FailureDetails, failure_from_exception
from holdfast.model.history import (
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationSignaled,
    EntityUnlockSent,
    OperationAnswer,
    UpdateCompleted,
)
from holdfast.model.ids import name_of
from holdfast.model.instants import instant
from holdfast.model.requests import EntityFilter, OperationRequest
from holdfast.model.status import EntitiesRemoved, EntityState, LockState, OrchestrationState
from holdfast.replay.entity_context import running_operation
from holdfast.storage.port import StoredInstance
from holdfast.storage.selection import EntityRow

logger = logging.getLogger("holdfast.engine")

_ENTITIES_PER_READ = 500


class EntityRequests:
    """The part of the task hub that is about entities."""

    def __init__(self, engine: Engine, admitting_node: Callable[[], Node]) -> None:
        self._engine = engine
        self._admitting_node = admitting_node

    # Operations

    async def signal(self, requests: Sequence[OperationRequest]) -> None:
        """Accept signals, all in one transition; return once they are durable."""
        for request in requests:
            self._check(request)
        scheduled = {request.instance_id for request in requests if request.due is not None}
        if scheduled:
            await self._know_schedules(scheduled)
        node = self._admitting_node()
        for request in requests:
            if request.instance_id in node.left_alone:
                raise CorruptRecordError(f"Entity {request.instance_id} is held back: its record cannot be used.")
        now = node.clock.now()
        events = [
            EntityOperationSignaled(
                timestamp=now,
                request_id=request.key or self._engine.new_id(),
                target_instance_id=request.instance_id,
                operation=request.operation,
                input=request.input,
                due_at=None if request.due is None else instant(now, request.due),
                key=request.key,
            )
            for request in requests
        ]
        instances = {
            request.instance_id: resident.instance
            for request in requests
            if (resident := node.residents.get(request.instance_id)) is not None
        }
        transition = node.hub.signal(instances, events, now)
        node.context.run(node.append, transition)
        await node.journal.durable(transition.lsn)

    async def call(self, request: OperationRequest, timeout: timedelta | None) -> OperationAnswer:
        """Send an operation and return what came of it, once that is durable."""
        running = running_operation()
        if running is not None:
            running.call_entity()
        self._check(request)
        instance_id, request_id = request.instance_id, request.key or self._engine.new_id()
        node = self._admitting_node()

        def send(resident: Resident | None) -> int:
            if resident is not None and resident.instance.parked is not None:
                raise InstanceParkedError(instance_id, resident.instance.parked)
            event = EntityOperationCalled(
                timestamp=node.clock.now(),
                request_id=request_id,
                target_instance_id=instance_id,
                operation=request.operation,
                input=request.input,
                key=request.key,
            )
            instance = resident.instance if resident else None
            transition = node.hub.post(instance, instance_id, event, node.clock.now())
            node.append(transition)
            return transition.lsn

        try:
            answer = await self._engine.waiters.ask(
                instance_id, request_id, lambda: change_instance(node, instance_id, send), timeout
            )
        except TimeoutError:
            raise not_answered(request, timeout) from None
        if isinstance(answer, OrchestrationState):
            assert answer.parked is not None, "nothing else stops an entity"
            raise InstanceParkedError(instance_id, answer.parked)
        assert not isinstance(answer, UpdateCompleted), "an entity has no updates"
        return answer

    async def _know_schedules(self, instance_ids: set[str]) -> None:
        """Bring entities of this host into memory: one that is not there may have many scheduled signals."""
        node = self._admitting_node()
        absent = [each for each in instance_ids if each not in node.residents and node.partitions.have(each)]
        await asyncio.gather(*(change_instance(node, each, lambda _: 0) for each in absent))

    def _check(self, request: OperationRequest) -> None:
        """Refuse what the entity would refuse, as far as the app can know."""
        entity = self._engine.registry.entity(name_of(request.instance_id))
        found = check_operation(entity, request.operation)
        if found is not None:
            self._engine.worker.check_input(found, request.input)
        elif isinstance(entity, EntityFunction) and entity.has_input:
            self._engine.worker.check_input(entity, request.input)

    # Reading

    async def get(self, instance_id: str) -> EntityState | None:
        """Return one entity, with who waits for its lock; None if nothing of it is stored."""
        rows = await self._engine.store.entities(instance_id, "", 1, with_empty=True)
        if not rows or rows[0].instance_id != instance_id:
            return None
        requests: tuple[LockState, ...] = ()
        if rows[0].messages and rows[0].lock is not None:
            requests = lock_requests_of(await self._engine.store.load([instance_id]))
        return entity_state(rows[0], requests)

    async def list(self, wanted: EntityFilter, after: str, limit: int) -> Sequence[EntityState]:
        """Return entities with ids greater than `after`, ascending by id."""
        rows = await self._engine.store.entities(
            wanted.prefix,
            after,
            limit,
            updated_from=None if wanted.updated_from is None else to_microseconds(wanted.updated_from),
            updated_until=None if wanted.updated_until is None else to_microseconds(wanted.updated_until),
            with_state=wanted.with_state,
            with_empty=wanted.with_empty,
            only_parked=wanted.only_parked,
        )
        return [entity_state(row, ()) for row in rows]

    # Mending

    async def break_lock(self, instance_id: str) -> LockState | None:
        """Take an entity's lock from whoever holds it; return who that was, or None if nobody did."""
        node = self._admitting_node()
        holder: LockHolder | None = None

        def unlock(resident: Resident | None) -> int:
            nonlocal holder
            holder = resident.instance.lock if resident else None
            if resident is None or holder is None:
                return resident.instance.lsn if resident else 0
            return _send_unlock(node, instance_id, holder)

        await change_instance(node, instance_id, unlock)
        if holder is None:
            return None
        logger.warning("The lock of entity %s was taken from orchestration %r.", instance_id, holder.instance_id)
        return _lock_state(holder)

    async def clean(self, idle_for: timedelta, *, remove_empty: bool, release_orphaned: bool) -> EntitiesRemoved:
        """Remove entities that hold nothing and were not used for a while; unlock those whose holder is gone."""
        removed = await self._remove_empty(idle_for) if remove_empty else 0
        released = await self._release_orphaned() if release_orphaned else 0
        return EntitiesRemoved(empty_entities_removed=removed, orphaned_locks_released=released)

    async def _remove_empty(self, idle_for: timedelta) -> int:
        removed, after = 0, ""
        cutoff = self._engine.clock.now() - idle_for
        while True:
            rows = await self._engine.store.entities(
                "@",
                after,
                _ENTITIES_PER_READ,
                updated_until=to_microseconds(cutoff),
                with_state=False,
                with_empty=True,
            )
            empty = [row for row in rows if not row.has_state and row.lock is None and row.messages == 0]
            removed += sum(await asyncio.gather(*(self._remove(row.instance_id, idle_for) for row in empty)))
            if len(rows) < _ENTITIES_PER_READ:
                return removed
            after = rows[-1].instance_id

    async def _remove(self, instance_id: str, idle_for: timedelta) -> bool:
        node = self._admitting_node()
        is_removed = False

        def remove(resident: Resident | None) -> int:
            nonlocal is_removed
            now = node.clock.now()
            if resident is None or resident.instance.updated_at > now - idle_for:
                return 0
            transition = node.hub.remove_entity(resident.instance, now)
            if transition is None:
                return resident.instance.lsn
            is_removed = True
            node.append(transition)
            return transition.lsn

        try:
            await change_instance(node, instance_id, remove)
        except InstanceElsewhereError:
            return False  # the host that has it does this
        except CorruptRecordError as error:
            logger.error("Entity %s cannot be read, and is left alone: %s", instance_id, error)  # noqa: TRY400
        return is_removed

    async def _release_orphaned(self) -> int:
        """A lock that is just being given back may be counted, too: unlocking twice does no harm."""
        released, after = 0, ""
        while True:
            rows = await self._engine.store.entities_locked(after, _ENTITIES_PER_READ)
            for row in rows:
                if not self._admitting_node().partitions.have(row.instance_id):
                    continue  # the host that has it does this
                holder = _readable_lock(row)
                if holder is not None and await self._is_orphaned(holder):
                    node = self._admitting_node()
                    await node.journal.durable(_send_unlock(node, row.instance_id, holder))
                    released += 1
            if len(rows) < _ENTITIES_PER_READ:
                return released
            after = rows[-1].instance_id

    async def _is_orphaned(self, holder: LockHolder) -> bool:
        row = await self._engine.store.read_instance(holder.instance_id)
        if row is None:
            return True
        try:
            section = decode_section(row)
        except CorruptRecordError as error:
            logger.error("Orchestration %r cannot be read; its lock stays: %s", holder.instance_id, error)  # noqa: TRY400
            return False
        return section is None or section.section_id != holder.section_id or section.is_lost


def _readable_lock(row: EntityRow) -> LockHolder | None:
    try:
        return decode_instance_lock(row)
    except CorruptRecordError as error:
        logger.error("The lock of entity %s cannot be read, and is left alone: %s", row.instance_id, error)  # noqa: TRY400
        return None


def _send_unlock(node: Node, instance_id: str, holder: LockHolder) -> int:
    now = node.clock.now()
    event = EntityUnlockSent(timestamp=now, critical_section_id=holder.section_id, target_instance_id=instance_id)
    # As to nobody in memory: a full queue must not keep the lock from going that has filled it.
    transition = node.hub.post(None, instance_id, event, now)
    node.append(transition)
    return transition.lsn


def entity_state(row: EntityRow, lock_requests: tuple[LockState, ...]) -> EntityState:
    """Return what a row says about an entity; a damaged record of it is said to be why it is parked."""
    try:
        check_status(row)
        created_at, updated_at = from_microseconds(row.created_at), from_microseconds(row.updated_at)
        holder = decode_instance_lock(row)
        parked = None if row.parked is None else decode_record(row.parked, FailureDetails)
    except CorruptRecordError as error:  # one damaged record must not hide the others
        created_at, updated_at = readable_instant(row.created_at), readable_instant(row.updated_at)
        holder, parked = None, failure_from_exception(error)
    return EntityState(
        instance_id=row.instance_id,
        created_at=created_at,
        last_updated_at=updated_at,
        has_state=row.has_state,
        state=row.state,
        state_version=row.version,
        lock=None if holder is None else _lock_state(holder),
        lock_requests=lock_requests,
        messages=row.messages,
        scheduled_signals=row.timers,
        parked=parked,
    )


def _lock_state(holder: LockHolder) -> LockState:
    return LockState(instance_id=holder.instance_id, critical_section_id=holder.section_id, since=holder.locked_at)


def lock_requests_of(stored: list[StoredInstance]) -> tuple[LockState, ...]:
    """Return who waits for the lock of an entity, in order."""
    events = [decode_message(row.event) for each in stored for row in each.messages]
    return tuple(
        LockState(
            instance_id=event.parent_instance_id, critical_section_id=event.critical_section_id, since=event.timestamp
        )
        for event in events
        if isinstance(event, EntityLockRequested)
    )
