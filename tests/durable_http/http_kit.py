"""A small internet: real servers on this machine, behind names and public addresses that exist only here."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpcore

from holdfast.durable_http.addresses import IpAddress
from holdfast.durable_http.caller import HttpCaller
from holdfast.durable_http.policy import HttpCallPolicy
from holdfast.model.http_call import DurableHttpRequest, DurableHttpResponse

CERTIFICATE = Path(__file__).with_name("api_example.pem")
"""Self-signed, for the name api.example, with its key; it protects nothing."""

PUBLIC = "93.184.215.14"
OTHER = "93.184.215.15"


@dataclass
class Received:
    method: str
    target: str
    headers: dict[str, str]
    content: bytes


Answer = bytes | Callable[[asyncio.StreamReader], Awaitable[bytes]]


def answer(status: int, content: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def never(reader: asyncio.StreamReader) -> bytes:
    """Say nothing until the caller hangs up."""
    await reader.read()
    return b""


@dataclass
class Site:
    """A server that records what it is sent; what it has no page for is 404."""

    pages: dict[str, Answer] = field(default_factory=dict[str, Answer])
    received: list[Received] = field(default_factory=list[Received])
    names_asked_for: list[str | None] = field(default_factory=list[str | None])
    at_work: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.at_work.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            content = await reader.readexactly(int(headers.get("content-length", "0")))
            self.received.append(Received(method, target, headers, content))
            page = self.pages.get(target.partition("?")[0], answer(404))
            writer.write(page if isinstance(page, bytes) else await page(reader))
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    @contextlib.asynccontextmanager
    async def running(self, tls: bool = False) -> AsyncIterator[Site]:
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            context.sni_callback = lambda _socket, name, _context: self.names_asked_for.append(name)
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=context)
        async with server:
            self.port = server.sockets[0].getsockname()[1]
            yield self
        await asyncio.gather(*self.at_work)


class Internet(httpcore.AsyncNetworkBackend):
    """Resolves names to what a test says, and delivers each address, whatever the port, to the site behind it."""

    def __init__(self, names: dict[str, Sequence[Sequence[str]]], sites: dict[str, Site]) -> None:
        self.names = {name: list(answers) for name, answers in names.items()}
        """For each name, what it resolves to the first time, the second time, and so on; the last for ever."""
        self.sites = sites
        self.resolved: list[str] = []
        self.connected: list[str] = []

    async def resolve(self, name: str, port: int) -> list[IpAddress]:
        self.resolved.append(name)
        if name not in self.names:
            raise OSError("Name or service not known")
        answers = self.names[name]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ipaddress.ip_address(each) for each in addresses]

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.connected.append(host)
        if host not in self.sites:
            raise httpcore.ConnectError(f"nobody listens at {host}")
        return await httpcore.AnyIOBackend().connect_tcp("127.0.0.1", self.sites[host].port, timeout)


async def call(
    request: DurableHttpRequest | str,
    *,
    internet: Internet | None = None,
    tokens: dict[str, Callable[[str], Awaitable[str]]] | None = None,
    timeout_s: float | None = None,
    **policy: Any,
) -> DurableHttpResponse:
    """Make one call with a caller of its own."""
    caller = HttpCaller(
        HttpCallPolicy(**policy),
        tokens or {},
        resolve=internet and internet.resolve,
        network=internet,
    )
    if isinstance(request, str):
        request = DurableHttpRequest(method="GET", uri=request)
    try:
        return await caller.call(request, timeout_s)
    finally:
        await caller.close()
