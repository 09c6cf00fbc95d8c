"""Hubs for the tests of this room."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_builders import Hub

from postgres_kit import drop, new_schema


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    url = new_schema(request.getfixturevalue("postgres_server")) if request.param == "postgres" else ""
    hub = Hub(request.param, tmp_path / "hub.db", url)
    yield hub
    asyncio.run(hub.close())
    if url:
        drop(url)


@pytest.fixture
def sqlite_hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub("sqlite", tmp_path / "hub.db")
    yield hub
    asyncio.run(hub.close())
