"""Connections to one schema: their settings, their transactions, and what their errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, TypeVar

import asyncpg

from holdfast.errors import CommitFailedError, StorageError
from holdfast.storage.postgres.location import Location

_T = TypeVar("_T")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_READERS_MAX: Final = 4
_CONNECT_S: Final = 10.0
_STATEMENTS_PREPARED_MAX: Final = 100
_STATEMENT_S: Final = 60.0
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
_ROLLED_BACK: Final = ("23", "40001", "40002", "40P01")
"""Errors at a COMMIT after which nothing was applied: integrity and serialization. 40003 says that it is not known."""
_REFUSED: Final = (*_ROLLED_BACK, "22", "25006", "42", "53", "55", "57014", "HF", "P0")
"""The same for a call: data, rights, a lack of something, a limit of time, and what the function itself raises."""

FAILURES: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""What the driver raises."""


class Connections:
    """One connection that writes, and a few that read. They are opened when they are needed, and again after a failure.

    Each transaction says for itself in which schema it works, so that it does not matter which connection of a pooler
    such as PgBouncer it gets.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._writer: Connection | None = None
        self._writing = asyncio.Lock()
        self._readers: list[Connection] = []
        self._reading = asyncio.Semaphore(_READERS_MAX)
        self._is_closed = False
        settings = (
            f"SET LOCAL search_path = {location.search_path}; SET LOCAL statement_timeout = {_STATEMENT_S:.0f}000"
            "; SET LOCAL idle_in_transaction_session_timeout ="
        )
        # An installation that relaxes durability for its other users must not do so for this one.
        durable = (
            "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'"
        )
        # A host that stops in the middle of a transaction, with its network or its power perhaps, holds the lock of the
        # owner's row. The server must not keep it for longer than the lease, or nobody could take over.
        silence_ms = round(location.lease_s * 1000)
        self._begin_writing = f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {settings} {silence_ms}; {durable}"
        # What a call that is a transaction by itself cannot set, and where its tables are, so that it need not.
        self._session = (
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;"
            f" SET search_path = {location.search_path}; SET statement_timeout = {_STATEMENT_S:.0f}000"
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
            try:
                connection = await self._open_writer()
            except StorageError as error:
                raise CommitFailedError(f"Nothing was committed to {error}") from error
            try:
                await connection.execute(self._begin_writing)
                result = await work(connection)
            except FAILURES as error:
                await self._abandon(connection)
                raise CommitFailedError(f"Nothing was committed to {self.explain(error)}") from error
            except BaseException:
                await self._abandon(connection)
                raise
            await self._commit(connection)
            return result

    async def commit(self, call: str, *parameters: object) -> None:
        """Make a call that is a whole transaction: in one round trip, or within a transaction if a pooler needs that.

        Raises:
            CommitFailedError: when it failed, from what the server said.
        """
        if self._location.is_pooled:
            await self.write(lambda connection: connection.execute(call, *parameters))
            return
        async with self._writing:
            try:
                connection = await self._open_writer()
            except StorageError as error:
                raise CommitFailedError(f"Nothing was committed to {error}") from error
            try:
                await connection.execute(call, *parameters)
            except FAILURES as error:
                await self._abandon(connection)
                raise self._failed(error, _is_refusal(error)) from error
            except BaseException:
                await self._abandon(connection)
                raise

    async def _commit(self, connection: Connection) -> None:
        try:
            said = await connection.execute("COMMIT")
        except BaseException as error:
            self._discard(connection)
            if not isinstance(error, FAILURES):
                raise
            certain = isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith(_ROLLED_BACK)
            raise self._failed(error, certain) from error
        if said != "COMMIT":
            raise CommitFailedError(f"Nothing was committed to {self._location.text}: the server said {said}.")

    def _failed(self, error: BaseException, is_certain: bool) -> CommitFailedError:
        if is_certain:
            return CommitFailedError(f"Nothing was committed to {self.explain(error)}")
        return CommitFailedError(
            f"It is not known whether the commit was applied to {self.explain(error)}", outcome_unknown=True
        )

    async def read(self, work: Callable[[Connection], Awaitable[_T]], *, by_keys: bool = False) -> _T:
        """Run `work` on one snapshot of what is committed.

        Args:
            by_keys: rows are looked up by their keys, however few there are in the tables so far.

        Raises:
            StorageError: when it failed.
        """
        async with self._reading:
            connection = await self._open_reader()
            try:
                await connection.execute(self._begin_looking_up if by_keys else self._begin_reading)
                result = await work(connection)
                await connection.execute("COMMIT")
            except BaseException as error:
                connection.terminate()
                if isinstance(error, FAILURES):
                    raise StorageError(self.explain(error)) from error
                raise
            if self._is_closed:
                await _close(connection)
            else:
                self._readers.append(connection)
            return result

    async def close(self) -> None:
        """Close all that is open; what is in use is closed when it is done."""
        self._is_closed = True
        async with self._writing:
            writer, self._writer = self._writer, None
        readers, self._readers = self._readers, []
        for connection in (*readers, *([writer] if writer is not None else [])):
            await _close(connection)

    async def _open_writer(self) -> Connection:
        if self._writer is None or self._writer.is_closed():
            writer = await self._connect()
            if not self._location.is_pooled:
                try:
                    await writer.execute(self._session)
                except BaseException as error:
                    writer.terminate()
                    if isinstance(error, FAILURES):
                        raise StorageError(self.explain(error)) from error
                    raise
            self._writer = writer
        return self._writer

    async def _open_reader(self) -> Connection:
        while self._readers:
            connection = self._readers.pop()
            if not connection.is_closed():  # as all of them are after the server was started again
                return connection
        return await self._connect()

    async def _connect(self) -> Connection:
        try:
            return await asyncpg.connect(
                self._location.dsn,
                timeout=_CONNECT_S,
                command_timeout=_STATEMENT_S + 5,
                statement_cache_size=0 if self._location.is_pooled else _STATEMENTS_PREPARED_MAX,
            )
        except (*FAILURES, ValueError) as error:
            raise StorageError(self.explain(error)) from error

    async def _abandon(self, connection: Connection) -> None:
        """Undo a transaction; a connection that cannot do even that is given up, which undoes it as well."""
        try:
            await connection.execute("ROLLBACK")
        except BaseException as error:
            self._discard(connection)
            if not isinstance(error, FAILURES):
                raise

    def _discard(self, connection: Connection) -> None:
        connection.terminate()
        self._writer = None

    def explain(self, error: BaseException) -> str:
        """Say what happened to which database, and what to do."""
        state = getattr(error, "sqlstate", None) or ""
        advice = next((text for prefix, text in _ADVICE.items() if state.startswith(prefix)), "")
        if not state and isinstance(error, OSError | TimeoutError):
            advice = "Is the server running, and may this host reach it?"
        kind = f"{type(error).__name__} {state}".strip()
        return f"{self._location.text}: {error} ({kind}). {advice}".rstrip()


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=_CONNECT_S)
    except FAILURES:
        connection.terminate()


def _is_refusal(error: BaseException) -> bool:
    """Whether a call that is a transaction by itself has certainly changed nothing: refused, or not even sent."""
    if isinstance(error, asyncpg.PostgresError):
        return (error.sqlstate or "").startswith(_REFUSED)
    return isinstance(error, asyncpg.InterfaceError)


_ADVICE: Final = {
    "28": "Check the user and the password of the URL.",
    "3D": "Create the database first; Holdfast creates its schema in it.",
    "42501": "The user must be allowed to create a schema in the database, or own the one that is there.",
    "53": "The server is out of connections, memory or disk; nothing that was acknowledged is lost.",
    "57P": "The server is being shut down or started; the host tries again.",
    "25006": "The server takes no writes; name the primary, not a standby.",
}
