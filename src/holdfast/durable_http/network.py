"""Connections, each to an address that was checked: the one place through which every request leaves."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeAlias

import httpcore

from holdfast.durable_http.addresses import IpAddress
from holdfast.durable_http.policy import HttpCallPolicy
from holdfast.errors import DurableHttpError

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[IpAddress]]]
"""Gives the addresses of a host name, the best first; raises OSError if there are none."""

_ADDRESSES_MAX = 8
_ATTEMPT_S = 5.0
"""How long one address is tried while there is another; the last has what is left of the request's time."""


async def resolve_name(host: str, port: int) -> list[IpAddress]:
    """Ask the operating system for the addresses of a host."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(address[0]) for *_, address in found]


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Resolves a name once, checks every address, and connects to one of exactly these.

    A name that is resolved again between the check and the connection could mean another host by then. The layers
    above still know the name: it is in the header `Host`, and TLS verifies the certificate for it.
    """

    def __init__(self, policy: HttpCallPolicy, resolve: Resolve, network: httpcore.AsyncNetworkBackend) -> None:
        self._policy = policy
        self._resolve = resolve
        self._network = network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        *others, last = await self._checked_addresses(host, port)
        for address in others:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._network.connect_tcp(str(address), port, _ATTEMPT_S, local_address, socket_options)
        return await self._network.connect_tcp(str(last), port, timeout, local_address, socket_options)

    async def _checked_addresses(self, host: str, port: int) -> list[IpAddress]:
        addresses = await self._addresses(host, port)
        # All of them: a name with an internal address among public ones was made to get past a check.
        for address in addresses:
            self._policy.check_address(host, port, address)
        return addresses[:_ADDRESSES_MAX]

    async def _addresses(self, host: str, port: int) -> list[IpAddress]:
        with contextlib.suppress(ValueError):
            return [ipaddress.ip_address(host)]
        try:
            addresses = list(await self._resolve(host, port))
        except (OSError, UnicodeError) as error:
            raise DurableHttpError(f"The host name {host!r} cannot be resolved: {error}") from error
        if not addresses:
            raise DurableHttpError(f"The host name {host!r} has no address.")
        return addresses
