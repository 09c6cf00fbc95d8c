"""From errors to answers: one table of statuses, one shape of body."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from holdfast.errors import (
    CorruptRecordError,
    HoldfastError,
    HostStoppedError,
    InstanceAlreadyExistsError,
    InstanceError,
    InstanceNotEndedError,
    InstanceNotFoundError,
    InstanceNotRunningError,
    InstanceParkedError,
    InvalidInputError,
    NotRegisteredError,
    OverloadedError,
    PayloadTooLargeError,
    QueryFailedError,
    RewindRefusedError,
    StorageError,
    TaskFailedError,
    UpdateRejectedError,
    VersionMismatchError,
    WaitTimeoutError,
)
from holdfast.http.request_ids import request_id_of
from holdfast.model.access import AccessScope
from holdfast.model.failure import qualified_name
from holdfast.model.status import OrchestrationStatus

logger = logging.getLogger("holdfast.http")

Endpoint = Callable[[Request], Awaitable[Response]]
Statuses = Mapping[type[HoldfastError], int]
"""Which errors of one endpoint have another status than elsewhere."""

AS_ELSEWHERE: Statuses = MappingProxyType({})


class HistoryChangedError(InstanceError):
    """The instance has another history than when the first page of it was read."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(instance_id, f"Instance {instance_id!r} has another history now. Begin with its first page.")


class NotAllowedError(HoldfastError):
    """A key allows too little for one request, although enough for others to the same endpoint."""

    def __init__(self, key: str | None, needed: AccessScope) -> None:
        super().__init__(f"The key {key!r} does not allow this here; it needs one for {needed}.")


_STATUS: tuple[tuple[type[HoldfastError], int], ...] = (
    (NotAllowedError, 403),
    (PayloadTooLargeError, 413),
    (InvalidInputError, 400),
    (NotRegisteredError, 400),
    (VersionMismatchError, 400),
    (InstanceNotFoundError, 404),
    (InstanceAlreadyExistsError, 409),
    (InstanceParkedError, 409),
    (InstanceNotEndedError, 412),
    (RewindRefusedError, 409),
    (HistoryChangedError, 409),
    (UpdateRejectedError, 409),
    (QueryFailedError, 409),
    (WaitTimeoutError, 504),
    (OverloadedError, 429),
    (HostStoppedError, 503),
    (CorruptRecordError, 500),
    (StorageError, 503),
)
"""The first class that fits decides; what is not here is a 500."""

_MESSAGES = {
    400: "One or more of the arguments submitted is incorrect",
    403: "The key does not allow this",
    404: "There is no such instance",
    409: "The instance does not allow this now",
    410: "The instance has ended",
    412: "The instance is not in the state that this needs",
    413: "The request body is too large",
    422: "The orchestration's own code has failed on this",
    429: "Too much waits to be stored; try again later",
    500: "Something went wrong while processing your request",
    503: "The host does not take requests in now; try again later",
    504: "The instance has not ended in time",
}
_RETRY_AFTER_S = {429: "1", 503: "2"}


class Readiness(Protocol):
    """The part of a host that tells an overload from a recovery."""

    @property
    def is_ready(self) -> bool: ...


class BadRequestError(InvalidInputError):
    """The request is not one of this API; `message` is the text that clients of the family know."""

    def __init__(self, message: str, explanation: str | None = None) -> None:
        super().__init__(explanation or message)
        self.message = message


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def error_response(status: int, message: str, error: Exception | None = None) -> Response:
    """Return an error body. It has the text and the type of an error, never its stack."""
    body = {"Message": message}
    if error is not None:
        kind = error.details.error_type if isinstance(error, TaskFailedError) else qualified_name(type(error))
        body |= {"ExceptionMessage": str(error), "ExceptionType": kind}
    return json_response(body, status, retry_headers(status))


def retry_headers(status: int) -> dict[str, str] | None:
    """Return the headers that say when to try again, if that is worth while."""
    return {"Retry-After": _RETRY_AFTER_S[status]} if status in _RETRY_AFTER_S else None


def status_of(error: HoldfastError, host: Readiness, special: Statuses = AS_ELSEWHERE) -> int:
    """Return the status that tells a client what became of its request."""
    for cls, status in special.items():
        if isinstance(error, cls):
            return status
    if isinstance(error, OverloadedError) and not host.is_ready:
        return 503  # not too much work: the host is starting again from what is stored
    if isinstance(error, InstanceNotRunningError):
        # An instance that is not suspended cannot be resumed: that is a 500 for the clients of this protocol.
        return 410 if OrchestrationStatus(error.status).is_terminal else 500
    return next((status for cls, status in _STATUS if isinstance(error, cls)), 500)


def holdfast_response(error: HoldfastError, host: Readiness, special: Statuses = AS_ELSEWHERE) -> Response:
    status = status_of(error, host, special)
    return error_response(status, error.message if isinstance(error, BadRequestError) else _MESSAGES[status], error)


async def not_found_response(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer what no route fits."""
    await error_response(404, "There is nothing here")(scope, receive, send)


def _log_failure(request: Request) -> None:
    logger.exception("Request %s failed: %s %r", request_id_of(request.scope), request.method, request.url.path)


class Answering:
    """Lets an endpoint raise: each error becomes the answer that the table has for it, any other one a bare 500."""

    def __init__(self, host: Readiness, endpoint: Endpoint, special: Statuses = AS_ELSEWHERE) -> None:
        self._host = host
        self._endpoint = endpoint
        self._special = special

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive, send))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            return await self._endpoint(request)
        except HoldfastError as error:
            response = holdfast_response(error, self._host, self._special)
            if response.status_code == 500:
                _log_failure(request)
            return response
        except HTTPException as error:
            headers = dict(error.headers) if error.headers else None
            return json_response({"Message": error.detail}, error.status_code, headers)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception:
            _log_failure(request)
            return error_response(500, _MESSAGES[500])
