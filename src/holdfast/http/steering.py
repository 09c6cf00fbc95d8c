"""The endpoints that send something to an instance, or ask its code something."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from holdfast.client.client import Client
from holdfast.errors import HostStoppedError
from holdfast.http.body import NoBody, media_type, read_json
from holdfast.http.errors import BadRequestError, Endpoint, Readiness, json_response
from holdfast.http.parameters import flag, orchestration_id, seconds
from holdfast.http.waits import Waits, while_asked

_UPDATE_TIMEOUT_S: Final = 100.0


class Steering:
    """The endpoints about one instance that is there already."""

    def __init__(self, host: Readiness, client: Client, waits: Waits) -> None:
        self._host = host
        self._client = client
        self._waits = waits

    def endpoints(self) -> Mapping[str, Endpoint]:
        return {
            "raiseEvent": self.raise_event,
            "terminate": self.terminate,
            "cancel": self.cancel,
            "suspend": self.suspend,
            "resume": self.resume,
            "rewind": self.rewind,
            "query": self.query,
            "update": self.update,
            "makePrimary": self.make_primary,
        }

    async def raise_event(self, request: Request) -> Response:
        """Send an external event; without a body its payload is null."""
        if media_type(request) != "application/json":
            raise BadRequestError("Only application/json request content is supported")
        data = await _json_or_null(request)
        await self._client.raise_event(orchestration_id(request), request.path_params["event_name"], data)
        return Response(status_code=202)

    async def terminate(self, request: Request) -> Response:
        await self._client.terminate(orchestration_id(request), _reason(request), recursive=_recursive(request))
        return Response(status_code=202)

    async def cancel(self, request: Request) -> Response:
        await self._client.cancel(orchestration_id(request), _reason(request))
        return Response(status_code=202)

    async def suspend(self, request: Request) -> Response:
        await self._client.suspend(orchestration_id(request), _reason(request), recursive=_recursive(request))
        return Response(status_code=202)

    async def resume(self, request: Request) -> Response:
        """Resume an instance, or an entity that is parked."""
        instance_id = request.path_params["instance_id"]
        await self._client.resume(instance_id, _reason(request), recursive=_recursive(request))
        return Response(status_code=202)

    async def rewind(self, request: Request) -> Response:
        await self._client.rewind(orchestration_id(request), _reason(request))
        return Response(status_code=202)

    async def query(self, request: Request) -> Response:
        """Return the answer of a query handler; without a body its input is null."""
        data = await _json_or_null(request)
        answer = await self._client.query(orchestration_id(request), request.path_params["query_name"], data)
        return json_response(answer)

    async def update(self, request: Request) -> Response:
        """Return the answer of an update handler; without a body its input is null."""
        timeout = timedelta(seconds=seconds(request, "timeout", _UPDATE_TIMEOUT_S))
        data = await _json_or_null(request)

        async def answered() -> Any:
            return await self._client.update(
                orchestration_id(request),
                request.path_params["update_name"],
                data,
                update_id=request.query_params.get("updateId") or None,
                timeout=timeout,
            )

        with self._waits.place():
            return json_response(await while_asked(request, answered))

    async def make_primary(self, _: Request) -> Response:
        """Say that this host works: it could not without owning its store."""
        if not self._host.is_ready:
            raise HostStoppedError("This host does not own its store now.")
        return Response(status_code=200)


async def _json_or_null(request: Request) -> Any:
    body = await read_json(request, "Invalid JSON content")
    return None if isinstance(body, NoBody) else body


def _reason(request: Request) -> str | None:
    return request.query_params.get("reason")


def _recursive(request: Request) -> bool:
    return flag(request, "recursive", False)
