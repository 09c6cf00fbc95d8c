"""A host that waits for a store while another one owns it, and takes its place when that one is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from holdfast.errors import StorageError

logger = logging.getLogger("holdfast.engine")

_LOOK_AGAIN_S: Final = 1.0


async def begin_in_turn(begin: Callable[[], Awaitable[None]], standby_s: float | None) -> None:
    """Begin; if that cannot be, as another host owns the store, try again for so many seconds.

    Raises:
        StorageError: why it still cannot be then, or at once if there is nothing to wait for.
    """
    ticking = asyncio.get_running_loop().time
    began, said = ticking(), None
    while True:
        try:
            await begin()
        except StorageError as error:  # also of a store that cannot be reached just now
            left_s = began + (standby_s or 0) - ticking()
            if left_s <= 0:
                raise
            if type(error) is not said:
                said = type(error)
                logger.info("This host is a standby, and takes over when it can: %s", error)
            await asyncio.sleep(min(_LOOK_AGAIN_S, left_s))
        else:
            return
