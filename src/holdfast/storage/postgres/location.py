"""Where a task hub is: a database, and a schema in it."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from holdfast.errors import ConfigurationError
from holdfast.model.nearest import did_you_mean

SCHEMA: Final = "holdfast"
PARTITIONS: Final = 64
_SCHEMA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")
_PARTITIONS_MAX: Final = 4096
_OURS: Final = ("schema", "partitions")
_THEIRS: Final = ("host", "port", "user", "password", "dbname", "sslmode", "sslrootcert", "sslcert", "sslkey")


class Location(msgspec.Struct, frozen=True):
    """`dsn` is for the driver; `text` is for people, and holds no secret."""

    dsn: str
    schema: str
    partitions: int
    text: str


def parse_location(url: str) -> Location:
    """Return what a `postgresql://` URL says; `?schema=` and `?partitions=` are ours, the others the driver's.

    Raises:
        ConfigurationError: for a parameter that is unknown, or a value that cannot be.
    """
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in given:
        if name not in (*_OURS, *_THEIRS):
            known = (*_OURS, *_THEIRS)
            raise ConfigurationError(f"The URL of a PostgreSQL store has no {name!r}.{did_you_mean(name, known)}")
    schema = given.pop("schema", SCHEMA)
    if not _SCHEMA_NAME.match(schema) or schema.startswith("pg_"):
        raise ConfigurationError(
            f"{schema!r} cannot be the schema of a task hub; use lower-case letters, digits and _, not pg_ in front."
        )
    partitions = given.pop("partitions", str(PARTITIONS))
    if not (partitions.isdecimal() and len(partitions) < 6 and 1 <= int(partitions) <= _PARTITIONS_MAX):
        raise ConfigurationError(f"A task hub has from 1 to {_PARTITIONS_MAX} partitions, not {partitions!r}.")
    host = parts.hostname or given.get("host", "")
    port = f":{parts.port}" if parts.port else ""
    text = f"postgresql://{host}{port}{parts.path}?schema={schema}"
    dsn = urlunsplit(("postgresql", parts.netloc, parts.path, urlencode(given), ""))
    return Location(dsn, schema, int(partitions), text)
