"""SQL in files: statements by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import Final

_PART: Final = re.compile(r"\{(\w+)\}")


def read_statements(package: str, file: str) -> Mapping[str, str]:
    """Return the statements of a file that lies in a package."""
    return parse_statements(resources.files(package).joinpath(file).read_text("utf-8"))


def parse_statements(text: str) -> Mapping[str, str]:
    """Read blocks of the form `-- name: xyz`, lines of purpose, one statement.

    `{xyz}` in a statement stands for the block of that name.
    """
    blocks = (block.partition("\n") for block in text.split("-- name: ")[1:])
    bodies = {name: body.strip() for name, _, body in blocks}
    parts = {name: _without_purpose(body) for name, body in bodies.items()}
    return MappingProxyType(
        {name: _PART.sub(lambda part: parts.get(part[1], part[0]), body) for name, body in bodies.items()}
    )


def migration(package: str, number: int) -> str:
    """Return the script of a package that leads from schema version `number - 1` to `number`."""
    folder = resources.files(package).joinpath("migrations")
    name = next(entry.name for entry in folder.iterdir() if entry.name.startswith(f"{number:04d}_"))
    return folder.joinpath(name).read_text("utf-8")


def _without_purpose(body: str) -> str:
    return "\n".join(line for line in body.rstrip(";").splitlines() if not line.startswith("--"))
