"""Forgetting a suspended coroutine or generator without running any more of it.

Python closes a suspended body by raising `GeneratorExit` where it stands, which runs its `finally` blocks, `with`
exits and bare `except` clauses. For an orchestrator that is merely unloaded that would be wrong: it has not ended.
So a body that stands inside such a handler stays loaded, and `can_discard` tells which do. Standing inside
`except SomeError:` is harmless, since `GeneratorExit` passes it by.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import types
from typing import Any

# What the compiler itself puts at the start of a handler: cleaning up after `except`, after `await`, after a generator.
_COMPILER_HANDLERS = frozenset({"COPY", "POP_EXCEPT", "RERAISE", "CLEANUP_THROW", "CALL_INTRINSIC_1"})


def can_discard(body: Any) -> bool:
    """Return whether closing this suspended body runs no user code."""
    return not any(_handler_runs_code(frame.f_code, frame.f_lasti) for frame in _frames(body))


def discard(body: Any) -> None:
    """Close a suspended body. If `can_discard` says no, its handlers do run: only for a process that gives up."""
    with contextlib.suppress(BaseException):
        body.close()


def _frames(body: Any) -> list[types.FrameType]:
    """The suspended frames from the body down the chain of awaits."""
    frames: list[types.FrameType] = []
    while body is not None:
        frame = getattr(body, "cr_frame", None) or getattr(body, "gi_frame", None)
        if frame is None:
            break
        frames.append(frame)
        body = getattr(body, "cr_await", None) or getattr(body, "gi_yieldfrom", None)
    return frames


@functools.lru_cache(maxsize=10_000)
def _handler_runs_code(code: types.CodeType, offset: int) -> bool:
    """Whether `GeneratorExit` at this offset meets anything but `except SomeError:` clauses.

    Remembered, because reading the code again for each instance that waits at the same line costs milliseconds.
    """
    table = _exception_table(code.co_exceptiontable)
    listing = list(dis.get_instructions(code))
    position = {each.offset: index for index, each in enumerate(listing)}
    while True:
        target = next((handler for start, end, handler in table if start <= offset < end), None)
        if target is None:
            return False
        if not _is_passed_by([each.opname for each in listing[position[target] :]]):
            return True
        offset = target


def _is_passed_by(names: list[str]) -> bool:
    if names[0] in _COMPILER_HANDLERS:
        return True
    for name in names[1:]:
        if name == "CHECK_EXC_MATCH":
            return True
        if not name.startswith(("LOAD_", "BUILD_TUPLE", "CACHE", "EXTENDED_ARG", "NOP")):
            return names[1] == "CALL_INTRINSIC_1"
    return False


def _exception_table(table: bytes) -> list[tuple[int, int, int]]:
    """Read (start, end, handler) byte offsets; the format is in CPython's Objects/exception_handling_notes.txt."""
    numbers: list[int] = []
    value = 0
    for byte in table:
        value = value << 6 | byte & 0x3F
        if not byte & 0x40:
            numbers.append(value)
            value = 0
    return [
        (2 * start, 2 * (start + size), 2 * handler)
        for start, size, handler in zip(numbers[0::4], numbers[1::4], numbers[2::4], strict=True)
    ]
