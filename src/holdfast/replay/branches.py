"""The coroutines of one execution: its body, and those that it started beside it. One runs at a time.

A branch whose task is completed becomes ready; ready branches run in that order until nothing is ready. So the order
of events in the history alone decides what runs when.
"""

from __future__ import annotations

import contextvars
from typing import Any

from holdfast.errors import CancelledError
from holdfast.replay.discard import can_discard
from holdfast.replay.stepper import Body, Raised, Returned, Stepper
from holdfast.replay.tasks import DurableTask, Owner


class BranchTask(DurableTask[Any]):
    """The result of a branch. Cancelling it raises `CancelledError` where the branch waits; it ends when that does."""

    __slots__ = ("branch",)

    def __init__(self, owner: Owner, branch: Branch) -> None:
        super().__init__(owner)
        self.branch = branch

    def cancel(self) -> bool:
        if not self._may_cancel():
            return False
        self.branch.interrupt(CancelledError("This branch was cancelled."))
        return True

    def end(self, outcome: Returned | Raised) -> None:
        if isinstance(outcome, Returned):
            self.complete(outcome.value)
            return
        error = outcome.error
        self._is_cancelled = isinstance(error, CancelledError)
        self.fail(lambda: error)


class Branch:
    """One coroutine or generator, and what it waits for."""

    __slots__ = ("_branches", "_interrupted_with", "_interruption", "_is_ready", "outcome", "stepper", "task")

    def __init__(self, branches: Branches, stepper: Stepper, owner: Owner) -> None:
        self._branches = branches
        self._is_ready = False
        self._interruption: BaseException | None = None
        self._interrupted_with: BaseException | None = None
        self.stepper = stepper
        self.outcome: Returned | Raised | None = None
        self.task = BranchTask(owner, self)

    def interrupt(self, error: BaseException) -> None:
        """Raise an error where the branch waits, after cancelling what it waits for; one that runs, at its next wait.

        Without effect on one that is already being interrupted.
        """
        if self.task.is_completed or self._interruption is not None:
            return
        self._interruption = error
        if self._branches.current is not self:
            self.make_ready()
            waited = self.stepper.waiting_for
            if waited is not None:
                waited.cancel()

    def spare(self, error: BaseException) -> None:
        """Take an interruption back, if it has not been raised yet."""
        if self._interruption is error:
            self._interruption = None

    def interrupt_again(self, error: BaseException | None) -> None:
        """Raise the last interruption once more, at the next wait, if `error` is it: something else takes its place."""
        if error is not None and error is self._interrupted_with:
            self.interrupt(error)

    def make_ready(self) -> None:
        if not self._is_ready:
            self._is_ready = True
            self._branches.ready.append(self)

    def run(self) -> Returned | Raised | None:
        """Run to the next wait for something that is not completed, or to the end."""
        self._is_ready = False
        error, self._interruption = self._interruption, None
        self._interrupted_with = error or self._interrupted_with
        outcome = self.stepper.step(error)
        if outcome is None:
            waited = self.stepper.waiting_for
            assert waited is not None
            if self._interruption is not None:
                self.make_ready()
                waited.cancel()
            else:
                waited.observe(self._on_completed)
        return outcome

    def _on_completed(self, task: DurableTask[Any]) -> None:
        if self.stepper.waiting_for is task:
            self.make_ready()


class Branches:
    """All branches of one execution that have not ended."""

    __slots__ = ("_going_on", "_owner", "current", "ready")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._going_on: dict[Branch, None] = {}
        self.ready: list[Branch] = []
        self.current: Branch | None = None
        """The branch whose code runs now."""

    def start(self, body: Body, context: contextvars.Context) -> Branch:
        """Add a branch; it begins to run when those that are ready before it have run."""
        branch = Branch(self, Stepper(body, self._owner, context), self._owner)
        self._going_on[branch] = None
        branch.make_ready()
        return branch

    def run(self, main: Branch) -> None:
        """Run what is ready until nothing is, or until the main branch has ended."""
        for branch in self.ready:  # and those that become ready meanwhile
            self.current = branch
            try:
                outcome = branch.run()
            finally:
                self.current = None
            if outcome is not None:
                del self._going_on[branch]
                branch.outcome = outcome
                branch.task.end(outcome)
                if branch is main:
                    break
        self.ready.clear()

    def can_discard(self) -> bool:
        """Whether all of them can be dropped without running any of their code."""
        return all(can_discard(branch.stepper.body) for branch in self._going_on)

    def discard(self) -> None:
        """Drop all of them where they stand."""
        for branch in self._going_on:
            branch.stepper.close()
        self._going_on.clear()
        self.ready.clear()
