"""The bridges: to a loop that runs in another thread already, and to one in a thread of its own."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from holdfast.client.client import Client
from holdfast.errors import ConfigurationError, HostStoppedError

T = TypeVar("T")


class LoopBridge:
    """To a client whose loop runs in a thread already: that of a host."""

    def __init__(self, client: Client, loop: asyncio.AbstractEventLoop) -> None:
        self._client = client
        self._loop = loop
        self._is_closed = False

    def run(self, use: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        if self._is_closed:
            raise _closed()
        return run_on(self._loop, lambda: use(self._client))

    def close(self) -> None:
        self._is_closed = True


class ThreadBridge:
    """To a client of its own, on a loop and a thread of its own, which begin with the first request.

    After a fork the child begins anew: of its parent's thread it has only the memory.

    Args:
        open_client: makes the client; entered and left on the loop.
    """

    def __init__(self, open_client: Callable[[], AbstractAsyncContextManager[Client]]) -> None:
        self._open_client = open_client
        self._lock = threading.Lock()
        self._worker: _Worker | None = None
        self._is_closed = False

    def run(self, use: Callable[[Client], Coroutine[Any, Any, T]]) -> T:
        worker = self.open()
        return run_on(worker.loop, lambda: use(worker.client))

    def open(self) -> _Worker:
        """Return the thread, with its client; start it if there is none in this process."""
        if self._worker is not None and self._worker.pid != os.getpid():
            self._lock, self._worker = threading.Lock(), None
        with self._lock:
            if self._is_closed:
                raise _closed()
            if self._worker is None:
                self._worker = _Worker(self._open_client)
            return self._worker

    def close(self) -> None:
        """Close the client, once nothing uses it any more; what still runs is given up."""
        with self._lock:
            self._is_closed = True
            worker, self._worker = self._worker, None
        if worker is not None and worker.pid == os.getpid():
            worker.stop()


class _Worker:
    """A thread with a loop and an open client.

    Raises what making the loop and opening the client raise.
    """

    def __init__(self, open_client: Callable[[], AbstractAsyncContextManager[Client]]) -> None:
        self.pid = os.getpid()
        self._open_client = open_client
        self._opened: concurrent.futures.Future[tuple[asyncio.AbstractEventLoop, Client, asyncio.Event]] = (
            concurrent.futures.Future()
        )
        self._error: BaseException | None = None
        # A daemon: a script that forgets to close its client must end all the same.
        self._thread = threading.Thread(target=self._run, name="holdfast-client", daemon=True)
        self._thread.start()
        self.loop, self.client, self._leave = self._opened.result()

    def _run(self) -> None:
        serving = self._serve()
        try:
            asyncio.run(serving)
        except BaseException as error:
            if self._opened.done():
                self._error = error  # raised by whoever closes the client
            else:  # there is not even a loop: no file descriptors are left, say
                self._opened.set_exception(error)
        finally:
            serving.close()  # no effect unless it has never begun

    async def _serve(self) -> None:
        leave = asyncio.Event()
        try:
            async with self._open_client() as client:
                self._opened.set_result((asyncio.get_running_loop(), client, leave))
                await leave.wait()
        except BaseException as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)

    def stop(self) -> None:
        """Leave the client; raises what leaving it raises."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._leave.set)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if self._error is not None:
            raise self._error


def run_on(loop: asyncio.AbstractEventLoop, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on the loop of another thread and return its result.

    Raises:
        ConfigurationError: on the thread of that loop, which would wait for itself.
        HostStoppedError: if the loop has ended, or ends meanwhile.
    """
    if _is_running_here(loop):
        raise ConfigurationError(
            "A synchronous client cannot be used on the event loop that it works with; use the async client there."
        )
    if loop.is_closed():
        raise _closed()
    coroutine = begin()
    try:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:  # closed between the two
        coroutine.close()
        raise _closed() from None
    try:
        return future.result()
    except concurrent.futures.CancelledError:
        raise _closed() from None
    except BaseException:
        future.cancel()  # no effect if this is the error of the request; it is not if this thread was interrupted
        raise


def _is_running_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def _closed() -> HostStoppedError:
    return HostStoppedError("This client is closed, or its host has stopped. Open a new one.")
