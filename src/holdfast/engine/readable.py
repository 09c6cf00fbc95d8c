"""What can be read of an instance whose row is damaged: it must not hide the others, and says why nobody can run it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

import msgspec

from holdfast.codec.history import decode_names, decode_record, decode_tags
from holdfast.engine.clock import from_microseconds
from holdfast.engine.stored import decode_instance, decode_instance_lock, decode_section, decode_state
from holdfast.errors import CorruptRecordError
from holdfast.model.failure import FailureDetails, failure_from_exception
from holdfast.model.history import ParentInstance
from holdfast.model.ids import is_entity
from holdfast.model.status import OrchestrationState, OrchestrationStatus
from holdfast.storage.port import InstanceRow, StoredInstance

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")


def readable_state(row: InstanceRow) -> OrchestrationState:
    """Return what a client may see of a stored instance; a damaged one counts as parked, with what is left of it."""
    try:
        _ = decode_instance_lock(row) if is_entity(row.instance_id) else decode_section(row)
        return decode_state(row)
    except CorruptRecordError as error:
        return _what_is_left(row, error)


def readable_instant(microseconds: int) -> datetime:
    """Return a stored point in time; the first of all if it is none."""
    return _or_else(from_microseconds(0), lambda: from_microseconds(microseconds))


def is_damaged(stored: StoredInstance) -> bool:
    """Return whether an instance cannot come into memory any more."""
    try:
        decode_instance(stored)
    except CorruptRecordError:
        return True
    return False


def _what_is_left(row: InstanceRow, error: CorruptRecordError) -> OrchestrationState:
    parent = _record(row.parent, ParentInstance)
    ended = {each.value: each for each in OrchestrationStatus if each.is_terminal}
    return OrchestrationState(
        instance_id=row.instance_id,
        execution_id=row.execution_id,
        name=row.name,
        runtime_status=ended.get(row.status, OrchestrationStatus.SUSPENDED),
        created_at=readable_instant(row.created_at),
        last_updated_at=readable_instant(row.updated_at),
        input=row.input,
        output=row.output,
        custom_status=row.custom_status,
        failure=_record(row.failure, FailureDetails),
        parked=failure_from_exception(error),
        parent_instance_id=None if parent is None else parent.instance_id,
        version=row.version,
        tags=_or_else({}, lambda: decode_tags(row.tags)),
        events_awaited=_or_else((), lambda: decode_names(row.events_awaited)),
    )


def _record(text: str | None, expected_type: type[S]) -> S | None:
    return None if text is None else _or_else(None, lambda: decode_record(text, expected_type))


def _or_else(otherwise: T, read: Callable[[], T]) -> T:
    try:
        return read()
    except CorruptRecordError:
        return otherwise
