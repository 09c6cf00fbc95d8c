"""Durable tasks: what an orchestrator awaits, and the two ways to combine them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, Protocol, TypeGuard, TypeVar, cast, overload

from holdfast.errors import CancelledError, InvalidInputError, OrchestratorMisuseError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")


class Completions:
    """Tells whoever observes a completed task, one after the other: a chain of tasks needs no stack of its length."""

    __slots__ = ("_is_telling", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[DurableTask[Any]], object], DurableTask[Any]]] = []
        self._is_telling = False

    def tell(self, task: DurableTask[Any], observers: Iterable[Callable[[DurableTask[Any]], object]]) -> None:
        for observer in observers:
            self._waiting.append((observer, task))
        if self._is_telling:
            return  # the caller up the stack goes on with what was added
        self._is_telling = True
        told = 0
        try:
            for observer, completed in self._waiting:  # and what is added meanwhile
                told += 1
                observer(completed)
        finally:
            del self._waiting[:told]
            self._is_telling = False


class Owner(Protocol):
    """The execution that made a task."""

    completions: Completions
    is_running: bool
    is_inert: bool


class DurableTask(Generic[T_co]):
    """Something that an orchestrator waits for. It was scheduled when it was made; `await` it for its result.

    It may be awaited several times. In a generator orchestrator `yield task` gives the result too, and
    `yield from task` gives it with its type.
    """

    __slots__ = ("_done", "_error", "_give_up", "_is_cancelled", "_observers", "_owner", "_value")

    def __init__(self, owner: Owner | None, give_up: Callable[[], object] | None = None) -> None:
        self._owner = owner
        self._done = False
        self._is_cancelled = False
        self._give_up = give_up
        self._value: Any = None
        self._error: Callable[[], BaseException] | None = None
        self._observers: list[Callable[[DurableTask[Any]], object]] | None = None

    @property
    def owner(self) -> Owner | None:
        """The execution that made this task; no other may await it. A combination of no tasks has none."""
        return self._owner

    @property
    def is_completed(self) -> bool:
        """Whether it has a result, has failed or was cancelled."""
        return self._done

    @property
    def is_failed(self) -> bool:
        """Whether awaiting it raises; a cancelled task counts as failed."""
        return self._error is not None

    @property
    def is_cancelled(self) -> bool:
        return self._is_cancelled

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

    def cancel(self) -> bool:
        """Give up what the task waits for; return whether it was still going on.

        The task is over at once: awaiting it raises `CancelledError`, and whatever comes later is not heard. A running
        activity is stopped, a sub-orchestration asked to cancel itself, a timer removed; the task of a combination
        cancels all its parts.

        Raises:
            OrchestratorMisuseError: if the orchestrator is not running: a replay could not reproduce that.
        """
        if not self._may_cancel():
            return False
        self._is_cancelled = True
        self.observe(self._given_up())
        self.fail(lambda: CancelledError("This durable task was cancelled."))
        return True

    def _given_up(self) -> Callable[[DurableTask[Any]], object]:
        """Return what follows from a cancellation, once all who observe the task have heard of it."""
        give_up = self._give_up
        return lambda _: None if give_up is None else give_up()

    def _may_cancel(self) -> bool:
        owner = self._owner
        if self._done or owner is None or owner.is_inert:
            return False
        if not owner.is_running:
            raise OrchestratorMisuseError("A durable task can be cancelled only by the code of its orchestrator.")
        return True

    def __await__(self) -> Generator[DurableTask[Any], None, T_co]:
        yield self  # even if it is completed: whoever drives the code checks whose task it is
        return self._value if self._done and self._error is None else self.result

    def __iter__(self) -> Generator[DurableTask[Any], None, T_co]:
        return self.__await__()

    def observe(self, observer: Callable[[DurableTask[Any]], object]) -> None:
        """Call back once it is completed, or now if it is."""
        if self._done:
            observer(self)
        elif self._observers is None:
            self._observers = [observer]
        else:
            self._observers.append(observer)

    def complete(self, value: Any) -> None:
        """Complete with a result; without effect if it is completed already."""
        if not self._done:
            self._value = value
            self._finish()

    def fail(self, error: Callable[[], BaseException]) -> None:
        """Complete with a failure; a new exception is made for each raise, so that tracebacks do not pile up."""
        if not self._done:
            self._error = error
            self._finish()

    def take_over(self, other: DurableTask[Any]) -> None:
        """Complete as another task did; what ends because a part of it was cancelled is cancelled too."""
        if self._done:
            return
        self._is_cancelled = other.is_cancelled
        if other.is_failed:
            self.fail(failure_of(other))
        else:
            self.complete(other.result)

    def _finish(self) -> None:
        self._done = True
        self._give_up = None
        observers, self._observers = self._observers, None
        if observers is not None and self._owner is not None:
            self._owner.completions.tell(self, observers)


class _All(DurableTask[Any]):
    __slots__ = ("_as_tuple", "_children", "_fail_fast", "_first_failed", "_missing")

    def __init__(self, owner: Owner | None, children: list[DurableTask[Any]], fail_fast: bool, as_tuple: bool) -> None:
        super().__init__(owner, lambda: cancel_all(children))
        self._children = children
        self._fail_fast = fail_fast
        self._as_tuple = as_tuple
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
        if self._first_failed is not None and (self._fail_fast or not self._missing):
            self.take_over(self._first_failed)
        elif not self._missing:
            results = [each.result for each in self._children]
            self.complete(tuple(results) if self._as_tuple else results)


class _Any(DurableTask[DurableTask[Any]]):
    __slots__ = ()

    def __init__(self, owner: Owner | None, children: list[DurableTask[Any]]) -> None:
        super().__init__(owner, lambda: cancel_all(children))
        for child in children:
            child.observe(self.complete)


def cancel_all(tasks: Iterable[DurableTask[Any]]) -> None:
    """Cancel what is still going on."""
    for task in tasks:
        task.cancel()


def failure_of(task: DurableTask[Any]) -> Callable[[], BaseException]:
    """Return what makes the failure of a failed task."""

    error = task._error  # pyright: ignore[reportPrivateUsage] - a wrapper around it would add a call for each level
    assert error is not None
    return error


async def until_ended(task: DurableTask[Any]) -> CancelledError | None:
    """Wait for a task, however it ends; a cancellation of the wait does not cancel the task, and is returned."""
    if task.is_completed:
        return None
    ended: DurableTask[None] = DurableTask(task.owner)
    task.observe(lambda _: ended.complete(None))
    try:
        await ended
    except CancelledError as error:
        return error
    return None


def is_task(value: object) -> TypeGuard[DurableTask[Any]]:
    return isinstance(value, DurableTask)


def children_of(
    first: object, others: tuple[object, ...], function: str
) -> tuple[Owner | None, list[DurableTask[Any]]]:
    """Return the tasks given to a combination, one by one or as one iterable, and whose they are.

    Raises:
        InvalidInputError: for anything that is no durable task.
        OrchestratorMisuseError: for tasks of several instances.
    """
    given = (first, *others)
    if not others and not is_task(first):
        try:
            given = tuple(cast("Iterable[object]", first))
        except TypeError:
            raise InvalidInputError(
                f"{function} takes durable tasks, or an iterable of them; it got {first!r}."
            ) from None
    tasks: list[DurableTask[Any]] = []
    for child in given:
        if not is_task(child):
            raise InvalidInputError(
                f"{function} takes durable tasks, such as those of ctx.call_activity(); it got {child!r}."
            )
        tasks.append(child)
    owners = list({id(task.owner): task.owner for task in tasks if task.owner is not None}.values())
    if len(owners) > 1:
        raise OrchestratorMisuseError(f"{function} got durable tasks of several instances; tasks cannot be shared.")
    return (owners[0] if owners else None), tasks


@overload
def when_all(tasks: Iterable[DurableTask[T]], /, *, fail_fast: bool = False) -> DurableTask[list[T]]: ...
@overload
def when_all(
    first: DurableTask[T1], second: DurableTask[T2], /, *, fail_fast: bool = False
) -> DurableTask[tuple[T1, T2]]: ...
@overload
def when_all(
    first: DurableTask[T1], second: DurableTask[T2], third: DurableTask[T3], /, *, fail_fast: bool = False
) -> DurableTask[tuple[T1, T2, T3]]: ...
@overload
def when_all(
    first: DurableTask[T1],
    second: DurableTask[T2],
    third: DurableTask[T3],
    fourth: DurableTask[T4],
    /,
    *,
    fail_fast: bool = False,
) -> DurableTask[tuple[T1, T2, T3, T4]]: ...
def when_all(first: Any, /, *others: DurableTask[Any], fail_fast: bool = False) -> DurableTask[Any]:
    """Return a task for the results of all, in the order given: a list of an iterable, a tuple of single tasks.

    It waits until every one is completed; if some failed, it then raises the failure that happened first. With
    `fail_fast` it raises that at once, and the others go on.

    Raises:
        InvalidInputError: for anything that is no durable task, or for one task that is not in an iterable.
    """
    if is_task(first) and not others:  # a task is iterable, for `yield from`, so this must be said here
        raise InvalidInputError("when_all takes several tasks; it got a single one. Await that, or pass a list.")
    owner, children = children_of(first, others, "when_all")
    return _All(owner, children, fail_fast, as_tuple=bool(others))


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

    The others go on; `race` and `select` cancel them. Which one is first is decided by the history, so that a replay
    sees the same winner.

    Raises:
        InvalidInputError: if there are no tasks, or for anything that is none.
    """
    owner, children = children_of(first, others, "when_any")
    if not children:
        raise InvalidInputError("when_any needs at least one task: nothing can be first among none.")
    return _Any(owner, children)
