"""Durable tasks: what an orchestrator awaits, and the two ways to combine them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, Protocol, TypeVar, cast, overload

from holdfast.errors import InvalidInputError, OrchestratorMisuseError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")


class DurableTask(Generic[T_co]):
    """Something that an orchestrator waits for. It was scheduled when it was made; `await` it for its result.

    In a generator orchestrator `yield task` gives the result too, and `yield from task` gives it with its type.
    """

    __slots__ = ("_done", "_error", "_observers", "_owner", "_value")

    def __init__(self, owner: object) -> None:
        self._owner = owner
        self._done = False
        self._value: T_co | Any = None
        self._error: Callable[[], BaseException] | None = None
        self._observers: list[Callable[[DurableTask[Any]], object]] = []

    @property
    def owner(self) -> object:
        """The execution that made this task; no other may await it."""
        return self._owner

    @property
    def is_completed(self) -> bool:
        """Whether it has a result or has failed."""
        return self._done

    @property
    def is_failed(self) -> bool:
        return self._error is not None

    @property
    def result(self) -> T_co:
        """The result; raises the failure if it failed.

        Raises:
            OrchestratorMisuseError: if it is not completed yet.
        """
        if not self._done:
            raise OrchestratorMisuseError("This durable task is not completed yet; await it to get its result.")
        if self._error is not None:
            raise self._error()
        return self._value

    def __await__(self) -> Generator[DurableTask[Any], None, T_co]:
        if not self._done:
            yield self
        return self.result

    def __iter__(self) -> Generator[DurableTask[Any], None, T_co]:
        return self.__await__()

    def observe(self, observer: Callable[[DurableTask[Any]], object]) -> None:
        """Call back once it is completed, or now if it is."""
        if self._done:
            observer(self)
        else:
            self._observers.append(observer)

    def complete(self, value: Any) -> None:
        self._value = value
        self._finish()

    def fail(self, error: Callable[[], BaseException]) -> None:
        """Complete with a failure. A new exception is made for each raise, so that tracebacks do not pile up."""
        self._error = error
        self._finish()

    def _finish(self) -> None:
        self._done = True
        observers, self._observers = self._observers, []
        for observer in observers:
            observer(self)


class TimerOwner(Protocol):
    def cancel_timer(self, timer_id: int) -> None: ...


class TimerTask(DurableTask[None]):
    """A durable timer. A cancelled one never fires and never completes."""

    __slots__ = ("_cancelled", "_timer_id", "_timers")

    def __init__(self, owner: TimerOwner, timer_id: int) -> None:
        super().__init__(owner)
        self._timers = owner
        self._timer_id = timer_id
        self._cancelled = False

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled

    def cancel(self) -> bool:
        """Cancel the timer; return whether it was still running."""
        if self._done or self._cancelled:
            return False
        self._cancelled = True
        self._timers.cancel_timer(self._timer_id)
        return True


class _All(DurableTask[list[Any]]):
    __slots__ = ("_children", "_first_failed", "_missing")

    def __init__(self, owner: object, children: list[DurableTask[Any]]) -> None:
        super().__init__(owner)
        self._children = children
        self._missing = len(children)
        self._first_failed: DurableTask[Any] | None = None
        if not children:
            self.complete([])
        for child in children:
            child.observe(self._child_completed)

    def _child_completed(self, child: DurableTask[Any]) -> None:
        self._missing -= 1
        if child.is_failed and self._first_failed is None:
            self._first_failed = child
        if self._missing:
            return
        if self._first_failed is not None:
            self.fail(_failure_of(self._first_failed))
        else:
            self.complete([each.result for each in self._children])


class _Any(DurableTask[DurableTask[Any]]):
    __slots__ = ()

    def __init__(self, owner: object, children: list[DurableTask[Any]]) -> None:
        super().__init__(owner)
        for child in children:
            child.observe(self._child_completed)

    def _child_completed(self, child: DurableTask[Any]) -> None:
        if not self._done:
            self.complete(child)


def _failure_of(task: DurableTask[Any]) -> Callable[[], BaseException]:
    def error() -> BaseException:
        try:
            _ = task.result
        except BaseException as failure:
            return failure
        raise AssertionError("the task has not failed")

    return error


def _children(tasks: Iterable[DurableTask[Any]], function: str) -> tuple[object, list[DurableTask[Any]]]:
    if isinstance(tasks, DurableTask):  # a task is iterable, for `yield from`, so this must be said here
        raise InvalidInputError(f"{function} takes several tasks; it got a single one. Await that, or pass a list.")
    children = list(tasks)
    for child in children:
        if not isinstance(child, DurableTask):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(
                f"{function} takes durable tasks, such as those of ctx.call_activity(); it got {child!r}."
            )
    return (children[0].owner if children else None), children


def when_all(tasks: Iterable[DurableTask[T]]) -> DurableTask[list[T]]:
    """Return a task for the results of all, in the order given.

    It waits until every one is completed; if some failed, it then raises the failure that happened first.
    """
    return _All(*_children(tasks, "when_all"))


@overload
def when_any(tasks: Iterable[DurableTask[T]], /) -> DurableTask[DurableTask[T]]: ...
@overload
def when_any(first: DurableTask[T1], second: DurableTask[T2], /) -> DurableTask[DurableTask[T1] | DurableTask[T2]]: ...
@overload
def when_any(
    first: DurableTask[T1], second: DurableTask[T2], third: DurableTask[T3], /
) -> DurableTask[DurableTask[T1] | DurableTask[T2] | DurableTask[T3]]: ...
def when_any(first: Any, /, *others: DurableTask[Any]) -> DurableTask[DurableTask[Any]]:
    """Return a task for the task that is completed first, whether it succeeded or failed.

    The others go on. Which one is first is decided by the history, so that a replay sees the same winner.

    Raises:
        InvalidInputError: if there are no tasks.
    """
    tasks = (cast("DurableTask[Any]", first), *others) if isinstance(first, DurableTask) else first
    owner, children = _children(tasks, "when_any")
    if not children:
        raise InvalidInputError("when_any needs at least one task: nothing can be first among none.")
    return _Any(owner, children)
