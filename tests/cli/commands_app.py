"""An app whose instances stand in every way that commands tell apart, and the commands on a host in this process.

Each command starts a host of its own on one file and stops it afterwards: what it does must be in the file.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from holdfast import App, Client, Entity, EntityId, OrchestrationContext
from holdfast.cli import connection
from holdfast.cli.main import commands

app = App()


@app.activity
def double(number: int) -> int:
    return 2 * number


@app.activity
def explode(message: str) -> None:
    raise ValueError(message)


@app.orchestrator
async def flow(ctx: OrchestrationContext, number: int) -> int:
    return await ctx.call_activity(double, number)


@app.orchestrator
async def failing(ctx: OrchestrationContext, message: str) -> None:
    await ctx.call_activity(explode, message)


@app.orchestrator
async def waiting(ctx: OrchestrationContext) -> Any:
    ctx.set_custom_status({"step": 1})
    return await ctx.wait_for_external_event("Go")


@app.orchestrator
async def sleeping(ctx: OrchestrationContext) -> None:
    await ctx.create_timer(timedelta(days=1))


@app.orchestrator
async def parent(ctx: OrchestrationContext) -> Any:
    return await ctx.call_sub_orchestrator(waiting, instance_id="child")


@app.orchestrator
async def talking(ctx: OrchestrationContext) -> int:
    total = 0

    async def add(number: int) -> int:
        nonlocal total
        if number < 0:
            raise ValueError("It only grows.")
        total += number
        return total

    ctx.set_query_handler("total", lambda: total)
    ctx.set_update_handler("add", add)
    await ctx.wait_for_external_event("End")
    return total


@app.orchestrator
async def locking(ctx: OrchestrationContext) -> None:
    async with ctx.lock(EntityId("Counter", "a")):
        await ctx.wait_for_external_event("Go")


@app.entity
@dataclass
class Counter(Entity):
    value: int = 0

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def fail(self) -> None:
        raise ValueError("no")


class Cli:
    """Runs commands."""

    def __init__(self, store: str) -> None:
        self.store = store

    def __call__(self, *arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(commands, arguments, input=input, env={"COLUMNS": "200", "TZ": "UTC"})

    def ok(self, *arguments: str, input: str | None = None) -> str:
        """Return the output of a command that must succeed."""
        done = self(*arguments, input=input)
        assert done.exit_code == 0, done.output
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Return the document that a command prints."""
        return json.loads(self.ok(*arguments, "--json"))

    def lines(self, *arguments: str) -> list[Any]:
        """Return the documents that a command prints, one per line."""
        return [json.loads(line) for line in self.ok(*arguments, "--json").splitlines()]

    def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            pass


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.chdir(tmp_path)
    return make_cli(tmp_path / "hub.db", monkeypatch)


def make_cli(path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Let commands have a host of the app on a file, for as long as the patch holds."""
    store = f"sqlite:///{path}"

    @asynccontextmanager
    async def client_of(_: object) -> AsyncGenerator[Client, None]:
        async with app.host(store) as host:
            yield host.client

    monkeypatch.setattr(connection, "client_of", client_of)
    return Cli(store)
