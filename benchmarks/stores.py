"""Where the workloads run: on a new SQLite file each, or in a new schema each of one private PostgreSQL server.

There, with one host or with three.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import fleet
from benchmarks.postgres import private_server

SQLITE, POSTGRES, FLEET = "sqlite", "postgres", "three hosts"
CHOICES = {
    SQLITE: (SQLITE,),
    POSTGRES: (POSTGRES,),
    "fleet": (FLEET,),
    "both": (SQLITE, POSTGRES),
    "all": (SQLITE, POSTGRES, FLEET),
}

NewHub = Callable[[str], str]
"""Gives the URL of a task hub that does not exist yet, for the workload of that name."""


class Stores:
    """The stores of a run, by name, and the URL of the server if there is one."""

    def __init__(self, directory: Path, names: tuple[str, ...], server_url: str | None) -> None:
        self.server_url = server_url
        makers: dict[str, NewHub] = {
            SQLITE: lambda workload: f"sqlite:///{(directory / f'{workload}.db').as_posix()}",
            POSTGRES: lambda workload: f"{server_url}&schema={workload.lower()}",
            FLEET: lambda workload: fleet.shared(f"{server_url}&schema=fleet_{workload.lower()}"),
        }
        self.new_hub = {name: makers[name] for name in names}


@contextmanager
def open_stores(directory: Path, names: tuple[str, ...]) -> Generator[Stores]:
    """Open stores; a server runs only if one of them needs it."""
    if set(names) == {SQLITE}:
        yield Stores(directory, names, None)
        return
    with private_server(directory) as server_url:
        yield Stores(directory, names, server_url)
