"""Whose turn it is: instances with something to do take their steps one after the other, or several together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from holdfast.engine.journal import Journal
from holdfast.engine.residents import Resident, Residents

_STEPS_PER_TURN = 64
_TURN_S = 0.05
"""After either of them the loop gets a chance to do something else: to store what there is, above all."""


class Turns:
    """A queue of runnable instances, each at most once, worked off on the event loop while the journal has room."""

    def __init__(
        self,
        take_steps: Callable[[Sequence[Resident], float], None],
        journal: Journal,
        residents: Residents,
    ) -> None:
        """Let nobody take a step yet.

        Args:
            take_steps: lets each of some instances take a step, as far as possible before a time of the loop; adds
                those again that have something left to do, and puts back whoever found no time.
        """
        self._take_steps = take_steps
        self._journal = journal
        self._residents = residents
        self._runnable: deque[Resident] = deque()
        self._is_scheduled = False
        self._is_paused = False

    def add(self, resident: Resident) -> None:
        """Let an instance take its next step soon."""
        if not resident.is_runnable:
            resident.is_runnable = True
            self._runnable.append(resident)
            if not self._is_scheduled:
                self.schedule()

    def put_back(self, residents: Sequence[Resident]) -> None:
        """Let instances whose turn it was, but who found no time, be the next ones, in their order."""
        for resident in reversed(residents):
            if not resident.is_runnable:
                resident.is_runnable = True
                self._runnable.appendleft(resident)

    @property
    def is_idle(self) -> bool:
        return not self._runnable

    def pause(self) -> None:
        """Start no more steps."""
        self._is_paused = True

    def clear(self) -> None:
        self._runnable.clear()

    def schedule(self) -> None:
        """Go on if there is something to do; called again when the journal may have room."""
        if self._runnable and not self._is_scheduled and not self._is_paused and not self._journal.is_full:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._is_scheduled = False
        if not self._is_paused and not self._journal.is_full:
            count = min(len(self._runnable), self._journal.room, _STEPS_PER_TURN)
            residents = [self._runnable.popleft() for _ in range(count)]
            for resident in residents:
                resident.is_runnable = False
            self._take_steps(residents, asyncio.get_running_loop().time() + _TURN_S)
        self._residents.shrink(self._journal.durable_lsn)
        self.schedule()
