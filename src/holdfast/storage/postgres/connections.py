"""Connections to one schema: their settings, and their transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, TypeVar

import asyncpg

from holdfast.errors import CommitFailedError, StorageError
from holdfast.storage.postgres.failures import FAILURES, explain, is_gone, is_refusal, is_rollback
from holdfast.storage.postgres.location import Location

_T = TypeVar("_T")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_READERS_MAX: Final = 4
_CONNECT_S: Final = 10.0
_STATEMENTS_PREPARED_MAX: Final = 100
_STATEMENT_S: Final = 60.0
DRIVER_S: Final = 5.0
"""So much longer waits the driver, so that it is the server that says what happened."""
_UNDO_S: Final = 5.0
"""For a ROLLBACK, and for stopping the statement before it; a server that does not answer may not even be there."""
_BY_KEYS: Final = "; ".join(
    f"SET LOCAL {setting}"
    for setting in (
        "enable_seqscan = off",
        "enable_hashjoin = off",
        "enable_mergejoin = off",
        "plan_cache_mode = force_generic_plan",
    )
)
"""As in the function `apply_group`, which says why."""


class Connections:
    """One connection that writes, and a few that read. They are opened when they are needed, and again after a failure.

    Each transaction says for itself in which schema it works: a pooler may give it any connection.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._writer: Connection | None = None
        self._writing = asyncio.Lock()
        self._readers: list[Connection] = []
        self._reading = asyncio.Semaphore(_READERS_MAX)
        self._undoing: set[asyncio.Task[None]] = set()
        self._is_closed = False
        settings = (
            f"SET LOCAL search_path = {location.search_path}; "
            f"SET LOCAL statement_timeout = {round(_STATEMENT_S * 1000)}; "
            "SET LOCAL idle_in_transaction_session_timeout ="
        )
        # A host that stops within a transaction must not hold the lock of its row for longer than its lease.
        silence_ms, durable = round(location.lease_s * 1000), _durable("true")
        self._begin_writing = f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {settings} {silence_ms}; {durable}"
        # What a call that is a transaction by itself cannot set, and where its tables are.
        self._session = (
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;"
            f" SET search_path = {location.search_path}; SET statement_timeout = {round(_STATEMENT_S * 1000)};"
            f" {_durable('false')}"
        )
        self._begin_reading = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {settings} {_STATEMENT_S:.0f}000"
        self._begin_looking_up = f"{self._begin_reading}; {_BY_KEYS}"

    async def write(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Run `work` in one transaction, and keep apart what certainly was not applied from what may have been.

        Raises:
            CommitFailedError: when it failed.
            StorageError: what `work` raises; nothing is applied then.
        """
        async with self._writing:
            self._check_open()
            try:
                connection = await self._begin_to_write()
            except StorageError as error:
                raise CommitFailedError(f"Nothing was committed to {error}") from error
            try:
                result = await work(connection)
            except FAILURES as error:
                await self._abandon(connection)
                raise CommitFailedError(f"Nothing was committed to {self.explain(error)}") from error
            except BaseException:
                await self._abandon(connection)
                raise
            await self._commit(connection)
            return result

    async def commit(self, call: str, *parameters: object, is_repeatable: bool = False) -> list[asyncpg.Record]:
        """Run a statement that is a whole transaction: in one round trip, or in a transaction if a pooler needs that.

        A connection that is known to be broken is opened again first. If it breaks later than that, the call may have
        been applied, and is not made again.

        Args:
            is_repeatable: twice is as good as once; then it is made again, once, over another connection.

        Raises:
            CommitFailedError: when it failed, from what the server said.
        """
        if self._location.is_pooled:
            return await self.write(lambda connection: connection.fetch(call, *parameters))
        try:
            return await self._call(call, *parameters)
        except CommitFailedError as error:
            if not (is_repeatable and is_gone(error.__cause__)):
                raise
        return await self._call(call, *parameters)

    async def _call(self, call: str, *parameters: object) -> list[asyncpg.Record]:
        async with self._writing:
            self._check_open()
            try:
                connection = await self._open_to_call()
            except StorageError as error:
                raise CommitFailedError(f"Nothing was committed to {error}") from error
            try:
                return await connection.fetch(call, *parameters)
            except FAILURES as error:
                await self._abandon(connection)
                raise _failed(self.explain(error), is_refusal(error)) from error
            except BaseException:
                await self._abandon(connection)
                raise

    def _check_open(self) -> None:
        if self._is_closed:  # a connection that is opened now would never be closed
            raise CommitFailedError(f"Nothing was committed to {self._location.text}: the host has closed it.")

    async def _commit(self, connection: Connection) -> None:
        try:
            said = await connection.execute("COMMIT")
        except BaseException as error:
            self._discard(connection)
            if not isinstance(error, FAILURES):
                raise
            raise _failed(self.explain(error), is_rollback(error)) from error
        if said != "COMMIT":
            raise CommitFailedError(f"Nothing was committed to {self._location.text}: the server said {said}.")

    async def read(self, work: Callable[[Connection], Awaitable[_T]], *, by_keys: bool = False) -> _T:
        """Run `work` on one snapshot of what is committed.

        Args:
            by_keys: rows are looked up by their keys, however few there are in the tables so far.

        Raises:
            StorageError: when it failed.
        """

        async def to_the_end(connection: Connection) -> _T:
            result = await work(connection)
            await connection.execute("COMMIT")
            return result

        begin = self._begin_looking_up if by_keys else self._begin_reading
        return await self._read(lambda: self._begin_to_read(begin), to_the_end)

    async def ask(self, query: str, *parameters: object) -> list[asyncpg.Record]:
        """Run one statement that reads: in one round trip, or in a transaction if a pooler needs that.

        A connection that turns out to be broken is opened again, as in a transaction.

        Raises:
            StorageError: when it failed.
        """
        if self._location.is_pooled:
            return await self.read(lambda connection: connection.fetch(query, *parameters))

        def fetch(connection: Connection) -> Awaitable[list[asyncpg.Record]]:
            return connection.fetch(query, *parameters)

        try:
            return await self._read(self._open_to_ask, fetch)
        except StorageError as error:
            if not is_gone(error.__cause__):
                raise
        return await self._read(self._open_reader, fetch)

    async def _read(
        self, begin: Callable[[], Awaitable[Connection]], work: Callable[[Connection], Awaitable[_T]]
    ) -> _T:
        await self._reading.acquire()
        try:
            connection = await begin()
        except BaseException:
            self._reading.release()
            raise
        try:
            result = await work(connection)
        except BaseException as error:
            self._undo_later(connection)
            if isinstance(error, FAILURES):
                raise StorageError(self.explain(error)) from error
            raise
        try:
            await self._keep_reader(connection)
        finally:
            self._reading.release()
        return result

    def _undo_later(self, connection: Connection) -> None:
        """End a read that failed or was given up, beside whoever gave it up; it keeps its place until it is over.

        The driver asks the server to stop the statement when its caller is cancelled, over another connection. To
        terminate the connection would take that back, and the statement would run on for nobody.
        """

        async def undo() -> None:
            try:
                if await _rolled_back(connection):
                    await self._keep_reader(connection)
            finally:
                self._reading.release()

        job = asyncio.get_running_loop().create_task(undo())
        self._undoing.add(job)
        job.add_done_callback(self._undoing.discard)

    async def _keep_reader(self, connection: Connection) -> None:
        if self._is_closed:
            await close(connection)
        else:
            self._readers.append(connection)

    async def close(self) -> None:
        """Close all that is open; what is in use is closed when it is done."""
        self._is_closed = True
        async with self._writing:
            writer, self._writer = self._writer, None
        readers, self._readers = self._readers, []
        for connection in (*readers, *([writer] if writer is not None else [])):
            await close(connection)
        await asyncio.gather(*self._undoing, return_exceptions=True)

    async def _begin_to_write(self) -> Connection:
        kept, self._writer = self._writer, None
        self._writer = await self._begin(self._begin_writing, kept, self._open_writer)
        return self._writer

    async def _begin_to_read(self, begin: str) -> Connection:
        kept = self._readers.pop() if self._readers else None
        return await self._begin(begin, kept, self._open_reader)

    async def _open_to_ask(self) -> Connection:
        while self._readers:
            kept = self._readers.pop()
            if not kept.is_closed():
                return kept
        return await self._open_reader()

    async def _open_to_call(self) -> Connection:
        if self._writer is None or self._writer.is_closed():
            self._writer = await self._open_writer()
        return self._writer

    async def _open_writer(self) -> Connection:
        return await self._open(self._session)

    async def _open_reader(self) -> Connection:
        return await self._open(self._session.replace("READ WRITE", "READ ONLY"))

    async def _open(self, session: str) -> Connection:
        connection = await self.connect()
        if not self._location.is_pooled:
            await self._prepare(connection, session)
        return connection

    async def _begin(
        self, begin: str, kept: Connection | None, open_anew: Callable[[], Awaitable[Connection]]
    ) -> Connection:
        """Begin a transaction on a connection that was kept, or on a new one.

        A connection is known to be broken when it is used, after the server was started again or failed over.
        Nothing was done in it yet, so that another one can take its place.

        Raises:
            StorageError: if there is none to be had.
        """
        if kept is not None and not kept.is_closed():
            try:
                await kept.execute(begin)
            except FAILURES as error:
                is_broken = kept.is_closed() or is_gone(error)
                kept.terminate()
                if not is_broken:
                    raise StorageError(self.explain(error)) from error
            except BaseException:
                kept.terminate()
                raise
            else:
                return kept
        connection = await open_anew()
        await self._prepare(connection, begin)
        return connection

    async def _prepare(self, connection: Connection, script: str) -> None:
        """Run what comes first on a new connection."""
        try:
            await connection.execute(script)
        except BaseException as error:
            connection.terminate()
            if isinstance(error, FAILURES):
                raise StorageError(self.explain(error)) from error
            raise

    async def connect(self) -> Connection:
        """Return a new connection, for whoever asks to close.

        Raises:
            StorageError: if there is none to be had.
        """
        return await connect(self._location, _STATEMENT_S + DRIVER_S)

    async def _abandon(self, connection: Connection) -> None:
        """Undo a transaction; a connection that cannot do even that is given up, which undoes it as well."""
        if not await _rolled_back(connection):
            self._writer = None

    def _discard(self, connection: Connection) -> None:
        connection.terminate()
        self._writer = None

    def explain(self, error: BaseException) -> str:
        """Say what happened to which database, and what to do."""
        return explain(error, self._location)


def _failed(what: str, is_certain: bool) -> CommitFailedError:
    if is_certain:
        return CommitFailedError(f"Nothing was committed to {what}")
    return CommitFailedError(f"It is not known whether the commit was applied to {what}", outcome_unknown=True)


def _durable(is_local: str) -> str:
    """An installation that relaxes durability for its other users must not do so for this one."""
    setting = "synchronous_commit"
    return f"SELECT set_config('{setting}', 'on', {is_local}) WHERE current_setting('{setting}') = 'off'"


async def _rolled_back(connection: Connection) -> bool:
    """Undo a transaction; return whether the connection can be used again. It is terminated if it cannot."""
    try:
        async with asyncio.timeout(_UNDO_S):
            await connection.execute("ROLLBACK")
    except FAILURES:
        connection.terminate()
    except BaseException:
        connection.terminate()
        raise
    return not connection.is_closed()


async def connect(location: Location, command_s: float | None) -> Connection:
    """Open a connection, on which a command may take so long.

    Raises:
        StorageError: if it cannot be opened.
    """
    try:
        return await asyncpg.connect(
            location.dsn,
            timeout=_CONNECT_S,
            command_timeout=command_s,
            statement_cache_size=0 if location.is_pooled else _STATEMENTS_PREPARED_MAX,
        )
    except (*FAILURES, ValueError) as error:
        raise StorageError(explain(error, location)) from error


async def close(connection: Connection) -> None:
    """Close a connection, also one that does not answer any more."""
    try:
        await connection.close(timeout=_CONNECT_S)
    except FAILURES:
        connection.terminate()
