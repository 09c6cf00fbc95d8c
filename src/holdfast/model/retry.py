"""When a failed attempt is made again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import msgspec

from holdfast.errors import ConfigurationError


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How often, and after which delays, a failed activity is tried again.

    `max_attempts` counts the first attempt. The delay before attempt n+1 is
    `first_retry_interval * backoff_coefficient ** (n-1)`, at most `max_retry_interval`. No attempt starts later
    than `retry_timeout` after the first was scheduled. Failures of a class in `non_retriable` (qualified or bare
    class names) are final.

    Raises:
        ConfigurationError: for a value that cannot be meant.
    """

    max_attempts: int = 3
    first_retry_interval: timedelta = timedelta(seconds=1)
    backoff_coefficient: float = 2.0
    max_retry_interval: timedelta = timedelta(hours=1)
    retry_timeout: timedelta | None = None
    non_retriable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        zero = timedelta(0)
        for name, types in _TYPES.items():
            if not isinstance(getattr(self, name), types):
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}; it must be of type {types}.")
        if self.max_attempts < 1:
            raise ConfigurationError(
                f"max_attempts is {self.max_attempts}; it counts the first attempt, so at least 1."
            )
        if self.first_retry_interval < zero or self.max_retry_interval < zero:
            raise ConfigurationError("Retry intervals cannot be negative.")
        if self.backoff_coefficient < 1:
            raise ConfigurationError(f"backoff_coefficient is {self.backoff_coefficient}; it must be at least 1.")
        if self.retry_timeout is not None and self.retry_timeout <= zero:
            raise ConfigurationError("retry_timeout must be more than zero; leave it out for no limit.")


_TYPES: Mapping[str, Any] = MappingProxyType(
    {
        "max_attempts": int,
        "first_retry_interval": timedelta,
        "backoff_coefficient": int | float,
        "max_retry_interval": timedelta,
        "retry_timeout": timedelta | None,
        "non_retriable": tuple,
    }
)


def next_delay(policy: RetryPolicy, attempts_made: int, elapsed: timedelta) -> timedelta | None:
    """Return the delay before the next attempt, or None when there is none.

    Args:
        attempts_made: how many attempts have failed, at least 1.
        elapsed: since the first attempt was scheduled.
    """
    if attempts_made >= policy.max_attempts:
        return None
    longest_s = policy.max_retry_interval.total_seconds()
    try:
        delay_s = policy.first_retry_interval.total_seconds() * policy.backoff_coefficient ** (attempts_made - 1)
    except OverflowError:
        delay_s = longest_s
    delay = timedelta(seconds=min(delay_s, longest_s))
    if policy.retry_timeout is not None and elapsed + delay >= policy.retry_timeout:
        return None
    return delay
