"""The settings of a host, each with a default that a newcomer need not touch."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias, cast, get_args

import msgspec

from holdfast.durable_http.policy import HttpCallPolicy
from holdfast.errors import ConfigurationError, InvalidInputError
from holdfast.model.access import check_hub_name
from holdfast.model.limits import Limits
from holdfast.model.nearest import did_you_mean
from holdfast.model.queues import DEFAULT_QUEUE, check_queue
from holdfast.model.versions import VersionFailure, VersionMatch

HttpStatusCodes: TypeAlias = Literal["current", "legacy"]
HttpForwardedHost: TypeAlias = Literal["ignore", "trust"]


class HostConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much one host takes on at once."""

    activities_max: int = 1_000
    """Activities that run at the same time, of all kinds."""
    threads_max: int = min(32, (os.cpu_count() or 1) * 8)
    """Activities written as plain `def` that run at the same time."""
    processes_max: int = os.cpu_count() or 1
    """Activities marked `process=True` that run at the same time; the processes start on first use."""
    activity_queue_max: int = 20_000
    """Activities that wait in memory for a place; more of them wait in the store, or are offered to other hosts."""
    queues: tuple[str, ...] | None = None
    """The queues whose activities run on this host; those that name no queue are in `default`. None: all there are."""
    entity_batches_max: int = 1_000
    """Entities that run `async def` operations at the same time."""
    operation_timeout_s: float = 60.0
    """How long one `async def` operation of an entity may take; its entity does nothing else meanwhile."""
    cache_bytes_max: int = 256 * 1024 * 1024
    """Estimated size of the instances kept in memory between their episodes."""
    journal_transitions_max: int = 10_000
    """How far execution may run ahead of the store; beyond it, clients are told to come back later."""
    journal_bytes_max: int = 64 * 1024 * 1024
    group_transitions_max: int = 10_000
    """Transitions in one commit. With less than `journal_transitions_max` each costs more."""
    timer_horizon_s: int = 600
    """Timers due later than this are not kept in memory."""
    timers_max: int = 20_000
    """Timers kept in memory, the next ones, and for moments twice as many; more of them wait in the store."""
    standby_s: float | None = None
    """How long a host that starts waits for a store that others own.

    None: up to two minutes for a share of a hub that others are to share with it, and not at all for anything else.
    """
    poll_s: float = 2.0
    """How often the host looks for what was sent from outside, if nobody tells it."""
    renew_s: float = 5.0
    """How often the host makes sure that it still owns its store, and asks whether its share of it should change."""
    clock_check_s: float = 1.0
    """How often the host looks whether the clock of the machine was set."""
    drain_s: float = 30.0
    """How long running activities, and `async def` operations, may take to finish when the host stops."""
    retention_s: float | None = None
    """How long orchestrations are kept after they have ended; then they are purged. None: for ever."""
    retention_failed_s: float | None = None
    """The same for those that have failed, if it is to differ."""
    default_version: str | None = None
    """The version of this host's orchestrators, and of the orchestrations that are started without one."""
    version_match: VersionMatch = "current_or_older"
    """Which instances this host runs: all ("none"), those of its version ("strict"), also those of older versions."""
    version_failure: VersionFailure = "reject"
    """What becomes of the others: they wait for another host ("reject"), or "fail"."""
    task_hub: str | None = None
    """The name of the task hub of this host: which keys are for it, and which requests that name a hub."""
    http_calls: HttpCallPolicy = HttpCallPolicy()
    """What `ctx.call_http` may reach."""
    http_status_codes: HttpStatusCodes = "current"
    """The status codes of the HTTP API, where versions of the protocol differ; see the reference."""
    http_forwarded_host: HttpForwardedHost = "ignore"
    """Whether the URLs in answers are those that a proxy was asked for, by `X-Forwarded-Host` and `-Proto`."""
    http_streams_max: int = 100
    """Streams of live updates that are open at the same time."""
    http_waits_max: int = 1_000
    """HTTP requests that wait at the same time for the end of what they started, or for the answer to an update."""
    http_routes_max: int = 1_000
    """Requests to the app's own routes that are served at the same time; those that need no key are counted apart."""
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        check_settings(self)
        if self.task_hub is not None:
            check_hub_name("task_hub", self.task_hub)

    def serves(self, queue: str | None) -> bool:
        """Whether the activities of a queue run on this host; None for those that name none."""
        return self.queues is None or (queue or DEFAULT_QUEUE) in self.queues


_TEXTS: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "default_version": (None,),
        "task_hub": (None,),
        "version_match": get_args(VersionMatch),
        "version_failure": get_args(VersionFailure),
        "http_status_codes": get_args(HttpStatusCodes),
        "http_forwarded_host": get_args(HttpForwardedHost),
    }
)


_OF_CHOICE = frozenset({"default_version", "task_hub"})
"""Texts that may be any other one, too."""
_OPTIONAL = frozenset({"retention_s", "retention_failed_s", "standby_s", "queues"})
_LISTS = frozenset({"queues", "http_calls.allowed_hosts"})
_NESTED: Mapping[str, type[msgspec.Struct]] = MappingProxyType({"limits": Limits, "http_calls": HttpCallPolicy})


_fields = functools.cache(msgspec.structs.fields)


def check_settings(settings: HostConfig | Limits) -> None:
    """Raise ConfigurationError for a value of the wrong type, or a number that is not more than zero."""
    for field in _fields(type(settings)):
        value = getattr(settings, field.name)
        if isinstance(value, Limits) and isinstance(field.default, Limits):
            check_settings(value)
        elif isinstance(value, HttpCallPolicy) and isinstance(field.default, HttpCallPolicy):
            pass  # it checks itself
        elif field.name in _TEXTS:
            if value not in _TEXTS[field.name] and not (field.name in _OF_CHOICE and isinstance(value, str)):
                known = ", ".join(repr(each) for each in _TEXTS[field.name])
                raise ConfigurationError(f"{field.name} is {value!r}; it must be one of {known}.")
        elif value is None and field.name in _OPTIONAL:
            pass
        elif field.name == "queues":
            _check_queues(value)
        elif (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or isinstance(field.default, Limits | HttpCallPolicy)
        ):
            kind = "float" if field.name in _OPTIONAL else type(field.default).__name__
            raise ConfigurationError(f"{field.name} is {value!r}; it must be of type {kind}.")
        elif value <= 0:
            raise ConfigurationError(f"{field.name} is {value}; it must be more than zero.")


def _check_queues(queues: object) -> None:
    if not isinstance(queues, tuple):
        raise ConfigurationError(f"queues is {queues!r}; it must be a tuple of names, such as ('gpu', 'default').")
    for queue in cast("tuple[object, ...]", queues):
        try:
            check_queue(queue)
        except InvalidInputError as error:
            raise ConfigurationError(f"In queues, {error}") from None


def config_from_mapping(settings: Mapping[str, object]) -> HostConfig:
    """Build a config from names and values, as a command line gives them.

    Those of the limits begin with `limits.`, those of durable HTTP with `http_calls.`; a list is written with commas.

    Raises:
        ConfigurationError: for an unknown name (with the nearest known one) or a value of the wrong type.
    """
    choices = setting_names()
    values: dict[str, object] = {}
    nested: dict[str, dict[str, object]] = {group: {} for group in _NESTED}
    for name, value in settings.items():
        if name not in choices:
            raise ConfigurationError(f"There is no setting {name!r}.{did_you_mean(name, choices)}")
        group, _, inner = name.rpartition(".")
        if name in _LISTS and isinstance(value, str):
            value = [each.strip() for each in value.split(",")]
        (nested[group] if group else values)[inner] = value
    try:
        return msgspec.convert({**values, **nested}, HostConfig, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"A setting has a value of the wrong type: {error}") from error


def setting_names() -> list[str]:
    """Return the names that such a mapping may have."""
    own = [name for name in _names(HostConfig) if name not in _NESTED]
    return own + [f"{group}.{name}" for group, struct in _NESTED.items() for name in _names(struct)]


def _names(struct: type[msgspec.Struct]) -> list[str]:
    return [field.name for field in _fields(struct)]
