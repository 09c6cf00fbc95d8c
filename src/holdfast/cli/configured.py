"""What commands take from the configuration where their options say nothing: the host they talk to, the store."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from holdfast.cli.config import Configuration, ServerConfig
from holdfast.cli.config_sources import of_options, read_configuration
from holdfast.cli.errors import CommandError
from holdfast.client.connection import check_connection
from holdfast.errors import ConfigurationError
from holdfast.storage.open_store import check_shared

StoreUrl = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="URL",
        help="The store, as sqlite:///file.db or postgresql://user@host/database. If it is not given: HOLDFAST_STORE, "
        "or `store` in holdfast.toml.",
        show_default=False,
    ),
]
CONFIGURED_STORE: Final = ""
"""Says nothing: what is configured holds."""


class Connection(msgspec.Struct, frozen=True):
    """Where a host is, and what it wants to see."""

    url: str
    key: str | None

    def __repr__(self) -> str:
        return f"Connection({self.url!r})"


def configured(options: Mapping[str, object], settings: Iterable[str] = ()) -> Configuration:
    """Return what holds for a command with these options, in this folder and environment.

    Raises:
        HoldfastError: for what no source may say; with the source.
    """
    return read_configuration(None, os.environ, of_options(options, settings), folder=Path.cwd())


def configured_connection(url: str, key: str | None) -> Connection:
    """Return where the host is, and the key; an option that is empty says nothing.

    Raises:
        HoldfastError: for what cannot be, with where it is set; the text has no secret.
    """
    found = configured({"url": url, "key": key})
    url, origin = _url_of(found)
    with _blaming(origin):
        check_connection(url, {})
    with _blaming(found.origins["key"]):
        check_connection(url, {"key": found.server.key})
    return Connection(url, found.server.key)


def configured_store(store: str) -> str:
    """Return the URL of the store to read; an option that is empty says nothing.

    Raises:
        HoldfastError: if none is named, or it is in memory; with where it is set.
    """
    return store_of(configured({"store": store}))


def store_of(found: Configuration) -> str:
    """Return the URL of the store that is configured, of which all is read.

    Raises:
        HoldfastError: as `configured_store` does.
    """
    if found.server.store is None:
        raise CommandError(
            "No store is named: pass --store sqlite:///file.db, or set HOLDFAST_STORE, or `store` in holdfast.toml."
        )
    with _blaming(found.origins["store"]):
        check_shared(found.server.store)
    return found.server.store


def _url_of(found: Configuration) -> tuple[str, str]:
    """Return the URL of the host, and where it is set."""
    server = found.server
    if server.url is not None:
        return server.url, found.origins["url"]
    if server.port == 0:
        raise CommandError(
            f"{found.origins['port']}: port 0 is a free one that the host takes when it starts; name it with --url."
        )
    scheme = "http" if server.ssl_certfile is None else "https"
    return f"{scheme}://{_reachable(server)}:{server.port}", found.origins["host"]


def _reachable(server: ServerConfig) -> str:
    """Return the address at which this machine reaches what listens there: an address for all is none to talk to."""
    try:
        address = ipaddress.ip_address(server.host)
    except ValueError:
        return server.host
    if address.version == 6:
        return "[::1]" if address.is_unspecified else f"[{address}]"
    return "127.0.0.1" if address.is_unspecified else str(address)


@contextmanager
def _blaming(origin: str) -> Generator[None, None, None]:
    """Say of what is refused where it is set."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{origin}: {error}") from error
