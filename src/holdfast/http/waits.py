"""Requests whose answer is long in coming: how many there may be, and that none outlives its client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from holdfast.errors import OverloadedError

T = TypeVar("T")


class Places:
    """How many requests of one kind there may be at the same time."""

    def __init__(self, places_max: int, complaint: str) -> None:
        self._places_max = places_max
        self._complaint = complaint
        self._taken = 0

    @contextlib.contextmanager
    def place(self) -> Generator[None]:
        """Hold a place. It is taken before anything is stored, so that nothing is when there is none.

        Raises:
            OverloadedError: if all are taken.
        """
        if self._taken >= self._places_max:
            raise OverloadedError(f"{self._taken} {self._complaint}")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class Waits(Places):
    """The places for requests that wait."""

    def __init__(self, waits_max: int) -> None:
        super().__init__(
            waits_max, "requests wait already; nothing was stored. Ask without a wait, or raise http_waits_max."
        )


async def while_asked(request: Request, wait: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Return what a wait comes to; give it up when the client goes away.

    Raises:
        ClientDisconnect: then.
    """
    await request.body()  # what comes after it is that the client has gone
    waiting = asyncio.ensure_future(wait())
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done() and leaving.result():
            raise ClientDisconnect
        return await waiting
    finally:
        waiting.cancel()
        leaving.cancel()
        await asyncio.gather(waiting, leaving, return_exceptions=True)


async def _left(request: Request) -> bool:
    """Return whether the client has gone, once the server says anything; one that says something else cannot tell."""
    return (await request.receive())["type"] == "http.disconnect"
