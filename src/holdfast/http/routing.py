"""Makes the routes of the management API of the table of endpoints, and of what implements them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from holdfast.client.client import Client
from holdfast.errors import InstanceAlreadyExistsError, InstanceNotEndedError, InstanceNotRunningError, TaskFailedError
from holdfast.http.again import check_may_repeat
from holdfast.http.entities import EntityEndpoints
from holdfast.http.errors import Answering, Endpoint, Statuses, error_response, json_response
from holdfast.http.instances import Instances
from holdfast.http.live import LiveUpdates
from holdfast.http.management import HostView, Management
from holdfast.http.openapi import DOCUMENT_PATH, openapi_document
from holdfast.http.operations import Operation
from holdfast.http.parameters import orchestration_id
from holdfast.http.payload import BASE_PATH, LEGACY_BASE_PATH, Links
from holdfast.http.reading import Histories
from holdfast.http.scopes import caller_of
from holdfast.http.steering import Steering
from holdfast.http.table import OPERATIONS
from holdfast.http.waits import Waits
from holdfast.model.access import is_same_hub

BASE_PATHS: Final = (BASE_PATH, LEGACY_BASE_PATH)
_START_BASE: Final = "/api"
"""Where the quickstarts of the family have their start."""

_ANSWERS_FOR_CODE: Final[Mapping[str, Statuses]] = MappingProxyType({"update": {TaskFailedError: 422}})
"""Where the orchestration's own code may fail on a request, which is no fault of this host."""

_SPECIAL: Final[Mapping[str, Mapping[str, Statuses]]] = MappingProxyType(
    {
        "current": {
            "restart": {InstanceNotRunningError: 409},
            "rewind": {InstanceNotRunningError: 412},
        },
        "legacy": {
            "purge": {InstanceNotEndedError: 404},
            "restart": {InstanceNotRunningError: 400},
            "startWithId": {InstanceAlreadyExistsError: 400},
        },
    }
)
"""Where an endpoint differs from the common table of statuses, by the setting `http_status_codes`."""


def management_routes(host: HostView, client: Client, links: Links) -> list[Route]:
    """Return a route for each endpoint of the table below each of its bases, and one for the document about them."""
    endpoints = _endpoints(host, client, links)
    special = _SPECIAL[host.config.http_status_codes]
    document = openapi_document(BASE_PATH)

    async def openapi(request: Request) -> Response:
        return json_response({**document, "servers": [{"url": links.base_url(request)}]})

    routes = [Route(f"{base}{DOCUMENT_PATH}", openapi) for base in BASE_PATHS]
    for operation in OPERATIONS:
        statuses = {**_ANSWERS_FOR_CODE.get(operation.name, {}), **special.get(operation.name, {})}
        endpoint = endpoints[operation.name]
        endpoint = _checked(client, endpoint) if operation.repeats else endpoint
        answering = Answering(host, _of_hub(host.config.task_hub, endpoint), statuses)
        routes += [Route(path, answering, methods=[operation.method]) for path in paths_of(operation)]
    return routes


def _checked(client: Client, endpoint: Endpoint) -> Endpoint:
    """Return an endpoint for those who might have started what the instance runs."""

    async def answer(request: Request) -> Response:
        await check_may_repeat(client, caller_of(request.scope), orchestration_id(request))
        return await endpoint(request)

    return answer


def _of_hub(hub: str | None, endpoint: Endpoint) -> Endpoint:
    """Return an endpoint of one task hub, for requests that name no other one; a hub without a name has any."""
    if hub is None:
        return endpoint

    async def answer(request: Request) -> Response:
        other = [each for each in request.query_params.getlist("taskHub") if each and not is_same_hub(each, hub)]
        if other:
            return error_response(404, f"This host has the task hub {hub!r}, not {other[0][:64]!r}")
        return await endpoint(request)

    return answer


def paths_of(operation: Operation) -> list[str]:
    """Return where an operation is served, with the names in braces as they are spelled in this program."""
    path = re.sub(r"[A-Z](?=\w*\})", lambda letter: f"_{letter[0].lower()}", operation.path)
    path = re.sub(r"\}$", ":path}", path) if operation.open_tail else path
    endings = ("", "/") if operation.is_collection else ("",)
    bases = (*BASE_PATHS, _START_BASE) if path.startswith("/orchestrators/") else BASE_PATHS
    return [f"{base}{path}{ending}" for base in bases for ending in endings]


def _endpoints(host: HostView, client: Client, links: Links) -> Mapping[str, Endpoint]:
    waits = Waits(host.config.http_waits_max)
    return {
        **Management(client, links, waits).endpoints(),
        **Steering(host, client, waits).endpoints(),
        **Instances(client, links).endpoints(),
        **Histories(client).endpoints(),
        **LiveUpdates(client, host.config.http_streams_max).endpoints(),
        **EntityEndpoints(client).endpoints(),
    }
