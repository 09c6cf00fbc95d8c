"""Waiting for something, and telling how long already."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

from holdfast.cli.output import Progress

T = TypeVar("T")

_TELLS_S: Final = 1.0


async def patiently(work: Awaitable[T], what: str) -> T:
    """Await something; on a terminal, show meanwhile what it is and how long it has taken."""
    progress, waited_s = Progress(), 0.0
    waiting = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({waiting}, timeout=_TELLS_S))[0]:
            waited_s += _TELLS_S
            progress.tell(f"{what}: {waited_s:.0f} s")
        return await waiting
    finally:
        waiting.cancel()
        progress.done()
