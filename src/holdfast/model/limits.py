"""Every maximum in one place."""

from __future__ import annotations

from typing import Final

import msgspec

EVENTS_AWAITED_MAX: Final = 32
"""How many names of events that an orchestration waits for are stored with it."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds that keep one instance, one request or one user from hurting the others.

    What is over a bound is refused with an error where it is asked for, before anything is stored.
    """

    payload_bytes_max: int = 4 * 1024 * 1024
    """One input, output, event or entity state, as JSON."""
    custom_status_bytes_max: int = 16 * 1024
    actions_max: int = 100_000
    """What one orchestrator may ask for in one episode, and one operation of an entity."""
    history_events_max: int = 1_000_000
    """The length of one execution's history; `continue_as_new` starts a new one."""
    history_events_warning: int = 50_000
    """The length from which on a warning is logged, at each doubling."""
    events_buffered_max: int = 10_000
    """External events that an orchestration has taken in and not waited for, before more are refused."""
    event_keys_max: int = 1_000
    """Keys of external events that are remembered over `continue_as_new`; within one execution, all are."""
    tags_max: int = 64
    """Tags of one instance or activity; each key and value has at most 1,000 characters."""
    inbox_messages_max: int = 10_000
    """What may wait for one instance before clients are told to come back later."""
    episode_messages_max: int = 1_000
    """How many messages one episode, or one batch of entity operations, takes from the inbox."""
    entity_keys_max: int = 10_000
    """Keys of signals and calls that an entity remembers, the latest ones, so that their repetition has no effect."""
    entity_state_bytes_warning: int = 256 * 1024
    """The size of an entity's state, as JSON, from which on a warning is logged, at each doubling."""
    signals_max: int = 10_000
    """Signals in one `signal_many`."""
    deliveries_max: int = 5
    """How often work may have been running when the process died before it is parked."""
