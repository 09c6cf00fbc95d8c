"""Sagas: steps that are undone, in reverse, if a later one fails."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeAlias, TypeVar, Unpack, overload

from holdfast.errors import CancelledError, CompensationFailedError
from holdfast.model.options import ActivityOptions
from holdfast.model.refs import NO_INPUT, Activity
from holdfast.replay.tasks import DurableTask, until_ended

Prepare: TypeAlias = Callable[[Activity[Any, Any] | str, Any, ActivityOptions], Callable[[], DurableTask[Any]]]
"""Checks and encodes a call, and returns what makes it."""

I = TypeVar("I")  # noqa: E741 - input, as everywhere in the typed API


class Saga:
    """`async with ctx.saga() as saga`: after each step, say how it is undone.

    If the block ends with an error, or the orchestration is cancelled, all compensations that were added are made, the
    last one first, each after the one before it has ended; then the error goes on. They are activities, so they are
    durable, and made at least once even if the process dies meanwhile. If some of them fail, the others are made all
    the same, and `CompensationFailedError` is raised from the error. A cancellation that comes meanwhile has to wait:
    it is raised when all have been made.
    """

    __slots__ = ("_compensations", "_prepare")

    def __init__(self, prepare: Prepare) -> None:
        self._prepare = prepare
        self._compensations: list[Callable[[], DurableTask[Any]]] = []

    @overload
    def add_compensation(self, activity: Activity[None, Any], /, **options: Unpack[ActivityOptions]) -> None: ...
    @overload
    def add_compensation(self, activity: Activity[I, Any], input: I, /, **options: Unpack[ActivityOptions]) -> None: ...
    @overload
    def add_compensation(self, activity: str, input: Any = ..., /, **options: Unpack[ActivityOptions]) -> None: ...
    def add_compensation(
        self, activity: Activity[Any, Any] | str, input: Any = NO_INPUT, /, **options: Unpack[ActivityOptions]
    ) -> None:
        """Say which activity undoes what has been done. It is checked now, and called only if need be."""
        self._compensations.append(self._prepare(activity, input, options))

    async def __aenter__(self) -> Saga:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or kind is GeneratorExit:
            return
        failures: list[Exception] = []
        cancelled: CancelledError | None = None
        while self._compensations:
            compensate = self._compensations.pop()
            try:
                task = compensate()
                while not task.is_completed:
                    cancelled = await until_ended(task) or cancelled
                _ = task.result
            except Exception as failure:
                failures.append(failure)
        if failures:
            raise CompensationFailedError(tuple(failures)) from error
        if cancelled is not None:
            raise cancelled
