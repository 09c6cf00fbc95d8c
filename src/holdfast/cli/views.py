"""Instances and events as programs and people see them."""

from __future__ import annotations

from datetime import datetime

import msgspec

from holdfast.cli.output import shown
from holdfast.cli.values import instant_text
from holdfast.client.status import InstanceStatus
from holdfast.model.failure import FailureDetails
from holdfast.model.history import HistoryEvent
from holdfast.model.status import EntityState, LockState, OrchestrationStatus

PAYLOADS = ("input", "result", "output", "reason")
"""Fields of events that are JSON in a text."""

_WITH_REASON = frozenset({OrchestrationStatus.SUSPENDED, OrchestrationStatus.TERMINATED, OrchestrationStatus.CANCELED})
"""Statuses in which the output is why somebody asked for it."""

LIST_TITLES = ("INSTANCE", "NAME", "STATUS", "CREATED", "UPDATED")


class InstanceView(msgspec.Struct, frozen=True, kw_only=True):
    """An instance as `--json` has it; payloads are JSON values, null also where there are none."""

    instance_id: str
    execution_id: str
    name: str
    version: str | None
    runtime_status: str
    created_at: datetime
    last_updated_at: datetime
    parent_instance_id: str | None
    tags: dict[str, str]
    input: msgspec.Raw | None
    output: msgspec.Raw | None
    custom_status: msgspec.Raw | None
    events_awaited: tuple[str, ...]
    failure: FailureDetails | None
    parked: FailureDetails | None


class EntityView(msgspec.Struct, frozen=True, kw_only=True):
    """An entity as `--json` has it."""

    entity_id: str
    exists: bool
    state: msgspec.Raw | None
    state_version: str | None
    created_at: datetime
    last_updated_at: datetime
    lock: LockState | None
    lock_requests: tuple[LockState, ...]
    messages: int
    scheduled_signals: int
    parked: FailureDetails | None


def view_of(status: InstanceStatus) -> InstanceView:
    """Return all that is known of an instance."""
    state = status.state
    return InstanceView(
        instance_id=state.instance_id,
        execution_id=state.execution_id,
        name=state.name,
        version=state.version,
        runtime_status=state.runtime_status.value,
        created_at=state.created_at,
        last_updated_at=state.last_updated_at,
        parent_instance_id=state.parent_instance_id,
        tags=state.tags,
        input=raw(state.input),
        output=raw(state.output),
        custom_status=raw(state.custom_status),
        events_awaited=state.events_awaited,
        failure=state.failure,
        parked=state.parked,
    )


def entity_view(found: EntityState) -> EntityView:
    """Return all that is known of an entity."""
    return EntityView(
        entity_id=found.instance_id,
        exists=found.has_state,
        state=raw(found.state),
        state_version=found.state_version,
        created_at=found.created_at,
        last_updated_at=found.last_updated_at,
        lock=found.lock,
        lock_requests=found.lock_requests,
        messages=found.messages,
        scheduled_signals=found.scheduled_signals,
        parked=found.parked,
    )


def raw(text: str | None) -> msgspec.Raw | None:
    """Return a JSON text as it is to stand within another one."""
    return None if text is None else msgspec.Raw(text)


def list_row(status: InstanceStatus) -> tuple[str, ...]:
    """Return the cells of `LIST_TITLES`."""
    state = status.state
    return (
        state.instance_id,
        state.name if state.version is None else f"{state.name} {state.version}",
        "Parked" if state.parked is not None else state.runtime_status.value,
        instant_text(state.created_at),
        instant_text(state.last_updated_at),
    )


def fields_of(status: InstanceStatus) -> list[tuple[str, str]]:
    """Return what `status` shows of an instance, name by name."""
    state = status.state
    return [
        ("Instance", state.instance_id),
        ("Execution", state.execution_id),
        ("Name", state.name),
        ("Version", state.version or ""),
        ("Status", state.runtime_status.value),
        ("Parked", failure_text(state.parked)),
        ("Created", instant_text(state.created_at)),
        ("Ended" if state.runtime_status.is_terminal else "Updated", instant_text(state.last_updated_at)),
        ("Parent", state.parent_instance_id or ""),
        ("Tags", ", ".join(f"{name}={value}" for name, value in sorted(state.tags.items()))),
        ("Input", state.input or ""),
        ("Custom status", state.custom_status or ""),
        ("Waits for events", ", ".join(state.events_awaited)),
        ("Reason" if state.runtime_status in _WITH_REASON else "Output", state.output or ""),
        ("Failure", failure_text(state.failure)),
    ]


def failure_text(failure: FailureDetails | None) -> str:
    """Return one line about a failure, with its causes; one that was only passed on says nothing new."""
    parts: list[str] = []
    while failure is not None:
        part = f"{failure.error_type}: {failure.error_message}"
        if part not in parts[-1:]:
            parts.append(part)
        failure = failure.inner_failure
    return "; caused by ".join(parts)


def event_view(event: HistoryEvent) -> dict[str, object]:
    """Return an event as `--json` has it, with its payloads as JSON values."""
    plain: dict[str, object] = msgspec.to_builtins(event)
    for name in PAYLOADS:
        if isinstance(text := plain.get(name), str):
            plain[name] = msgspec.Raw(text)
    return plain


def event_row(number: int, event: HistoryEvent) -> tuple[str, ...]:
    """Return the cells of one event: its number, time, type, and whatever else is set."""
    plain: dict[str, object] = msgspec.to_builtins(event)
    kind, _ = plain.pop("type"), plain.pop("timestamp")
    details = (f"{name}={_detail(value)}" for name, value in plain.items() if value not in (None, {}, []))
    return (str(number), instant_text(event.timestamp), str(kind), " ".join(details))


def _detail(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return shown(text, 60)
