"""Whose turn it is: instances with something to do take their steps one after the other, none twice in a row."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from holdfast.engine.journal import Journal
from holdfast.engine.residents import Residents
from holdfast.hub.instance import Instance

_STEPS_PER_TURN = 256
_TURN_S = 0.05  # after either of them the loop gets a chance to do something else


class Turns:
    """A queue of runnable instances, each at most once, worked off on the event loop while the journal has room."""

    def __init__(self, step: Callable[[Instance], None], journal: Journal, residents: Residents) -> None:
        self._step = step
        self._journal = journal
        self._residents = residents
        self._runnable: dict[str, Instance] = {}
        self._order: deque[str] = deque()
        self._is_scheduled = False
        self._is_paused = False

    def add(self, instance: Instance) -> None:
        """Let an instance take its next step soon."""
        if instance.instance_id not in self._runnable:
            self._order.append(instance.instance_id)
        self._runnable[instance.instance_id] = instance
        self.schedule()

    @property
    def is_idle(self) -> bool:
        return not self._order

    def pause(self) -> None:
        """Start no more steps."""
        self._is_paused = True

    def clear(self) -> None:
        self._runnable.clear()
        self._order.clear()

    def schedule(self) -> None:
        """Go on if there is something to do; called again when the journal may have room."""
        if self._order and not self._is_scheduled and not self._is_paused and not self._journal.is_full:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        clock = asyncio.get_running_loop().time
        until = clock() + _TURN_S
        for _ in range(_STEPS_PER_TURN):
            if not self._order or self._is_paused or self._journal.is_full or clock() >= until:
                break
            self._step(self._runnable.pop(self._order.popleft()))
        self._residents.shrink(self._journal.durable_lsn)
        self.schedule()
