"""Where a task hub is: a database, and a schema in it."""

from __future__ import annotations

import logging
import re
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from holdfast.errors import ConfigurationError
from holdfast.model.nearest import did_you_mean
from holdfast.storage.postgres_schema import SCHEMA, SCHEMA_NAME

logger = logging.getLogger("holdfast.storage")

PARTITIONS: Final = 64
LEASE_S: Final = 15.0
"""How long an owner that says nothing is taken for alive: three times as long as the engine waits to say something."""
_HOST: Final = r"(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:,@]*)(?::\d{1,5})?"
_HOSTS: Final = re.compile(rf"{_HOST}(?:,{_HOST})*\Z")
_NUMBER: Final = re.compile(r"\d{1,6}(?:\.\d{1,3})?\Z", re.ASCII)
_PARTITIONS_MAX: Final = 4096
_LEASE_S: Final = (1.0, 3600.0)
_OURS: Final = ("schema", "partitions", "lease_s", "pooler")
_POOLERS: Final = ("none", "transaction")
_THEIRS: Final = ("host", "port", "user", "password", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey")


class Location(msgspec.Struct, frozen=True):
    """`dsn` is for the driver; `text` is for people, and holds no secret."""

    dsn: str
    schema: str
    partitions: int
    text: str
    lease_s: float = LEASE_S
    is_pooled: bool = False
    """Whether each transaction may get another connection to the server, so that none may prepare statements."""
    names_partitions: bool = False

    def warn_if_other_than(self, partition_count: int) -> None:
        """Say so if the hub is not divided as the URL says: it stays as it was created."""
        if self.names_partitions and partition_count != self.partitions:
            logger.warning(
                "%s has %d partitions, and ?partitions=%d of the URL has no effect: a task hub keeps the number that "
                "it was created with.",
                self.text,
                partition_count,
                self.partitions,
            )

    @property
    def search_path(self) -> str:
        """Where tables and functions are looked for: nothing of the user is found by chance."""
        return f'"{self.schema}", pg_temp'


def parse_location(url: str) -> Location:
    """Return what a `postgresql://` URL says; `?schema=`, `?partitions=`, `?lease_s=` and `?pooler=` are ours.

    Raises:
        ConfigurationError: for a parameter that is unknown, or a value that cannot be.
    """
    parts = _split(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in given:
        if name not in (*_OURS, *_THEIRS):
            known = (*_OURS, *_THEIRS)
            raise ConfigurationError(f"The URL of a PostgreSQL store has no {name!r}.{did_you_mean(name, known)}")
    schema = given.pop("schema", SCHEMA)
    if not SCHEMA_NAME.match(schema):
        raise ConfigurationError(
            f"{schema!r} cannot be the schema of a task hub; use lower-case letters, digits and _, not pg_ in front."
        )
    names_partitions = "partitions" in given
    partitions = given.pop("partitions", str(PARTITIONS))
    if not (partitions.isdecimal() and len(partitions) < 6 and 1 <= int(partitions) <= _PARTITIONS_MAX):
        raise ConfigurationError(f"A task hub has from 1 to {_PARTITIONS_MAX} partitions, not {partitions!r}.")
    lease = given.pop("lease_s", str(LEASE_S))
    if not (_NUMBER.match(lease) and _LEASE_S[0] <= float(lease) <= _LEASE_S[1]):
        raise ConfigurationError(f"A lease takes from {_LEASE_S[0]:.0f} to {_LEASE_S[1]:.0f} seconds, not {lease!r}.")
    pooler = given.pop("pooler", "none")
    if pooler not in _POOLERS:
        raise ConfigurationError(f"pooler={pooler!r} must be one of {', '.join(_POOLERS)}.")
    hosts = parts.netloc.rpartition("@")[2] or given.get("host", "")
    text = f"postgresql://{hosts}{parts.path}?schema={schema}"
    dsn = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(given), ""))
    return Location(dsn, schema, int(partitions), text, float(lease), pooler == "transaction", names_partitions)


def _split(url: str) -> SplitResult:
    """Take a URL apart. A password with a character that ends it too early must not be taken for something else.

    What would be shown then, of a host, a database or a parameter, is a piece of it.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # it quotes what it does not understand
        parts = None
    if parts is None or not _HOSTS.match(parts.netloc.rpartition("@")[2]) or "@" in parts.path or "#" in url:
        raise ConfigurationError(_NO_URL)
    if any("@" in name for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise ConfigurationError(_NO_URL)
    return parts


_NO_URL: Final = (
    "The URL of a PostgreSQL store cannot be read; write postgresql://user:password@host:port/database. A password "
    "with one of : / ? # [ ] @ % in it must be percent-encoded, as urllib.parse.quote(password, safe='') does."
)
