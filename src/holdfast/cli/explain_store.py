"""What `holdfast explain` reads from a store, besides what a host tells: attempts, retries, timers."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.cli.explain import Stored, StoredActivity
from holdfast.engine.clock import from_microseconds
from holdfast.engine.entity_requests import entity_state
from holdfast.engine.exports import read_history
from holdfast.engine.readable import readable_state
from holdfast.hub.instance import RUN_TIMEOUT, SCHEDULED_START
from holdfast.model.history import HistoryEvent
from holdfast.model.status import EntityState, OrchestrationState
from holdfast.storage.port import Store


class FromStore:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def state(self, instance_id: str) -> OrchestrationState | None:
        row = await self._store.read_instance(instance_id)
        return None if row is None else readable_state(row)

    async def history(self, instance_id: str) -> Sequence[HistoryEvent]:
        found = await read_history(self._store, instance_id)
        return [event for episode in found.episodes for event in episode]

    async def entity(self, instance_id: str) -> EntityState | None:
        rows = await self._store.entities(instance_id, "", 1, with_state=False, with_empty=True)
        return entity_state(rows[0], ()) if rows and rows[0].instance_id == instance_id else None

    async def stored(self, instance_id: str) -> Stored | None:
        [found] = await self._store.load([instance_id])
        timers = {row.sequence: from_microseconds(row.due_at) for row in found.timers}
        return Stored(
            activities={
                row.sequence: StoredActivity(
                    attempt=row.attempt, deliveries=row.deliveries, visible_at=from_microseconds(row.visible_at)
                )
                for row in found.activities
            },
            timers=timers,
            messages=len(found.messages),
            start_at=timers.get(SCHEDULED_START),
            run_until=timers.get(RUN_TIMEOUT),
            declared=None if self._store.mail is None else await self._store.mail.declared(),
        )
