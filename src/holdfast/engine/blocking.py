"""Code of the user that keeps the event loop to itself, and with it the whole host from everything else."""

from __future__ import annotations

import logging
from typing import Final

logger = logging.getLogger("holdfast.engine")

BLOCKED_S: Final = 1.0


def tell_if_blocked(took_s: float, who: str, instead: str) -> None:
    """Warn if somebody has run for so long that others noticed, and say what to do instead."""
    if took_s > BLOCKED_S:
        logger.warning("%s has kept the whole host waiting for %.1f s; %s.", who, took_s, instead)
