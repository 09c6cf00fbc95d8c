"""SQL in files: statements by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType
from typing import Final

_BLOCK: Final = re.compile(r"^-- (name|part): (\w+)\n(.*?)(?=^-- (?:name|part): |\Z)", re.MULTILINE | re.DOTALL)
_PART: Final = re.compile(r"\{(\w+)\}")


def read_statements(package: str, file: str) -> Mapping[str, str]:
    """Return the statements of a file that lies in a package."""
    return parse_statements(resources.files(package).joinpath(file).read_text("utf-8"))


def parse_statements(text: str) -> Mapping[str, str]:
    """Read blocks of the form `-- name: xyz`, lines of purpose, one statement.

    A block `-- part: xyz` is no statement: it stands where another one says `{xyz}`.
    """
    statements: dict[str, str] = {}
    parts: dict[str, str] = {}
    for kind, name, body in _BLOCK.findall(text):
        if kind == "name":
            statements[name] = body.strip()
        else:
            parts[name] = "\n".join(line for line in body.strip().rstrip(";").splitlines() if line[:2] != "--")
    filled = {name: _PART.sub(lambda part: parts.get(part[1], part[0]), body) for name, body in statements.items()}
    return MappingProxyType(filled)


def migration(package: str, number: int) -> str:
    """Return the script of a package that leads from schema version `number - 1` to `number`."""
    folder = resources.files(package).joinpath("migrations")
    name = next(entry.name for entry in folder.iterdir() if entry.name.startswith(f"{number:04d}_"))
    return folder.joinpath(name).read_text("utf-8")
