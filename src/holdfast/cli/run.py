"""`holdfast run`: a host and its HTTP server on one loop, until a signal."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import typer
from starlette.applications import Starlette

from holdfast.cli.config import Configuration, ServerConfig
from holdfast.cli.describe import describe
from holdfast.cli.errors import LOST_STORE, CommandError
from holdfast.cli.load import LoadedApp, load_app
from holdfast.cli.server import HttpServer, bind, check_certificate
from holdfast.cli.signals import StopSignals
from holdfast.client.address import is_loopback
from holdfast.engine.activity_places import ACTIVITY_THREADS
from holdfast.engine.tuning import tune_process
from holdfast.errors import StorageError
from holdfast.host import Host
from holdfast.storage.open_store import without_password

_LAST_CHANCE_S = 0.5


def run_app(target: str, configuration: Configuration) -> None:
    """Run an app until a signal, then let it finish.

    Raises:
        CommandError: if it cannot start, or had to stop because another process took the store.
        HoldfastError: if a setting, the app or the store does not allow it to start.
    """
    server = configuration.server
    if not server.has_keys and not is_loopback(server.host):
        raise CommandError(
            f"{server.host} can be reached from other machines, so a key is needed: set HOLDFAST_KEY, or pass --key or "
            "--keys. Or listen on 127.0.0.1, which needs none."
        )
    check_certificate(server.ssl_certfile, server.ssl_keyfile)
    loaded = load_app(target)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    tune_process()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(loaded, configuration))
    _leave_threads_behind()


def _leave_threads_behind() -> None:
    """End the process although activities still run in threads, which nothing can stop; they will run again."""
    threads = [each for each in threading.enumerate() if each.name.startswith(ACTIVITY_THREADS)]
    for thread in threads:
        thread.join(_LAST_CHANCE_S / len(threads))
    if any(thread.is_alive() for thread in threads):
        logging.getLogger("holdfast.cli").warning("Activities still run in threads; the process ends without them.")
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


def _default_store(directory: Path) -> str:
    path = (directory / "holdfast.db").as_posix()
    return f"sqlite:///{quote(path, safe='/:')}"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the faster loop where there is one."""
    try:
        import uvloop
    except ImportError:  # Windows, PyPy
        return None
    return uvloop.new_event_loop


async def _serve(loaded: LoadedApp, configuration: Configuration) -> None:
    config = configuration.server
    store = config.store or _default_store(loaded.directory)
    with StopSignals() as signals:
        host = loaded.app.host(store, config=configuration.host)
        # Before the store is taken: neither a bad key nor a port that is in use must disturb anything.
        server = HttpServer(_http_app(host, config), bind(config.host, config.port), config)
        try:
            await host.start()
        except BaseException:
            server.close()
            raise
        try:
            typer.echo(
                describe(
                    loaded.app,
                    name=loaded.name,
                    url=server.url,
                    store=without_password(store),
                    has_key=config.has_keys,
                    queues=configuration.host.queues,
                )
            )
            await _until_stopped(host, server, signals)
        finally:
            await host.stop()


def _http_app(host: Host, config: ServerConfig) -> Starlette:
    return host.http_app(
        config.key,
        keys=None if config.keys is None else Path(config.keys),
        link_secrets=config.link_secrets,
        cors_origins=config.cors_origins,
        # With a key, browsers cannot do harm: pages elsewhere do not know it.
        loopback_only=not config.has_keys,
    )


async def _until_stopped(host: Host, server: HttpServer, signals: StopSignals) -> None:
    serving = asyncio.create_task(server.serve())
    stopped = asyncio.create_task(host.wait_stopped())
    signalled = asyncio.create_task(signals.first())
    try:
        await asyncio.wait({serving, stopped, signalled}, return_when=asyncio.FIRST_COMPLETED)
        # The host first, while the server still answers: whoever waits for a result, or asks for the health, is told.
        await host.stop()
        server.stop()
        await serving
        if stopped.done():
            await stopped
    except StorageError as error:
        raise CommandError(f"This host has lost its store and stopped. {error}", LOST_STORE) from error
    finally:
        for task in (serving, stopped, signalled):
            task.cancel()
