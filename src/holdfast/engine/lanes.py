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

from holdfast.engine.blocking import tell_if_blocked

T = TypeVar("T")

_TURN_S: Final = 0.004
"""After this a lane lets the event loop do something else, such as to let instances go on with what has ended."""


class Lanes:
    """The tasks, of which at most one takes from the queue at a time."""

    def __init__(self, take: Callable[[asyncio.Task[None]], Coroutine[Any, Any, object] | bool]) -> None:
        """Start nothing yet.

        Args:
            take: runs what comes next up to its first wait, given the task that it runs in; returns what is left of it
                to be awaited, or whether there was anything.
        """
        self._take = take
        self._taking: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Let what is queued be taken soon."""
        if self._taking is None:
            self._taking = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        lane = asyncio.current_task()
        assert lane is not None, "this runs in a task"
        now = asyncio.get_running_loop().time
        until = now() + _TURN_S
        try:
            # One that was cancelled ends: nothing takes that back for certain before Python 3.13.
            while not lane.cancelling() and self._taking in (lane, None):
                self._taking = lane
                taken = self._take(lane)
                if taken is False:
                    break
                if taken is not True:
                    self._taking = None
                    self.wake()
                    await taken
                elif now() >= until:
                    await asyncio.sleep(0)
                    until = now() + _TURN_S
        finally:
            if self._taking is lane:
                self._taking = None
            if lane.cancelling():
                self.wake()  # another lane goes on in its place


def step(context: contextvars.Context, resume: Callable[[Any], object], given: object, activity: str) -> object:
    """Run the coroutine of an activity, by its `send` or its `throw`, to its next wait; return what it awaits there.

    Raises:
        StopIteration: at its end.
        Exception: whatever it raises.
    """
    clock = asyncio.get_running_loop().time
    began_at = clock()
    try:
        return context.run(resume, given)
    except GeneratorExit as error:  # raised, not caught: it would look as if the one who drives it were being closed
        raise RuntimeError("The coroutine raised GeneratorExit.") from error
    finally:
        took_s = clock() - began_at
        if took_s > _TURN_S:
            instead = "write it as a plain `def`, which runs in a thread"
            tell_if_blocked(took_s, f"Activity {activity!r}, which is `async def`,", instead)


@types.coroutine
def go_on(
    context: contextvars.Context, coroutine: Coroutine[Any, Any, T], awaited: object, activity: str
) -> Generator[Any, Any, T]:
    """Await the rest of an activity's coroutine that has run in a context of its own, up to what it awaits now."""
    while True:
        try:
            resume, given = coroutine.send, (yield awaited)
        except GeneratorExit:
            context.run(coroutine.close)
            raise
        except BaseException as error:
            resume, given = coroutine.throw, error
        try:
            awaited = step(context, resume, given, activity)
        except StopIteration as stop:
            return stop.value
