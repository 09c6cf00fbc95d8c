"""From a URL to a store."""

from __future__ import annotations

import difflib
import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from holdfast.errors import ConfigurationError
from holdfast.storage.memory import MemoryStore
from holdfast.storage.port import Store
from holdfast.storage.sqlite import SqliteStore
from holdfast.storage.sqlite.offline import WholeFile
from holdfast.storage.transfer import WholeHub

_SCHEMES = ("sqlite", "postgresql", "memory")


def open_store(url: str) -> Store:
    """Return the store that a URL names; nothing is opened before it is acquired or read.

    `sqlite:///relative.db` and `sqlite:////absolute/path.db` name a file. `postgresql://user@host/database` names the
    schema `holdfast` of a database, or `?schema=another`; it needs the extra `holdfast[postgres]`. A hub that is made
    there gets `?partitions=64`, for good. `?lease_s=15` says how long a host of which nothing is heard is waited for
    before another takes its place: at least twice the setting `renew_s`. `memory://` keeps everything in memory
    and loses all of it when the process ends: it is for tests.

    Raises:
        ConfigurationError: if the URL names no store.
    """
    scheme, separator, rest = url.partition("://")
    match scheme.lower() if separator else "":
        case "sqlite":
            return SqliteStore(_sqlite_path(url, rest))
        case "memory":
            if rest.strip("/"):
                raise ConfigurationError(f"{url!r}: a store in memory has no name; write 'memory://'.")
            return MemoryStore()
        case "postgresql" | "postgres":
            return _postgres_store(url)
        case _:
            raise ConfigurationError(_unknown(without_password(url), scheme, separator))


def open_whole(url: str) -> WholeHub:
    """Return the hub that a URL names as one thing; nothing is opened before it is read or written.

    Raises:
        ConfigurationError: if the URL names no store, or one that no other process can read.
    """
    check_shared(url)
    scheme, _, rest = url.partition("://")
    return WholeFile(_sqlite_path(url, rest)) if scheme.lower() == "sqlite" else _whole_schema(url)


def _postgres_store(url: str) -> Store:
    with _needing_the_extra():
        from holdfast.storage.postgres import PostgresStore
        from holdfast.storage.postgres.location import parse_location
    return PostgresStore(parse_location(url))


def _whole_schema(url: str) -> WholeHub:
    with _needing_the_extra():
        from holdfast.storage.postgres.location import parse_location
        from holdfast.storage.postgres.offline import WholeSchema
    return WholeSchema(parse_location(url))


@contextmanager
def _needing_the_extra() -> Generator[None, None, None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"A PostgreSQL store needs the module {error.name!r}; run: pip install 'holdfast[postgres]'"
        ) from error


def without_password(url: str) -> str:
    """Return the URL of a store as it may be shown and logged."""
    shown = re.sub(r"(?<=://)([^/?#@:]*):[^/?#]*@", r"\1:***@", url)
    return re.sub(r"(?<=[?&]password=)[^&#]*", "***", shown)


def check_shared(url: str) -> None:
    """Check that a URL names a store that other processes can read.

    Raises:
        ConfigurationError: if it does not.
    """
    if isinstance(open_store(url), MemoryStore):
        raise ConfigurationError(f"{url!r} belongs to the process that made it; name a file, as sqlite:///file.db.")


def _sqlite_path(url: str, rest: str) -> Path:
    path = unquote(rest.removeprefix("/"))
    if not rest.startswith("/") or not path or path.endswith("/"):
        raise ConfigurationError(
            f"{url!r} names no file; write 'sqlite:///relative.db' or 'sqlite:////absolute/path.db', "
            "or 'memory://' for a store that is lost with the process."
        )
    if path == ":memory:":
        raise ConfigurationError(f"{url!r}: a file cannot be in memory; write 'memory://'.")
    return Path(path)


def _unknown(url: str, scheme: str, separator: str) -> str:
    if not separator:
        return f"{url!r} is not a store URL; write 'sqlite:///{url}' for a file of this name, or 'memory://'."
    nearest = difflib.get_close_matches(scheme.lower(), _SCHEMES, n=1, cutoff=0.0)[0]
    return f"{url!r}: there is no scheme {scheme!r}; did you mean '{nearest}://'?"
