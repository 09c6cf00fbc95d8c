"""Stored records: the versioned JSON of history rows and inbox rows, and the plain JSON of the small ones.

A history row is `{"v":1,"events":[...]}`, an inbox row `{"v":1,"event":{...}}`. Within a version, fields with defaults
may be added to an event; whatever else changes needs a new FORMAT_VERSION and an upcaster from the one before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from holdfast.errors import CorruptRecordError, PayloadError
from holdfast.model.history import HistoryEvent, MessageEvent

FORMAT_VERSION: Final = 1

Upcaster: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns a record of one version, as plain JSON values, into the record of the next version."""

UPCASTERS: Final[Mapping[int, Upcaster]] = MappingProxyType({})
"""By the version that they start from."""

S = TypeVar("S", bound=msgspec.Struct)


class _Episode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    events: tuple[HistoryEvent, ...]


class _Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    event: MessageEvent


class _Versioned(msgspec.Struct, frozen=True):
    v: int


V = TypeVar("V", _Episode, _Message)

_ENCODER = msgspec.json.Encoder()
_EPISODE = msgspec.json.Decoder(_Episode)
_MESSAGE = msgspec.json.Decoder(_Message)
_VERSIONED = msgspec.json.Decoder(_Versioned)
_TAGS = msgspec.json.Decoder(dict[str, str])
_NAMES = msgspec.json.Decoder(tuple[str, ...])
_OBJECT = msgspec.json.Decoder(dict[str, Any])


def encode_events(events: tuple[HistoryEvent, ...] | list[HistoryEvent]) -> str:
    """Return the history row of one episode.

    Raises:
        PayloadError: for text that cannot be stored, that is, with a lone surrogate.
    """
    return _encode(_Episode(FORMAT_VERSION, tuple(events)))


def decode_events(text: str, upcasters: Mapping[int, Upcaster] = UPCASTERS) -> tuple[HistoryEvent, ...]:
    """Return the events of one history row, of this format or of an older one for which there are upcasters.

    Raises:
        CorruptRecordError: saying what was found instead.
    """
    return _decode(text, _EPISODE, "history row", upcasters).events


def encode_message(event: MessageEvent) -> str:
    """Return the inbox row of one event.

    Raises:
        PayloadError: for text that cannot be stored, that is, with a lone surrogate.
    """
    return _encode(_Message(FORMAT_VERSION, event))


def decode_message(text: str, upcasters: Mapping[int, Upcaster] = UPCASTERS) -> MessageEvent:
    """Return the event of one inbox row, of this format or of an older one for which there are upcasters.

    Raises:
        CorruptRecordError: saying what was found instead.
    """
    return _decode(text, _MESSAGE, "inbox row", upcasters).event


def encode_record(value: msgspec.Struct) -> str:
    """Return a struct that is a column of some other row (a failure, a parent, options) as plain JSON.

    It carries no version: such a struct may only ever gain fields with defaults.

    Raises:
        PayloadError: for text that cannot be stored, that is, with a lone surrogate.
    """
    return _encode(value)


def decode_record(text: str, expected_type: type[S]) -> S:
    """Return the struct that `encode_record` wrote.

    Raises:
        CorruptRecordError: saying what was found instead.
    """
    try:
        return msgspec.json.decode(text, type=expected_type)
    except Exception as error:  # the checks of a struct raise whatever they raise
        raise _corrupt(f"{expected_type.__name__} record", text, str(error)) from error


def encode_tags(tags: dict[str, str]) -> str | None:
    """Return tags as a JSON object, or None if there are none.

    Raises:
        PayloadError: for text that cannot be stored, that is, with a lone surrogate.
    """
    return _encode(tags) if tags else None


def decode_tags(text: str | None) -> dict[str, str]:
    """Return the tags that `encode_tags` wrote.

    Raises:
        CorruptRecordError: saying what was found instead.
    """
    if text is None:
        return {}
    try:
        return _TAGS.decode(text)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _corrupt("tags record", text, str(error)) from error


def encode_names(names: tuple[str, ...]) -> str | None:
    """Return names as a JSON list, or None if there are none.

    Raises:
        PayloadError: for text that cannot be stored, that is, with a lone surrogate.
    """
    return _encode(names) if names else None


def decode_names(text: str | None) -> tuple[str, ...]:
    """Return the names that `encode_names` wrote.

    Raises:
        CorruptRecordError: saying what was found instead.
    """
    if text is None:
        return ()
    try:
        return _NAMES.decode(text)
    except (msgspec.MsgspecError, ValueError) as error:
        raise _corrupt("names record", text, str(error)) from error


def _encode(record: msgspec.Struct | dict[str, str] | tuple[str, ...]) -> str:
    try:
        return _ENCODER.encode(record).decode()
    except UnicodeEncodeError as error:
        raise PayloadError(
            f"{error.object[:40]!r} contains the lone surrogate {error.object[error.start]!r}, which UTF-8 and so "
            "the store cannot hold; encode such text with errors='backslashreplace' first."
        ) from error


def _decode(text: str, decoder: msgspec.json.Decoder[V], what: str, upcasters: Mapping[int, Upcaster]) -> V:
    try:
        record = decoder.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        version = _version_of(text)
        if version is None or version == FORMAT_VERSION:
            raise _corrupt(what, text, str(error)) from error
    else:
        version = record.v
        if version == FORMAT_VERSION:
            return record
    return _upcast(text, version, decoder, what, upcasters)


def _upcast(
    text: str, version: int, decoder: msgspec.json.Decoder[V], what: str, upcasters: Mapping[int, Upcaster]
) -> V:
    found = f"its format version is {version}"
    if version > FORMAT_VERSION:
        raise _corrupt(what, text, f"{found}; this release reads up to {FORMAT_VERSION}. Upgrade Holdfast")
    steps: list[Upcaster] = []
    for step in range(version, FORMAT_VERSION):
        if step not in upcasters:
            raise _corrupt(what, text, f"{found}, which this release does not read")
        steps.append(upcasters[step])
    try:
        plain = _OBJECT.decode(text)
        for upcast in steps:
            plain = upcast(plain)
        return msgspec.convert({**plain, "v": FORMAT_VERSION}, decoder.type)
    except Exception as error:  # a corrupt record can break an upcaster in any way
        raise _corrupt(what, text, f"{found}, and bringing it up to {FORMAT_VERSION} fails: {error!r}") from error


def _version_of(text: str) -> int | None:
    try:
        return _VERSIONED.decode(text).v
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _corrupt(what: str, text: str, found: str) -> CorruptRecordError:
    return CorruptRecordError(f"A {what} of {len(text)} characters cannot be read: {found.rstrip('.')}.")
