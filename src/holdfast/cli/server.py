"""The HTTP server: a socket, and uvicorn on it."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Generator

import uvicorn
from starlette.types import ASGIApp

from holdfast.cli.config import ServerConfig
from holdfast.cli.errors import CommandError
from holdfast.http import RedactSecrets

_HEADER_BYTES_MAX = 64 * 1024
"""Of the first line and the headers of a request."""
_PLAIN = ServerConfig()
_GRACE_S = 5
"""How long requests may take to finish once the host has stopped; none of them can achieve anything then."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        CommandError: if the port is in use, or the address is not this machine's.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name such as localhost may have both kinds; programs that know only one know IPv4.
        family, _, _, _, address = min(addresses, key=lambda each: each[0] != socket.AF_INET)
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        # Only the number, if there is one: the text that `create_server` makes repeats the address.
        looked_up = isinstance(error, socket.gaierror) or error.errno is None
        why = str(error.strerror or error) if looked_up else os.strerror(error.errno or 0)
        raise CommandError(
            f"Cannot listen on {host}, port {port}: {why}. "
            "Stop what uses it, or take another with --port (0 takes a free one)."
        ) from error


def check_certificate(certfile: str | None, keyfile: str | None) -> None:
    """Raise CommandError if a server could not use this certificate with this private key; None for neither."""
    if certfile is None:
        if keyfile is not None:
            raise CommandError("--ssl-keyfile is the key of a certificate, so it needs --ssl-certfile.")
        return
    try:
        # With a password, so that nobody is asked for one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile, password="")
    except (OSError, ValueError) as error:
        files = certfile if keyfile is None else f"{certfile}, {keyfile}"
        raise CommandError(
            f"No certificate and private key could be read from {files}: {error}. Both must be PEM, without a password."
        ) from error


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """Return the URL under which a socket can be reached from this machine, or is bound."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"{scheme}://{host}:{port}"


class HttpServer:
    """Serves one ASGI app on one socket."""

    def __init__(self, app: ASGIApp, listener: socket.socket, config: ServerConfig = _PLAIN) -> None:
        uvicorn_config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            # The other parser, which may be installed, has no limit for headers.
            http="h11",
            h11_max_incomplete_event_size=_HEADER_BYTES_MAX,
            access_log=config.access_log,
            log_config=None,
            log_level="warning",
            # Who sends a request, and to which host, is what the request says itself.
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
            ssl_certfile=config.ssl_certfile,
            ssl_keyfile=config.ssl_keyfile,
        )
        if config.access_log:
            access = logging.getLogger("uvicorn.access")
            access.setLevel(logging.INFO)
            access.addFilter(RedactSecrets())
        self._server = _SignallessServer(uvicorn_config)
        self._listener = listener
        self.url = url_of(listener, "http" if config.ssl_certfile is None else "https")

    def close(self) -> None:
        """Give the socket back, without having served."""
        self._listener.close()

    async def serve(self) -> None:
        """Serve until stopped."""
        await self._server.serve(sockets=[self._listener])

    def stop(self) -> None:
        self._server.should_exit = True


class _SignallessServer(uvicorn.Server):
    """Leaves the signals alone: the host must stop first, and the process must end with code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
