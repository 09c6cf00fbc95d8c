"""`holdfast demo`: a host is killed in the middle of an orchestration, and nothing that was done is done again."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import typer

from holdfast.cli.errors import NOT_WELL, CommandError, leaving
from holdfast.cli.output import print_table
from holdfast.client.client import Client
from holdfast.client.connection import connect
from holdfast.model.history import TaskCompleted

T = TypeVar("T")

_PATIENCE_S: Final = 60
_LOOKS_S: Final = 0.05
_ID: Final = "demo-order"

STEPS: Final = ("reserve", "charge", "pack", "label", "ship")
"""The activities of the order, by their subjects."""


def demo() -> None:
    """Run an orchestration on a host that is killed on the way, and see it finish on another one."""
    with leaving(), tempfile.TemporaryDirectory(prefix="holdfast-demo-", ignore_cleanup_errors=True) as folder:
        asyncio.run(_demo(Path(folder)))


async def _demo(folder: Path) -> None:
    log = folder / "work.log"
    store = f"sqlite:///{(folder / 'demo.db').as_posix()}"
    typer.echo(f"An orchestration of {len(STEPS)} activities, each of which writes its name into a file.\n")
    async with _Host(store) as first:
        typer.echo(f"A host runs as process {first.pid}. Starting the orchestration {_ID}.")
        recorded = await first.ask(lambda client: _start_and_watch(client, log))
        await first.kill()
        typer.echo(f"Killed it, without a goodbye: {recorded} of {len(STEPS)} results are recorded.")
    async with _Host(store) as second:
        typer.echo(f"Another host runs on the same file, as process {second.pid}. Nobody tells it what to do.")
        result = await second.ask(_approve_and_wait)
        await second.stop()
    _show(log, recorded, result)


async def _start_and_watch(client: Client, log: Path) -> int:
    await client.start_new("order", str(log), instance_id=_ID)
    while True:
        recorded = sum(isinstance(each, TaskCompleted) for each in await client.get_history(_ID))
        if recorded >= len(STEPS) // 2:
            return recorded
        await asyncio.sleep(_LOOKS_S)


async def _approve_and_wait(client: Client) -> object:
    await client.raise_event(_ID, "Approval", "granted")
    return await client.wait_for_completion(_ID)


def _show(log: Path, recorded: int, result: object) -> None:
    attempts = [line.split() for line in log.read_text(encoding="utf-8").splitlines()]
    ran = {step: [pid for name, pid in attempts if name == step] for step in STEPS}
    typer.echo("It has finished.\n")
    print_table(("ACTIVITY", "FINISHED IN PROCESS"), [(step, ", ".join(pids)) for step, pids in ran.items()])
    typer.echo(f"\nResult: {result}")
    if any(len(ran[step]) != 1 for step in STEPS[:recorded]) or any(not pids for pids in ran.values()):
        raise CommandError("This should not be: a recorded activity ran again, or one did not run.", NOT_WELL)
    typer.echo(f"The {recorded} recorded activities ran once; the host that came up went on behind them.")


class _Host:
    """`holdfast run` as a process, with a free port."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._url = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, work: Callable[[Client], Awaitable[T]]) -> T:
        async with asyncio.timeout(_PATIENCE_S), connect(self._url) as client:
            return await work(client)

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        self._process.terminate()
        await self._process.wait()

    async def __aenter__(self) -> _Host:
        environment = {name: text for name, text in os.environ.items() if not name.startswith("HOLDFAST_")}
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "holdfast", "run", "holdfast.cli.demo_app", "--store", self._store, "--port", "0"),
            env=environment | {"PYTHONUNBUFFERED": "1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_PATIENCE_S):
                self._url = await self._listening()
        except BaseException:
            await self.kill()
            raise
        return self

    async def _listening(self) -> str:
        assert self._process.stdout is not None
        while line := (await self._process.stdout.readline()).decode(errors="replace"):
            if found := re.search(r"http://\S+:\d+", line):
                return found[0]
        raise CommandError("The host did not come up; `holdfast run holdfast.cli.demo_app` says why.")

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            await self.kill()
