"""A host that waits for a store while another one owns it, and takes its place when that one is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from holdfast.errors import StoreInUseError

logger = logging.getLogger("holdfast.engine")

_LOOK_AGAIN_S: Final = 1.0


async def begin_in_turn(begin: Callable[[], Awaitable[None]], standby_s: float | None) -> None:
    """Begin; if another host owns the store, try again for so many seconds.

    Raises:
        StoreInUseError: if it still does then, or at once if there is nothing to wait for.
    """
    ticking = asyncio.get_running_loop().time
    began, is_waiting = ticking(), False
    while True:
        try:
            await begin()
        except StoreInUseError as error:
            left_s = began + (standby_s or 0) - ticking()
            if left_s <= 0:
                raise
            if not is_waiting:
                is_waiting = True
                logger.info("This host is a standby, and takes over when the other one is gone: %s", error)
            await asyncio.sleep(min(_LOOK_AGAIN_S, left_s))
        else:
            return
