from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast.storage.memory import MemoryData, MemoryStore
from holdfast.storage.open_store import open_store
from holdfast.storage.port import Store
from postgres_kit import drop, new_schema

ON_POSTGRES = {
    "test_bank",
    "test_critical_sections",
    "test_entities",
    "test_orchestrations",
    "test_purge",
    "test_recovery",
    "test_standby",
    "test_starts_and_ends",
}
"""The rooms that run on PostgreSQL each time. The others do in `make soak`: the engine cannot tell one from another."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "make_store" in metafunc.fixturenames:
        always = metafunc.module.__name__ in ON_POSTGRES
        postgres = "postgres" if always else pytest.param("postgres", marks=pytest.mark.soak)
        metafunc.parametrize("make_store", ["memory", "sqlite", postgres], indirect=True)


@pytest.fixture
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """A factory whose stores all see the same data, one after the other."""
    match request.param:
        case "memory":
            data = MemoryData()
            yield lambda: MemoryStore(data)
        case "sqlite":
            yield lambda: open_store(f"sqlite:///{tmp_path / 'hub.db'}")
        case _:
            url = new_schema(request.getfixturevalue("postgres_server"), partitions=4)
            yield lambda: open_store(url)
            drop(url)
