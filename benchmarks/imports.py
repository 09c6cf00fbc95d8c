"""IMPORT: what a program waits for before its first line runs."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time

from benchmarks.results import Machine, Ratio, Result

_NOTHING = "pass"
_CONNECTED = """
import asyncio
from holdfast import connect

async def main():
    async with connect("http://127.0.0.1:7071"):
        pass

asyncio.run(main())
"""
_PROGRAMS = {
    "import holdfast": "import holdfast",
    "an app's imports": "from holdfast import App, Entity, EntityId, ExternalEvent, OrchestrationContext, when_all",
    "every public name": "from holdfast import *",
    "client only": "from holdfast import connect",
    "client only, blocking": "from holdfast import SyncClient",
    "client with a connection": _CONNECTED,
    "holdfast --help": "import sys; sys.argv = ['holdfast', '--help']; from holdfast.cli.main import main; main()",
    "pytest plugin": "import holdfast.testing.plugin",
}
_BEFORE = {"pytest plugin": "import pytest"}
"""What a program has imported anyway, and what is not counted."""


async def import_times(url: str, machine: Machine, *, quick: bool) -> list[Result]:
    """IMPORT: the time of a fresh interpreter that imports something, less that of one that does not."""
    return await asyncio.to_thread(_import_times, 3 if quick else 11)


def _import_times(repeats: int) -> list[Result]:
    programs = [_NOTHING, *_BEFORE.values(), *_PROGRAMS.values()]
    taken: dict[str, list[float]] = {program: [] for program in programs}
    with tempfile.TemporaryDirectory() as compiled:
        # What is installed is compiled; whether it is here depends on how this very program was started.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = compiled
        for program in programs:
            _run_s(program, environment)
        for _ in range(repeats):  # in turn, so that a busy moment of the machine hits all alike
            for program in programs:
                taken[program].append(_run_s(program, environment))
    nothing_s = statistics.median(taken[_NOTHING])
    results = [Result("IMPORT", "python -c pass", nothing_s * 1e3, "ms")]
    for label, program in _PROGRAMS.items():
        before_s = statistics.median(taken[_BEFORE.get(label, _NOTHING)])
        more_s = statistics.median(taken[program]) - before_s
        results.append(Result("IMPORT", label, more_s * 1e3, "ms", Ratio(more_s / nothing_s, "x python -c pass")))
    return results


def _run_s(program: str, environment: dict[str, str]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - begin
