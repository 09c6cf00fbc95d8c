"""Queries and updates: what clients may ask of a live orchestration, and how its code answers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from holdfast.errors import HoldfastError, InvalidInputError, OrchestratorMisuseError
from holdfast.model.actions import CompleteUpdate
from holdfast.model.failure import FailureDetails, failure_from_exception
from holdfast.model.history import HistoryEvent, UpdateCompleted, UpdateRequested
from holdfast.model.refs import FunctionReference, decode_input
from holdfast.replay.tasks import DurableTask, failure_of

if TYPE_CHECKING:
    from holdfast.replay.orchestration import Execution

_REJECTED: Final = "holdfast.errors.UpdateRejectedError"


class _UpdateHandler(msgspec.Struct, frozen=True):
    function: FunctionReference
    validator: FunctionReference | None


class Handlers:
    """The handlers of one execution by name, and the updates that its code is working on."""

    __slots__ = ("_answers", "_execution", "_open", "_queries", "_rejections", "_updates", "carried_over")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._queries: dict[str, FunctionReference] = {}
        self._updates: dict[str, _UpdateHandler] = {}
        self._open: dict[str, DurableTask[Any]] = {}
        self.carried_over: list[UpdateRequested] = []
        """Updates that came when the code had ended already, to continue as new: the next execution takes them in."""
        self._answers: dict[str, CompleteUpdate] = {}
        self._rejections: dict[str, FailureDetails] = {}

    def replay_rejections(self, events: Sequence[HistoryEvent]) -> None:
        """Note which updates were rejected in an episode that is replayed: other code may know them, or let them in."""
        self._rejections = {
            event.update_id: event.failure
            for event in events
            if isinstance(event, UpdateCompleted) and event.failure and event.failure.error_type == _REJECTED
        }

    def set_query(self, name: str, handler: Callable[..., Any]) -> None:
        self._queries[name.casefold()] = _plain_reference(name, handler)

    def set_update(self, name: str, handler: Callable[..., Any], validator: Callable[..., Any] | None) -> None:
        checked = None if validator is None else _plain_reference(name, validator)
        self._updates[name.casefold()] = _UpdateHandler(_reference(name, handler), checked)

    def answer_query(self, name: str, input: str | None) -> str:
        """Return the answer to a query as JSON. The handler must not ask for anything.

        Raises:
            LookupError: if there is no such handler.
            Exception: whatever the handler raises.
        """
        handler = self._queries.get(name.casefold())
        if handler is None:
            raise LookupError(f"it has no query handler {name!r}; it has {_listed(self._queries)}")
        result = self._call(handler, input)
        if hasattr(result, "send"):
            result.close()
            raise OrchestratorMisuseError(f"the query handler {name!r} must be a plain function that waits for nothing")
        return self._execution.converter.encode(result)

    def is_known(self, update_id: str) -> bool:
        """Whether an update was taken in before: its repetition is answered, not checked again."""
        return update_id in self._answers or update_id in self._open

    def validate_update(self, name: str, input: str | None) -> None:
        """Let the validator of an update refuse it.

        Raises:
            LookupError: if there is no such handler.
            Exception: whatever the validator raises.
        """
        handler = self._update(name)
        if handler.validator is not None:
            checked = self._call(handler.validator, input)
            if hasattr(checked, "send"):
                checked.close()
                raise OrchestratorMisuseError(f"the validator of {name!r} must be a plain function")

    def _update(self, name: str) -> _UpdateHandler:
        handler = self._updates.get(name.casefold())
        if handler is None:
            raise LookupError(f"it has no update handler {name!r}; it has {_listed(self._updates)}")
        return handler

    def begin_update(self, event: UpdateRequested) -> None:
        """Let the handler of an update work; one that was answered before gets the same answer again."""
        known = self._answers.get(event.update_id)
        if known is not None:
            self._execution.asked.append(known)
        elif event.update_id in self._rejections:
            self._reply(CompleteUpdate(event.update_id, failure=self._rejections[event.update_id]))
        elif self._execution.continues_as_new:
            self.carried_over.append(event)
        elif event.update_id not in self._open:
            task = self._execution.start_branch(self._work(event))
            self._open[event.update_id] = task
            task.observe(lambda task: self._answer(event.update_id, task))

    def abandon_updates(self) -> None:
        """Answer what is still open when the orchestration ends."""
        for update_id in list(self._open):
            details = FailureDetails("holdfast.errors.InstanceNotRunningError", "The execution ended meanwhile.")
            self._reply(CompleteUpdate(update_id, failure=details))

    def _work(self, event: UpdateRequested) -> Generator[DurableTask[Any], Any, Any]:
        """The branch of one update. It is a generator so that it can drive a handler of either kind."""
        if not self._execution.is_replaying:  # then it was let in, whatever a validator says now
            try:
                self.validate_update(event.name, event.input)
            except Exception as error:
                raise _Rejected(str(error)) from error
        called: Any = self._call(self._update(event.name).function, event.input)
        result: Any = (yield from _drive(called)) if hasattr(called, "send") else called
        return self._execution.converter.encode(result)

    def _answer(self, update_id: str, task: DurableTask[Any]) -> None:
        if not task.is_failed:
            self._reply(CompleteUpdate(update_id, result=task.result))
            return
        error = failure_of(task)()
        kind = _REJECTED if isinstance(error, _Rejected) else None
        details = failure_from_exception(error.__cause__ if kind and error.__cause__ else error)
        # Without the stack: the answer is compared on replay, and line numbers may change.
        failure = FailureDetails(kind or details.error_type, details.error_message)
        self._reply(CompleteUpdate(update_id, failure=failure))

    def _reply(self, answer: CompleteUpdate) -> None:
        self._open.pop(answer.update_id, None)
        self._answers[answer.update_id] = answer
        self._execution.asked.append(answer)

    def _call(self, handler: FunctionReference, input: str | None) -> Any:
        if handler.has_input:
            return handler.function(decode_input(self._execution.converter, handler, input))
        if input not in (None, "null"):
            raise InvalidInputError(f"The handler {handler.name!r} takes no input.")
        return handler.function()


class _Rejected(HoldfastError):
    """An update was refused before it had any effect."""


def _drive(body: Any) -> Generator[DurableTask[Any], Any, Any]:
    return body.__await__() if hasattr(body, "__await__") else body


def _listed(handlers: dict[str, Any]) -> str:
    return ", ".join(sorted(handlers)) or "none"


def _plain_reference(name: str, function: Callable[..., Any]) -> FunctionReference:
    """Describe a function that waits for nothing.

    Raises:
        InvalidInputError: for anything else.
    """
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise InvalidInputError(f"The query handler or validator {name!r} must be a plain `def`; it cannot wait.")
    return _reference(name, function)


def _reference(name: str, handler: Callable[..., Any]) -> FunctionReference:
    """Describe a handler: a function of at most one input.

    Raises:
        InvalidInputError: for anything else.
    """
    if not callable(handler):  # pyright: ignore[reportUnnecessaryComparison] - callers may be untyped
        raise InvalidInputError(f"The handler {name!r} is {handler!r}; it must be a function.")
    parameters = list(inspect.signature(handler).parameters.values())
    if len(parameters) > 1 or any(each.kind in (each.VAR_POSITIONAL, each.KEYWORD_ONLY) for each in parameters):
        raise InvalidInputError(f"The handler {name!r} must take one input or none, not {inspect.signature(handler)}.")
    return FunctionReference(name, handler, parameters[0].name if parameters else None)
