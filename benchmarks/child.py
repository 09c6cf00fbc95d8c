"""Measuring in a fresh process, which has nothing in memory but what is measured."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T")


async def measured_in_child(module: str, *arguments: str, found: type[T]) -> T:
    """Run a module of this package; return what it has told with `tell`.

    Raises:
        RuntimeError: if it fails; what it says about that is on stderr.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parent.parent
    )
    try:
        told, _ = await process.communicate()
    finally:
        if process.returncode is None:  # the time is over
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"{module} ended with code {process.returncode}.")
    return msgspec.json.decode(told, type=found)


def tell(found: object) -> None:
    """Tell the process that has started this one what was found."""
    sys.stdout.buffer.write(msgspec.json.encode(found))


def resident_bytes() -> int:
    """Return the memory that this process has in use now, all of it (RSS)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
