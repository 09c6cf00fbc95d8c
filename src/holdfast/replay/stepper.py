"""Drives one coroutine or generator by hand, without an event loop."""

from __future__ import annotations

import contextvars
import inspect
import types
from collections.abc import Coroutine, Generator
from typing import Any, TypeAlias

import msgspec

from holdfast.errors import ForeignAwaitableError
from holdfast.replay.discard import discard
from holdfast.replay.tasks import DurableTask, is_task

_FOREIGN_MAX = 100
"""How often in one step code may catch that what it awaits is not durable; then it is taken to do so for ever."""

Body: TypeAlias = Coroutine[Any, Any, Any] | Generator[Any, Any, Any]


RUNNING: contextvars.ContextVar[object] = contextvars.ContextVar("holdfast_running", default=None)
"""Whose code runs. A thread that orchestrator code starts does not have it, so that its calls can be refused."""


def context_of(owner: object) -> contextvars.Context:
    """Return a context of its own for code of an execution."""
    context = contextvars.Context()
    context.run(RUNNING.set, owner)
    return context


class Returned(msgspec.Struct, frozen=True):
    value: Any


class Raised(msgspec.Struct, frozen=True):
    error: BaseException


class Stepper:
    """The driver of one coroutine or generator of an orchestrator, in a context of its own.

    Suspending is nothing more than not resuming: no exception is thrown into user code for it.
    """

    __slots__ = ("_context", "_owner", "body", "waiting_for")

    def __init__(self, body: Body, owner: object, context: contextvars.Context) -> None:
        self.body: Body = body
        self._owner = owner
        self._context = context
        self.waiting_for: DurableTask[Any] | None = None

    def step(self, interruption: BaseException | None = None) -> Returned | Raised | None:
        """Run until the body waits for a task that is not completed (None), returns or raises.

        Args:
            interruption: raised where the body waits, instead of giving it what it waits for.
        """
        waiting_for, self.waiting_for = self.waiting_for, None
        to_send: Any = None
        to_throw = interruption
        if waiting_for is not None and interruption is None:
            to_send, to_throw = _outcome(waiting_for)
        foreign = 0
        while True:
            try:
                if to_throw is not None:
                    yielded = self._context.run(self.body.throw, to_throw)
                else:
                    yielded = self._context.run(self.body.send, to_send)
            except StopIteration as stop:
                return Returned(stop.value)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                return Raised(error)
            to_send, to_throw = None, None
            if is_task(yielded) and yielded.owner in (self._owner, None):
                if not yielded.is_completed:
                    self.waiting_for = yielded
                    return None
                to_send, to_throw = _outcome(yielded)
            else:
                to_throw = ForeignAwaitableError(self._foreign(yielded))
                foreign += 1
                if foreign > _FOREIGN_MAX:
                    return Raised(to_throw)

    def close(self) -> None:
        """Forget the body where it stands, without running any more of it."""
        discard(self.body)

    def _foreign(self, yielded: object) -> str:
        if isinstance(yielded, DurableTask):
            return "The orchestrator awaits a durable task of another instance; tasks cannot be shared."
        return (
            f"The orchestrator awaits {_innermost_call(self.body, yielded)}, which is not durable. "
            "Orchestrators await only what ctx gives them: ctx.create_timer() to sleep, ctx.call_activity() for "
            "anything that waits for the outside world, when_all()/when_any() to combine."
        )


def _outcome(task: DurableTask[Any]) -> tuple[Any, BaseException | None]:
    try:
        return task.result, None
    except BaseException as error:
        return None, error


def _innermost_call(body: object, yielded: object) -> str:
    """Name the coroutine at the end of the chain of awaits, as `asyncio.tasks.sleep() at app.py:12`."""
    outer = inner = body
    while True:
        awaited = getattr(inner, "cr_await", None) or getattr(inner, "gi_yieldfrom", None)
        if not (inspect.iscoroutine(awaited) or inspect.isgenerator(awaited)):
            break
        outer, inner = inner, awaited
    line = _frame_line(outer)
    if inner is body:
        kind = type(yielded).__name__
        return f"{'asyncio.gather()' if kind == '_GatheringFuture' else repr(yielded)} at {line}"
    code = getattr(inner, "cr_code", None) or getattr(inner, "gi_code", None)
    frame = getattr(inner, "cr_frame", None) or getattr(inner, "gi_frame", None)
    module = frame.f_globals.get("__name__", "?") if frame else "?"
    return f"{module}.{getattr(code, 'co_qualname', '?')}() at {line}"


def _frame_line(body: object) -> str:
    frame = getattr(body, "cr_frame", None) or getattr(body, "gi_frame", None)
    return "?" if frame is None else source_line(frame)


def source_line(frame: types.FrameType) -> str:
    """Return `file.py:12 in function` for a frame."""
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}"
