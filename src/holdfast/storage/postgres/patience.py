"""Statements that may take very long: changes of whole tables, and removals of very long histories."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from holdfast.storage.postgres.connections import DRIVER_S, Connection

_LONG_S: Final = 3600.0


async def execute_patiently(connection: Connection, statement: str, *parameters: object) -> None:
    """Run a statement, or a script without parameters, that may take up to an hour, in the open transaction."""
    async with _unhurried(connection):
        await connection.execute(statement, *parameters, timeout=_LONG_S + DRIVER_S)


@asynccontextmanager
async def _unhurried(connection: Connection) -> AsyncGenerator[None]:
    """Lift the limit of statements for a while. After one that failed no other can follow, nor need it."""
    before = await connection.fetchval("SELECT current_setting('statement_timeout')")
    await connection.execute(f"SET LOCAL statement_timeout = {_LONG_S:.0f}000")
    yield
    await connection.execute("SELECT set_config('statement_timeout', $1, true)", before)
