"""The connections of users: how each kind is told from the others, and runs one statement in its open transaction.

None of the drivers is imported: whoever has a connection has its driver loaded. A connection that would commit the
statement at once is refused, since that is what nobody wants who comes here.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final, Protocol, TypeAlias, cast

from holdfast.errors import ConfigurationError, InvalidInputError
from holdfast.outbox.messages import Outgoing
from holdfast.outbox.statements import NAMES, Statements, Values, values_of

_MISSING: Final = ("42P01", "3F000")
_IDLE: Final = 0
_LEGACY: Final = -1
"""What `autocommit` of a connection of sqlite3 says if it is `isolation_level` that counts."""


class _Rows(Protocol):
    @property
    def rowcount(self) -> int: ...
    def fetchall(self) -> Sequence[object]: ...


class _AsyncpgConnection(Protocol):
    def is_in_transaction(self) -> bool: ...
    async def fetch(self, query: str, *values: object) -> Sequence[object]: ...


class _Info(Protocol):
    @property
    def transaction_status(self) -> int: ...


class _PsycopgState(Protocol):
    @property
    def autocommit(self) -> bool: ...
    @property
    def info(self) -> _Info: ...


class _PsycopgConnection(_PsycopgState, Protocol):
    def execute(self, query: str, values: Values) -> _Rows: ...


class _AsyncPsycopgConnection(_PsycopgState, Protocol):
    async def execute(self, query: str, values: Values) -> _Rows: ...


class _Sqlite(Protocol):
    @property
    def in_transaction(self) -> bool: ...
    @property
    def isolation_level(self) -> str | None: ...
    def execute(self, query: str, values: Values) -> _Rows: ...


class _Django(Protocol):
    @property
    def vendor(self) -> str: ...
    @property
    def in_atomic_block(self) -> bool: ...
    def get_autocommit(self) -> bool: ...
    def cursor(self) -> _DjangoCursor: ...


class _DjangoCursor(_Rows, Protocol):
    def execute(self, query: str, values: Values) -> object: ...
    def close(self) -> None: ...


class _Dialect(Protocol):
    @property
    def name(self) -> str: ...


class _Pooled(Protocol):
    @property
    def dbapi_connection(self) -> object: ...


class _AlchemyConnection(Protocol):
    @property
    def dialect(self) -> _Dialect: ...
    @property
    def connection(self) -> _Pooled: ...
    def execute(self, statement: object, values: Mapping[str, object]) -> _Rows: ...


class _AsyncAlchemyConnection(Protocol):
    @property
    def sync_connection(self) -> _AlchemyConnection | None: ...
    async def execute(self, statement: object, values: Mapping[str, object]) -> _Rows: ...


class _AlchemySession(Protocol):
    def connection(self) -> _AlchemyConnection: ...


class _AsyncAlchemySession(Protocol):
    async def connection(self) -> _AsyncAlchemyConnection: ...


class _Cursor(Protocol):
    @property
    def connection(self) -> object: ...


Send: TypeAlias = Callable[[object, Statements, Values], int]
"""Runs the statement, and returns how many messages it has stored."""
AsyncSend: TypeAlias = Callable[[object, Statements, Values], Awaitable[int]]


async def _by_asyncpg(given: object, statements: Statements, values: Values) -> int:
    connection = cast("_AsyncpgConnection", given)
    _check(is_open=connection.is_in_transaction(), advice="Use `async with connection.transaction():`")
    return len(await connection.fetch(statements.text("postgresql", "numbered"), *values))


def _by_psycopg(given: object, statements: Statements, values: Values) -> int:
    connection = cast("_PsycopgConnection", given)
    _check_psycopg(connection)
    return connection.execute(statements.text("postgresql", "percent"), values).rowcount


async def _by_async_psycopg(given: object, statements: Statements, values: Values) -> int:
    connection = cast("_AsyncPsycopgConnection", given)
    _check_psycopg(connection)
    return (await connection.execute(statements.text("postgresql", "percent"), values)).rowcount


def _by_sqlite3(given: object, statements: Statements, values: Values) -> int:
    connection = cast("_Sqlite", given)
    _check_sqlite(connection)
    return connection.execute(statements.text("sqlite", "question mark"), values).rowcount


def _by_django(given: object, statements: Statements, values: Values) -> int:
    connection = cast("_Django", given)
    _check(
        is_open=connection.in_atomic_block or not connection.get_autocommit(),
        advice="Use `with transaction.atomic():`",
    )
    cursor = connection.cursor()
    try:
        cursor.execute(statements.text(_database(connection.vendor), "percent"), values)
        return cursor.rowcount
    finally:
        cursor.close()


def _by_sqlalchemy(given: object, statements: Statements, values: Values) -> int:
    connection = cast("_AlchemyConnection", given)
    rows = connection.execute(*_for_sqlalchemy(connection, statements, values))
    return _sent(connection, rows)


async def _by_async_sqlalchemy(given: object, statements: Statements, values: Values) -> int:
    connection = cast("_AsyncAlchemyConnection", given)
    if connection.sync_connection is None:
        raise InvalidInputError("This connection is not open yet: use `async with engine.begin() as connection:`.")
    rows = await connection.execute(*_for_sqlalchemy(connection.sync_connection, statements, values))
    return _sent(connection.sync_connection, rows)


def _by_session(given: object, statements: Statements, values: Values) -> int:
    return _by_sqlalchemy(cast("_AlchemySession", given).connection(), statements, values)


async def _by_async_session(given: object, statements: Statements, values: Values) -> int:
    return await _by_async_sqlalchemy(await cast("_AsyncAlchemySession", given).connection(), statements, values)


def _for_sqlalchemy(
    connection: _AlchemyConnection, statements: Statements, values: Values
) -> tuple[object, Mapping[str, object]]:
    database = _database(connection.dialect.name)
    driver = connection.connection.dbapi_connection
    if database == "sqlite":
        _check_sqlite(driver)
    else:
        advice = "Do not use the isolation level AUTOCOMMIT"
        _check(is_open=not getattr(driver, "autocommit", False), advice=advice)
    text = cast("Callable[[str], object]", sys.modules["sqlalchemy"].text)
    return text(statements.text(database, "named")), dict(zip(NAMES, values, strict=True))


def _sent(connection: _AlchemyConnection, rows: _Rows) -> int:
    return rows.rowcount if connection.dialect.name == "sqlite" else len(rows.fetchall())


def _database(name: str) -> str:
    if name not in ("postgresql", "sqlite"):
        raise InvalidInputError(f"This connection leads to {name!r}; a task hub is on PostgreSQL or SQLite.")
    return name


def _check_psycopg(connection: _PsycopgState) -> None:
    is_open = not connection.autocommit or connection.info.transaction_status != _IDLE
    _check(is_open=is_open, advice="Use `with connection.transaction():`")


def _check_sqlite(driver: object) -> None:
    autocommit = getattr(driver, "autocommit", _LEGACY)
    commits_at_once = getattr(driver, "isolation_level", "") is None if autocommit == _LEGACY else bool(autocommit)
    _check(
        is_open=not commits_at_once or bool(getattr(driver, "in_transaction", False)),
        advice="Execute BEGIN IMMEDIATE first",
    )


def _check(*, is_open: bool, advice: str) -> None:
    if not is_open:
        raise InvalidInputError(
            f"This connection is in no transaction, so that the message would be sent at once. {advice}. "
            "Nothing was stored."
        )


def _of_cursor(send: Send) -> Send:
    return lambda given, statements, values: send(cast("_Cursor", given).connection, statements, values)


def _of_async_cursor(send: AsyncSend) -> AsyncSend:
    return lambda given, statements, values: send(cast("_Cursor", given).connection, statements, values)


_BLOCKING: Final[Mapping[str, Send]] = {
    "psycopg.Connection": _by_psycopg,
    "psycopg.Cursor": _of_cursor(_by_psycopg),
    "sqlite3.Connection": _by_sqlite3,
    "sqlite3.Cursor": _of_cursor(_by_sqlite3),
    "sqlalchemy.Connection": _by_sqlalchemy,
    "sqlalchemy.Session": _by_session,
    "sqlalchemy.scoped_session": _by_session,
    "django.BaseDatabaseWrapper": _by_django,
    "django.ConnectionProxy": _by_django,
}
_ASYNC: Final[Mapping[str, AsyncSend]] = {
    "asyncpg.Connection": _by_asyncpg,
    "asyncpg.PoolConnectionProxy": _by_asyncpg,
    "psycopg.AsyncConnection": _by_async_psycopg,
    "psycopg.AsyncCursor": _of_async_cursor(_by_async_psycopg),
    "sqlalchemy.AsyncConnection": _by_async_sqlalchemy,
    "sqlalchemy.AsyncSession": _by_async_session,
    "sqlalchemy.async_scoped_session": _by_async_session,
}


def send_now(connection: object, statements: Statements, message: Outgoing) -> None:
    """Store a message over a connection that blocks."""
    send = _BLOCKING[_kind_of(connection, _BLOCKING, "Outbox")]
    try:
        sent = send(connection, statements, values_of(message))
    except Exception as error:
        if _is_about_tables(error):
            raise _no_hub(statements) from error
        raise
    if sent != 1:
        raise _no_hub(statements)


async def send_soon(connection: object, statements: Statements, message: Outgoing) -> None:
    """Store a message over a connection for asyncio."""
    send = _ASYNC[_kind_of(connection, _ASYNC, "SyncOutbox")]
    try:
        sent = await send(connection, statements, values_of(message))
    except Exception as error:
        if _is_about_tables(error):
            raise _no_hub(statements) from error
        raise
    if sent != 1:
        raise _no_hub(statements)


def _kind_of(connection: object, known: Collection[str], other: str) -> str:
    """Return the first class of a connection that is known.

    Raises:
        InvalidInputError: if there is none.
    """
    kinds = [f"{cls.__module__.partition('.')[0]}.{cls.__name__}" for cls in type(connection).__mro__]
    for kind in kinds:
        if kind in known:
            return kind
    if any(kind in _BLOCKING or kind in _ASYNC for kind in kinds):
        raise InvalidInputError(f"A {kinds[0]} is for {other}, which does the same with such connections.")
    raise InvalidInputError(
        f"A {kinds[0]} is no connection that a message can be sent over; it takes one of {', '.join(sorted(known))}. "
        "From another one, call the SQL functions of the task hub."
    )


def _is_about_tables(error: BaseException) -> bool:
    """Whether the database says that a table or the schema is not there; SQLAlchemy and Django wrap what it says."""
    said = (error, getattr(error, "orig", None), error.__cause__)
    return any(getattr(each, "sqlstate", None) in _MISSING for each in said) or any(
        type(each).__module__ == "sqlite3" and str(each).startswith("no such table") for each in said
    )


def _no_hub(statements: Statements) -> ConfigurationError:
    return ConfigurationError(
        f"There is no task hub where this connection leads to: in the schema {statements.schema!r} of a PostgreSQL "
        "database, or in an SQLite file. A host makes it when it first starts; name its schema as Outbox('...')."
    )
