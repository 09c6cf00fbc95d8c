"""Structured concurrency: a scope that ends when all that was started in it has ended."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar, cast

from holdfast.errors import CancelledError, HoldfastError, InvalidInputError, OrchestratorMisuseError
from holdfast.replay.branches import Branch
from holdfast.replay.orchestration import Execution
from holdfast.replay.tasks import DurableTask, cancel_all, failure_of, until_ended

T = TypeVar("T")


class TaskGroup:
    """Runs coroutines of orchestrator code side by side, as `asyncio.TaskGroup` does: `async with ctx.task_group()`.

    When one fails, the others are cancelled, and so is the body of the block where it waits; the block ends when all
    have ended, and raises an `ExceptionGroup` of what failed. When the block is left by an error or a cancellation,
    they are cancelled too.
    """

    __slots__ = ("_branch", "_errors", "_execution", "_interruption", "_is_aborting", "_is_entered", "_tasks")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._branch: Branch | None = None
        self._tasks: list[DurableTask[Any]] = []
        self._errors: list[BaseException] = []
        self._is_entered = False
        self._is_aborting = False
        self._interruption = CancelledError("A task of the group failed.")

    def create_task(self, work: Coroutine[Any, Any, T] | DurableTask[T], /) -> DurableTask[T]:
        """Let a coroutine run beside the body, or take a durable task into the scope; return the task for its result.

        Raises:
            OrchestratorMisuseError: outside of the block, after something in it has failed, or for a task of another
                instance.
        """
        try:
            self._check_takes(work)
        except HoldfastError:
            if inspect.iscoroutine(work):
                work.close()
            raise
        task = work if isinstance(work, DurableTask) else cast("DurableTask[T]", self._execution.start_branch(work))
        self._tasks.append(task)
        task.observe(self._ended)
        return task

    def _check_takes(self, work: object) -> None:
        self._execution.check_usable()
        if self._is_aborting:
            raise OrchestratorMisuseError("The task group is ending; it takes no more tasks.")
        if not self._is_entered:
            raise OrchestratorMisuseError(
                "A task group takes tasks inside of its block only: `async with ctx.task_group()`."
            )
        if isinstance(work, DurableTask):
            if work.owner not in (self._execution, None):  # pyright: ignore[reportUnknownMemberType] - of any result
                raise OrchestratorMisuseError("The task group got a task of another instance; tasks cannot be shared.")
        elif not inspect.iscoroutine(work):
            raise InvalidInputError(f"A task group takes coroutines and durable tasks; it got {work!r}.")

    def _ended(self, task: DurableTask[Any]) -> None:
        if not task.is_failed or task.is_cancelled:
            return
        self._errors.append(failure_of(task)())
        if self._is_aborting:
            return
        self._abort()
        if self._is_entered and self._branch is not None:
            self._branch.interrupt(self._interruption)

    def _abort(self) -> None:
        """Cancel all tasks, once: a second time would cancel what they do to clean up."""
        if not self._is_aborting:
            self._is_aborting = True
            cancel_all(self._tasks)

    async def __aenter__(self) -> TaskGroup:
        if self._branch is not None:
            raise OrchestratorMisuseError("A task group cannot be entered twice; use another one.")
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
            self._abort()
        cancelled = error if isinstance(error, CancelledError) else None
        while (late := await self._all_ended()) is not None:
            cancelled = late
        errors = list(self._errors)
        if error is not None and not isinstance(error, CancelledError):
            errors.insert(0, error)
        if self._branch is not None:
            self._branch.spare(self._interruption)  # it is for the block, and that is over
            if errors and cancelled is not self._interruption:
                self._branch.interrupt_again(cancelled)  # or whoever catches the errors would go on as if uncancelled
        if errors:
            raise BaseExceptionGroup("unhandled errors in a task group", errors) from None
        if cancelled is not None:
            raise cancelled

    async def _all_ended(self) -> CancelledError | None:
        """Wait for all tasks; return the cancellation that interrupted the wait, if one did."""
        for task in self._tasks:
            interruption = await until_ended(task)
            if interruption is not None:
                return interruption
        return None
