"""What a running activity may know about its own attempt."""

from __future__ import annotations

import contextvars

import msgspec

from holdfast.errors import HoldfastError


class ActivityContext(msgspec.Struct, frozen=True):
    """Which attempt of which call this is. An activity runs at least once, so give `idempotency_key` to what it calls.

    `sequence` numbers the calls of one execution; `attempt` starts at 1.
    """

    instance_id: str
    execution_id: str
    sequence: int
    name: str
    attempt: int
    call_id: str | None = None
    """What an earlier execution knew this call as, before a rewind."""

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this call, also after a rewind, and different for every other call."""
        return self.call_id or f"{self.execution_id}:{self.sequence}"


CURRENT: contextvars.ContextVar[ActivityContext] = contextvars.ContextVar("holdfast_activity")


def activity_context() -> ActivityContext:
    """Return the context of the activity that is running in this task or thread.

    Raises:
        HoldfastError: outside an activity.
    """
    try:
        return CURRENT.get()
    except LookupError:
        raise HoldfastError("activity_context() works only inside a running activity.") from None
