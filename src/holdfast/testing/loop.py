"""An event loop without clock, threads or sockets: a seed decides who runs next, and time jumps to what is due.

Everything that runs in it belongs to a process, or to the world outside of all of them. A process can be paused and
killed as a whole, between any two steps of its code, as the operating system does it: nothing of it gets a chance to
tidy up. Within one process callbacks run in the order that asyncio promises; between processes the seed decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import logging
import random
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextvars import Context, ContextVar
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

logger = logging.getLogger("holdfast.testing")

_STEP_US: Final = 2
_STEPS_AT_ONCE_MAX: Final = 8
_THREAD_US_MAX: Final = 5_000


class NothingHappensError(RuntimeError):
    """What is waited for can never happen: nobody is ready to run, and nothing is due."""


class InvariantViolation(BaseException):
    """Something happened in a simulation that must never happen. No code under test can catch it by mistake."""


class Process:
    """A simulated process. What it starts belongs to it, and so do the callbacks of what it waits for."""

    def __init__(self, name: str, loop: SimulatedLoop) -> None:
        self.name = name
        self.is_alive = True
        self.paused_at_us: int | None = None
        self.ready: deque[_Call] = deque()
        self.jobs: set[asyncio.Task[Any]] = set()
        self.died: list[Callable[[], None]] = []
        """Called from outside when it has been killed."""
        self._loop = loop
        self._context = contextvars.copy_context()
        self._context.run(_PROCESS.set, self)

    @property
    def is_paused(self) -> bool:
        return self.paused_at_us is not None

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine in this process; it may be awaited only from inside it."""
        context = self._context.copy()
        return context.run(self._loop.create_task, work, context=context)

    def pause(self) -> None:
        """Let nothing in it run until it is told to go on; what becomes ready waits."""
        self.paused_at_us = self._loop.now_us

    def go_on(self) -> None:
        self.paused_at_us = None

    def kill(self) -> None:
        """Let everything in it end where it stands, now."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.ready.clear()
        self._loop.bury(self)
        for tell in self.died:
            self._loop.call_outside(tell)


_PROCESS: ContextVar[Process] = ContextVar("_PROCESS")


class _Call:
    """A callback that waits for its turn: what asyncio calls a handle."""

    __slots__ = ("arguments", "callback", "context", "is_cancelled", "process", "when_us")

    def __init__(
        self, process: Process, when_us: int, callback: Callable[..., object], arguments: Any, context: Context
    ) -> None:
        self.process = process
        self.when_us = when_us
        self.callback = callback
        self.arguments = arguments
        self.context = context
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self.when_us / 1e6


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Two runs with one seed do the same, step for step; `fingerprint` tells whether they did."""

    def __init__(self, seed: object) -> None:
        self._dice = random.Random(f"{seed}/loop")
        self.now_us = 0
        self.fingerprint = 0
        self.steps = 0
        self.steps_max: int | None = None
        """After so many steps the run is given up."""
        self.interrupt_at = 0
        """The step before which `interrupt` is called, from outside, with the process that is about to run."""
        self.interrupt: Callable[[Process], None] = lambda _: None
        self.outside = Process("outside", self)
        self._processes = [self.outside]
        self._scheduled: list[tuple[int, int, _Call]] = []
        self._calls = 0
        self._buried: list[asyncio.Task[Any]] = []
        self._violation: BaseException | None = None
        self._is_running = self._is_closed = False

    def process(self, name: str) -> Process:
        """Return a new process, in which nothing runs yet."""
        process = Process(name, self)
        self._processes = [each for each in self._processes if each.is_alive]
        self._processes.append(process)
        return process

    def bury(self, process: Process) -> None:
        """Keep what was killed, so that no garbage collector runs its `finally` blocks while the others go on."""
        self._buried.extend(process.jobs)

    def note(self, number: int) -> None:
        """Let a number become part of the fingerprint."""
        self.fingerprint = hash((self.fingerprint, number))

    def violated(self, violation: BaseException) -> None:
        """End the run with a violation, or a mistake in the world outside, wherever it was found."""
        self._violation = self._violation or violation

    # Running

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        """Run until a coroutine of the world outside has ended.

        Raises:
            NothingHappensError: if it waits for what can never happen.
            InvariantViolation: as soon as one is found.
        """
        if self._is_running or self._is_closed:
            raise RuntimeError("The loop is running already, or closed.")
        self._is_running = True
        asyncio._set_running_loop(self)  # pyright: ignore[reportPrivateUsage] - made for event loops
        try:
            job: asyncio.Future[T] = asyncio.ensure_future(cast(Awaitable[T], future), loop=self)
            while not job.done():
                self._run_some(job)
                if self.steps_max is not None and self.steps > self.steps_max:
                    raise InvariantViolation("everything ends", f"there is no end after {self.steps} steps")
                if self._violation is not None:
                    raise self._violation
            return job.result()
        finally:
            asyncio._set_running_loop(None)  # pyright: ignore[reportPrivateUsage] - as above
            self._is_running = False

    def _run_some(self, job: asyncio.Future[Any]) -> None:
        self._move_due()
        runnable = [each for each in self._processes if each.ready and not each.is_paused]
        if not runnable:
            self._jump()
            return
        process, count = runnable[0], _STEPS_AT_ONCE_MAX
        if len(runnable) > 1:
            throw = self._dice.getrandbits(16)
            process, count = runnable[throw % len(runnable)], 1 + (throw >> 8) % _STEPS_AT_ONCE_MAX
        self.fingerprint = hash((self.fingerprint, self.now_us, len(runnable), count))
        ready = process.ready
        while count > 0 and ready and not job.done() and not process.is_paused and self._violation is None:
            count -= 1
            self.steps += 1
            self.now_us += _STEP_US
            if self.steps == self.interrupt_at:
                self.interrupt(process)
                if not ready:
                    return
            self._run_call(ready.popleft())

    def _run_call(self, call: _Call) -> None:
        if call.is_cancelled:
            return
        try:
            call.context.run(call.callback, *call.arguments)
        except InvariantViolation as violation:
            self.violated(violation)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            if call.process is self.outside:
                self.violated(error)
            self.call_exception_handler({"message": f"A callback of {call.process.name} raised.", "exception": error})

    def _move_due(self) -> None:
        scheduled = self._scheduled
        while scheduled and scheduled[0][0] <= self.now_us:
            call = heapq.heappop(scheduled)[2]
            if call.process.is_alive and not call.is_cancelled:
                call.process.ready.append(call)

    def _jump(self) -> None:
        scheduled = self._scheduled
        while scheduled and (scheduled[0][2].is_cancelled or not scheduled[0][2].process.is_alive):
            heapq.heappop(scheduled)
        if not scheduled:
            raise NothingHappensError("Nobody is ready to run, nothing is due, and yet somebody waits.")
        self.now_us = max(self.now_us, scheduled[0][0])

    # What asyncio asks of a loop

    def time(self) -> float:
        return self.now_us / 1e6

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        if context is None:
            context = contextvars.copy_context()
        process = context.get(_PROCESS) or self.outside
        call = _Call(process, self.now_us, callback, args, context)
        if process.is_alive:
            process.ready.append(call)
        return cast(asyncio.TimerHandle, call)

    def call_outside(self, callback: Callable[..., object], *args: Any) -> None:
        """Call back in the world outside, whoever asks for it."""
        self.outside.ready.append(_Call(self.outside, self.now_us, callback, args, contextvars.Context()))

    def call_outside_later(self, delay_us: int, callback: Callable[..., object], *args: Any) -> None:
        """The same, after so many microseconds."""
        self._schedule(_Call(self.outside, self.now_us + delay_us, callback, args, contextvars.Context()))

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._call_at_us(self.now_us + -int(-delay * 1e6 // 1), callback, args, context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._call_at_us(-int(-when * 1e6 // 1), callback, args, context)

    def _call_at_us(
        self, when_us: int, callback: Callable[..., object], args: Any, context: Context | None
    ) -> asyncio.TimerHandle:
        context = contextvars.copy_context() if context is None else context
        call = _Call(context.get(_PROCESS) or self.outside, when_us, callback, args, context)
        self._schedule(call)
        return cast(asyncio.TimerHandle, call)

    def _schedule(self, call: _Call) -> None:
        self._calls += 1
        heapq.heappush(self._scheduled, (call.when_us, self._calls, call))

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        job: asyncio.Task[Any] = asyncio.Task(coro, loop=self, **options)
        process = (options.get("context") or contextvars.copy_context()).get(_PROCESS)
        if process is not None:
            process.jobs.add(job)
            job.add_done_callback(process.jobs.discard)
            if not process.is_alive:  # killed by the very code that goes on to its next wait
                self._buried.append(job)
        return job

    def run_in_executor(self, executor: Executor | None, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Call a function in this thread: at once for the world outside, a little later for a process."""
        future: asyncio.Future[T] = self.create_future()

        def call() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except StopIteration as error:
                future.set_exception(RuntimeError(f"{error!r} cannot leave a thread."))
            except (KeyboardInterrupt, InvariantViolation):
                raise
            except BaseException as error:  # as a pool of threads does
                future.set_exception(error)

        if _PROCESS.get(self.outside) is self.outside:
            call()
        else:
            self.call_later(self._dice.randrange(_THREAD_US_MAX) / 1e6, call)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, InvariantViolation):
            self.violated(error)
        elif not self._is_closed:
            logger.error("%s", context.get("message"), exc_info=error)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._is_running

    def is_closed(self) -> bool:
        return self._is_closed

    async def shutdown_asyncgens(self) -> None:
        pass

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def close(self) -> None:
        """Take apart what was killed, or left running; nothing of it can reach anything any more."""
        self._is_closed = True
        for process in self._processes:
            process.is_alive = False
            process.ready.clear()
            self._buried.extend(process.jobs)
        self._scheduled.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of coroutines that never began to run
            for job in self._buried:
                coroutine = job.get_coro()
                with contextlib.suppress(BaseException):
                    cast(Coroutine[Any, Any, Any], coroutine).close()
            self._buried.clear()
