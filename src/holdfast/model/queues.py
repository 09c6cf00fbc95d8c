"""Queues of activities: each activity is in one, and a host says which of them it serves."""

from __future__ import annotations

import re
from typing import Final

from holdfast.errors import InvalidInputError

DEFAULT_QUEUE: Final = "default"
"""Where the activities are that name no queue."""

_NAME: Final = re.compile(r"[A-Za-z0-9._\-]{1,64}")


def check_queue(queue: object) -> None:
    """Raise InvalidInputError for what cannot name a queue: a text of 1 to 64 letters, digits, dots, `-` and `_`."""
    if not isinstance(queue, str) or not _NAME.fullmatch(queue):
        raise InvalidInputError(
            f"queue={str(queue)[:70]!r} cannot name a queue; use 1 to 64 letters, digits, dots, `-` and `_`."
        )
