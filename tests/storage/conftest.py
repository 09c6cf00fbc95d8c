"""Hubs for the tests of this room."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_builders import Hub

from postgres_kit import drop, installed, installed_server, new_schema

SERVERS = {"postgres": "postgres_server", "installed postgres": "installed_postgres_server"}
KINDS = ["memory", "sqlite", "postgres"]


@pytest.fixture(scope="session")
def installed_postgres_server() -> Iterator[str]:
    """The URL of a server of the version that the machine has, which is another than that of the tests."""
    programs = installed()
    assert programs is not None
    with installed_server(programs) as url:
        yield url


@pytest.fixture(params=[*KINDS, *([pytest.param("installed postgres", marks=pytest.mark.soak)] if installed() else [])])
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Hub]:
    server = SERVERS.get(request.param)
    url = new_schema(request.getfixturevalue(server)) if server else ""
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
