"""Where requests get what no two of them share: the time, and new ids. A simulation has origins of its own."""

from __future__ import annotations

import os
from datetime import UTC, datetime


def utc_now() -> datetime:
    return datetime.now(UTC)


def random_id() -> str:
    return os.urandom(16).hex()
