"""The endpoints about many instances: lists, counts and purges."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.client.client import Client
from holdfast.client.instances import ANY, InstanceQuery
from holdfast.http.errors import BadRequestError, Endpoint, error_response, json_response
from holdfast.http.parameters import choice, flag, instant, statuses, tags, token, token_headers, top
from holdfast.http.payload import StatusView, status_object


class Instances:
    """The endpoints that take filters, and the one that purges a single instance."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def endpoints(self) -> Mapping[str, Endpoint]:
        return {
            "list": self.list,
            "parked": self.parked,
            "count": self.count,
            "purge": self.purge,
            "purgeMany": self.purge_many,
        }

    async def list(self, request: Request) -> Response:
        """Return a page of instances; the next one begins at the token in the header of the answer."""
        return await self._page(request, _query(request))

    async def parked(self, request: Request) -> Response:
        return await self._page(request, msgspec.structs.replace(_query(request), parked=True))

    async def _page(self, request: Request, query: InstanceQuery) -> Response:
        page = await self._client.list_instances(query, limit=top(request), continuation_token=token(request))
        view = StatusView(show_input=flag(request, "showInput", True))
        found = [status_object(each.state, view, None) for each in page.instances]
        return json_response(found, headers=token_headers(page.continuation_token))

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
