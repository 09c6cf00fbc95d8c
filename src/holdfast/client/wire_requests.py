"""What a client asks for, as it travels: requests that JSON holds without doubt, and that a host need not believe.

A host calls `checked` on what arrives: it refuses what the client in this process would have refused, and takes no
claims about time, parents and new ids from afar.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from holdfast.client.origins import utc_now
from holdfast.errors import InvalidInputError, PayloadError, PayloadTooLargeError
from holdfast.model.history import (
    CancelRequested,
    EventRaised,
    ExecutionResumed,
    ExecutionSuspended,
    ExecutionTerminated,
)
from holdfast.model.ids import EntityId
from holdfast.model.instants import instant
from holdfast.model.limits import Limits
from holdfast.model.options import check_version
from holdfast.model.refs import validate_event_name, validate_name
from holdfast.model.requests import (
    IdPolicy,
    OperationRequest,
    StartRequest,
    check_duration,
    check_instant,
    check_key,
    check_tags,
)
from holdfast.model.status import OrchestrationStatus

Sendable = EventRaised | CancelRequested | ExecutionTerminated | ExecutionSuspended | ExecutionResumed
"""What a client may send to an orchestration; the engine's own messages are not among it."""


class WireIdPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See `IdPolicy`."""

    replace: frozenset[OrchestrationStatus]
    otherwise: Literal["reject", "return"]


class WireStart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """See `StartRequest`."""

    name: str
    instance_id: str
    input: str | None = None
    version: str | None = None
    tags: dict[str, str] = {}
    start_at: datetime | None = None
    run_timeout: timedelta | None = None
    id_policy: WireIdPolicy | None = None
    request_key: str | None = None
    is_restart: bool = False

    @classmethod
    def of(cls, request: StartRequest) -> WireStart:
        policy = WireIdPolicy(replace=frozenset(request.id_policy.replace), otherwise=request.id_policy.otherwise)
        return cls(
            name=request.name,
            instance_id=request.instance_id,
            input=request.input,
            version=request.version,
            tags=request.tags,
            start_at=request.start_at,
            run_timeout=request.run_timeout,
            id_policy=policy,
            request_key=request.request_key,
            is_restart=request.is_restart,
        )

    def checked(self, limits: Limits) -> StartRequest:
        check_json("input", self.input, limits)
        check_key("request_key", self.request_key)
        check_version(self.version)
        check_instant("start_at", self.start_at)
        check_duration("run_timeout", self.run_timeout)
        policy = self.id_policy
        return StartRequest(
            name=validate_name(self.name),
            instance_id=self.instance_id,
            input=self.input,
            version=self.version,
            tags=check_tags(self.tags, limits.tags_max),
            start_at=self.start_at,
            run_timeout=self.run_timeout,
            id_policy=IdPolicy() if policy is None else IdPolicy(replace=policy.replace, otherwise=policy.otherwise),
            request_key=self.request_key,
            is_restart=self.is_restart,
        )


class WireOperation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """See `OperationRequest`; when it is due is either an instant or a delay, which JSON would not tell apart."""

    instance_id: str
    operation: str
    input: str | None = None
    key: str | None = None
    due_at: datetime | None = None
    due_in: timedelta | None = None

    @classmethod
    def of(cls, request: OperationRequest) -> WireOperation:
        due = request.due
        return cls(
            instance_id=request.instance_id,
            operation=request.operation,
            input=request.input,
            key=request.key,
            due_at=due if isinstance(due, datetime) else None,
            due_in=due if isinstance(due, timedelta) else None,
        )

    def checked(self, limits: Limits) -> OperationRequest:
        check_json("input", self.input, limits)
        check_key("key", self.key)
        if self.due_at is not None and self.due_in is not None:
            raise InvalidInputError("An operation is due either at an instant or after a delay; give one of them.")
        due = self.due_in if self.due_at is None else self.due_at
        if due is not None:
            instant(utc_now(), due)
        return OperationRequest(
            instance_id=EntityId.parse(self.instance_id).instance_id,
            operation=self.operation,
            input=self.input,
            key=self.key,
            due=due,
        )


def checked_event(event: Sendable, limits: Limits) -> Sendable:
    """Return an event as a client in this process would have made it now.

    Raises:
        InvalidInputError: if it cannot be stored.
    """
    if isinstance(event, EventRaised):
        check_json("input", event.input, limits)
        check_key("key", event.key)
        return EventRaised(timestamp=utc_now(), name=validate_event_name(event.name), input=event.input, key=event.key)
    check_json("reason", event.reason, limits)
    return msgspec.structs.replace(event, timestamp=utc_now(), sent_by=None)


def check_json(what: str, text: str | None, limits: Limits) -> None:
    """Raise PayloadError for a text that is no JSON, or is over the limit."""
    if text is None:
        return
    size = len(text.encode())
    if size > limits.payload_bytes_max:
        raise PayloadTooLargeError(
            f"The {what} takes {size:,} bytes as JSON; the limit is {limits.payload_bytes_max:,}. Store it elsewhere "
            "and pass a reference (a path, a key, a URL), split it into several calls, or raise payload_bytes_max."
        )
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise PayloadError(f"The {what} {text[:40]!r} is no JSON: {error}.") from error
