"""Hubs for the tests of this room."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_builders import Hub


@pytest.fixture(params=["memory", "sqlite"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(request.param, tmp_path / "hub.db")
    yield hub
    asyncio.run(hub.close())


@pytest.fixture
def sqlite_hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub("sqlite", tmp_path / "hub.db")
    yield hub
    asyncio.run(hub.close())
