"""What is sent: checked and encoded as by a client and a host together, as no host sees it before it is stored."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from holdfast.client.origins import random_id, utc_now
from holdfast.codec.converter import JsonConverter
from holdfast.codec.history import encode_message
from holdfast.errors import InvalidInputError
from holdfast.model.entities import operation_name
from holdfast.model.history import EntityOperationSignaled, EventRaised, ExecutionStarted, MessageEvent
from holdfast.model.ids import EntityId, address_of, validate_instance_id
from holdfast.model.instants import after, instant
from holdfast.model.limits import Limits
from holdfast.model.options import (
    ClientSignalOptions,
    OutboxStartOptions,
    check_names,
    check_version,
)
from holdfast.model.refs import ExternalEvent, Orchestrator, encode_input, validate_event_name, validate_name
from holdfast.model.requests import check_duration, check_instant, check_key, check_tags


class Outgoing(msgspec.Struct, frozen=True):
    """A message to one instance, as it is stored."""

    instance_id: str
    event: str


class Messages:
    """Makes what is sent; raises InvalidInputError, or one of its kind, for what cannot be meant."""

    def __init__(self, limits: Limits | None) -> None:
        if limits is not None and not isinstance(limits, Limits):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(f"limits={limits!r:.60} must be Limits(...).")
        self._limits = limits or Limits()
        self._converter = JsonConverter(payload_bytes_max=self._limits.payload_bytes_max)

    def start(self, orchestrator: Orchestrator[Any, Any] | str, input: object, options: OutboxStartOptions) -> Outgoing:
        check_names(options, OutboxStartOptions, "start_new")
        start_at, run_timeout = options.get("start_at"), options.get("run_timeout")
        check_instant("start_at", start_at)
        check_duration("run_timeout", run_timeout)
        check_version(options.get("version"))
        chosen, now = options.get("instance_id"), utc_now()
        instance_id = random_id() if chosen is None else validate_instance_id(chosen)
        function = None if isinstance(orchestrator, str) else orchestrator
        begins_at = now if start_at is None else max(now, start_at)
        started = ExecutionStarted(
            timestamp=now,
            name=validate_name(orchestrator) if isinstance(orchestrator, str) else orchestrator.name,
            instance_id=instance_id,
            execution_id=_execution_id(now),
            input=encode_input(self._converter, function, input),
            version=options.get("version"),
            tags=check_tags(options.get("tags"), self._limits.tags_max),
            start_at=start_at,
            expires_at=None if run_timeout is None else after(begins_at, run_timeout),
            id_rule="replace" if options.get("replace_ended") else "once",
        )
        return _outgoing(instance_id, started)

    def event(self, instance_id: str, event: ExternalEvent[Any] | str, data: object, key: str | None) -> Outgoing:
        check_key("key", key)
        name = validate_event_name(event) if isinstance(event, str) else event.name
        payload = self._converter.encode(data)
        raised = EventRaised(timestamp=utc_now(), name=name, input=payload, key=key)
        return _outgoing(validate_instance_id(instance_id), raised)

    def signal(
        self, entity: EntityId[Any], operation: Callable[..., Any] | str, input: object, options: ClientSignalOptions
    ) -> Outgoing:
        check_names(options, ClientSignalOptions, "signal_entity")
        key, due, now = options.get("key"), options.get("due"), utc_now()
        check_key("key", key)
        instance_id = address_of(entity)
        signaled = EntityOperationSignaled(
            timestamp=now,
            request_id=key or random_id(),
            target_instance_id=instance_id,
            operation=operation_name(operation, entity.definition),
            input=encode_input(self._converter, None, input),
            due_at=None if due is None else instant(now, due),
            key=key,
        )
        return _outgoing(instance_id, signaled)


def _outgoing(instance_id: str, event: MessageEvent) -> Outgoing:
    return Outgoing(instance_id, encode_message(event))


def _execution_id(now: datetime) -> str:
    """Return an id that no node makes: theirs begin with a digit or an "e". It rises with time, as theirs do."""
    return f"t{round(now.timestamp() * 1_000_000):013x}-{uuid.uuid4().hex}"
