"""Every maximum in one place."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds that keep one instance, one request or one user from hurting the others.

    What is over a bound is refused with an error where it is asked for, before anything is stored.
    """

    payload_bytes_max: int = 4 * 1024 * 1024
    """One input, output, event or entity state, as JSON."""
    custom_status_bytes_max: int = 16 * 1024
    actions_max: int = 100_000
    """What one orchestrator may ask for in one episode."""
    history_events_max: int = 1_000_000
    """The length of one execution's history; `continue_as_new` starts a new one."""
    inbox_messages_max: int = 10_000
    """What may wait for one instance before clients are told to come back later."""
    episode_messages_max: int = 1_000
    """How many messages one episode, or one batch of entity operations, takes from the inbox."""
    deliveries_max: int = 5
    """How often work may have been running when the process died before it is parked."""
