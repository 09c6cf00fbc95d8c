"""The management API: start, watch and steer orchestrations."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from holdfast.client.client import Client
from holdfast.engine.config import HostConfig
from holdfast.errors import HostStoppedError, InstanceNotFoundError, WaitTimeoutError
from holdfast.http.body import NoBody, media_type, read_json
from holdfast.http.errors import BadRequestError, answering, json_response
from holdfast.http.payload import BASE_PATH, Links, StatusView, flag, status_object
from holdfast.model.history import HistoryEvent
from holdfast.model.ids import is_entity
from holdfast.model.status import OrchestrationState, OrchestrationStatus

_STATUS_RETRY_AFTER_S = "5"
_WAIT_S_MAX = 24 * 60 * 60


class HostView(Protocol):
    """What the http room needs of a host."""

    @property
    def is_ready(self) -> bool: ...

    @property
    def config(self) -> HostConfig: ...


class Management:
    """The endpoints about orchestrations, over one client."""

    def __init__(self, host: HostView, client: Client, links: Links) -> None:
        self._host = host
        self._client = client
        self._links = links

    def routes(self) -> list[Route]:
        """Return the routes of the management API, and the start below `/api` that quickstarts of the family have."""
        start = answering(self._host, self.start)
        # An id with a slash comes here too, so that it is refused by name.
        starts = [
            Route(f"{base}/orchestrators/{{function_name}}{suffix}", start, methods=["POST"])
            for base in (BASE_PATH, "/api")
            for suffix in ("", "/{instance_id:path}")
        ]
        instance = f"{BASE_PATH}/instances/{{instance_id}}"
        others = [
            (instance, "GET", self.status),
            (f"{instance}/raiseEvent/{{event_name}}", "POST", self.raise_event),
            (f"{instance}/terminate", "POST", self.terminate),
            (f"{instance}/suspend", "POST", self.suspend),
            (f"{instance}/resume", "POST", self.resume),
        ]
        return starts + [
            Route(path, answering(self._host, endpoint), methods=[method]) for path, method, endpoint in others
        ]

    async def start(self, request: Request) -> Response:
        """Start an orchestration; with `timeout` and `pollingInterval`, wait for its result that long."""
        timeout = _wait_timeout(request)
        body = await read_json(request, "Invalid JSON content")
        name = request.path_params["function_name"]
        instance_id = request.path_params.get("instance_id")
        if isinstance(body, NoBody):
            handle = await self._client.start_new(name, instance_id=instance_id)
        else:
            handle = await self._client.start_new(name, body, instance_id=instance_id)
        error_on_failure = flag(request, "returnInternalServerErrorOnFailure", False)
        if timeout is not None:
            state = await self._stopped(handle.instance_id, timeout)
            if state is not None and state.runtime_status is OrchestrationStatus.COMPLETED:
                return Response(state.output or "null", media_type="application/json")
            if state is not None and state.runtime_status.is_terminal:
                return self._status_response(request, state, None)
        return self._links.accepted(request, handle.instance_id, error_on_failure=error_on_failure)

    async def _stopped(self, instance_id: str, timeout: timedelta) -> OrchestrationState | None:
        try:
            return (await self._client.wait_until_stopped(instance_id, timeout=timeout)).state
        except (WaitTimeoutError, HostStoppedError):
            return None  # it was started; the client learns where to ask for it

    async def status(self, request: Request) -> Response:
        """Tell the state of an instance: 202 as long as it has not ended."""
        instance_id = request.path_params["instance_id"]
        found = await self._client.get_status(instance_id)
        if found is None:
            raise InstanceNotFoundError(instance_id)
        history: list[HistoryEvent] | None = None
        if flag(request, "showHistory", False) and found.runtime_status is not OrchestrationStatus.PENDING:
            history = list(await self._client.get_history(instance_id))
        return self._status_response(request, found.state, history)

    def _status_response(
        self, request: Request, state: OrchestrationState, history: list[HistoryEvent] | None
    ) -> Response:
        view = StatusView(
            show_input=flag(request, "showInput", True), show_history_output=flag(request, "showHistoryOutput", False)
        )
        body = status_object(state, view, history)
        if not state.runtime_status.is_terminal:
            query = request.url.query
            location = self._links.instance_url(request, state.instance_id) + (f"?{query}" if query else "")
            return json_response(body, 202, {"Location": location, "Retry-After": _STATUS_RETRY_AFTER_S})
        is_error = state.runtime_status is OrchestrationStatus.FAILED and flag(
            request, "returnInternalServerErrorOnFailure", False
        )
        return json_response(body, 500 if is_error else 200)

    async def raise_event(self, request: Request) -> Response:
        """Send an external event; without a body its payload is null."""
        if media_type(request) != "application/json":
            raise BadRequestError("Only application/json request content is supported")
        body = await read_json(request, "Invalid JSON content")
        data = None if isinstance(body, NoBody) else body
        await self._client.raise_event(_orchestration_id(request), request.path_params["event_name"], data)
        return Response(status_code=202)

    async def terminate(self, request: Request) -> Response:
        await self._client.terminate(_orchestration_id(request), request.query_params.get("reason"))
        return Response(status_code=202)

    async def suspend(self, request: Request) -> Response:
        await self._client.suspend(_orchestration_id(request), request.query_params.get("reason"))
        return Response(status_code=202)

    async def resume(self, request: Request) -> Response:
        await self._client.resume(request.path_params["instance_id"], request.query_params.get("reason"))
        return Response(status_code=202)


def _orchestration_id(request: Request) -> str:
    """Return the id, if it may be an orchestration's: an entity has no events, and nothing ends it but `delete`."""
    instance_id: str = request.path_params["instance_id"]
    if is_entity(instance_id):
        raise InstanceNotFoundError(instance_id)
    return instance_id


def _wait_timeout(request: Request) -> timedelta | None:
    """Return how long to wait for the result: only if both parameters are given.

    Nothing is polled here, but an interval that the protocol forbids is refused all the same.
    """
    if "timeout" not in request.query_params or "pollingInterval" not in request.query_params:
        return None
    timeout, interval = _seconds(request, "timeout"), _seconds(request, "pollingInterval")
    if interval > timeout:
        raise BadRequestError(f"pollingInterval is {interval:g} s, which is more than the timeout, {timeout:g} s")
    return timedelta(seconds=timeout)


def _seconds(request: Request, name: str) -> float:
    text = request.query_params[name]
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= _WAIT_S_MAX:
        raise BadRequestError(f"{name} is {text[:40]!r}; it must be a number of seconds from 0 to {_WAIT_S_MAX}")
    return seconds
