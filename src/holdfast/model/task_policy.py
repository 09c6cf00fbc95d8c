"""How an activity is run: everything that its caller chose, apart from what it does."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from holdfast.model.retry import RetryRule


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
