"""Whose turn it is: instances with something to do take their steps one after the other, none twice in a row."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from holdfast.hub.instance import Instance

_STEPS_PER_TURN = 256  # then the loop gets a chance to do something else


class Turns:
    """A queue of runnable instances, each at most once, worked off on the event loop while `may_run` allows it."""

    def __init__(
        self, step: Callable[[Instance], None], may_run: Callable[[], bool], finished: Callable[[], None]
    ) -> None:
        self._step = step
        self._may_run = may_run
        self._finished = finished
        self._runnable: dict[str, Instance] = {}
        self._order: deque[str] = deque()
        self._is_scheduled = False

    def add(self, instance: Instance) -> None:
        """Let an instance take its next step soon."""
        if instance.instance_id not in self._runnable:
            self._order.append(instance.instance_id)
        self._runnable[instance.instance_id] = instance
        self.schedule()

    @property
    def is_idle(self) -> bool:
        return not self._order

    def clear(self) -> None:
        self._runnable.clear()
        self._order.clear()

    def schedule(self) -> None:
        """Go on if there is something to do; called again when what `may_run` waits for may have come."""
        if self._order and not self._is_scheduled and self._may_run():
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        for _ in range(_STEPS_PER_TURN):
            if not self._order or not self._may_run():
                break
            self._step(self._runnable.pop(self._order.popleft()))
        self._finished()
        self.schedule()
