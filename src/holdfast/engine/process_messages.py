"""What a host and its worker processes tell each other: small structs, sent as JSON, never as pickled objects.

Messages about a call carry its number: user code may leave threads behind, and what those say must not be taken for
news of the next call.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec


class ProcessCall(msgspec.Struct, frozen=True):
    """A call of an activity, which the worker process finds by name. `context` is an `AttemptInfo` as JSON."""

    module: str
    qualname: str
    input: str | None
    context: str
    payload_bytes_max: int


class ProcessResult(msgspec.Struct, frozen=True):
    """How a call ended: with its result as JSON, or with its failure as JSON."""

    succeeded: bool
    text: str


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    number: int
    call: ProcessCall


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Asks user code to stop; it is up to it whether it does."""

    number: int


class Begun(msgspec.Struct, frozen=True, tag="begun"):
    """User code may run from now on. A call for which this never came can safely be made again."""

    number: int


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """`progress` is JSON."""

    number: int
    progress: str


class End(msgspec.Struct, frozen=True, tag="end"):
    number: int
    result: ProcessResult


ToWorker: TypeAlias = Begin | Cancel
FromWorker: TypeAlias = Begun | Heartbeat | End

ENCODER: Final = msgspec.json.Encoder()
TO_WORKER: Final[msgspec.json.Decoder[ToWorker]] = msgspec.json.Decoder(ToWorker)
FROM_WORKER: Final[msgspec.json.Decoder[FromWorker]] = msgspec.json.Decoder(FromWorker)
