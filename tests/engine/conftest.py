from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.storage.memory import MemoryData, MemoryStore
from holdfast.storage.open_store import open_store
from holdfast.storage.port import Store


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """A factory whose stores all see the same data, one after the other."""
    if request.param == "memory":
        data = MemoryData()
        return lambda: MemoryStore(data)
    return lambda: open_store(f"sqlite:///{tmp_path / 'hub.db'}")
