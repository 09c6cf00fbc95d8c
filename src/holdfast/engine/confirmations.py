"""Making sure that a store is still ours, for all who ask at the same time at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class Confirmations:
    """Asks one question for all who came before it was asked."""

    def __init__(self, ask: Callable[[], Awaitable[object]]) -> None:
        self._ask = ask
        self._next: asyncio.Future[None] | None = None
        self._job: asyncio.Task[None] | None = None

    async def confirm(self) -> None:
        """Return once the answer to a question came that was asked after this call; raise what it raised."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            if self._job is None:
                self._job = asyncio.get_running_loop().create_task(self._run())
        await asyncio.shield(self._next)

    async def _run(self) -> None:
        while self._next is not None:
            asked, self._next = self._next, None
            try:
                await self._ask()
            except Exception as error:
                asked.set_exception(error)
                asked.exception()  # whoever waits is told; if nobody does any more, that is no second error
            else:
                asked.set_result(None)
        self._job = None
