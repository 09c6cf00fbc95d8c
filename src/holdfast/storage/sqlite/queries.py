"""The statements of `queries.sql` and `offline.sql`, by name."""

from __future__ import annotations

from typing import Final

from holdfast.storage.statements import read_statements

_PACKAGE: Final = "holdfast.storage.sqlite"

QUERIES: Final = read_statements(_PACKAGE, "queries.sql")
"""What a store runs while a host works."""

OFFLINE: Final = read_statements(_PACKAGE, "offline.sql")
"""What reads or writes a whole file."""
