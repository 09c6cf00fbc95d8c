"""What a running activity may know about its own attempt, and how it reports on it."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar, overload

import msgspec

from holdfast.errors import HoldfastError
from holdfast.model.converter import DataConverter
from holdfast.model.work_items import ActivityWorkItem

T = TypeVar("T")


class AttemptInfo(msgspec.Struct, frozen=True, gc=False):
    """Which attempt of which call this is: the part of a context that crosses the boundary to another process.

    `progress` is the JSON that an earlier attempt reported last.
    """

    instance_id: str
    execution_id: str
    sequence: int
    name: str
    attempt: int
    tags: dict[str, str] = {}
    progress: str | None = None
    call_id: str | None = None
    """What an earlier execution knew this call as, before a rewind."""


def info_of(work_item: ActivityWorkItem) -> AttemptInfo:
    """Return what another process is to know of an attempt."""
    return AttemptInfo(
        work_item.instance_id,
        work_item.execution_id,
        work_item.sequence,
        work_item.name,
        work_item.attempt,
        work_item.tags,
        work_item.progress,
        work_item.call_id,
    )


class CancelFlag:
    """Says that an attempt is cancelled; once set, it stays so. It may be set in one thread and read in another.

    A tenth of the price of a `threading.Event`, which every attempt would pay although nobody waits for it.
    """

    __slots__ = ("_is_set",)

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True

    def is_set(self) -> bool:
        return self._is_set


class ActivityContext:
    """What an activity sees of its own attempt. It runs at least once, so give `idempotency_key` to what it calls.

    It may be used from every thread, also after the attempt is over: then reports are ignored.
    """

    __slots__ = ("_cancelled", "_connection", "_converter", "_info", "_report")

    def __init__(
        self,
        info: AttemptInfo | ActivityWorkItem,
        converter: DataConverter,
        report: Callable[[str], None],
        cancelled: CancelFlag,
        connection: object = None,
    ) -> None:
        self._connection = connection
        self._info = info
        self._converter = converter
        self._report = report
        self._cancelled = cancelled

    @property
    def instance_id(self) -> str:
        return self._info.instance_id

    @property
    def execution_id(self) -> str:
        return self._info.execution_id

    @property
    def sequence(self) -> int:
        """The number of this call among all calls of one execution."""
        return self._info.sequence

    @property
    def name(self) -> str:
        """The name of the activity."""
        return self._info.name

    @property
    def attempt(self) -> int:
        """The number of this attempt; the first is 1."""
        return self._info.attempt

    @property
    def tags(self) -> Mapping[str, str]:
        return MappingProxyType(self._info.tags)

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this call, also after a rewind, and different for every other call."""
        return self._info.call_id or f"{self.execution_id}:{self.sequence}"

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for this attempt any more: it was cancelled, it took too long, or the host stops.

        A plain `def` should look at it now and then, and return: its thread cannot be stopped from outside.
        """
        return self._cancelled.is_set()

    @property
    def connection(self) -> Any:
        """The asyncpg connection of a `transactional` activity, in the transaction that ends with the activity.

        Raises:
            HoldfastError: in any other activity.
        """
        if self._connection is None:
            raise HoldfastError(
                f"Activity {self.name!r} has no connection: it is not @app.activity(transactional=True)."
            )
        return self._connection

    def heartbeat(self, progress: object = None) -> None:
        """Report that the attempt is alive, and how far it is; a later attempt can ask for it.

        Raises:
            PayloadError: if the progress cannot be turned into JSON.
            PayloadTooLargeError: if it is too large.
        """
        self._report(self._converter.encode(progress))

    @overload
    def last_progress(self) -> Any: ...
    @overload
    def last_progress(self, expected_type: type[T]) -> T | None: ...
    def last_progress(self, expected_type: Any = Any) -> Any:
        """Return what an earlier attempt reported last, or None if none did.

        Raises:
            PayloadError: if it does not fit the type.
        """
        progress = self._info.progress
        return None if progress is None else self._converter.decode(progress, expected_type)

    def __repr__(self) -> str:
        return f"<ActivityContext of {self.name!r}, instance {self.instance_id!r}, attempt {self.attempt}>"


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
