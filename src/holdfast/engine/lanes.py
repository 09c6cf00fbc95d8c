"""Lanes: asyncio tasks that run coroutines one after the other, as long as none of them has to wait.

Most `async def` activities either wait for the network or hardly at all. A task of its own for each costs more than
the latter do; so a lane goes on with what is queued until a coroutine first waits. From then on the lane is its own,
and another one takes over the queue.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar

T = TypeVar("T")

_TURN_S: Final = 0.02
"""After this a lane lets the event loop do something else."""


class Lanes:
    """The tasks, of which at most one takes from the queue at a time."""

    def __init__(self, take: Callable[[asyncio.Task[None]], Coroutine[Any, Any, object] | None]) -> None:
        """Start nothing yet.

        Args:
            take: returns the next coroutine to run, given the task that will run it; None if there is none.
        """
        self._take = take
        self._taking: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Let what is queued be taken soon."""
        if self._taking is None:
            self._taking = asyncio.get_running_loop().create_task(self._run())

    def waits(self) -> None:
        """Note that the coroutine that runs now, in a lane, will wait: another lane takes over the queue."""
        if self._taking is asyncio.current_task():
            self._taking = None
            self.wake()

    async def _run(self) -> None:
        lane = asyncio.current_task()
        assert lane is not None, "this runs in a task"
        now = asyncio.get_running_loop().time
        until = now() + _TURN_S
        try:
            # One that was cancelled ends: nothing takes that back for certain before Python 3.13.
            while not lane.cancelling() and self._taking in (lane, None):
                self._taking = lane
                coroutine = self._take(lane)
                if coroutine is None:
                    break
                await coroutine
                if self._taking is lane and now() >= until:
                    await asyncio.sleep(0)
                    until = now() + _TURN_S
        finally:
            if self._taking is lane:
                self._taking = None
            if lane.cancelling():
                self.wake()  # another lane goes on in its place


@types.coroutine
def in_context(
    context: contextvars.Context, coroutine: Coroutine[Any, Any, T], waits: Callable[[], None]
) -> Generator[Any, Any, T]:
    """Await a coroutine in a context of its own, within whatever task; `waits` is called before it first waits."""
    resume: Callable[[Any], Any] = coroutine.send
    given: Any = None
    has_waited = False
    while True:
        try:
            awaited = context.run(resume, given)
        except StopIteration as stop:
            return stop.value
        except GeneratorExit as error:  # raised, not caught: it would look as if this were being closed
            raise RuntimeError("The coroutine raised GeneratorExit.") from error
        if not has_waited:
            has_waited = True
            waits()
        try:
            resume, given = coroutine.send, (yield awaited)
        except GeneratorExit:
            context.run(coroutine.close)
            raise
        except BaseException as error:
            resume, given = coroutine.throw, error
