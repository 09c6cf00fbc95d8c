"""Transactions of activities: on connections of their own, which end with the report of the attempt, in one commit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import zlib
from collections.abc import Awaitable, Callable
from typing import Final

from holdfast.errors import StorageError
from holdfast.model.work_items import ActivityWorkItem
from holdfast.storage.port import ArrivalRow
from holdfast.storage.postgres.connections import Connection, Connections
from holdfast.storage.postgres.failures import FAILURES
from holdfast.storage.postgres.location import Location

logger = logging.getLogger("holdfast.storage")

_CONNECTIONS_MAX: Final = 10
_ASK_AGAIN_S: Final = 1.0
_UNDO_S: Final = 5.0

# In the transaction of a user, whose search path may be any.
_COMPLETE: Final = 'SELECT * FROM "{schema}".complete_activity($1, $2, $3, $4, $5, $6)'


class PostgresTransactions:
    """At most so many at a time; the others wait."""

    def __init__(self, location: Location, connections: Connections) -> None:
        self._connections = connections
        self._complete = _COMPLETE.format(schema=location.schema)
        self._places = asyncio.Semaphore(_CONNECTIONS_MAX)
        self._idle: list[Connection] = []
        self._is_closed = False

    async def run(
        self, attempt: Callable[[], ActivityWorkItem], work: Callable[[object], Awaitable[str]]
    ) -> ArrivalRow | None:
        async with self._places:
            connection = await self._open()
            try:
                return await self._run(connection, attempt, work)
            except Exception:
                await _undo(connection)
                raise
            finally:
                if connection.is_closed() or connection.is_in_transaction() or self._is_closed:
                    connection.terminate()  # the server undoes what it was in
                else:
                    self._idle.append(connection)

    async def _run(
        self, connection: Connection, attempt: Callable[[], ActivityWorkItem], work: Callable[[object], Awaitable[str]]
    ) -> ArrivalRow | None:
        report = await work(connection)
        if not connection.is_in_transaction():
            raise StorageError(
                f"Activity {attempt().name!r} has ended the transaction that it runs in. That is not for it to do: it "
                "ends when the function returns, or raises."
            )
        while True:
            current = attempt()
            found = await self._completed(connection, current, report)
            if found is not None or attempt() is current:
                break  # else it goes on as that of another activity, since the orchestration continued as new
        if found is None or not found[0]:
            await connection.execute("ROLLBACK")
            return None if found is None else found[1]
        if not await _commit(connection):
            return await self._find_out(current, report)
        return found[1]

    async def _completed(
        self, connection: Connection, attempt: ActivityWorkItem, report: str
    ) -> tuple[bool, ArrivalRow] | None:
        """Store the report of an attempt, or find that of an earlier one; return whether it is a new one."""
        crc = zlib.crc32(attempt.instance_id.encode())
        rows = await connection.fetch(
            self._complete, crc, attempt.instance_id, attempt.execution_id, attempt.sequence, attempt.attempt, report
        )
        return (rows[0][0], ArrivalRow(*rows[0][1:])) if rows else None

    async def _find_out(self, attempt: ActivityWorkItem, report: str) -> ArrivalRow | None:
        """Return the report of an attempt whose commit was not answered, if it was committed.

        Raises:
            StorageError: if it was not.
        """
        while True:
            try:
                connection = await self._open()
            except StorageError as error:
                logger.warning("It is not known yet whether activity %r was committed: %s", attempt.name, error)
                await asyncio.sleep(_ASK_AGAIN_S)
                continue
            try:  # it waits for the end of the transaction in doubt, if that goes on
                found = await self._completed(connection, attempt, report)
            except FAILURES as error:
                logger.warning("It is not known yet whether activity %r was committed: %s", attempt.name, error)
                await asyncio.sleep(_ASK_AGAIN_S)
                continue
            finally:
                connection.terminate()
            if found is not None and found[0]:
                raise StorageError(f"The transaction of activity {attempt.name!r} was lost; nothing was committed.")
            return None if found is None else found[1]

    async def _open(self) -> Connection:
        """Return a connection in a new transaction, one that was kept or a new one."""
        begin = (
            "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; "
            "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
        )
        while self._idle:
            connection = self._idle.pop()
            with contextlib.suppress(*FAILURES):
                await connection.execute(begin)
                return connection
            connection.terminate()
        connection = await self._connections.connect()
        try:
            await connection.execute(begin)
        except BaseException as error:
            connection.terminate()
            if isinstance(error, FAILURES):
                raise StorageError(self._connections.explain(error)) from error
            raise
        return connection

    async def close(self) -> None:
        """Close what is idle; what is in use is closed when it is done."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.terminate()


async def _undo(connection: Connection) -> None:
    with contextlib.suppress(*FAILURES):
        async with asyncio.timeout(_UNDO_S):
            await connection.execute("ROLLBACK")


async def _commit(connection: Connection) -> bool:
    """Commit, whoever cancels meanwhile: what is on its way cannot be taken back. Return False if nobody knows.

    Raises:
        StorageError: if the transaction was undone.
    """
    committing = asyncio.ensure_future(connection.execute("COMMIT"))
    while not committing.done():
        with contextlib.suppress(asyncio.CancelledError, *FAILURES):
            await asyncio.shield(committing)
    error = committing.exception()
    if error is None:
        if committing.result() == "COMMIT":
            return True
        raise StorageError("The transaction of an activity was undone: a statement in it had failed.")
    connection.terminate()
    if not isinstance(error, FAILURES):
        raise error
    return False
