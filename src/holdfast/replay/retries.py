"""Retries in the orchestrator: for sub-orchestrations, and wherever orchestrator code decides about the next attempt.

Plain retries of activities are the hub's, which needs no episode for them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec

from holdfast.errors import CancelledError, InvalidInputError, TaskFailedError
from holdfast.model.failure import FailureDetails, failure_from_exception
from holdfast.model.instants import after
from holdfast.model.retry import RetryContext, RetryHandler, RetryPolicy, RetryRule, next_delay
from holdfast.replay.orchestration import Execution
from holdfast.replay.tasks import DurableTask, failure_of

_ONCE = RetryRule(
    max_attempts=2**31,
    first_retry_interval=timedelta(0),
    backoff_coefficient=1.0,
    max_retry_interval=timedelta(0),
)


class RetryPlan(msgspec.Struct, frozen=True):
    """A rule that is checked first, and orchestrator code that may say no, or say when."""

    rule: RetryRule
    handler: RetryHandler | None = None

    def delay(self, context: RetryContext, seed: str) -> timedelta | None:
        """Return when to try again, or None for never."""
        delay = next_delay(self.rule, context.last_failure, context.attempts_made, context.elapsed, seed)
        if delay is None or self.handler is None:
            return delay
        decision = self.handler(context)
        if isinstance(decision, timedelta):
            if decision < timedelta(0):
                raise InvalidInputError(f"A retry handler returned {decision}; a delay cannot be negative.")
            return decision
        if not isinstance(decision, bool):  # pyright: ignore[reportUnnecessaryIsInstance] - it is the user's code
            raise InvalidInputError(f"A retry handler returned {decision!r}; it must return a bool or a timedelta.")
        return delay if decision else None


def plan_of(retry: RetryPolicy | RetryHandler) -> RetryPlan:
    """Return the plan that a policy or a handler stands for."""
    if not isinstance(retry, RetryPolicy):
        return RetryPlan(_ONCE, retry)
    predicate = retry.predicate
    if predicate is None:
        return RetryPlan(retry.rule())
    return RetryPlan(retry.rule(), lambda context: bool(predicate(context.last_failure)))


class Retrying(DurableTask[Any]):
    """Makes one attempt after the other, with durable timers between them, and ends as the last one does."""

    __slots__ = ("_attempts", "_execution", "_going_on", "_plan", "_seed", "_start", "_started_at")

    def __init__(self, execution: Execution, start: Callable[[], DurableTask[Any]], plan: RetryPlan) -> None:
        super().__init__(execution, self._stop)
        self._execution = execution
        self._seed = f"{execution.identity}:{execution.asked.next_number}"
        self._start = start
        self._plan = plan
        self._attempts = 0
        self._started_at = execution.clock()
        self._going_on: DurableTask[Any] | None = None
        self._attempt()

    def _stop(self) -> None:
        if self._going_on is not None:
            self._going_on.cancel()

    def _attempt(self) -> None:
        self._attempts += 1
        self._going_on = self._start()
        self._going_on.observe(self._guarded(self._attempted))

    def _attempted(self, attempt: DurableTask[Any]) -> None:
        if not attempt.is_failed or attempt.is_cancelled:
            self.take_over(attempt)
            return
        error = failure_of(attempt)()
        if isinstance(error, CancelledError):
            self.take_over(attempt)
            return
        now = self._execution.clock()
        context = RetryContext(
            attempts_made=self._attempts,
            last_failure=_details(error),
            elapsed=now - self._started_at,
            current_utc_datetime=now,
        )
        delay = self._plan.delay(context, self._seed)
        if delay is None:
            self.take_over(attempt)
        elif delay:
            self._going_on = self._execution.create_timer(after(now, delay))
            self._going_on.observe(self._guarded(lambda _: self._attempt()))
        else:
            self._attempt()

    def _guarded(self, then: Callable[[DurableTask[Any]], None]) -> Callable[[DurableTask[Any]], None]:
        """An error of a handler, which is the user's code, is the outcome of the call."""

        def guarded(task: DurableTask[Any]) -> None:
            if self.is_completed:
                return
            try:
                then(task)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                failure = error
                self.fail(lambda: failure)

        return guarded


def _details(error: BaseException) -> FailureDetails:
    return error.details if isinstance(error, TaskFailedError) else failure_from_exception(error)
