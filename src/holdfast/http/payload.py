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
from holdfast.model.status import OrchestrationState, OrchestrationStatus

BASE_PATH = "/runtime/webhooks/durabletask"
_START_RETRY_AFTER_S = "10"


class Links:
    """Makes the management URLs of an instance, below the URL under which the request found this app.

    They carry the key of the request, so that nobody gets one that allows more than their own.
    """

    def instance_url(self, request: Request, instance_id: str) -> str:
        """Return the URL of an instance without a query."""
        url = request.url
        root = quote(request.scope.get("root_path", ""))
        return f"{url.scheme}://{url.netloc}{root}{BASE_PATH}/instances/{quote(instance_id, safe=':@')}"

    def payload(self, request: Request, instance_id: str, *, error_on_failure: bool = False) -> dict[str, str]:
        """Return the management payload: the URLs of everything that can be done with an instance."""
        url = self.instance_url(request, instance_id)
        flag = "returnInternalServerErrorOnFailure=true" if error_on_failure else ""
        return {
            "id": instance_id,
            "statusQueryGetUri": _with_query(request, url, flag),
            "sendEventPostUri": _with_query(request, f"{url}/raiseEvent/{{eventName}}"),
            "terminatePostUri": _with_query(request, f"{url}/terminate", "reason={text}"),
            "suspendPostUri": _with_query(request, f"{url}/suspend", "reason={text}"),
            "resumePostUri": _with_query(request, f"{url}/resume", "reason={text}"),
        }

    def accepted(self, request: Request, instance_id: str, *, error_on_failure: bool = False) -> Response:
        """Return the 202 that sends a client to the status of an instance."""
        payload = self.payload(request, instance_id, error_on_failure=error_on_failure)
        headers = {"Location": payload["statusQueryGetUri"], "Retry-After": _START_RETRY_AFTER_S}
        return json_response(payload, 202, headers)


def _with_query(request: Request, url: str, *parameters: str) -> str:
    query = "&".join(part for part in (*parameters, key_query(request)) if part)
    return f"{url}?{query}" if query else url


def key_query(request: Request) -> str:
    """Return the parameter with the key of a request, or nothing if it came without one."""
    code = caller_of(request.scope).code
    return "" if code is None else f"code={quote(code, safe='')}"


def check_status_response(request: Request, instance_id: str) -> Response:
    """Return the 202 with the management URLs of an instance, from a handler of `app.route`.

    Nothing is checked: the instance should have been started.

    Raises:
        ConfigurationError: if the request did not come through the ASGI app of a host.
    """
    links = getattr(request.app.state, "holdfast_links", None)
    if not isinstance(links, Links):
        raise ConfigurationError("check_status_response is for requests that handlers of `@app.route` get.")
    return links.accepted(request, instance_id)


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


def _output(state: OrchestrationState) -> object:
    if state.runtime_status is OrchestrationStatus.FAILED and state.failure is not None:
        return f"{state.failure.error_type}: {state.failure.error_message}"
    return raw(state.output)


def whole_seconds(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def flag(request: Request, name: str, default: bool) -> bool:
    """Read a boolean of the query; what is neither true nor false counts as absent, as the protocol has it."""
    return {"true": True, "false": False}.get(request.query_params.get(name, "").strip().lower(), default)
