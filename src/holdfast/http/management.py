"""The management API about one orchestration: start it, watch it, start it again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial
from typing import Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from holdfast.client.client import Client
from holdfast.engine.config import HostConfig
from holdfast.errors import HostStoppedError, InstanceNotFoundError, WaitTimeoutError
from holdfast.http.body import NoBody, read_json
from holdfast.http.errors import BadRequestError, Endpoint, json_response
from holdfast.http.parameters import flag, number, orchestration_id, wait_timeout
from holdfast.http.payload import Links, StatusView, status_object
from holdfast.http.waits import Waits, while_asked
from holdfast.model.history import HistoryEvent
from holdfast.model.options import StartOptions
from holdfast.model.status import OrchestrationState, OrchestrationStatus

_STATUS_RETRY_AFTER_S = "5"


class HostView(Protocol):
    """What the http room needs of a host."""

    @property
    def is_ready(self) -> bool: ...

    @property
    def config(self) -> HostConfig: ...


class Management:
    """The endpoints that make an instance, and the one that tells its status."""

    def __init__(self, client: Client, links: Links, waits: Waits) -> None:
        self._client = client
        self._links = links
        self._waits = waits

    def endpoints(self) -> Mapping[str, Endpoint]:
        return {
            "start": self.start,
            "startWithId": self.start,
            "status": self.status,
            "restart": self.restart,
            "fork": self.fork,
        }

    async def start(self, request: Request) -> Response:
        """Start an orchestration; with `timeout` and `pollingInterval`, wait for its result that long."""
        timeout = wait_timeout(request)
        body = await read_json(request, "Invalid JSON content")
        name = request.path_params["function_name"]
        options: StartOptions = {
            "instance_id": request.path_params.get("instance_id"),
            "version": request.query_params.get("version") or None,
        }
        with self._place(timeout):
            if isinstance(body, NoBody):
                handle = await self._client.start_new(name, **options)
            else:
                handle = await self._client.start_new(name, body, **options)
            return await self._started(request, handle.instance_id, timeout)

    async def restart(self, request: Request) -> Response:
        """Start an orchestration again, and answer as a start does."""
        timeout = wait_timeout(request)
        with_new_id = flag(request, "restartWithNewInstanceId", True)
        with self._place(timeout):
            try:
                handle = await self._client.restart(orchestration_id(request), with_new_id=with_new_id)
            except InstanceNotFoundError as error:
                complaint = "InstanceId does not match a valid orchestration instance."
                raise BadRequestError(complaint, str(error)) from error
            return await self._started(request, handle.instance_id, timeout)

    async def fork(self, request: Request) -> Response:
        """Begin an instance with the beginning of another one's history."""
        handle = await self._client.fork(
            orchestration_id(request),
            new_instance_id=request.query_params.get("newInstanceId") or None,
            episode=number(request, "episode"),
        )
        return self._links.accepted(request, handle.instance_id)

    def _place(self, timeout: timedelta | None) -> AbstractContextManager[None]:
        return nullcontext() if timeout is None else self._waits.place()

    async def _started(self, request: Request, instance_id: str, timeout: timedelta | None) -> Response:
        if timeout is not None:
            state = await self._stopped(request, instance_id, timeout)
            if state is not None and state.runtime_status is OrchestrationStatus.COMPLETED:
                return Response(state.output or "null", media_type="application/json")
            if state is not None and state.runtime_status.is_terminal:
                return self._status_response(request, state, None)
        error_on_failure = flag(request, "returnInternalServerErrorOnFailure", False)
        return self._links.accepted(request, instance_id, error_on_failure=error_on_failure)

    async def _stopped(self, request: Request, instance_id: str, timeout: timedelta) -> OrchestrationState | None:
        try:
            wait = partial(self._client.wait_until_stopped, instance_id, timeout=timeout)
            return (await while_asked(request, wait)).state
        except (WaitTimeoutError, HostStoppedError, ClientDisconnect):
            return None  # it was started; the client, and the audit log, learn where to ask for it

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
