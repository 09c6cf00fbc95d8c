"""The audit log: one line for each request that may have changed something, or that was refused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, cast
from urllib.parse import unquote

import msgspec
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast.client.origins import utc_now
from holdfast.http.redaction import redacted_query
from holdfast.http.refusals import LeftOut, Refusals
from holdfast.http.request_ids import request_id_of

logger = logging.getLogger("holdfast.audit")

TEXT_CHARS_MAX: Final = 500
"""Of each text that the request has chosen."""
_FAILED: Final = 500
_REFUSED: Final = frozenset({401, 403})
_NOTES: Final = "holdfast.audit"


class AuditLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line, written as JSON, so that nothing in it can look like another line."""

    at: datetime
    request_id: str
    key: str | None
    """The name of the key; null if the host has none, or the request had no valid one."""
    client: str | None
    """The address from which the request came."""
    action: str
    """The method, and the path with the names of its parameters; of a request without a valid key the path itself."""
    instance: str | None
    """An instance or entity id."""
    parameters: Mapping[str, str]
    """Of the path, and what else the endpoint knows of what was asked for."""
    query: str
    status: int


class Audit:
    """Writes to the logger `holdfast.audit`."""

    def __init__(self, now: Callable[[], datetime] = utc_now) -> None:
        self._now = now
        self._refusals = Refusals()

    async def run(
        self, app: ASGIApp, scope: Scope, receive: Receive, send: Send, *, caller: str | None, action: str
    ) -> None:
        """Let an app answer a request, and write down what came of it, also if it raised or was given up."""
        status, location = _FAILED, ""
        notes: dict[str, str] = {}
        scope[_NOTES] = notes

        async def watched(message: Message) -> None:
            nonlocal status, location
            if message["type"] == "http.response.start":
                status = message["status"]
                location = Headers(raw=message.get("headers", [])).get("location", "")
            await send(message)

        try:
            await app(scope, receive, watched)
        finally:
            known = {**_parameters(scope), **notes}
            self._write(scope, caller, action, status, known, _instance(known, location))

    def refused(self, scope: Scope, status: int, *, caller: str | None = None) -> None:
        """Write down that a request got no further than to the door, where nobody knows what its path means."""
        self._write(scope, caller, f"{scope['method']} {scope['path']}", status, {}, None)

    def _write(
        self,
        scope: Scope,
        caller: str | None,
        action: str,
        status: int,
        known: Mapping[str, str],
        instance: str | None,
    ) -> None:
        now = self._now()
        for left_out in self._refusals.ended(now):
            _log(left_out)
        if status in _REFUSED and not self._refusals.takes(status, caller, now):
            return
        line = AuditLine(
            at=now,
            request_id=request_id_of(scope),
            key=caller,
            client=_address(scope),
            action=action[:TEXT_CHARS_MAX],
            instance=instance,
            parameters={name: value[:TEXT_CHARS_MAX] for name, value in known.items()},
            query=redacted_query(scope["query_string"].decode("latin-1"))[:TEXT_CHARS_MAX],
            status=status,
        )
        _log(line)


def _log(line: AuditLine | LeftOut) -> None:
    logger.info("%s", msgspec.json.encode(line).decode())


def note(scope: Scope, **words: str) -> None:
    """Add to the line about a request what its path does not say."""
    notes: dict[str, str] = scope.get(_NOTES, {})
    notes.update(words)


def _address(scope: Scope) -> str | None:
    client = cast("tuple[str, int] | None", scope.get("client"))
    return None if client is None else client[0]


def _parameters(scope: Scope) -> Mapping[str, str]:
    return cast("Mapping[str, str]", scope.get("path_params", {}))


def _instance(names: Mapping[str, str], location: str) -> str | None:
    """Return what the request was about: what it names, or what it has started."""
    if "entity_name" in names:
        return f"@{names['entity_name']}@{names.get('entity_key', '')}"[:TEXT_CHARS_MAX]
    if "instance_id" in names:
        return names["instance_id"][:TEXT_CHARS_MAX]
    _, found, last = location.partition("?")[0].rpartition("/instances/")
    return unquote(last) if found else None
