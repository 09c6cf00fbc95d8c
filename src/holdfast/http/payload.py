"""What a client is told about an instance: the management URLs, and the status object."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from holdfast.errors import ConfigurationError
from holdfast.http.errors import json_response
from holdfast.http.history import project_history, raw
from holdfast.http.scopes import caller_of
from holdfast.model.history import HistoryEvent
from holdfast.model.ids import name_of
from holdfast.model.status import EntityState, OrchestrationState, OrchestrationStatus

BASE_PATH = "/runtime/webhooks/durabletask"
LEGACY_BASE_PATH = "/admin/extensions/DurableTaskExtension"
_START_RETRY_AFTER_S = "10"
_REPEATED = (("taskHub", ("taskHub",)), ("connection", ("connection", "connectionName")))
"""Parameters of a request that the URLs of its answer repeat, and how clients spell them."""


class Links:
    """Makes the management URLs of an instance, below the URL under which the request found this app.

    They carry the key of the request, so that nobody gets one that allows more than their own.
    """

    def base_url(self, request: Request) -> str:
        """Return the URL of the management API by which the request came, or would have come."""
        url = request.url
        root = request.scope.get("root_path", "")
        base = LEGACY_BASE_PATH if url.path.startswith(f"{root}{LEGACY_BASE_PATH}/") else BASE_PATH
        return f"{url.scheme}://{url.netloc}{quote(root)}{base}"

    def instance_url(self, request: Request, instance_id: str) -> str:
        """Return the URL of an instance without a query."""
        return f"{self.base_url(request)}/instances/{quote(instance_id, safe=':@')}"

    def payload(self, request: Request, instance_id: str, *, error_on_failure: bool = False) -> dict[str, str]:
        """Return the management payload: the URLs of everything that can be done with an instance."""
        url = self.instance_url(request, instance_id)
        flag = "returnInternalServerErrorOnFailure=true" if error_on_failure else ""
        common = self._common(request)
        urls = {
            "purgeHistoryDeleteUri": _with_query(url, common),
            "sendEventPostUri": _with_query(f"{url}/raiseEvent/{{eventName}}", common),
            "statusQueryGetUri": _with_query(url, flag, common),
            "restartPostUri": _with_query(f"{url}/restart", common),
        }
        for request_name in ("terminate", "suspend", "resume", "rewind"):
            urls[f"{request_name}PostUri"] = _with_query(f"{url}/{request_name}", "reason={text}", common)
        return {"id": instance_id, **urls}

    def creation(self, request: Request) -> dict[str, str]:
        """Return the URLs that start an instance, with places for what the client fills in."""
        url = f"{self.base_url(request)}/orchestrators/{{functionName}}[/{{instanceId}}]"
        common = self._common(request)
        wait = "timeout={timeoutInSeconds}&pollingInterval={intervalInSeconds}"
        return {
            "createNewInstancePostUri": _with_query(url, common),
            "createAndWaitOnNewInstancePostUri": _with_query(url, wait, common),
        }

    def _common(self, request: Request) -> str:
        given = request.query_params
        found = ((name, next((given[each] for each in spelled if each in given), "")) for name, spelled in _REPEATED)
        return "&".join([*(f"{name}={quote(value, safe='')}" for name, value in found if value), *key_query(request)])

    def accepted(self, request: Request, instance_id: str, *, error_on_failure: bool = False) -> Response:
        """Return the 202 that sends a client to the status of an instance."""
        payload = self.payload(request, instance_id, error_on_failure=error_on_failure)
        headers = {"Location": payload["statusQueryGetUri"], "Retry-After": _START_RETRY_AFTER_S}
        return json_response(payload, 202, headers)


def _with_query(url: str, *parameters: str) -> str:
    query = "&".join(part for part in parameters if part)
    return f"{url}?{query}" if query else url


def key_query(request: Request) -> tuple[str, ...]:
    """Return the parameter with the key of a request, or nothing if it came without one."""
    code = caller_of(request.scope).code
    return () if code is None else (f"code={quote(code, safe='')}",)


def management_payload(request: Request, instance_id: str) -> dict[str, str]:
    """Return the management URLs of an instance, and those that start another one, in a handler of `app.route`.

    Nothing is checked: the instance should have been started.

    Raises:
        ConfigurationError: if the request did not come through the ASGI app of a host.
    """
    links = _links(request, "management_payload")
    return links.payload(request, instance_id) | links.creation(request)


def check_status_response(request: Request, instance_id: str) -> Response:
    """Return the 202 with the management URLs of an instance, from a handler of `app.route`.

    Nothing is checked: the instance should have been started.

    Raises:
        ConfigurationError: if the request did not come through the ASGI app of a host.
    """
    return _links(request, "check_status_response").accepted(request, instance_id)


def _links(request: Request, wanted_by: str) -> Links:
    links = getattr(request.app.state, "holdfast_links", None)
    if not isinstance(links, Links):
        raise ConfigurationError(f"{wanted_by} is for requests that handlers of `@app.route` get.")
    return links


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """How much of an instance a request wants to see."""

    show_input: bool = True
    show_history_output: bool = False


def status_object(state: OrchestrationState, view: StatusView, history: list[HistoryEvent] | None) -> dict[str, object]:
    """Return the status object; it has `historyEvents` and `parked` only if there is something to say."""
    status: dict[str, object] = {
        "name": state.name,
        "instanceId": state.instance_id,
        "runtimeStatus": state.runtime_status.value,
        "input": raw(state.input) if view.show_input else None,
        "customStatus": raw(state.custom_status),
        "output": _output(state),
        "createdTime": whole_seconds(state.created_at),
        "lastUpdatedTime": whole_seconds(state.last_updated_at),
    }
    if history is not None:
        status["historyEvents"] = project_history(
            history, show_input=view.show_input, show_output=view.show_history_output
        )
    if state.parked is not None:
        status["parked"] = {"reason": state.parked.error_message}
    return status


def parked_entity_object(entity: EntityState) -> dict[str, object]:
    """Return what a list of parked instances has of an entity: a status object, without its state."""
    return {
        "name": name_of(entity.instance_id),
        "instanceId": entity.instance_id,
        "runtimeStatus": OrchestrationStatus.SUSPENDED.value,
        "input": None,
        "customStatus": None,
        "output": None,
        "createdTime": whole_seconds(entity.created_at),
        "lastUpdatedTime": whole_seconds(entity.last_updated_at),
        "parked": {"reason": "" if entity.parked is None else entity.parked.error_message},
    }


def _output(state: OrchestrationState) -> object:
    if state.runtime_status is OrchestrationStatus.FAILED and state.failure is not None:
        return f"{state.failure.error_type}: {state.failure.error_message}"
    return raw(state.output)


def whole_seconds(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
