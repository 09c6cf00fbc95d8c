"""What activities wait for although no host has it: a queue that is served, or their code. Nobody would know why."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

logger = logging.getLogger("holdfast.engine")

_SAID_MAX: Final = 1_000
"""Names of queues are chosen by orchestrators, so that there may be many."""


class Unserved:
    """Says it once of each, until some host has it again."""

    def __init__(self) -> None:
        self._queues: set[str] = set()
        self._activities: set[str] = set()

    def note_queue(self, queue: str) -> None:
        """Say that activities wait in a queue."""
        if _is_new(queue, self._queues):
            logger.warning(
                "Activities wait in the queue %r, which no host serves. They run once there is a host with %r in its "
                "setting `queues`, or without that setting.",
                queue,
                queue,
            )

    def note_activity(self, name: str) -> None:
        """Say that calls of an activity wait for a host that has it."""
        if _is_new(name, self._activities):
            logger.warning("Calls of activity %r wait, which no host has that lives. They run once one has it.", name)

    def forget(self, is_served: Callable[[str], bool], is_known: Callable[[str], bool]) -> None:
        """Forget what some host has now; it is said again if it is gone again."""
        self._queues = {queue for queue in self._queues if not is_served(queue)}
        self._activities = {name for name in self._activities if not is_known(name)}


def _is_new(name: str, said: set[str]) -> bool:
    if name in said or len(said) >= _SAID_MAX:
        return False
    said.add(name)
    return True
