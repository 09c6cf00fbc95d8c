"""The keyword options of calls and starts, spelled once for every overload that takes them."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TypedDict

from holdfast.errors import InvalidInputError
from holdfast.model.queues import check_queue
from holdfast.model.requests import IdPolicy, check_duration, check_instant, check_key, check_tags
from holdfast.model.retry import RetryHandler, RetryPolicy


class ActivityOptions(TypedDict, total=False):
    """Options of one call of an activity; those that are given override the activity's own."""

    retry: RetryPolicy | RetryHandler | None
    """What happens when an attempt fails; a handler is orchestrator code."""
    timeout: timedelta | None
    """How long one attempt may run."""
    start_timeout: timedelta | None
    """How long an attempt may wait for a place to run, before the call fails."""
    heartbeat_timeout: timedelta | None
    """How long a running attempt may go without a heartbeat."""
    tags: dict[str, str] | None
    """Shown to the activity, and in the history."""
    version: str | None
    """Which of several functions of this name runs; of a function, which version it is."""
    queue: str | None
    """Only hosts that serve this queue run it; without one it is in the queue `default`."""


class SubOrchestrationOptions(TypedDict, total=False):
    """Options of one call of a sub-orchestration."""

    instance_id: str | None
    """Its id; made of the caller's execution and the number of the call if it is not given."""
    retry: RetryPolicy | RetryHandler | None
    """What happens when it fails; each attempt is a new execution."""
    timeout: timedelta | None
    """How long one attempt may take; it is cancelled then, and the attempt fails with a `TimeoutError`."""
    version: str | None
    """The version of the orchestrator to start; by default, that of the host."""
    tags: dict[str, str] | None
    """Added to the tags that it inherits."""


class DetachedOptions(TypedDict, total=False):
    """Options of an orchestration that is started and not waited for."""

    instance_id: str | None
    version: str | None
    tags: dict[str, str] | None
    start_at: datetime | timedelta | None
    """Not to run before this aware instant, or before this time has passed."""


class SignalOptions(TypedDict, total=False):
    """Options of a signal to an entity."""

    due: timedelta | datetime | None
    """It waits for its turn only from this aware instant, or after this time."""


class ClientSignalOptions(SignalOptions, total=False):
    """Options of a signal that a client sends."""

    key: str | None
    """Names it: of several with one key the entity runs the first, so that it can be sent again if a reply is lost."""


class EntityCallOptions(TypedDict, total=False):
    """Options of a call of an entity by a client."""

    timeout: timedelta | None
    """How long to wait for the result; the operation may run all the same."""
    key: str | None
    """Names it: its repetition has no second effect, and returns what the first one did."""


class StartOptions(TypedDict, total=False):
    """Options of a start by a client."""

    instance_id: str | None
    """Its id: 1 to 256 printable characters without `/ \\ # ?`; a new one is made if it is not given."""
    version: str | None
    """The version of the orchestrator to start; by default, that of the host."""
    tags: dict[str, str] | None
    """Kept with the instance, and inherited by its sub-orchestrations."""
    start_at: datetime | None
    """Not to run before this aware instant."""
    run_timeout: timedelta | None
    """How long it may take from its start to its end, all its executions together; it fails then."""
    id_policy: IdPolicy | None
    """What happens if the instance id is in use; by default, what has ended is replaced and all else rejected."""
    request_key: str | None
    """Names this request: its repetition, even after the end, returns what the first one started."""


class OutboxStartOptions(TypedDict, total=False):
    """Options of a start in a transaction of your own."""

    instance_id: str | None
    """Its id: 1 to 256 printable characters without `/ \\ # ?`; a new one is made if it is not given."""
    version: str | None
    """The version of the orchestrator to start; by default, that of the host that takes it in."""
    tags: dict[str, str] | None
    """Kept with the instance, and inherited by its sub-orchestrations."""
    start_at: datetime | None
    """Not to run before this aware instant."""
    run_timeout: timedelta | None
    """How long it may take from its start to its end, all its executions together; it fails then."""
    replace_ended: bool
    """Whether it starts anew what has ended under its id; by default a start of an id that was used does nothing."""


def check_names(options: Mapping[str, object], declared: type, function: str) -> None:
    """Raise TypeError for an option that a function does not have, with the nearest that it has."""
    known = declared.__annotations__
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.3)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{function}() has no option {name!r}.{hint} It has {', '.join(known)}.")


def check_retry(name: str, retry: object) -> None:
    """Raise InvalidInputError for what is neither a retry policy nor a handler."""
    if retry is not None and not isinstance(retry, RetryPolicy) and not callable(retry):
        raise InvalidInputError(
            f"retry={retry!r} of {name!r} is no RetryPolicy; write RetryPolicy(...), or a function."
        )


def check_activity_options(name: str, options: ActivityOptions, tags_max: int) -> None:
    """Raise InvalidInputError for options of an activity that cannot be meant."""
    check_names(options, ActivityOptions, "call_activity")
    check_retry(name, options.get("retry"))
    for option in ("timeout", "start_timeout", "heartbeat_timeout"):
        check_duration(f"{option} of activity {name!r}: {option}", options.get(option))
    check_version(options.get("version"))
    if options.get("queue") is not None:
        check_queue(options.get("queue"))
    check_tags(options.get("tags"), tags_max)


def check_start_options(options: StartOptions, tags_max: int) -> None:
    """Raise InvalidInputError for options of a start that cannot be meant."""
    check_names(options, StartOptions, "start_new")
    check_instant("start_at", options.get("start_at"))
    check_duration("run_timeout", options.get("run_timeout"))
    check_key("request_key", options.get("request_key"))
    check_version(options.get("version"))
    check_tags(options.get("tags"), tags_max)
    policy = options.get("id_policy")
    if policy is not None and not isinstance(policy, IdPolicy):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"id_policy={policy!r} is no IdPolicy; write IdPolicy(...).")


def check_version(version: str | None) -> None:
    """Raise InvalidInputError for what cannot be a version: a text of 1 to 100 printable characters."""
    if version is None:
        return
    if not isinstance(version, str) or not 1 <= len(version) <= 100 or not version.isprintable():  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidInputError(f"version={str(version)[:40]!r} must be a text of 1 to 100 printable characters.")
