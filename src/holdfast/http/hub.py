"""The port `TaskHub` over HTTP, for `holdfast.connect`: one endpoint, whose methods the protocol's table has."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Protocol

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from holdfast.client.arguments import Fork, Rewind, StartOrchestration
from holdfast.client.client import Client, hub_of
from holdfast.client.protocol import HUB_PATH, METHODS, Method, Refusal, bounded_wait
from holdfast.client.wire_errors import to_wire
from holdfast.engine.config import HostConfig
from holdfast.errors import HoldfastError, InstanceError, InvalidInputError, WaitTimeoutError
from holdfast.http.again import scope_to_repeat, scope_to_start
from holdfast.http.audit import note
from holdfast.http.body import BoundedBodies, media_type
from holdfast.http.dispatch import FirstFit
from holdfast.http.errors import Readiness, error_response, json_response, not_found_response, retry_headers, status_of
from holdfast.http.hub_audit import told_of
from holdfast.http.scopes import caller_of
from holdfast.http.waits import while_asked
from holdfast.model.access import AccessScope
from holdfast.model.limits import Limits

logger = logging.getLogger("holdfast.http")

_NOT_YET = 202
_ENVELOPE_BYTES_MAX = 1024 * 1024


class HostView(Readiness, Protocol):
    """What this module needs of a host."""

    @property
    def config(self) -> HostConfig: ...


class HubEndpoint:
    """Calls the methods of a hub for clients elsewhere."""

    def __init__(self, host: Readiness, client: Client, limits: Limits) -> None:
        self._host = host
        self._hub = hub_of(client)
        self._limits = limits

    async def answer(self, request: Request) -> Response:
        name: str = request.path_params["method"]
        if name not in METHODS:
            return error_response(404, f"A hub has no method {name[:60]!r}")
        try:
            if media_type(request) != "application/json":  # which no form of a web page can send
                raise InvalidInputError("The arguments of a method are sent with Content-Type: application/json.")
            return await self._call(name, request)
        except HoldfastError as error:
            status = status_of(error, self._host)
            if status == 500 and not isinstance(error, InstanceError):  # that is between the client and its instance
                logger.exception("A request failed: hub method %s", name)
            return json_response(Refusal(to_wire(error)), status, retry_headers(status))
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception:
            logger.exception("A request failed: hub method %s", name)
            return error_response(500, "Something went wrong while processing your request")

    async def _call(self, name: str, request: Request) -> Response:
        method, caller = METHODS[name], caller_of(request.scope)
        body = await request.body()
        try:
            arguments = method.decode_arguments(body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidInputError(f"The arguments of {name} cannot be read: {error}.") from error
        note(request.scope, **told_of(arguments))
        needed = await self._needed_by(arguments)
        if not caller.may(needed):
            return error_response(403, f"The key {caller.name!r} does not allow this {name}; it needs one for {needed}")
        if not method.waits:
            return json_response(await method.call(self._hub, arguments, self._limits))
        arguments = msgspec.structs.replace(arguments, timeout=bounded_wait(arguments.timeout))
        try:
            return json_response(await while_asked(request, partial(self._wait, method, arguments)))
        except WaitTimeoutError:
            return Response(status_code=_NOT_YET)

    async def _wait(self, method: Method[Any, Any], arguments: Any) -> Any:
        return await method.call(self._hub, arguments, self._limits)

    async def _needed_by(self, arguments: object) -> AccessScope:
        """Return what a key must allow besides: some orchestrators need more, here as by their own path."""
        if isinstance(arguments, StartOrchestration):
            return scope_to_start(arguments.request.name)
        if isinstance(arguments, Fork | Rewind):
            return await scope_to_repeat(self._hub, arguments.instance_id)
        return "read"


def hub_mount(host: HostView, client: Client) -> Mount:
    """Return what answers below `HUB_PATH`. Payloads are texts inside JSON there, and take up to twice their length."""
    limits = host.config.limits
    endpoint = HubEndpoint(host, client, limits)
    methods = FirstFit([Route("/{method}", endpoint.answer, methods=["POST"])], not_found_response)
    return Mount(HUB_PATH, BoundedBodies(methods, 2 * limits.payload_bytes_max + _ENVELOPE_BYTES_MAX))
