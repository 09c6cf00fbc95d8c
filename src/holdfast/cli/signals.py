"""Stop signals: the first one asks for an orderly end, the second one gets an end at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from types import FrameType, TracebackType


class StopSignals:
    """Takes SIGINT and SIGTERM (and on Windows Ctrl+Break) while it is entered, in the main thread.

    The handlers are Python's own, not the loop's, which Windows does not have; and they can end the process even
    when the loop is stuck.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._seen = False
        names = ("SIGINT", "SIGTERM", "SIGBREAK")
        self._signals = [number for name in names if (number := getattr(signal, name, None)) is not None]

    async def first(self) -> None:
        """Wait for the first signal."""
        await self._event.wait()

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._seen:
            # What is durable stays so, and the operating system gives the store back. 128 + n is what shells expect.
            os._exit(128 + number)
        self._seen = True
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"Stopping. Once more to stop at once.\n")
        self._loop.call_soon_threadsafe(self._event.set)

    def __enter__(self) -> StopSignals:
        self._before = [(number, signal.signal(number, self._handle)) for number in self._signals]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)
