"""The statements of `queries.sql`, by name."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import Final


def parse_queries(text: str) -> Mapping[str, str]:
    """Read blocks of the form `-- name: xyz`, a line of purpose, one statement."""
    blocks = text.split("-- name: ")[1:]
    return MappingProxyType({name: body.strip() for name, _, body in (block.partition("\n") for block in blocks)})


QUERIES: Final = parse_queries(resources.files("holdfast.storage.sqlite").joinpath("queries.sql").read_text("utf-8"))
