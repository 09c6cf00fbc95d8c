"""The endpoints about many instances: lists, counts and purges."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.client.client import Client
from holdfast.client.entity_status import EntityQuery
from holdfast.client.instances import ANY, InstancePage, InstanceQuery
from holdfast.http.errors import BadRequestError, Endpoint, error_response, json_response
from holdfast.http.parameters import choice, flag, instant, statuses, tags, token, token_headers, top
from holdfast.http.payload import Links, StatusView, parked_entity_object, status_object
from holdfast.model.ids import is_entity


class Instances:
    """The endpoints that take filters, and the one that purges a single instance."""

    def __init__(self, client: Client, links: Links) -> None:
        self._client = client
        self._links = links

    def endpoints(self) -> Mapping[str, Endpoint]:
        return {
            "list": self.list,
            "parked": self.parked,
            "count": self.count,
            "purge": self.purge,
            "purgeMany": self.purge_many,
            "bulk": self.bulk,
        }

    async def list(self, request: Request) -> Response:
        """Return a page of instances; the next one begins at the token in the header of the answer."""
        return await self._page(request, _query(request))

    async def parked(self, request: Request) -> Response:
        """Return a page of what is parked: orchestrations, and behind the last of them entities."""
        query = msgspec.structs.replace(_query(request), parked=True)
        found, after = [], token(request)
        if not is_entity(after or ""):
            page = await self._client.list_instances(query, limit=top(request), continuation_token=after)
            found, after = _objects(request, page), page.continuation_token
            if after is not None or not _may_be_entities(query):
                return json_response(found, headers=token_headers(after))
        entities = await self._client.list_entities(
            EntityQuery(
                only_parked=True, with_state=False, updated_from=query.updated_from, updated_until=query.updated_until
            ),
            limit=top(request) - len(found),
            continuation_token=after,
        )
        found += [parked_entity_object(each.found) for each in entities.entities]
        return json_response(found, headers=token_headers(entities.continuation_token))

    async def _page(self, request: Request, query: InstanceQuery) -> Response:
        page = await self._client.list_instances(query, limit=top(request), continuation_token=token(request))
        return json_response(_objects(request, page), headers=token_headers(page.continuation_token))

    async def count(self, request: Request) -> Response:
        """Return the number of instances of each status."""
        counts = await self._client.count_instances(_query(request))
        return json_response({status.value: count for status, count in counts.items()})

    async def purge(self, request: Request) -> Response:
        await self._client.purge(request.path_params["instance_id"])
        return json_response({"instancesDeleted": 1})

    async def purge_many(self, request: Request) -> Response:
        """Purge what has ended and matches. A condition that is not understood is refused, as it would purge more."""
        if not request.query_params.get("createdTimeFrom"):
            raise BadRequestError("Please provide value for 'createdTimeFrom' parameter.")
        query = _query(request, ignore_unknown=False)
        if query.created_until is None:
            query = msgspec.structs.replace(query, created_until=datetime.now(UTC))
        purged = await self._client.purge_instances(query)
        if not purged:
            return error_response(404, "There are no such instances that have ended")
        return json_response({"instancesDeleted": purged})

    async def bulk(self, request: Request) -> Response:
        """Start a bulk job. Without a condition it would be about everything: that has to be said."""
        query = _query(request, ignore_unknown=False)
        if query == InstanceQuery(statuses=frozenset(), tags={}) and not flag(request, "all", False):
            raise BadRequestError("A bulk job needs a condition, or all=true")
        action, reason = request.path_params["action"], request.query_params.get("reason")
        job = await self._client.start_bulk(action, query, reason)
        return self._links.accepted(request, job.instance_id)


def _objects(request: Request, page: InstancePage) -> list[dict[str, object]]:
    view = StatusView(show_input=flag(request, "showInput", True))
    return [status_object(each.state, view, None) for each in page.instances]


def _may_be_entities(query: InstanceQuery) -> bool:
    """Return whether there is no condition that only orchestrations can meet."""
    times = InstanceQuery(updated_from=query.updated_from, updated_until=query.updated_until)
    return query == msgspec.structs.replace(times, statuses=frozenset(), tags={}, parked=True)


def _query(request: Request, *, ignore_unknown: bool = True) -> InstanceQuery:
    given = request.query_params
    return InstanceQuery(
        name=given.get("name") or None,
        statuses=statuses(request, ignore_unknown=ignore_unknown),
        id_prefix=given.get("instanceIdPrefix", ""),
        created_from=instant(request, "createdTimeFrom"),
        created_until=instant(request, "createdTimeTo"),
        updated_from=instant(request, "lastUpdatedTimeFrom"),
        updated_until=instant(request, "lastUpdatedTimeTo"),
        parent_instance_id=given.get("parent") or None,
        tags=tags(request),
        custom_status=_custom_status(given.get("customStatus")),
        parked=choice(request, "parked"),
    )


def _custom_status(text: str | None) -> Any:
    if not text:
        return ANY
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return text
