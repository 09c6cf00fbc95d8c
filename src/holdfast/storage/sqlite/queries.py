"""The statements of the SQL files, by name."""

from __future__ import annotations

from importlib import resources
from typing import Final

from holdfast.storage.statements import read_statements

_PACKAGE: Final = "holdfast.storage.sqlite"

QUERIES: Final = read_statements(_PACKAGE, "queries.sql")
"""What a store runs while a host works."""

OFFLINE: Final = read_statements(_PACKAGE, "offline.sql")
"""What reads or writes a whole file."""

APPLY_SCRIPT: Final = resources.files(_PACKAGE).joinpath("apply_group.sql").read_text("utf-8")
"""Teaches a connection what a commit does."""
