"""The composition root: one app, one store, one engine, one client, one ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from holdfast.client.client import Client
from holdfast.client.sync import SyncClient
from holdfast.codec.converter import JsonConverter
from holdfast.durable_http.caller import TokenSource
from holdfast.engine.clock import Clock
from holdfast.engine.config import HostConfig
from holdfast.engine.engine import Engine
from holdfast.engine.fleet import client_of
from holdfast.errors import ConfigurationError
from holdfast.model.access import AccessKey
from holdfast.registry.registry import Registry
from holdfast.registry.routes import Route
from holdfast.storage.port import Store

if TYPE_CHECKING:
    from starlette.applications import Starlette


class Host:
    """A running app: `async with app.host("sqlite:///app.db") as host: ...`.

    It takes the store when it is entered; when it is left, what runs is finished and stored.
    """

    def __init__(
        self,
        registry: Registry,
        routes: tuple[Route, ...],
        token_sources: Mapping[str, TokenSource],
        store: Store,
        config: HostConfig,
        clock: Clock | None,
    ) -> None:
        self.config = config
        self._routes = routes
        self._converter = JsonConverter(payload_bytes_max=config.limits.payload_bytes_max)
        self._engine = Engine(registry, store, self._converter, config, clock, token_sources=token_sources)
        self._client = client_of(self._engine, self._converter)
        self._asgi: Starlette | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def client(self) -> Client:
        """Starts, watches and steers the orchestrations of this host."""
        return self._client

    @property
    def sync_client(self) -> SyncClient:
        """The same for other threads than that of the host's event loop: blocking, for code that cannot await.

        Raises:
            ConfigurationError: if the host has not been started.
        """
        if self._loop is None:
            raise ConfigurationError("The host has not been started; enter it with `async with` first.")
        return SyncClient.on_loop(self._client, self._loop)

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken in now; False while starting, recovering and stopping."""
        return self._engine.is_ready

    @property
    def asgi(self) -> Starlette:
        """The management API and the app's own routes, to be served or mounted; the host is entered separately.

        It has no key, so mount it behind your own authorisation. `http_app` takes keys.
        """
        if self._asgi is None:
            self._asgi = self.http_app()
        return self._asgi

    def http_app(
        self,
        key: str | None = None,
        *,
        keys: Sequence[AccessKey] | Path | None = None,
        link_secrets: Sequence[str] = (),
        cors_origins: Sequence[str] = (),
        loopback_only: bool = False,
    ) -> Starlette:
        """Return a new ASGI app; with keys, each request must carry one (`code=` or the header `x-functions-key`).

        Args:
            key: allows everything; nothing but `/healthz` and routes that are anonymous can be had without a key.
            keys: keys of limited scopes, beside it; or a file that has them, which is read again when it changes.
            link_secrets: at least one lets `sign_link` make links that need no key; those signed with any are valid,
                as with those that are in the file.
            cors_origins: whose pages may use it from a browser, as `https://ops.example.com`; by default none.
            loopback_only: refuse requests that name another host than localhost, or come from a page of another one.

        Raises:
            ConfigurationError: for a key, a secret or an origin that cannot be.
        """
        # Imported here, so that a program without HTTP does not pay for it.
        from holdfast.http.app import Protection, make_http_app

        protection = Protection(
            key=key, keys=keys, link_secrets=link_secrets, cors_origins=cors_origins, loopback_only=loopback_only
        )
        return make_http_app(self, self._client, self._routes, protection)

    async def start(self) -> None:
        """Take the store and begin to work.

        Raises:
            StoreInUseError: if another process owns the store, for as long as the setting `standby_s` says.
            StorageError: if it cannot be opened.
        """
        await self._engine.start()
        self._loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        """Stop taking work, let what runs finish, store it, give the store back. May be called twice."""
        await self._engine.stop()

    async def wait_stopped(self) -> None:
        """Wait until the host has stopped.

        Raises:
            OwnershipLostError: if it had to, because another process took the store.
        """
        await self._engine.wait_stopped()

    async def __aenter__(self) -> Host:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
