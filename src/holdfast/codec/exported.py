"""Exported histories as JSON text: what one keeps beside the code, to replay it against the code of later days.

    {"v": 1, "instance_id": ..., "execution_id": ..., "name": ..., "version": ..., "episodes": [[event, ...], ...]}

`v` is the format version of the history rows, since the episodes are theirs: the same upcasters read both.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from holdfast.codec.history import FORMAT_VERSION, UPCASTERS, Upcaster, decode_events
from holdfast.errors import CorruptRecordError, PayloadError
from holdfast.model.exported import ExportedHistory
from holdfast.model.history import HistoryEvent


class _Export(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    instance_id: str
    execution_id: str
    name: str
    version: str | None
    episodes: tuple[tuple[HistoryEvent, ...], ...]


class _RawExport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The same, with episodes that may be of an older format."""

    v: int
    instance_id: str
    execution_id: str
    name: str
    version: str | None
    episodes: tuple[msgspec.Raw, ...]


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(_RawExport)


def encode_exported(exported: ExportedHistory) -> str:
    """Return the text of an exported history, indented, so that a repository shows it well.

    Raises:
        PayloadError: for text that cannot be stored, that is, with a lone surrogate.
    """
    record = _Export(
        FORMAT_VERSION,
        exported.instance_id,
        exported.execution_id,
        exported.name,
        exported.version,
        exported.episodes,
    )
    try:
        return msgspec.json.format(_ENCODER.encode(record), indent=1).decode() + "\n"
    except UnicodeEncodeError as error:
        raise PayloadError(f"The history of instance {exported.instance_id!r} is no text: {error}.") from error


def decode_exported(text: str, upcasters: Mapping[int, Upcaster] = UPCASTERS) -> ExportedHistory:
    """Return an exported history, of this format or of an older one for which there are upcasters.

    Raises:
        CorruptRecordError: saying what was found instead.
    """
    try:
        record = _DECODER.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CorruptRecordError(
            f"A text of {len(text)} characters is no exported history: {str(error).rstrip('.')}. "
            "Make one with `holdfast export-history`."
        ) from error
    return ExportedHistory(
        instance_id=record.instance_id,
        execution_id=record.execution_id,
        name=record.name,
        version=record.version,
        episodes=tuple(_decode_episode(record, number, upcasters) for number in range(len(record.episodes))),
    )


def _decode_episode(record: _RawExport, number: int, upcasters: Mapping[int, Upcaster]) -> tuple[HistoryEvent, ...]:
    row = f'{{"v":{record.v},"events":{bytes(record.episodes[number]).decode()}}}'
    try:
        return decode_events(row, upcasters)
    except CorruptRecordError as error:
        raise CorruptRecordError(
            f"Episode {number} of the exported history of instance {record.instance_id!r} cannot be read: {error}"
        ) from error
