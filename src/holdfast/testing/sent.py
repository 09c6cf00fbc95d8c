"""What the code under test sends to others without waiting for an answer, as values to compare with."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from holdfast.model.actions import CreateSubOrchestration, EntityAction, SendEvent
from holdfast.model.converter import DataConverter
from holdfast.model.history import EntityOperationSignaled
from holdfast.model.ids import EntityId


class SentSignal(msgspec.Struct, frozen=True):
    """A signal to an entity; `input` as plain JSON values, None also where there is none."""

    entity: EntityId[Any]
    operation: str
    input: Any = None
    due: datetime | None = None


class SentEvent(msgspec.Struct, frozen=True):
    """An external event that an orchestration sends to another; `data` as plain JSON values."""

    instance_id: str
    name: str
    data: Any = None


class SentStart(msgspec.Struct, frozen=True):
    """An orchestration that is started, and that nobody waits for; `input` as plain JSON values."""

    name: str
    input: Any = None
    instance_id: str = ""
    version: str | None = None
    tags: dict[str, str] = {}
    start_at: datetime | None = None


Sent: TypeAlias = SentSignal | SentEvent | SentStart


def plain(converter: DataConverter, payload: str | None) -> Any:
    """Return a payload as plain JSON values."""
    return None if payload is None else converter.decode(payload, Any)


def sent_by(action: EntityAction | SendEvent, converter: DataConverter) -> Sent | None:
    """Return what an action sends one way; None if it asks for an answer, or is about locks."""
    if isinstance(action, SendEvent):
        return SentEvent(action.instance_id, action.name, plain(converter, action.input))
    if isinstance(action, CreateSubOrchestration):
        return SentStart(
            action.name,
            plain(converter, action.input),
            action.instance_id,
            action.version,
            action.tags,
            action.start_at,
        )
    event = action.event
    if not isinstance(event, EntityOperationSignaled):
        return None
    entity = EntityId.parse(event.target_instance_id)
    return SentSignal(entity, event.operation, plain(converter, event.input), event.due_at)
