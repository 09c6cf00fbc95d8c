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

import msgspec
import typer

from holdfast.app import App
from holdfast.cli.describe import describe
from holdfast.cli.errors import LOST_STORE, CommandError
from holdfast.cli.load import load_app
from holdfast.cli.server import HttpServer, bind, url_of
from holdfast.cli.settings import config_from_settings
from holdfast.cli.signals import StopSignals
from holdfast.client.address import is_loopback
from holdfast.engine.activity_places import ACTIVITY_THREADS
from holdfast.engine.config import HostConfig
from holdfast.engine.tuning import tune_process
from holdfast.errors import StorageError
from holdfast.host import Host

_LAST_CHANCE_S = 0.5


class RunOptions(msgspec.Struct, frozen=True):
    """The options as given; `settings` are texts of the form `name=value`."""

    target: str
    store: str | None
    host: str
    port: int
    key: str | None
    settings: tuple[str, ...]


def run_app(options: RunOptions) -> None:
    """Run an app until a signal, then let it finish.

    Raises:
        CommandError: if it cannot start, or had to stop because another process took the store.
        HoldfastError: if a setting, the app or the store does not allow it to start.
    """
    if options.key is None and not is_loopback(options.host):
        raise CommandError(
            f"{options.host} can be reached from other machines, so a key is needed: set HOLDFAST_KEY or pass --key. "
            "Or listen on 127.0.0.1, which needs none."
        )
    config = config_from_settings(options.settings)
    loaded = load_app(options.target)
    store = options.store or _default_store(loaded.directory)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    tune_process()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(loaded.app, loaded.name, store, config, options))
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


async def _serve(app: App, name: str, store: str, config: HostConfig, options: RunOptions) -> None:
    with StopSignals() as signals:
        host = app.host(store, config=config)
        # Before the store is taken: a port that is in use must not disturb anything.
        listener = bind(options.host, options.port)
        try:
            await host.start()
        except BaseException:
            listener.close()
            raise
        try:
            # With a key, browsers cannot do harm: pages elsewhere do not know it.
            server = HttpServer(host.http_app(options.key, loopback_only=options.key is None), listener)
            url = url_of(listener)
            typer.echo(describe(app, name=name, url=url, store=store, has_key=options.key is not None))
            await _until_stopped(host, server, signals)
        finally:
            await host.stop()


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
