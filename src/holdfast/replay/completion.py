"""How an execution ends: with a result, a failure, a cancellation, or a next execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from holdfast.errors import CancelledError, HoldfastError
from holdfast.model.actions import CompleteOrchestration
from holdfast.model.failure import failure_from_exception
from holdfast.model.history import CancelRequested
from holdfast.model.status import OrchestrationStatus as S
from holdfast.replay.stepper import Raised, Returned

if TYPE_CHECKING:
    from holdfast.replay.orchestration import Execution


class NextExecution(msgspec.Struct, frozen=True):
    """What `continue_as_new` was told."""

    input: str | None
    preserves_events: bool
    waits_for_open_work: bool
    version: str | None


def completion(
    execution: Execution, outcome: Returned | Raised, cancel: CancelRequested | None, following: NextExecution | None
) -> CompleteOrchestration:
    """Return the last action of an execution."""
    if isinstance(outcome, Raised):
        if cancel is not None and isinstance(outcome.error, CancelledError):
            return CompleteOrchestration(S.CANCELED, result=cancel.reason)
        return CompleteOrchestration(S.FAILED, failure=failure_from_exception(outcome.error))
    if following is not None:
        return CompleteOrchestration(
            S.CONTINUED_AS_NEW,
            result=following.input,
            carryover_events=(
                *(execution.events.unprocessed() if following.preserves_events else ()),
                *execution.handlers.carried_over,
            ),
            version=following.version,
            event_keys=execution.events.last_keys(execution.limits.event_keys_max),
            carried=execution.carried.handed_on,
        )
    try:
        result = execution.converter.encode(outcome.value)
    except HoldfastError as error:
        return CompleteOrchestration(S.FAILED, failure=failure_from_exception(error))
    return CompleteOrchestration(S.COMPLETED, result=result)
