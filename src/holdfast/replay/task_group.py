"""Structured concurrency: a scope that ends when all that was started in it has ended."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar, cast

from holdfast.errors import CancelledError, InvalidInputError, OrchestratorMisuseError
from holdfast.replay.branches import Branch
from holdfast.replay.orchestration import Execution
from holdfast.replay.tasks import DurableTask, cancel_all, failure_of

T = TypeVar("T")


class TaskGroup:
    """Runs coroutines of orchestrator code side by side, as `asyncio.TaskGroup` does: `async with ctx.task_group()`.

    When one fails, the others are cancelled, and so is the body of the block where it waits; the block ends when all
    have ended, and raises an `ExceptionGroup` of what failed. When the block is left by an error or a cancellation,
    they are cancelled too.
    """

    __slots__ = ("_branch", "_errors", "_execution", "_has_interrupted", "_is_aborting", "_is_entered", "_tasks")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._branch: Branch | None = None
        self._tasks: list[DurableTask[Any]] = []
        self._errors: list[BaseException] = []
        self._is_entered = False
        self._is_aborting = False
        self._has_interrupted = False

    def create_task(self, work: Coroutine[Any, Any, T] | DurableTask[T], /) -> DurableTask[T]:
        """Let a coroutine run beside the body, or take a durable task into the scope; return the task for its result.

        Raises:
            OrchestratorMisuseError: outside of the block, or after something in it has failed.
        """
        if not self._is_entered or self._is_aborting:
            if inspect.iscoroutine(work):
                work.close()
            what = "has failed already" if self._is_aborting else "is not entered; use `async with ctx.task_group()`"
            raise OrchestratorMisuseError(f"The task group {what}; it takes no more tasks.")
        if isinstance(work, DurableTask):
            task = work
        elif inspect.iscoroutine(work):
            task = cast("DurableTask[T]", self._execution.start_branch(work))
        else:
            raise InvalidInputError(f"A task group takes coroutines and durable tasks; it got {work!r}.")
        self._tasks.append(task)
        task.observe(self._ended)
        return task

    def _ended(self, task: DurableTask[Any]) -> None:
        if not task.is_failed or task.is_cancelled:
            return
        self._errors.append(failure_of(task)())
        if self._is_aborting:
            return
        self._is_aborting = True
        cancel_all(self._tasks)
        if self._is_entered and self._branch is not None:
            self._has_interrupted = True
            self._branch.interrupt(CancelledError("A task of the group failed."))

    async def __aenter__(self) -> TaskGroup:
        self._branch = self._execution.branches.current
        self._is_entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:
            return  # the orchestration is dropped from memory, not ended
        if error is None and not self._is_aborting:
            error = await self._all_ended()
        self._is_entered = False
        if error is not None:
            self._is_aborting = True
            cancel_all(self._tasks)
        cancelled = error if isinstance(error, CancelledError) and not self._has_interrupted else None
        while (late := await self._all_ended()) is not None:
            cancelled = cancelled or late
        errors = list(self._errors)
        if error is not None and not isinstance(error, CancelledError):
            errors.insert(0, error)
        if errors:
            raise BaseExceptionGroup("unhandled errors in a task group", errors) from None
        if cancelled is not None:
            raise cancelled

    async def _all_ended(self) -> CancelledError | None:
        """Wait for all tasks; return the cancellation that interrupted the wait, if one did."""
        for task in self._tasks:
            if not task.is_completed:
                ended: DurableTask[None] = DurableTask(self._execution)
                task.observe(lambda _, ended=ended: ended.complete(None))
                try:
                    await ended
                except CancelledError as error:
                    return error
        return None
