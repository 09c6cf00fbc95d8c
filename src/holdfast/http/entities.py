"""Entities over HTTP: signal, read and list them, see who holds a lock, break it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.client.client import Client
from holdfast.client.entity_status import EntityQuery, EntityStatus
from holdfast.http.body import NoBody, media_type, read_json, read_text
from holdfast.http.errors import Endpoint, error_response, json_response
from holdfast.http.operations import TOKEN_HEADER
from holdfast.http.parameters import flag, instant, top
from holdfast.http.payload import whole_seconds
from holdfast.model.ids import EntityId
from holdfast.model.status import LockState


class EntityEndpoints:
    """The endpoints about entities, over one client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def endpoints(self) -> Mapping[str, Endpoint]:
        return {
            "listEntities": self.list,
            "listEntitiesOfName": self.list,
            "readEntity": self.read,
            "signalEntity": self.signal,
            "deleteEntity": self.delete,
            "readLock": self.lock,
            "breakLock": self.break_lock,
        }

    async def list(self, request: Request) -> Response:
        """Return a page of entities; the next one begins at the token in the header of the answer."""
        query = EntityQuery(
            entity=request.path_params.get("entity_name"),
            updated_from=instant(request, "lastOperationTimeFrom"),
            updated_until=instant(request, "lastOperationTimeTo"),
            with_state=flag(request, "fetchState", False),
        )
        given = request.headers.get(TOKEN_HEADER, "")
        token = None if given in ("", "null") else unquote(given)
        page = await self._client.list_entities(query, limit=top(request), continuation_token=token)
        headers = {} if page.continuation_token is None else {TOKEN_HEADER: quote(page.continuation_token)}
        return json_response([_entity_object(each) for each in page.entities], headers=headers)

    async def read(self, request: Request) -> Response:
        """Return the bare state of an entity, as it is stored."""
        entity_id = _entity_id(request)
        found = await self._client.get_entity(entity_id)
        if found is None or found.found.state is None:
            return _nothing(entity_id)
        return Response(found.found.state, media_type="application/json")

    async def signal(self, request: Request) -> Response:
        """Signal the operation `op`; a body that is not declared as JSON is its input as a text."""
        if media_type(request) == "application/json":
            body = await read_json(request, "Could not parse JSON content: {error}")
        else:
            body = await read_text(request)
        entity_id, operation = _entity_id(request), request.query_params.get("op", "")
        if isinstance(body, NoBody):
            await self._client.signal_entity(entity_id, operation)
        else:
            await self._client.signal_entity(entity_id, operation, body)
        return Response(status_code=202)

    async def delete(self, request: Request) -> Response:
        """Signal the operation `delete`."""
        await self._client.signal_entity(_entity_id(request), "delete")
        return Response(status_code=202)

    async def lock(self, request: Request) -> Response:
        """Tell who holds the lock of an entity, and who waits for it, in order."""
        entity_id = _entity_id(request)
        found = await self._client.get_entity(entity_id)
        if found is None:
            return _nothing(entity_id)
        return json_response(
            {
                "lockedBy": None if found.lock is None else _lock_object(found.lock),
                "waiting": [_lock_object(each) for each in found.lock_requests],
            }
        )

    async def break_lock(self, request: Request) -> Response:
        """Take the lock from whoever holds it, and tell who that was."""
        holder = await self._client.break_lock(_entity_id(request))
        return json_response({"lockedBy": None if holder is None else _lock_object(holder)})


def _entity_id(request: Request) -> EntityId[object]:
    return EntityId(request.path_params["entity_name"], request.path_params["entity_key"])


def _nothing(entity_id: EntityId[object]) -> Response:
    return error_response(404, f"There is no entity {entity_id.instance_id!r}")


def _entity_object(entity: EntityStatus[Any]) -> dict[str, object]:
    found: dict[str, object] = {
        "entityId": {"name": entity.entity_id.name, "key": entity.entity_id.key},
        "lastOperationTime": whole_seconds(entity.last_updated_at),
    }
    if entity.found.state is not None:
        found["state"] = msgspec.Raw(entity.found.state.encode())
    return found


def _lock_object(lock: LockState) -> dict[str, str]:
    return {"instanceId": lock.instance_id, "since": whole_seconds(lock.since)}
