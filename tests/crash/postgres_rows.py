"""What lies in a task hub on PostgreSQL, read past Holdfast, and what must hold of it while nobody runs on it."""

from __future__ import annotations

import asyncio
from typing import Any

from doctor_rows import findings
from store_check import Rows, complaints

from holdfast.storage.port import (
    ActivityRow,
    ChildRow,
    HistoryRow,
    InboxRow,
    InstanceRow,
    OperationKeyRow,
    TimerRow,
)
from postgres_kit import connect, execute


def rows_in_postgres(url: str) -> Rows:
    """Read everything. A schema in which no host has come up yet holds nothing."""
    return asyncio.run(_read(url))


async def _read(url: str) -> Rows:
    connection = await connect(url)
    try:
        is_there = await connection.fetchval("SELECT to_regclass('node') IS NOT NULL")

        async def read(kind: Any, table: str) -> list[Any]:
            columns = ", ".join(kind.__struct_fields__)
            return [kind(**row) for row in await connection.fetch(f"SELECT {columns} FROM {table}")] if is_there else []

        async with connection.transaction(isolation="repeatable_read"):
            return Rows(
                lsn=(await connection.fetchval("SELECT max(lsn) FROM node") or 0) if is_there else 0,
                instances=await read(InstanceRow, "instance"),
                history=await read(HistoryRow, "history"),
                messages=await read(InboxRow, "inbox"),
                activities=await read(ActivityRow, "activity"),
                timers=await read(TimerRow, "timer"),
                children=await read(ChildRow, "child"),
                operation_keys=await read(OperationKeyRow, "operation_key"),
                partition_count=await connection.fetchval("SELECT partition_count FROM hub") if is_there else 1,
            )
    finally:
        await connection.close()


def mail_in_postgres(url: str) -> tuple[list[str], list[str]]:
    """Return what hosts have sent each other and nobody took in: messages, and requests."""
    return asyncio.run(_read_mail(url))


def what_is_left(url: str) -> str:
    """Write down all that says why something may not have ended."""
    return asyncio.run(_read_left(url))


async def _read_left(url: str) -> str:
    connection = await connect(url)
    tables = ("node", "partition", "activity", "timer", "child", "inbox", "arrival", "request", "offer")
    try:
        found = [(table, await connection.fetch(f"SELECT * FROM {table}")) for table in tables]
        going_on = "SELECT * FROM instance WHERE status IN ('Pending', 'Running', 'Suspended')"
        found.append(("instance", await connection.fetch(f"{going_on} AND instance_id NOT LIKE '@%'")))
    finally:
        await connection.close()
    return "\n".join(f"{table} {dict(row)}" for table, rows in found for row in rows)


async def _read_mail(url: str) -> tuple[list[str], list[str]]:
    connection = await connect(url)
    try:
        arrivals, requests = [
            [str(dict(row)) for row in await connection.fetch(f"SELECT * FROM {table}")]
            for table in ("arrival", "request")
        ]
    finally:
        await connection.close()
    return arrivals, requests


def check_cold_postgres(url: str) -> None:
    """Check what those that were killed left behind."""
    rows = rows_in_postgres(url)
    assert complaints(rows, ("race", "doomed")) == []
    assert findings(rows) == []


def end_lease(url: str) -> None:
    """Spare the next host the wait for one that is certainly dead."""
    asyncio.run(execute(url, "UPDATE node SET lease_until = '-infinity'"))
