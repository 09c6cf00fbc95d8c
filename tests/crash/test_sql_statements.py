"""Every SQL statement of the writer fails once, before or after it took effect: nothing is half applied.

Beginning and committing are statements, too; so are those that open the file. A COMMIT that took effect and reports an
error is the one whose outcome nobody knows.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from crash_kit import CarefulClient, check_finished, make_crash_app, store_url, workload
from engine_kit import World, running
from store_check import rows_in_file

from holdfast import HostConfig, StorageError
from holdfast.storage.open_store import open_store

CODES = {"IOERR": sqlite3.SQLITE_IOERR, "FULL": sqlite3.SQLITE_FULL, "BUSY": sqlite3.SQLITE_BUSY}
FAILURES = [("IOERR", False), ("IOERR", True), ("FULL", False), ("FULL", True), ("BUSY", False)]
"""What has taken effect cannot be busy any more."""
CONFIG = HostConfig(drain_s=0.05, group_transitions_max=1)


class Failure:
    """Which statement fails, how, and whether before or after it took effect."""

    def __init__(self, number: int, error: str, *, after: bool) -> None:
        self.number = number
        self.error = error
        self.after = after
        self.statements = 0

    @property
    def is_due(self) -> bool:
        return self.statements == self.number

    def before_statement(self) -> None:
        self.statements += 1
        if self.is_due and not self.after:
            self._fail()

    def after_statement(self) -> None:
        if self.is_due and self.after:
            self._fail()

    def _fail(self) -> None:
        error = sqlite3.OperationalError(f"planted at statement {self.number}")
        error.sqlite_errorcode, error.sqlite_errorname = CODES[self.error], f"SQLITE_{self.error}"
        raise error


def failing_connect(failure: Failure) -> Callable[..., sqlite3.Connection]:
    """Return what stands for `sqlite3.connect`: connections that may create a file are writers, and fail."""

    class Writer(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            failure.before_statement()
            cursor = super().execute(sql, parameters)
            if failure.is_due:
                cursor.fetchall()  # one that was left in its middle would hold locks
            failure.after_statement()
            return cursor

        def executescript(self, script: str, /) -> sqlite3.Cursor:
            statement = ""
            for line in script.splitlines(keepends=True):
                statement += line
                if sqlite3.complete_statement(statement):
                    self.execute(statement)
                    statement = ""
            return self.cursor()

    real = sqlite3.connect

    def connect(path: Any, **options: Any) -> sqlite3.Connection:
        return real(path, **options, factory=Writer if "mode=rwc" in str(path) else sqlite3.Connection)

    return connect


async def work(path: Path, world: World) -> dict[str, object]:
    async with running(make_crash_app(world), open_store(store_url(path)), CONFIG) as run:
        return await workload(CarefulClient(run.client))


def fail(path: Path, failure: Failure, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run the workload with a failure; return whether the statement that was to fail was reached."""
    world = World()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", failing_connect(failure))
        try:
            results = asyncio.run(work(path, world))
        except StorageError:
            results = asyncio.run(work(path, world))  # the host did not come up
    check_finished(rows_in_file(path), world, results)
    return failure.statements >= failure.number


def fail_again_and_again(folder: Path, error: str, after: bool, stride: int, patch: pytest.MonkeyPatch) -> int:
    first = 1 + 3 * FAILURES.index((error, after)) % stride
    numbers = itertools.count(first, stride)
    reached = list(
        takewhile(lambda each: fail(folder / f"{each}.db", Failure(each, error, after=after), patch), numbers)
    )
    assert reached[-1] > 150, "the workload has become too small to test anything"
    return len(reached)


@pytest.mark.parametrize(("error", "after"), FAILURES)
def test_statements_fail(
    tmp_path: Path, error: str, after: bool, monkeypatch: pytest.MonkeyPatch, survived: Callable[[str, int], None]
) -> None:
    survived("SQL statements that failed", fail_again_and_again(tmp_path, error, after, 15, monkeypatch))


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("error", "after"), FAILURES)
def test_each_statement_fails(
    tmp_path: Path, error: str, after: bool, monkeypatch: pytest.MonkeyPatch, survived: Callable[[str, int], None]
) -> None:
    survived("SQL statements that failed", fail_again_and_again(tmp_path, error, after, 1, monkeypatch))
