"""What is known by the name of a hub's schema; here, where nothing needs the driver."""

from __future__ import annotations

import re
import zlib
from typing import Final

SCHEMA: Final = "holdfast"
SCHEMA_NAME: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}\Z")


def channel_of(schema: str) -> str:
    """Return the channel on which the hosts of a hub tell each other what to look for."""
    return f"holdfast_{zlib.crc32(schema.encode()):08x}"
