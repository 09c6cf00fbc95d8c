"""Messages: what waits in the inbox of an instance, until an episode consumes it into history."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from holdfast.model.history import MessageEvent

DurableKey: TypeAlias = tuple[str, int]
"""(execution id, sequence number): names one activity or one timer."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """An event on its way to one instance.

    Exactly one of the three sources is durable until the message is consumed: a row in the inbox (`message_id`), the
    row of the activity that finished (`activity`), or the row of the timer that fired (`timer`).
    `execution_id` binds the message to one execution; None reaches whichever is current.
    """

    instance_id: str
    event: MessageEvent
    execution_id: str | None = None
    message_id: int | None = None
    activity: DurableKey | None = None
    timer: DurableKey | None = None


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """A message that somebody outside the node sent, and that is durable until the node has taken it in."""

    arrival_id: int
    instance_id: str
    event: MessageEvent
    execution_id: str | None = None
