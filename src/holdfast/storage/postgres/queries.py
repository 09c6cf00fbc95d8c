"""The statements of `queries.sql` and `offline.sql`, by name."""

from __future__ import annotations

from typing import Final

from holdfast.storage.statements import read_statements

PACKAGE: Final = "holdfast.storage.postgres"

QUERIES: Final = read_statements(PACKAGE, "queries.sql")
OFFLINE: Final = read_statements(PACKAGE, "offline.sql")
