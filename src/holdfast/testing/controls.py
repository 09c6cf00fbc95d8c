"""What a test does to a simulation, and asks it: planned crashes, fakes for activities, the calls of activities."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

from holdfast.errors import ConfigurationError
from holdfast.model.http_call import DurableHttpRequest, DurableHttpResponse
from holdfast.model.refs import Activity
from holdfast.testing.bodies import ActivityBodies
from holdfast.testing.contexts import CONVERTER
from holdfast.testing.crashes import CrashPoint, PlannedCrashes, Side
from holdfast.testing.faults import Trouble
from holdfast.testing.http import HTTP
from holdfast.testing.ledger import Ledger

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the typed API
O = TypeVar("O")  # noqa: E741


class Controls(ABC):
    """Base of `Simulation`."""

    def __init__(self, trouble: Trouble, ledger: Ledger, bodies: ActivityBodies) -> None:
        self.trouble = trouble
        self.ledger = ledger
        self._bodies = bodies
        self._crashes = PlannedCrashes()

    @abstractmethod
    def crash(self) -> None:
        """Kill every host where it stands; they are started again."""

    def crash_before(self, commits: int = 1) -> None:
        """Kill every host when it asks for the n-th commit from now, which is not made: what led to it is forgotten."""
        self._plan_crash("before", commits)

    def crash_after(self, commits: int = 1) -> None:
        """Kill every host when the n-th commit from now is made, before anybody hears of it."""
        self._plan_crash("after", commits)

    @property
    def crashes_to_come(self) -> int:
        """How many of the crashes that were planned have not been reached."""
        return self._crashes.waiting

    def _plan_crash(self, side: Side, commits: int) -> None:
        if commits < 1:
            raise ConfigurationError(f"The commit to crash at is {commits}; the next one is 1.")
        self._crashes.add(CrashPoint(side, self.ledger.commits + commits))

    def _crash_at(self, side: Side, commit: int) -> bool:
        point = self._crashes.strikes(side, commit)
        if point is None:
            return False
        self.trouble.happened.append(f"crash {side} commit {commit}")
        self.crash()
        return True

    @overload
    def replace(self, activity: Activity[None, O], fake: Callable[[], O | Awaitable[O]], /) -> None: ...
    @overload
    def replace(self, activity: Activity[I, O], fake: Callable[[I], O | Awaitable[O]], /) -> None: ...
    def replace(self, activity: Activity[Any, Any], fake: Callable[..., Any], /) -> None:
        """Let a fake run for an activity from now on, in this simulation only; it is called by the same rules.

        Raises:
            ConfigurationError: if it does not take the same input.
        """
        self._bodies.replace(activity, fake)

    def replace_http(
        self, fake: Callable[[DurableHttpRequest], DurableHttpResponse | Awaitable[DurableHttpResponse]], /
    ) -> None:
        """Let a function answer the requests of `ctx.call_http` from now on; without it they fail."""
        self._bodies.replace(HTTP, fake)

    @property
    def http_requests(self) -> list[DurableHttpRequest]:
        """The requests that `ctx.call_http` has made, each once, as in `calls`."""
        return self.calls(HTTP)

    @overload
    def calls(self, activity: Activity[I, Any], /) -> list[I]: ...
    @overload
    def calls(self, activity: str, /) -> list[Any]: ...
    def calls(self, activity: Activity[Any, Any] | str, /) -> list[Any]:
        """Return the input of every call of an activity by an orchestration, in order, None where there is none.

        A call counts once, when it is durable, however often its body runs for it.
        """
        name = activity if isinstance(activity, str) else activity.name
        input_type: Any = Any if isinstance(activity, str) else activity.input_type
        return [
            None if call.input is None else CONVERTER.decode(call.input, input_type)
            for _, call in self.ledger.scheduled
            if call.name.casefold() == name.casefold()
        ]
