"""The event loop of all workloads: uvloop where there is one, as a program that uses the library would have it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

try:
    import uvloop
except ImportError:  # Windows
    uvloop = None

T = TypeVar("T")

LOOP_NAME = "asyncio" if uvloop is None else f"uvloop {uvloop.__version__}"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=None if uvloop is None else uvloop.new_event_loop) as runner:
        return runner.run(coroutine)
