"""URLs of stores."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from storage_builders import NOW

from holdfast.errors import ConfigurationError
from holdfast.storage.memory import MemoryStore
from holdfast.storage.open_store import open_store, open_whole, without_password
from holdfast.storage.port import Store


async def acquire_and_close(store: Store) -> None:
    await store.acquire(NOW)
    await store.close()


def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///some%20hub.db")
    monkeypatch.chdir("/")
    asyncio.run(acquire_and_close(store))
    assert (tmp_path / "some hub.db").exists()


def test_an_absolute_path(tmp_path: Path) -> None:
    asyncio.run(acquire_and_close(open_store(f"sqlite:///{tmp_path}/hub.db")))
    assert (tmp_path / "hub.db").exists()


def test_memory() -> None:
    assert isinstance(open_store("memory://"), MemoryStore)


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("sqlite://", "names no file.*memory://"),
        ("sqlite:///", "names no file"),
        ("sqlite://hub.db", "sqlite:///relative.db"),
        ("sqlite:///dir/", "names no file"),
        ("sqlite:///:memory:", "memory://"),
        ("memory://name", "has no name"),
        ("postgresql://host/db?shcema=x", "Did you mean 'schema'"),
        ("postgresql://host/db?schema=Bad-Name", "cannot be the schema"),
        ("postgresql://host/db?pooler=session", "must be one of none, transaction"),
        ("postgresql://host/db?partitions=0", "from 1 to 4096 partitions"),
        ("sqllite:///hub.db", "did you mean 'sqlite://'"),
        ("mem://", "did you mean 'memory://'"),
        ("hub.db", "sqlite:///hub.db"),
        ("", "not a store URL"),
    ],
)
def test_what_names_no_store_is_refused(url: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///hub.db", "sqlite:///hub.db"),
        ("postgresql://user@host/db", "postgresql://user@host/db"),
        ("postgresql://user:s3cret@host:5432/db?schema=x", "postgresql://user:***@host:5432/db?schema=x"),
        ("postgresql://user:a@b:c@host/db", "postgresql://user:***@host/db"),
        ("postgresql://host/db?user=u&password=s3cret&schema=x", "postgresql://host/db?user=u&password=***&schema=x"),
        ("postgress://user:s3cret@host/db", "postgress://user:***@host/db"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
    with pytest.raises(ConfigurationError) as refused:
        open_whole("nowhere://u:s3cret@h")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("opening", [open_store, open_whole])
def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch, opening: Callable[[str], object]) -> None:
    for module in ("store", "offline", "location", "snapshot"):
        monkeypatch.delitem(sys.modules, f"holdfast.storage.postgres.{module}", raising=False)
    monkeypatch.delitem(sys.modules, "holdfast.storage.postgres", raising=False)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigurationError, match=r"needs the module 'asyncpg'.*holdfast\[postgres\]"):
        opening("postgresql://host/db")
