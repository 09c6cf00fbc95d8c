"""The inside of a worker process: it runs one call at a time, and ends with the host."""

from __future__ import annotations

import contextlib
import contextvars
import importlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from holdfast.codec.converter import JsonConverter
from holdfast.codec.history import decode_record, encode_record
from holdfast.engine.activity_context import CURRENT, ActivityContext, AttemptInfo, CancelFlag
from holdfast.engine.process_messages import (
    ENCODER,
    TO_WORKER,
    Begin,
    Begun,
    End,
    FromWorker,
    Heartbeat,
    ProcessCall,
    ProcessResult,
    ToWorker,
)
from holdfast.errors import PayloadError
from holdfast.model.failure import failure_from_exception
from holdfast.model.refs import decode_input


def serve(pipe: Connection) -> None:
    """Run the calls that come through a pipe until it closes; this is all that a worker process does."""
    follow_parent()
    if hasattr(os, "register_at_fork"):
        # What user code forks would otherwise keep the pipe open, and the host would not see this process die.
        os.register_at_fork(after_in_child=pipe.close)
    _CallServer(pipe).run()


def follow_parent() -> None:
    """Let a worker process end with the host, however that ends; an interrupt of both is left to the host."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


class _CallServer:
    """User code has the main thread; a second one reads, so that the host is heard while user code runs."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._calls: queue.SimpleQueue[Begin | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        """Guards what is sent, and the two below."""
        self._running: int | None = None
        self._cancelled = CancelFlag()

    def run(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()
        while (begin := self._calls.get()) is not None:
            with self._lock:
                self._send(Begun(begin.number))
            # A context of its own, so that what one call sets is not seen by the next.
            result = contextvars.copy_context().run(self._result, begin)
            with self._lock:
                self._running = None
                self._send(End(begin.number, result))

    def _read(self) -> None:
        try:
            with contextlib.suppress(EOFError, OSError):
                while True:
                    self._take(TO_WORKER.decode(self._pipe.recv_bytes()))
        finally:
            # The host is gone, or wants no more of this process.
            if self._running is not None:
                os._exit(1)
            self._calls.put(None)

    def _take(self, message: ToWorker) -> None:
        with self._lock:
            if isinstance(message, Begin):
                self._running, self._cancelled = message.number, CancelFlag()
                self._calls.put(message)
            elif message.number == self._running:
                self._cancelled.set()

    def _result(self, begin: Begin) -> ProcessResult:
        with self._lock:
            cancelled = self._cancelled
        return run_in_process(begin.call, lambda progress: self._report(begin.number, progress), cancelled)

    def _report(self, number: int, progress: str) -> None:
        with self._lock:
            if number == self._running:
                self._send(Heartbeat(number, progress))

    def _send(self, message: FromWorker) -> None:
        # If the host is gone, this process is about to go too.
        with contextlib.suppress(OSError):
            self._pipe.send_bytes(ENCODER.encode(message))


def run_in_process(call: ProcessCall, report: Callable[[str], None], cancelled: CancelFlag) -> ProcessResult:
    """Run an activity, found by its name, in this process; whatever it raises is a result too."""
    converter = JsonConverter(payload_bytes_max=call.payload_bytes_max)
    try:
        found: Any = importlib.import_module(call.module)
        for part in call.qualname.split("."):
            found = getattr(found, part)
        CURRENT.set(ActivityContext(decode_record(call.context, AttemptInfo), converter, report, cancelled))
        arguments: list[Any] = []
        if found.has_input:
            arguments.append(decode_input(converter, found, call.input))
        result = found.function(*arguments)
        try:
            return ProcessResult(True, converter.encode(result))
        except PayloadError as error:
            return ProcessResult(False, encode_record(failure_from_exception(error, non_retriable=True)))
    except BaseException as error:
        return ProcessResult(False, encode_record(failure_from_exception(error)))
