"""Waiting for external events: with a limit in time, in the order of arrival, and each event once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from holdfast.errors import WaitTimeoutError
from holdfast.model.history import EventRaised
from holdfast.model.limits import EVENTS_AWAITED_MAX
from holdfast.replay.event_queues import EventQueues
from holdfast.replay.open_tasks import TimerTask
from holdfast.replay.tasks import DurableTask

if TYPE_CHECKING:
    from holdfast.replay.orchestration import Execution

_WAIT_BYTES = 512


class Wait(DurableTask[Any]):
    """The task of one who waits for an event; knows the type of the payload that it expects."""

    __slots__ = ("_waits", "expected_type", "name")

    def __init__(self, waits: EventWaits, execution: Execution, name: str, expected_type: Any) -> None:
        super().__init__(execution)
        self._waits = waits
        self.name = name
        self.expected_type = expected_type

    def _given_up(self) -> Callable[[DurableTask[Any]], object]:
        return self._forget

    def _forget(self, _: DurableTask[Any]) -> None:
        self._waits.forget(self)


class EventWaits:
    """The external events of one execution, and who waits for them."""

    __slots__ = ("_execution", "_keys", "_queues")

    def __init__(self, execution: Execution) -> None:
        self._execution = execution
        self._queues = EventQueues()
        self._keys: dict[str, None] | None = None

    @property
    def buffered(self) -> int:
        """How many events nobody has waited for."""
        return self._queues.buffered

    @property
    def awaited(self) -> tuple[str, ...]:
        """The names that somebody waits for, not more than `EVENTS_AWAITED_MAX`."""
        return self._queues.awaited(EVENTS_AWAITED_MAX)

    def start_with(self, keys: tuple[str, ...]) -> None:
        """Remember the keys that earlier executions of the instance took in."""
        if keys:
            self._keys = dict.fromkeys(keys) | (self._keys or {})

    def last_keys(self, count: int) -> tuple[str, ...]:
        """Return the keys that were taken in last."""
        return tuple(self._keys)[-count:] if self._keys and count else ()

    def unprocessed(self) -> tuple[EventRaised, ...]:
        """Return the events that nobody has waited for, in the order of their arrival.

        They lose their keys, which are handed on apart from them: they would be taken for repetitions.
        """
        return tuple(
            EventRaised(timestamp=event.timestamp, name=event.name, input=event.input)
            for event in self._queues.unprocessed()
        )

    def wait(self, name: str, expected_type: Any, fire_at: datetime | None) -> DurableTask[Any]:
        """Return a task for the next event of a name: a buffered one, or the next that comes, first waiter first."""
        execution = self._execution
        buffered = self._queues.take(name)
        if buffered is not None:
            execution.size_bytes -= _WAIT_BYTES
            task: DurableTask[Any] = DurableTask(execution)
            execution.open_tasks.finish(task, buffered.input, expected_type)
            return task
        # First what may be refused: a wait that nobody got would swallow an event.
        timer = None if fire_at is None else execution.create_timer(fire_at)
        wait = Wait(self, execution, name, expected_type)
        self._queues.add(wait)
        execution.size_bytes += _WAIT_BYTES
        if timer is not None and fire_at is not None:
            self._limit(wait, timer, fire_at)
        return wait

    def forget(self, wait: Wait) -> None:
        """Forget a wait that has timed out or was cancelled."""
        self._queues.discard(wait)
        self._execution.size_bytes -= _WAIT_BYTES

    def _limit(self, wait: Wait, timer: TimerTask, fire_at: datetime) -> None:
        """Race a wait with a timer; whichever comes first takes the other back."""

        def timed_out(timer: DurableTask[Any]) -> None:
            if not timer.is_cancelled:
                self.forget(wait)
                wait.fail(
                    lambda: WaitTimeoutError(f"No external event {wait.name!r} came before {fire_at.isoformat()}.")
                )

        wait.observe(lambda _: timer.cancel())
        timer.observe(timed_out)

    def deliver(self, event: EventRaised) -> None:
        """Give an event to the wait that it satisfies, or keep it; one with a key that was seen before is dropped."""
        if self._is_repeated(event):
            return
        wait = self._queues.deliver(event)
        if wait is None:
            self._execution.size_bytes += _WAIT_BYTES
            return
        self._execution.size_bytes -= _WAIT_BYTES
        self._execution.open_tasks.finish(wait, event.input, wait.expected_type)

    def keep(self, event: EventRaised) -> None:
        """Keep an event that came after the last wait, for the next execution."""
        if not self._is_repeated(event):
            self._queues.keep(event)

    def _is_repeated(self, event: EventRaised) -> bool:
        if event.key is None:
            return False
        if self._keys is None:
            self._keys = {}
        if event.key in self._keys:
            return True
        self._keys[event.key] = None
        return False
