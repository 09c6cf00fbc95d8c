"""A host that waits for a store while another one owns it, and takes its place when that one is gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from holdfast.errors import StorageError, StoreInUseError

logger = logging.getLogger("holdfast.engine")

_LOOK_AGAIN_S: Final = 0.5
_SHARE_S: Final = 120.0
"""How long a host waits, unless it is told, for a share of a hub that others have and that it is to get."""


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
            is_due = isinstance(error, StoreInUseError) and error.share_is_due
            left_s = began + (_SHARE_S if is_due and standby_s is None else standby_s or 0) - ticking()
            if left_s <= 0:
                raise
            if type(error) is not said:
                said = type(error)
                waits_for = "its share of the task hub" if is_due else "its turn, as a standby"
                logger.info("This host waits for %s: %s", waits_for, error)
            await asyncio.sleep(min(_LOOK_AGAIN_S, left_s))
        else:
            return
