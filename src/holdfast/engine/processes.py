"""Worker processes for CPU-bound activities: each runs one call at a time, and can be killed without the others."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import functools
import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

from holdfast.engine.process_messages import ENCODER, FROM_WORKER, Begin, Begun, Cancel, End, ProcessCall, ProcessResult
from holdfast.engine.process_worker import serve
from holdfast.errors import HoldfastError, HostStoppedError

logger = logging.getLogger("holdfast.engine")

_REAP_S: Final = 5.0
"""How long a process that was killed, or closed its pipe, may take to be gone."""
_LOOK_AGAIN_S: Final = 0.002


class WorkerProcessDiedError(HoldfastError):
    """A worker process ended in the middle of a call, without having been told to."""


def _ignore() -> None:
    """Nobody asked to be told."""


class ProcessWorkers:
    """So many places, each with a process that starts on first use and is used again; calls wait in order for one."""

    def __init__(self, processes_max: int, grace_s: float = 0.0) -> None:
        """Start nothing yet.

        Args:
            grace_s: how long a cancelled call may go on, having been told, before its process is killed. It keeps
                its place meanwhile; whoever cancelled it does not wait.
        """
        self._places = asyncio.Semaphore(processes_max)
        self._grace_s = grace_s
        self._idle: list[_Place] = []
        self._all: list[_Place] = []
        self._is_closed = False
        self._pid = os.getpid()

    async def run(
        self, call: ProcessCall, on_heartbeat: Callable[[str], None], on_begin: Callable[[], None] = _ignore
    ) -> ProcessResult:
        """Run a call in a process of its own; if this is cancelled, the process is killed.

        Args:
            on_begin: called in another thread when user code begins to run.
            on_heartbeat: gets the progress of each heartbeat, as JSON and in order, in another thread; it must not
                wait, and must not raise.

        Raises:
            WorkerProcessDiedError: if the process died by itself.
            HostStoppedError: if the workers are closed.
        """
        await self._places.acquire()
        if self._is_closed:
            self._places.release()  # for the next in the queue, who is to be told the same
            raise HostStoppedError("The host is stopping; this call was not made.")
        place = self._idle.pop() if self._idle else self._add_place()
        job = _Job(call, on_heartbeat, on_begin, functools.partial(self._ended, place))
        place.begin(job)
        try:
            return await job.result
        finally:
            if job.result.cancelled():
                self._stop(place, job)

    async def close(self, wait_s: float) -> None:
        """End all processes: one that runs a call is killed, an idle one gets some time to leave by itself."""
        self._is_closed = True
        atexit.unregister(self._at_exit)
        left = [asyncio.wrap_future(place.close(wait_s)) for place in self._all]
        if left:
            await asyncio.wait(left, timeout=wait_s + 2 * _REAP_S)

    def kill_all(self) -> None:
        """Kill all processes, without waiting until they are gone."""
        self._is_closed = True
        atexit.unregister(self._at_exit)
        for place in self._all:
            place.kill()

    def _at_exit(self) -> None:
        if os.getpid() == self._pid:  # and not a process that was forked from the host
            self.kill_all()

    def _add_place(self) -> _Place:
        if not self._all:
            # At its exit Python waits for processes that still run. Those of a host that was not stopped never end.
            atexit.register(self._at_exit)
        place = _Place()
        self._all.append(place)
        return place

    def _stop(self, place: _Place, job: _Job) -> None:
        if self._grace_s > 0 and place.tell_cancelled(job):
            asyncio.get_running_loop().call_later(self._grace_s, place.stop, job)
        else:
            place.stop(job)

    def _ended(self, place: _Place, job: _Job, outcome: ProcessResult | Exception) -> None:
        if isinstance(outcome, ProcessResult):
            self._idle.append(place)
        else:
            self._idle.insert(0, place)  # it has no process now, so it is the last choice
        self._places.release()
        if job.result.done():
            return  # it was cancelled
        if isinstance(outcome, ProcessResult):
            job.result.set_result(outcome)
        else:
            job.result.set_exception(outcome)


class _Job:
    """A call, and the way back to the loop for what comes of it."""

    def __init__(
        self,
        call: ProcessCall,
        on_heartbeat: Callable[[str], None],
        on_begin: Callable[[], None],
        ended: Callable[[_Job, ProcessResult | Exception], None],
    ) -> None:
        self.call = call
        self.on_heartbeat = on_heartbeat
        self.on_begin = on_begin
        self.is_cancelled = False
        """Whether nobody waits for it any more."""
        self.has_begun = False
        """Whether user code may have run."""
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self.result: asyncio.Future[ProcessResult] = self._loop.create_future()

    def end(self, outcome: ProcessResult | Exception) -> None:
        """Hand the outcome over, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._ended, self, outcome)
        except RuntimeError:
            # The process is told to end after the loop has; nobody waits any more then.
            if not self._loop.is_closed():
                raise


class _Place:
    """A thread that waits in the loop's stead: for its process to start, to take a call, to answer, to die."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        """Guards the four below. It is never held while something is waited for."""
        self._process: _Process | None = None
        self._running: _Job | None = None
        self._is_closed = False
        self._leave_s = 0.0
        self._left: concurrent.futures.Future[None] = concurrent.futures.Future()
        threading.Thread(target=self._work, name="holdfast-process", daemon=True).start()

    def begin(self, job: _Job) -> None:
        """Run a call; the one before it must have ended."""
        self._jobs.put(job)

    def tell_cancelled(self, job: _Job) -> bool:
        """Let the user code of a call know that nobody waits for it; return whether there is some that runs."""
        with self._lock:
            job.is_cancelled = True
            process = self._process if self._running is job else None
        if process is not None:
            # A pipe can be full, and the loop must not wait for it; if the process is killed, this thread ends too.
            threading.Thread(target=process.tell_cancelled, args=(job,), daemon=True).start()
        return process is not None

    def stop(self, job: _Job) -> None:
        """Kill the process if it is still busy with a call; if it has not begun it, it never will."""
        with self._lock:
            job.is_cancelled = True
            if self._process is not None and self._running is job:
                self._process.kill()

    def kill(self) -> None:
        """Kill the process, and let there be no other."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.kill()
        self._jobs.put(None)

    def close(self, leave_s: float) -> concurrent.futures.Future[None]:
        """Let the process leave if it is idle, kill it if it is not; the future is done when it is gone."""
        with self._lock:
            self._is_closed = True
            self._leave_s = leave_s
            if self._process is not None and self._running is not None:
                self._process.kill()
        self._jobs.put(None)
        return self._left

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job.end(self._outcome(job))
            except Exception as error:
                job.end(error)
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.end(self._leave_s)
        self._left.set_result(None)

    def _outcome(self, job: _Job) -> ProcessResult:
        while True:
            process = self._ready_process()
            was_used = process.was_used
            with self._lock:
                if job.is_cancelled or self._is_closed:
                    raise HostStoppedError("This call was cancelled before it began.")
                self._running = job
            try:
                result = process.run(job)
            except (EOFError, OSError) as error:
                how = self._give_up(process)
                if was_used and not job.has_begun:
                    continue  # it died while it had nothing to do; the next one is new, so this happens once
                where = f"{job.call.module}.{job.call.qualname}"
                raise WorkerProcessDiedError(f"The process that ran {where} died ({how}).") from error
            except BaseException:
                self._give_up(process)
                raise
            with self._lock:
                self._running = None
            return result

    def _ready_process(self) -> _Process:
        if self._process is not None and not self._process.can_run:
            self._give_up(self._process)
        if self._process is None:
            process = _Process()
            with self._lock:
                self._process = process
        return self._process

    def _give_up(self, process: _Process) -> str:
        """Take leave of a process before it is reaped, so that nobody kills whoever gets its id next."""
        with self._lock:
            self._process = self._running = None
        return process.end(_REAP_S)


class _Process:
    """A process, and our end of the pipe to it. All but `kill` and `tell_cancelled` belong to one thread."""

    def __init__(self) -> None:
        # "spawn" on every platform: a forked child would share connections and locks with this process.
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._sending = threading.Lock()
        self._job: _Job | None = None
        self._number = 0
        self._is_killed = False
        self._process = spawn.Process(target=serve, args=(theirs,), name="holdfast-activities")
        try:
            self._process.start()
        except BaseException:
            self._pipe.close()
            raise
        finally:
            theirs.close()

    @property
    def can_run(self) -> bool:
        """Whether it is there for another call; one that was killed may look alive for a while."""
        return not self._is_killed and self._process.is_alive()

    @property
    def was_used(self) -> bool:
        return self._number > 0

    def kill(self) -> None:
        self._is_killed = True
        self._process.kill()

    def run(self, job: _Job) -> ProcessResult:
        """Run a call.

        Raises:
            EOFError, OSError: if the process dies.
        """
        with self._sending:
            self._job = job
            self._number += 1
            self._pipe.send_bytes(ENCODER.encode(Begin(self._number, job.call)))
            if job.is_cancelled:  # and the process was told too early to know which call was meant
                self._pipe.send_bytes(ENCODER.encode(Cancel(self._number)))
        while True:
            message = FROM_WORKER.decode(self._pipe.recv_bytes())
            if message.number != self._number:
                continue
            if isinstance(message, End):
                return message.result
            if isinstance(message, Begun):
                job.has_begun = True
                job.on_begin()
            elif not job.is_cancelled:
                job.on_heartbeat(message.progress)

    def tell_cancelled(self, job: _Job) -> None:
        """Tell the process that a call is cancelled; if it is dead, or done with the call, nothing happens."""
        with contextlib.suppress(OSError), self._sending:
            if self._job is job:
                self._pipe.send_bytes(ENCODER.encode(Cancel(self._number)))

    def end(self, wait_s: float) -> str:
        """Close the pipe, kill the process unless it leaves in time, and return how it ended."""
        with self._sending:
            self._pipe.close()
        if not self._is_gone_within(wait_s):
            self._process.kill()
            self._is_gone_within(_REAP_S)
        code = self._process.exitcode
        if code is None:
            logger.error("Worker process %s was killed, but has not been seen to end.", self._process.pid)
            return "it cannot be said how"
        self._process.close()
        return f"killed by {_signal_name(-code)}" if code < 0 else f"exit code {code}"

    def _is_gone_within(self, seconds: float) -> bool:
        # Not `join`: that would also wait for what user code has forked.
        give_up_at = time.monotonic() + seconds
        while self._process.is_alive():
            if time.monotonic() >= give_up_at:
                return False
            time.sleep(_LOOK_AGAIN_S)
        return True


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
