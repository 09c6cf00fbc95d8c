"""When a failed attempt is made again."""

from __future__ import annotations

import inspect
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import msgspec

from holdfast.errors import ConfigurationError
from holdfast.model.failure import FailureDetails, qualified_name
from holdfast.model.instants import LONGEST_S

RETRIED_STATUSES: Final = (408, 429, 500, 502, 503, 504)
"""Of the answers to HTTP requests, as what may be better the next time."""

RetryOn: TypeAlias = Sequence[type[BaseException] | str] | Callable[[FailureDetails], bool]


class RetryRule(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A policy as it is stored: failures are named, not given as classes; `retry_on` empty means all of them."""

    max_attempts: int
    first_retry_interval: timedelta
    backoff_coefficient: float
    max_retry_interval: timedelta
    retry_timeout: timedelta | None = None
    jitter: float = 0.0
    retry_on: tuple[str, ...] = ()
    non_retriable: tuple[str, ...] = ()


class RetryContext(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What a retry handler decides from. All of it is the same on every replay."""

    attempts_made: int
    last_failure: FailureDetails
    elapsed: timedelta
    """Since the first attempt was scheduled, by the orchestration's clock."""
    current_utc_datetime: datetime


RetryHandler: TypeAlias = Callable[[RetryContext], bool | timedelta]
"""Orchestrator code: False ends it, True tries again at once, a duration tries again after it."""


class RetryPolicy(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How often, and after which delays, failed work is tried again.

    `max_attempts` counts the first attempt. The delay before attempt n+1 is
    `first_retry_interval * backoff_coefficient ** (n-1)`, at most `max_retry_interval`, less a share of up to `jitter`
    (0 to 1) that differs between calls and attempts, but is the same on every replay. No attempt starts later than
    `retry_timeout` after the first was scheduled.

    `retry_on` says which failures are tried again: exception classes or their names (of the failure or one of its
    causes, subclasses included), or a function of the `FailureDetails`, which is orchestrator code and must be
    deterministic. Failures of a class in `non_retriable` are final.

    Raises:
        ConfigurationError: for a value that cannot be meant.
    """

    max_attempts: int = 3
    first_retry_interval: timedelta = timedelta(seconds=1)
    backoff_coefficient: float = 2.0
    max_retry_interval: timedelta = timedelta(hours=1)
    retry_timeout: timedelta | None = None
    jitter: float = 0.0
    retry_on: RetryOn = ()
    non_retriable: Sequence[type[BaseException] | str] = ()

    def __post_init__(self) -> None:
        zero = timedelta(0)
        for name, types in _TYPES.items():
            value = getattr(self, name)
            if not isinstance(value, types) or isinstance(value, bool):
                raise ConfigurationError(f"{name} is {value!r}; it must be of type {types}.")
        if self.max_attempts < 1:
            raise ConfigurationError(
                f"max_attempts is {self.max_attempts}; it counts the first attempt, so at least 1."
            )
        if self.first_retry_interval < zero or self.max_retry_interval < zero:
            raise ConfigurationError("Retry intervals cannot be negative.")
        if not 1 <= self.backoff_coefficient < math.inf:
            raise ConfigurationError(
                f"backoff_coefficient is {self.backoff_coefficient}; it must be at least 1, and finite."
            )
        if self.retry_timeout is not None and self.retry_timeout <= zero:
            raise ConfigurationError("retry_timeout must be more than zero; leave it out for no limit.")
        if not 0 <= self.jitter <= 1:
            raise ConfigurationError(f"jitter is {self.jitter}; it is a share of the delay, from 0 to 1.")
        if isinstance(self.retry_on, type) or not callable(self.retry_on):  # a class can be called, but is no predicate
            _names("retry_on", self.retry_on)
        elif inspect.iscoroutinefunction(self.retry_on):
            raise ConfigurationError("The function in retry_on must be a plain `def`; it cannot wait.")
        _names("non_retriable", self.non_retriable)

    @property
    def predicate(self) -> Callable[[FailureDetails], bool] | None:
        """`retry_on`, if it is a function."""
        return self.retry_on if callable(self.retry_on) else None

    def rule(self) -> RetryRule:
        """Return the policy as it is stored, without its predicate."""
        return RetryRule(
            max_attempts=self.max_attempts,
            first_retry_interval=self.first_retry_interval,
            backoff_coefficient=self.backoff_coefficient,
            max_retry_interval=self.max_retry_interval,
            retry_timeout=self.retry_timeout,
            jitter=self.jitter,
            retry_on=() if callable(self.retry_on) else _names("retry_on", self.retry_on),
            non_retriable=_names("non_retriable", self.non_retriable),
        )


_TYPES: Mapping[str, Any] = MappingProxyType(
    {
        "max_attempts": int,
        "first_retry_interval": timedelta,
        "backoff_coefficient": int | float,
        "max_retry_interval": timedelta,
        "retry_timeout": timedelta | None,
        "jitter": int | float,
    }
)


def _names(field: str, errors: object) -> tuple[str, ...]:
    if not isinstance(errors, tuple | list | set | frozenset):
        raise ConfigurationError(f"{field} is {errors!r}; it must be a tuple of exception classes or their names.")
    names: list[str] = []
    for error in errors:  # pyright: ignore[reportUnknownVariableType] - it is what is being checked
        if isinstance(error, type) and issubclass(error, BaseException):
            names.append(qualified_name(error))
        elif isinstance(error, str):
            names.append(error)
        else:
            raise ConfigurationError(f"{field} has {error!r}; it must have exception classes or their names.")
    return tuple(names)


def next_delay(
    rule: RetryRule, details: FailureDetails, attempts_made: int, elapsed: timedelta, seed: str
) -> timedelta | None:
    """Return the delay before the next attempt, or None when there is none.

    Args:
        attempts_made: how many attempts have failed, at least 1.
        elapsed: since the first attempt was scheduled.
        seed: names the call, so that calls that failed together do not all come back together.
    """
    if attempts_made >= rule.max_attempts or details.is_non_retriable:
        return None
    if any(details.is_caused_by(name) for name in rule.non_retriable):
        return None
    if rule.retry_on and not any(details.is_caused_by(name) for name in rule.retry_on):
        return None
    longest_s = rule.max_retry_interval.total_seconds()
    try:
        delay_s = rule.first_retry_interval.total_seconds() * rule.backoff_coefficient ** (attempts_made - 1)
    except OverflowError:
        delay_s = longest_s
    share = zlib.crc32(f"{seed}:{attempts_made}".encode()) / 2**32
    delay = timedelta(seconds=min(delay_s, longest_s, LONGEST_S) * (1 - rule.jitter * share))
    if rule.retry_timeout is not None and elapsed + delay >= rule.retry_timeout:
        return None
    return delay
