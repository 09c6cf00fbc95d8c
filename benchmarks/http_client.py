"""A client that costs little: it shares the machine with the server that is measured."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


async def post_all(port: int, path: str, bodies: Iterator[bytes], connections: int) -> list[float]:
    """Post each body and wait for the answer, with so many connections that are kept; return what each took in seconds.

    Raises:
        RuntimeError: for an answer that is no 202.
    """
    loop = asyncio.get_running_loop()
    taken: list[float] = []
    posting = [_Posting(path, bodies, taken, loop.create_future()) for _ in range(connections)]
    await asyncio.gather(*(loop.create_connection(lambda each=each: each, "127.0.0.1", port) for each in posting))
    for each in posting:
        each.post_next()
    await asyncio.gather(*(each.ended for each in posting))
    return taken


class _Posting(asyncio.Protocol):
    """One connection, over HTTP/1.1: when a request is answered it sends the next."""

    def __init__(self, path: str, bodies: Iterator[bytes], taken: list[float], ended: asyncio.Future[None]) -> None:
        self.ended = ended
        self._head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        self._bodies = bodies
        self._taken = taken
        self._received = b""
        self._begin = 0.0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def post_next(self) -> None:
        assert self._transport is not None
        body = next(self._bodies, None)
        if body is None:
            self._transport.close()
            return
        self._begin = time.perf_counter()
        self._transport.write(f"{self._head}content-length: {len(body)}\r\n\r\n".encode() + body)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if not separator or (length is not None and len(body) < int(length[1])):
            return
        self._received = b""
        if not head.startswith(b"HTTP/1.1 202 ") or length is None:
            self._end(RuntimeError(f"The server answered {head.decode()!r}, {body.decode()!r:.200}."))
            return
        self._taken.append(time.perf_counter() - self._begin)
        self.post_next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc)

    def _end(self, error: Exception | None) -> None:
        if self.ended.done():
            return
        if error is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(error)
