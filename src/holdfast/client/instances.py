"""The part of the client that is about many orchestrations: find, count and purge them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, get_args

import msgspec

from holdfast.client.port import TaskHub
from holdfast.client.status import InstanceStatus
from holdfast.errors import InvalidInputError
from holdfast.model.bulk import BULK, BulkAction, BulkProgress, BulkRequest
from holdfast.model.converter import DataConverter
from holdfast.model.ids import NewId, is_entity, validate_instance_id
from holdfast.model.limits import Limits
from holdfast.model.refs import Orchestrator, validate_name
from holdfast.model.requests import InstanceFilter, StartRequest, check_if_execution, check_instant, check_tags
from holdfast.model.status import OrchestrationStatus

if TYPE_CHECKING:
    from holdfast.client.client import OrchestrationHandle

PAGE_INSTANCES_MAX: Final = 1_000
"""Instances in one page of a list, or of a purge."""


class _Any:
    """No condition, where None is a value that can be asked for."""

    def __repr__(self) -> str:
        return "ANY"


ANY: Final = _Any()


class InstanceQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which orchestrations to find: those for which all of this holds. Times have a time zone and are inclusive."""

    name: Orchestrator[Any, Any] | str | None = None
    statuses: Iterable[OrchestrationStatus | str] = ()
    """Any of these; empty for all."""
    id_prefix: str = ""
    created_from: datetime | None = None
    created_until: datetime | None = None
    updated_from: datetime | None = None
    """What has ended was updated last when it ended."""
    updated_until: datetime | None = None
    parent_instance_id: str | None = None
    tags: Mapping[str, str] = {}
    """It has all of these, and perhaps others."""
    custom_status: Any = ANY
    """Its custom status is equal to this value."""
    parked: bool | None = None
    """Only those that wait for an operator, or only others."""


class InstancePage(msgspec.Struct, frozen=True):
    """Some orchestrations, ascending by id. The `continuation_token` leads to those that follow, if there are any."""

    instances: list[InstanceStatus]
    continuation_token: str | None


class Instances:
    """Mixed into `Client`."""

    _hub: TaskHub
    _converter: DataConverter
    _limits: Limits
    _new_id: NewId

    async def list_instances(
        self, query: InstanceQuery | None = None, *, limit: int = 100, continuation_token: str | None = None
    ) -> InstancePage:
        """Return a page of orchestrations, at most `limit`, ascending by id; changes meanwhile shift no page.

        Raises:
            InvalidInputError: if the query, the limit or the token cannot be meant.
        """
        wanted = self._filter(query)
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= PAGE_INSTANCES_MAX:  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(f"limit={limit!r} must be a number from 1 to {PAGE_INSTANCES_MAX}.")
        after = "" if continuation_token is None else validate_instance_id(continuation_token)
        found = await self._hub.list_instances(wanted, after, limit)
        instances = [InstanceStatus(each, self._converter) for each in found]
        return InstancePage(instances, found[-1].instance_id if len(found) == limit else None)

    async def iterate_instances(self, query: InstanceQuery | None = None) -> AsyncIterator[InstanceStatus]:
        """Return all orchestrations that a query finds, read page by page."""
        token: str | None = None
        while True:
            page = await self.list_instances(query, limit=PAGE_INSTANCES_MAX, continuation_token=token)
            for instance in page.instances:
                yield instance
            token = page.continuation_token
            if token is None:
                return

    async def count_instances(self, query: InstanceQuery | None = None) -> dict[OrchestrationStatus, int]:
        """Return how many orchestrations of each status a query finds, without zeros."""
        return await self._hub.count_instances(self._filter(query))

    async def purge(self, instance_id: str, *, if_execution: str | None = None) -> None:
        """Remove all that is stored of an orchestration that has ended: its id is free, its result is forgotten.

        An entity goes with its state, its keys and its scheduled signals. Sub-orchestrations stay. An instance whose
        record is damaged, which nobody can run, is removed whatever it was doing; its parent is not told.

        Args:
            if_execution: of an orchestration: only if this is its execution still, the `execution_id` of its status.
                What was started anew or rewound meanwhile stays.

        Raises:
            InstanceNotFoundError: if there is no such instance, or it has another execution by now.
            InstanceNotEndedError: if it has not ended; or if an entity is locked, or operations wait for it.
            InvalidInputError: if an execution of an entity is named.
            OverloadedError: if somebody just uses it.
        """
        if not is_entity(instance_id):
            validate_instance_id(instance_id)
        await self._hub.purge(instance_id, check_if_execution(instance_id, if_execution))

    async def purge_instances(self, query: InstanceQuery, *, progress: Callable[[int], None] | None = None) -> int:
        """Remove all orchestrations that have ended and that a query finds, the first to end first; return how many.

        It is done in small steps, of which each is durable: what was removed stays so if a later step fails.

        Args:
            progress: is told after each step how many were removed so far.
        """
        wanted, after, purged = self._filter(query), "", 0
        while True:
            page = await self._hub.purge_instances(wanted, after, PAGE_INSTANCES_MAX)
            purged += page.purged
            if progress is not None:
                progress(purged)
            if page.next_after is None:
                return purged
            after = page.next_after

    async def start_bulk(
        self, action: BulkAction, query: InstanceQuery, reason: str | None = None
    ) -> OrchestrationHandle[BulkProgress]:
        """Do something with all orchestrations that a query finds, as a job that survives crashes and restarts.

        The job is an orchestration itself: its custom status is a `BulkProgress`, as is its result; it can be
        suspended, resumed and cancelled, and leaves other bulk jobs alone. What starts meanwhile may be found or not.

        Args:
            action: `terminate`, `cancel`, `suspend`, `resume`, `rewind` or `purge`. Only instances in a state for it
                are looked at.

        Raises:
            InvalidInputError: if the action or the query cannot be meant.
            OverloadedError: if too much waits to be stored.
        """
        if action not in get_args(BulkAction):
            raise InvalidInputError(f"action={action!r:.40} must be one of {', '.join(get_args(BulkAction))}.")
        text = None if reason is None else self._converter.encode(reason)
        job = BulkRequest(action=action, wanted=self._filter(query), reason=text)
        request = StartRequest(name=BULK, instance_id=self._new_id(), input=self._converter.encode(job), is_new_id=True)
        await self._hub.start_orchestration(request)
        return self._handle(request.instance_id, BulkProgress)

    @abstractmethod
    def _handle(self, instance_id: str, output_type: Any = Any) -> OrchestrationHandle[Any]: ...

    def _filter(self, query: InstanceQuery | None) -> InstanceFilter:
        query = query or InstanceQuery()
        if not isinstance(query, InstanceQuery):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(f"{query!r:.80} is no query; write InstanceQuery(name=purchase).")
        for bound in ("created_from", "created_until", "updated_from", "updated_until"):
            check_instant(bound, getattr(query, bound))
        if not isinstance(query.id_prefix, str) or not query.id_prefix.isprintable():  # pyright: ignore[reportUnnecessaryIsInstance] - as above
            raise InvalidInputError(f"id_prefix={query.id_prefix!r:.80} is not how an instance id can begin.")
        parent = query.parent_instance_id
        name = query.name.name if isinstance(query.name, Orchestrator) else query.name
        return InstanceFilter(
            prefix=query.id_prefix,
            name=None if name is None else validate_name(name),
            statuses=_statuses(query.statuses),
            created_from=query.created_from,
            created_until=query.created_until,
            updated_from=query.updated_from,
            updated_until=query.updated_until,
            parent_instance_id=None if parent is None else validate_instance_id(parent),
            tags=check_tags(dict(query.tags), self._limits.tags_max),
            custom_status=None if query.custom_status is ANY else self._converter.encode(query.custom_status),
            parked=query.parked,
        )


def _statuses(statuses: Iterable[OrchestrationStatus | str]) -> frozenset[OrchestrationStatus]:
    try:
        return frozenset(OrchestrationStatus(each) for each in ((statuses,) if isinstance(statuses, str) else statuses))
    except ValueError:
        known = ", ".join(OrchestrationStatus)
        raise InvalidInputError(f"statuses={statuses!r:.80} must be some of {known}.") from None
