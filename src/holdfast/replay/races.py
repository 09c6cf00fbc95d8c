"""Races: the first of several tasks counts, and the others are cancelled."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, TypeVar, overload

from holdfast.errors import InvalidInputError
from holdfast.replay.tasks import DurableTask, Owner, cancel_all, children_of

T = TypeVar("T")
T1 = TypeVar("T1")
T2 = TypeVar("T2")
T3 = TypeVar("T3")
T4 = TypeVar("T4")


class _Race(DurableTask[Any]):
    __slots__ = ("_children", "_with_index")

    def __init__(self, owner: Owner | None, children: list[DurableTask[Any]], *, with_index: bool) -> None:
        super().__init__(owner, lambda: cancel_all(children))
        self._children = children
        self._with_index = with_index
        for child in children:
            child.observe(self._child_completed)

    def _child_completed(self, child: DurableTask[Any]) -> None:
        if self.is_completed:
            return
        if child.is_failed:
            self.take_over(child)
        elif self._with_index:
            self.complete((next(i for i, each in enumerate(self._children) if each is child), child.result))
        else:
            self.complete(child.result)
        cancel_all(each for each in self._children if each is not child)


@overload
def race(tasks: Iterable[DurableTask[T]], /) -> DurableTask[T]: ...
@overload
def race(first: DurableTask[T1], second: DurableTask[T2], /) -> DurableTask[T1 | T2]: ...
@overload
def race(first: DurableTask[T1], second: DurableTask[T2], third: DurableTask[T3], /) -> DurableTask[T1 | T2 | T3]: ...
def race(first: Any, /, *others: DurableTask[Any]) -> DurableTask[Any]:
    """Return a task for the result of the task that is completed first; the others are cancelled.

    If the first one failed, its failure is raised.

    Raises:
        InvalidInputError: if there are no tasks, or for anything that is none.
    """
    owner, children = children_of(first, others, "race")
    if not children:
        raise InvalidInputError("race needs at least one task: nothing can be first among none.")
    return _Race(owner, children, with_index=False)


@overload
def select(
    first: DurableTask[T1], second: DurableTask[T2], /
) -> DurableTask[tuple[Literal[0], T1] | tuple[Literal[1], T2]]: ...
@overload
def select(
    first: DurableTask[T1], second: DurableTask[T2], third: DurableTask[T3], /
) -> DurableTask[tuple[Literal[0], T1] | tuple[Literal[1], T2] | tuple[Literal[2], T3]]: ...
@overload
def select(
    first: DurableTask[T1], second: DurableTask[T2], third: DurableTask[T3], fourth: DurableTask[T4], /
) -> DurableTask[tuple[Literal[0], T1] | tuple[Literal[1], T2] | tuple[Literal[2], T3] | tuple[Literal[3], T4]]: ...
def select(first: DurableTask[Any], second: DurableTask[Any], /, *others: DurableTask[Any]) -> DurableTask[Any]:
    """Return a task for `(index, result)` of the task that is completed first; the others are cancelled.

    Made for `match`: the index tells a type checker which result it is. If the first one failed, its failure is raised.

    Raises:
        InvalidInputError: for anything that is no durable task.
    """
    owner, children = children_of(first, (second, *others), "select")
    return _Race(owner, children, with_index=True)
