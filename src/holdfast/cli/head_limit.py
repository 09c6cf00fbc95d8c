"""The fast parser of requests, with a limit for their heads, which it lacks."""

from __future__ import annotations

import enum

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from holdfast.cli.config import HEAD_BYTES_MAX
from holdfast.errors import InvalidInputError

_REFUSAL = "The head of the request is too large."


class _In(enum.Enum):
    """Where in the requests of a connection the parser is."""

    NONE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()


class BoundedHeads(HttpToolsProtocol):
    """A connection that is closed if the head of a request is over the limit.

    What arrives comes in pieces. Where in a piece a head has begun is not known; one that begins behind something else
    counts from the next piece on.
    """

    _at = _In.NONE
    _begun = 0
    """Requests that have begun so far."""
    _head_bytes = 0
    _piece_bytes = 0

    def data_received(self, data: bytes) -> None:
        before, begun_before, self._piece_bytes = self._at, self._begun, len(data)
        super().data_received(data)
        if self._at is not _In.HEAD:
            return
        begun = self._begun - begun_before
        if before is _In.HEAD and begun == 0:
            self._head_bytes += len(data)
        else:
            self._head_bytes = len(data) if before is _In.NONE and begun == 1 else 0
        if self._head_bytes > HEAD_BYTES_MAX:
            self.send_400_response(_REFUSAL)

    def on_message_begin(self) -> None:
        self._at = _In.HEAD
        self._begun += 1
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._at = _In.BODY
        if self._piece_bytes > HEAD_BYTES_MAX:  # it may have begun in this very piece
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > HEAD_BYTES_MAX:
                raise InvalidInputError(_REFUSAL)  # the parser makes the answer to a request that is none of it
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._at = _In.NONE
        super().on_message_complete()
