"""How an activity is run: everything that its caller chose, apart from what it does."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import msgspec

from holdfast.model.options import ActivityOptions
from holdfast.model.retry import RetryPolicy, RetryRule


class TaskPolicy(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Recorded beside an activity, so that a rewind can ask for it again as it was asked for.

    A replay does not compare it: how often something is tried, and where, may change in code that runs.
    """

    retry: RetryRule | None = None
    timeout: timedelta | None = None
    speculative: bool = False
    start_timeout: timedelta | None = None
    heartbeat_timeout: timedelta | None = None
    queue: str | None = None


PLAIN: Final = TaskPolicy()
"""What most activities have, and only these: nothing was chosen."""


def policy_of(options: ActivityOptions, *, speculative: bool) -> TaskPolicy:
    """Return how an activity is to be run, as far as the hub can see to it: retries that need code are not in it."""
    if not options and not speculative:
        return PLAIN
    retry = options.get("retry")
    policy = TaskPolicy(
        retry=retry.rule() if isinstance(retry, RetryPolicy) and retry.predicate is None else None,
        timeout=options.get("timeout"),
        speculative=speculative,
        start_timeout=options.get("start_timeout"),
        heartbeat_timeout=options.get("heartbeat_timeout"),
        queue=options.get("queue"),
    )
    return PLAIN if policy == PLAIN else policy
