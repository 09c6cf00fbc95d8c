"""The way of a heartbeat from wherever user code runs to the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable


class Heartbeats:
    """Takes the progress of one attempt from any thread, and hands it over on the loop until the attempt is over.

    Where reports come faster than the loop takes them, it hears the newest only, so that they never pile up.
    """

    __slots__ = ("_heard", "_is_over", "_lock", "_loop", "_newest")

    def __init__(self, loop: asyncio.AbstractEventLoop, lock: threading.Lock, heard: Callable[[str], None]) -> None:
        """Wait for reports.

        Args:
            lock: guards the few fields below; it may be shared by many.
        """
        self._loop = loop
        self._heard = heard
        self._lock = lock
        self._newest: str | None = None
        self._is_over = False

    def report(self, progress: str) -> None:
        """Hand over progress, as JSON, as soon as the loop gets to it; nothing happens if the attempt is over."""
        with self._lock:
            if self._is_over:
                return
            is_on_its_way = self._newest is not None
            self._newest = progress
        if not is_on_its_way:
            try:
                self._loop.call_soon_threadsafe(self._hand_over)
            except RuntimeError:
                # A thread can outlive the loop; then the host is gone, and with it whoever listened.
                if not self._loop.is_closed():
                    raise

    def end(self) -> None:
        """Hand over what is on its way, and nothing from now on."""
        with self._lock:
            self._is_over = True
        if self._newest is not None:
            self._hand_over()

    def _hand_over(self) -> None:
        with self._lock:
            progress, self._newest = self._newest, None
        if progress is not None:
            self._heard(progress)
