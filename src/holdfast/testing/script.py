"""Runs an orchestrator to its end by answers that are known before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast, overload

from holdfast.errors import InvalidInputError
from holdfast.model.refs import NO_INPUT, ExternalEvent, FunctionReference, Orchestrator
from holdfast.model.status import OrchestrationStatus
from holdfast.testing.driven import OrchestratorTest
from holdfast.testing.open_work import OpenCall, OpenOperation

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the typed API
O = TypeVar("O")  # noqa: E741


@overload
def run_orchestrator(
    orchestrator: Orchestrator[None, O],
    /,
    *,
    answers: Mapping[Any, Any] = ...,
    events: Sequence[tuple[ExternalEvent[Any] | str, Any]] = ...,
) -> O: ...
@overload
def run_orchestrator(
    orchestrator: Orchestrator[I, O],
    input: I,
    /,
    *,
    answers: Mapping[Any, Any] = ...,
    events: Sequence[tuple[ExternalEvent[Any] | str, Any]] = ...,
) -> O: ...
def run_orchestrator(
    orchestrator: Orchestrator[Any, Any],
    input: Any = NO_INPUT,
    /,
    *,
    answers: Mapping[Any, Any] | None = None,
    events: Sequence[tuple[ExternalEvent[Any] | str, Any]] = (),
) -> Any:
    """Run an orchestrator to its end by a script, and return its result; raises as `OrchestratorTest.result` does.

    `run_orchestrator(refund, Claim(200), answers={fee: 20}, events=[(ANSWER, True)])`. Calls are answered in the order
    in which they were made. Events are raised when the code waits for nothing else; timers fire when there is no event
    left either, and time jumps to them.

    Args:
        answers: by activity, sub-orchestration, unbound method of an entity, or name: the result; or an exception, to
            fail with; or a function, called with the input.

    Raises:
        AssertionError: naming what there is no answer for.
    """
    test: OrchestratorTest[Any] = cast(Any, OrchestratorTest)(orchestrator, input)
    by_name = {_name_of(key): (key, answer) for key, answer in (answers or {}).items()}
    waiting = list(events)
    while test.status is OrchestrationStatus.RUNNING:
        work = [*test.calls(), *test.operations]
        if work:
            _answer(work[0], by_name)
        elif waiting:
            event, data = waiting.pop(0)
            test.raise_event(event if isinstance(event, str) else event.name, data)
        elif test.timers:
            test.fire_timer()
        else:
            raise AssertionError(f"The script has ended, and {test}.")
    return test.result


def _name_of(key: object) -> str:
    name = key if isinstance(key, str) else getattr(key, "name", None) or getattr(key, "__name__", "")
    if not name:
        raise InvalidInputError(f"{key!r} can have no answer: it is no activity, orchestrator, operation or name.")
    return str(name).casefold()


def _answer(work: OpenCall[Any, Any] | OpenOperation, answers: Mapping[str, tuple[Any, Any]]) -> None:
    name = work.operation if isinstance(work, OpenOperation) else work.name
    if name.casefold() not in answers:
        raise AssertionError(
            f"The script has no answer for {work!r}; it has some for: {', '.join(answers) or 'nothing'}."
        )
    key, answer = answers[name.casefold()]
    if isinstance(work, OpenCall) and isinstance(key, FunctionReference):
        work.is_of(key)
    if callable(answer):
        try:
            answer = answer(work.input) if work.has_input else answer()
        except Exception as error:
            answer = error
    if isinstance(answer, Exception):
        work.fail(answer)
    else:
        work.complete(answer)
