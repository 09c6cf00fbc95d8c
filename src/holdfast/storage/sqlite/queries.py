"""The statements of `queries.sql` and `offline.sql`, by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import Final


def parse_queries(text: str) -> Mapping[str, str]:
    """Read blocks of the form `-- name: xyz`, lines of purpose, one statement.

    `{conditions}` in a statement stands for the block of that name.
    """
    blocks = text.split("-- name: ")[1:]
    queries = {name: body.strip() for name, _, body in (block.partition("\n") for block in blocks)}
    conditions = "\n".join(line for line in queries.pop("conditions", "").rstrip(";").splitlines() if line[:2] != "--")
    return MappingProxyType({name: body.replace("{conditions}", conditions) for name, body in queries.items()})


def _read(name: str) -> Mapping[str, str]:
    return parse_queries(resources.files("holdfast.storage.sqlite").joinpath(name).read_text("utf-8"))


QUERIES: Final = _read("queries.sql")
"""What a store runs while a host works."""

OFFLINE: Final = _read("offline.sql")
"""What reads or writes a whole file."""
