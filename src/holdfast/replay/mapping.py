"""The bounded parallel map: so many calls at a time, results in the order of the items."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from holdfast.replay.tasks import DurableTask, Owner, cancel_all


class Mapping(DurableTask[list[Any]]):
    """Starts the first calls at once, and the next one whenever one is completed.

    If some fail, the others are made all the same, and the failure that happened first is raised at the end; with
    `fail_fast` no further ones are started, those that run are cancelled, and it is raised at once.
    """

    __slots__ = ("_fail_fast", "_first_failed", "_going_on", "_next", "_results", "_starts")

    def __init__(
        self, owner: Owner, starts: list[Callable[[], DurableTask[Any]]], concurrency: int, fail_fast: bool
    ) -> None:
        super().__init__(owner, self._stop)
        self._starts = starts
        self._fail_fast = fail_fast
        self._next = 0
        self._results: list[Any] = [None] * len(starts)
        self._going_on: dict[int, DurableTask[Any]] = {}
        self._first_failed: DurableTask[Any] | None = None
        if not starts:
            self.complete([])
        for _ in range(min(concurrency, len(starts))):
            self._start_next()

    def _stop(self) -> None:
        cancel_all(list(self._going_on.values()))

    def _start_next(self) -> None:
        index = self._next
        self._next += 1
        task = self._going_on[index] = self._starts[index]()
        task.observe(lambda _: self._ended(index, task))

    def _ended(self, index: int, task: DurableTask[Any]) -> None:
        if self.is_completed:
            return
        del self._going_on[index]
        if not task.is_failed:
            self._results[index] = task.result
        elif self._first_failed is None:
            self._first_failed = task
        if self._first_failed is not None and (self._fail_fast or self._is_over()):
            self.take_over(self._first_failed)
            self._stop()
        elif self._is_over():
            self.complete(self._results)
        elif self._next < len(self._starts):
            self._try_next()

    def _try_next(self) -> None:
        try:
            self._start_next()
        except Exception as error:  # the episode has asked for too much, say: there is no caller to tell but this task
            failure = error
            self.fail(lambda: failure)
            self._stop()

    def _is_over(self) -> bool:
        return not self._going_on and self._next >= len(self._starts)


def starts_of(
    start: Callable[[str | None], DurableTask[Any]], payloads: Iterable[str | None]
) -> list[Callable[[], DurableTask[Any]]]:
    """Return one start for each payload."""

    def bound(payload: str | None) -> Callable[[], DurableTask[Any]]:
        return lambda: start(payload)

    return [bound(payload) for payload in payloads]
