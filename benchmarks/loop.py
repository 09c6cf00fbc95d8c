"""How all workloads run: as in a process of `holdfast run`, which is what a user gets without doing anything."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from holdfast.engine.tuning import tune_process

try:
    import uvloop
except ImportError:  # Windows
    uvloop = None

T = TypeVar("T")

LOOP_NAME = "asyncio" if uvloop is None else f"uvloop {uvloop.__version__}"


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a new event loop: uvloop where there is one."""
    tune_process()
    with asyncio.Runner(loop_factory=None if uvloop is None else uvloop.new_event_loop) as runner:
        return runner.run(coroutine)
