"""The body of bulk jobs: one page of instances, one request for each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from holdfast.client.port import TaskHub
from holdfast.engine.clock import Clock
from holdfast.errors import CorruptRecordError, InstanceError
from holdfast.model.bulk import BULK, BULK_PAGE, BulkAction, BulkPage, BulkRequest
from holdfast.model.history import CancelRequested, ExecutionResumed, ExecutionSuspended, ExecutionTerminated
from holdfast.model.refs import Activity, AsyncActivity
from holdfast.model.status import OrchestrationStatus as S

_INSTANCES_PER_PAGE: Final = 100

_OPEN: Final = frozenset({S.PENDING, S.RUNNING, S.SUSPENDED})
_STATUSES: Final[Mapping[BulkAction, frozenset[S]]] = MappingProxyType(
    {
        "terminate": _OPEN,
        "cancel": _OPEN,
        "suspend": frozenset({S.PENDING, S.RUNNING}),
        "resume": frozenset({S.SUSPENDED}),
        "rewind": frozenset({S.FAILED}),
    }
)
"""In which states an instance can take an action in; `purge` knows for itself."""

Request = Callable[[str], Awaitable[None]]


def bulk_activity(hub: TaskHub, clock: Clock) -> Activity[Any, Any]:
    """Return the activity that does one page of a bulk job."""

    async def do_page(page: BulkRequest) -> BulkPage:
        if page.action == "purge":
            purged = await hub.purge_instances(page.wanted, page.after, _INSTANCES_PER_PAGE)
            return BulkPage(done=purged.purged, refused=0, next_after=purged.next_after)
        possible = _STATUSES[page.action]
        statuses = page.wanted.statuses & possible if page.wanted.statuses else possible
        if not statuses:
            return BulkPage(done=0, refused=0, next_after=None)
        wanted = msgspec.structs.replace(page.wanted, statuses=statuses)
        found = await hub.list_instances(wanted, page.after, _INSTANCES_PER_PAGE)
        request = _request(hub, clock, page)
        outcomes = await asyncio.gather(*(_ask(request, each.instance_id) for each in found if each.name != BULK))
        is_last = len(found) < _INSTANCES_PER_PAGE
        return BulkPage(
            done=outcomes.count(True),
            refused=outcomes.count(False),
            next_after=None if is_last else found[-1].instance_id,
        )

    return AsyncActivity[BulkRequest, BulkPage](BULK_PAGE, do_page, "page")


async def _ask(request: Request, instance_id: str) -> bool:
    try:
        await request(instance_id)
    except (InstanceError, CorruptRecordError):
        return False
    return True


def _request(hub: TaskHub, clock: Clock, page: BulkRequest) -> Request:
    now, reason = clock.now(), page.reason
    match page.action:
        case "terminate":
            return lambda instance_id: hub.send(instance_id, ExecutionTerminated(timestamp=now, reason=reason))
        case "cancel":
            return lambda instance_id: hub.send(instance_id, CancelRequested(timestamp=now, reason=reason))
        case "suspend":
            return lambda instance_id: hub.send(instance_id, ExecutionSuspended(timestamp=now, reason=reason))
        case "resume":
            return lambda instance_id: hub.send(instance_id, ExecutionResumed(timestamp=now, reason=reason))
        case "rewind":
            return lambda instance_id: hub.rewind(instance_id, reason)
        case "purge":
            return hub.purge
