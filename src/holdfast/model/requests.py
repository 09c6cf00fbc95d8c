"""What a client asks for: starts of orchestrations, operations and lists of entities."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from holdfast.errors import InvalidInputError
from holdfast.model.ids import is_entity
from holdfast.model.instants import to_utc
from holdfast.model.status import OrchestrationStatus

_ENDED = frozenset(status for status in OrchestrationStatus if status.is_terminal)
_TAG_CHARS_MAX = 1_000


class IdPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a start does when its instance id is in use.

    An instance whose status is in `replace` gives way, and is terminated first if it has not ended. Any other one
    stays: the start is rejected, or returns the handle of the existing instance.

    - `IdPolicy()` replaces what has ended.
    - `IdPolicy(replace=())` lets an id be used once.
    - `IdPolicy(replace=(), otherwise="return")` starts at most once, and always returns a handle.
    - `IdPolicy(replace=OrchestrationStatus)` always starts.
    """

    replace: Iterable[OrchestrationStatus] = _ENDED
    otherwise: Literal["reject", "return"] = "reject"

    def __post_init__(self) -> None:
        statuses = tuple(self.replace)
        if not all(isinstance(each, OrchestrationStatus) for each in statuses):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(f"replace={statuses!r} must have values of OrchestrationStatus.")
        if self.otherwise not in ("reject", "return"):  # pyright: ignore[reportUnnecessaryContains] - as above
            raise InvalidInputError(f"otherwise={self.otherwise!r} must be 'reject' or 'return'.")
        msgspec.structs.force_setattr(self, "replace", frozenset(statuses))

    def replaces(self, status: OrchestrationStatus) -> bool:
        return status in self.replace


REPLACE_ENDED: Final = IdPolicy()
"""What holds where nothing else is asked for."""


class StartRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A start, checked and encoded. `request_key` names the request: its repetition returns what it started."""

    name: str
    instance_id: str
    input: str | None = None
    version: str | None = None
    tags: dict[str, str] = {}
    start_at: datetime | None = None
    run_timeout: timedelta | None = None
    id_policy: IdPolicy = REPLACE_ENDED
    request_key: str | None = None
    is_restart: bool = False
    """It takes over the request key of the instance that it replaces."""
    is_new_id: bool = False
    """The id was made for this request, so nothing can exist under it."""


class OperationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """An operation of an entity, checked and encoded. Of several with one `key` only the first counts."""

    instance_id: str
    operation: str
    input: str | None = None
    key: str | None = None
    due: timedelta | datetime | None = None
    """A time counts from when the host accepts the request, by its clock."""


class InstanceFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which orchestrations a request is about: those that all that is given here holds for; bounds are inclusive.

    `prefix` is how the instance id begins, `custom_status` a JSON text. What has ended was updated last when it ended.
    """

    prefix: str = ""
    name: str | None = None
    statuses: frozenset[OrchestrationStatus] = frozenset()
    """Any of these; empty for all."""
    created_from: datetime | None = None
    created_until: datetime | None = None
    updated_from: datetime | None = None
    updated_until: datetime | None = None
    parent_instance_id: str | None = None
    tags: dict[str, str] = {}
    """It has all of these."""
    custom_status: str | None = None
    parked: bool | None = None
    """Only those that wait for an operator, or only others."""


class EntityFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entities a list has, all bounds inclusive: those whose instance ids begin with `prefix`."""

    prefix: str
    updated_from: datetime | None = None
    updated_until: datetime | None = None
    with_state: bool = True
    with_empty: bool = False
    """Also those that have neither a state nor a lock."""
    only_parked: bool = False
    """Those that wait for an operator, whatever they hold."""


def check_if_execution(instance_id: str, if_execution: str | None) -> str | None:
    """Return the execution that a request means, if it is one that may name one.

    Raises:
        InvalidInputError: if it is about an entity, or the id is no text.
    """
    if if_execution is None:
        return None
    if is_entity(instance_id):
        raise InvalidInputError(f"{instance_id!r} is an entity: if_execution is for orchestrations.")
    if not isinstance(if_execution, str) or not if_execution:  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"if_execution={if_execution!r:.80} must be the execution_id of a status.")
    return if_execution


def check_tags(tags: object, tags_max: int) -> dict[str, str]:
    """Return a copy of tags, if they are some: texts by text, so many at most, and not too long.

    Raises:
        InvalidInputError: otherwise.
    """
    if tags is None:
        return {}
    if not isinstance(tags, dict):
        raise InvalidInputError(f"tags={tags!r} must be a dict of texts.")
    checked: dict[str, str] = {}
    for key, value in tags.items():  # pyright: ignore[reportUnknownVariableType] - it is what is being checked
        if not (isinstance(key, str) and isinstance(value, str) and key):
            raise InvalidInputError(f"The tag {key!r}: {value!r} must be a text with a text as its key.")
        if "\0" in key or "\0" in value:
            raise InvalidInputError(f"The tag {key[:40]!r} has a NUL character, which not every store can hold.")
        if not (_is_storable(key) and _is_storable(value)):
            raise InvalidInputError(f"The tag {key[:40]!r} has a lone surrogate, which no store can hold.")
        if len(key) > _TAG_CHARS_MAX or len(value) > _TAG_CHARS_MAX:
            raise InvalidInputError(f"The tag {key[:40]!r} is longer than {_TAG_CHARS_MAX} characters.")
        checked[key] = value
    if len(checked) > tags_max:
        raise InvalidInputError(f"There are {len(checked)} tags; at most {tags_max} are allowed.")
    return checked


def _is_storable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def check_key(what: str, key: str | None) -> None:
    """Raise InvalidInputError for a request or event key that cannot be stored: 1 to 256 printable characters."""
    if key is None:
        return
    if not isinstance(key, str) or not 1 <= len(key) <= 256 or not key.isprintable():  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"The {what} {str(key)[:40]!r} must be a text of 1 to 256 printable characters.")


def check_instant(what: str, instant: datetime | None) -> None:
    """Raise InvalidInputError for an instant without a time zone."""
    if instant is not None and (not isinstance(instant, datetime) or instant.tzinfo is None):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"{what}={instant!r} must be a datetime with a time zone.")
    if instant is not None:
        to_utc(what, instant)


def check_duration(what: str, duration: timedelta | None) -> None:
    """Raise InvalidInputError for a duration that is not more than zero."""
    if duration is not None and not (isinstance(duration, timedelta) and duration > timedelta(0)):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"{what}={duration!r} must be a timedelta of more than zero.")
