"""What a client needs of a task hub. The engine implements it in this process; a transport may do so from afar."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from holdfast.model.exported import ExportedHistory
from holdfast.model.history import HistoryEvent, MessageEvent, OperationAnswer, UpdateCompleted, UpdateRequested
from holdfast.model.requests import EntityFilter, InstanceFilter, OperationRequest, StartRequest
from holdfast.model.status import (
    EntitiesRemoved,
    EntityState,
    InstancesPurged,
    LockState,
    OrchestrationState,
    OrchestrationStatus,
)


class TaskHub(Protocol):
    """Requests are answered once what they caused is durable; what they tell is durable too."""

    async def start_orchestration(self, request: StartRequest) -> None:
        """Start an orchestration, or leave the existing one, as the request says.

        Raises:
            NotRegisteredError, InvalidInstanceIdError, InstanceAlreadyExistsError, OverloadedError.
        """
        ...

    async def send(self, instance_id: str, event: MessageEvent) -> None:
        """Send an external event or a management request to an orchestration.

        Raises:
            InstanceNotFoundError, InstanceNotRunningError, OverloadedError.
        """
        ...

    async def query(self, instance_id: str, name: str, input: str | None) -> str:
        """Return the answer of a query handler as JSON.

        Raises:
            InstanceNotFoundError, InstanceNotRunningError, QueryFailedError.
        """
        ...

    async def update(self, instance_id: str, request: UpdateRequested, timeout: timedelta | None) -> UpdateCompleted:
        """Send an update and return its answer.

        Raises:
            InstanceNotFoundError, InstanceNotRunningError, UpdateRejectedError, OverloadedError, WaitTimeoutError.
        """
        ...

    async def rewind(self, instance_id: str, reason: str | None) -> None:
        """Let an orchestration that has failed go on from just before what made it fail.

        Raises:
            InstanceNotFoundError, InstanceNotRunningError, RewindRefusedError, OverloadedError.
        """
        ...

    async def fork(self, instance_id: str, new_instance_id: str, episodes: int | None) -> None:
        """Begin an orchestration that goes on from where another one was after so many episodes.

        Args:
            episodes: None for all but the one that ended it.

        Raises:
            InstanceNotFoundError, InstanceAlreadyExistsError, RewindRefusedError, OverloadedError.
            InvalidInputError: if there are not so many episodes.
        """
        ...

    async def signal_entities(self, requests: Sequence[OperationRequest]) -> None:
        """Send operations to entities, one way; all of them are stored, or none.

        Raises:
            NotRegisteredError, InvalidInputError, OverloadedError.
        """
        ...

    async def call_entity(self, request: OperationRequest, timeout: timedelta | None) -> OperationAnswer:
        """Run an operation on an entity and return what came of it.

        Raises:
            NotRegisteredError, InvalidInputError, OverloadedError, InstanceParkedError, WaitTimeoutError.
        """
        ...

    async def get_entity(self, instance_id: str) -> EntityState | None: ...

    async def list_entities(self, wanted: EntityFilter, after: str, limit: int) -> Sequence[EntityState]:
        """Return entities with instance ids greater than `after`, ascending, without lock requests."""
        ...

    async def break_lock(self, instance_id: str) -> LockState | None:
        """Take an entity's lock from whoever holds it; return who that was.

        Raises:
            OverloadedError.
        """
        ...

    async def clean_entities(
        self, idle_for: timedelta, *, remove_empty: bool, release_orphaned: bool
    ) -> EntitiesRemoved:
        """Remove entities that hold nothing and were not used for so long; unlock those whose holder is gone."""
        ...

    async def list_instances(self, wanted: InstanceFilter, after: str, limit: int) -> Sequence[OrchestrationState]:
        """Return orchestrations with ids greater than `after`, ascending."""
        ...

    async def count_instances(self, wanted: InstanceFilter) -> dict[OrchestrationStatus, int]:
        """Return how many orchestrations there are of each status, without zeros."""
        ...

    async def purge(self, instance_id: str, if_execution: str | None = None) -> None:
        """Remove all that is stored of an orchestration that has ended, of an entity, or of what cannot be read.

        Args:
            if_execution: of an orchestration: only if this is its execution still.

        Raises:
            InstanceNotFoundError, InstanceNotEndedError, OverloadedError.
        """
        ...

    async def purge_instances(self, wanted: InstanceFilter, after: str, limit: int) -> InstancesPurged:
        """Remove a page of the orchestrations that have ended, the first to end first.

        Args:
            after: "" at first, then `next_after` of the page before. One that somebody uses just then is left.

        Raises:
            OverloadedError.
        """
        ...

    async def get_state(self, instance_id: str) -> OrchestrationState | None: ...

    async def get_history(self, instance_id: str) -> Sequence[HistoryEvent]:
        """Return the events of the current execution, oldest first.

        Raises:
            InstanceNotFoundError.
        """
        ...

    async def export_history(self, instance_id: str, *, first: int = 0, limit: int | None = None) -> ExportedHistory:
        """Return the same, episode by episode, with what a replay needs besides.

        Args:
            first: the episode to begin with, counted from 0.
            limit: how many at most; None for all.

        Raises:
            InstanceNotFoundError.
        """
        ...

    async def wait_until_stopped(self, instance_id: str, timeout: timedelta | None) -> OrchestrationState:
        """Return the state once the instance has ended or is parked.

        Raises:
            InstanceNotFoundError, WaitTimeoutError.
        """
        ...
