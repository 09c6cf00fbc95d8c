"""One call: a token if one is asked for, the request, and its redirects, all within one timeout."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from holdfast.durable_http.policy import HttpCallPolicy, is_timeout
from holdfast.errors import (
    DurableHttpError,
    DurableHttpTimeoutError,
    HostStoppedError,
    InvalidInputError,
    NotRegisteredError,
)
from holdfast.model.http_call import DurableHttpRequest, DurableHttpResponse, check_request, redirect_request
from holdfast.model.http_uri import HttpUri, parse_uri, resolve_location

if TYPE_CHECKING:
    import httpcore

    from holdfast.durable_http.network import Resolve
    from holdfast.durable_http.wire import Wire

TokenSource: TypeAlias = Callable[[str], Awaitable[str]]
"""Gives a bearer token for an origin such as `https://example.com` or `http://localhost:8080`.

It is asked before each request that is sent with it, so it is the one to cache. It may raise to refuse an origin: one
that is not https, say. The token goes to that origin only, never along with a redirect to another.
"""

_TOKEN = re.compile(r"[\x21-\x7e]+")


class HttpCaller:
    """Performs outgoing requests within a policy. It belongs to one event loop, and is closed at the end.

    Args:
        token_sources: by the name that a request has in `token_source`.
        resolve: what gives the addresses of a host name; by default the operating system.
        network: what opens connections to addresses that were checked; by default TCP.
    """

    def __init__(
        self,
        policy: HttpCallPolicy,
        token_sources: Mapping[str, TokenSource],
        *,
        resolve: Resolve | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._policy = policy
        self._token_sources = dict(token_sources)
        self._resolve = resolve
        self._network = network
        self._wire: Wire | None = None
        self._closed = False

    async def call(self, request: DurableHttpRequest, timeout_s: float | None) -> DurableHttpResponse:
        """Send a request, follow its redirects, and return the answer, whatever its status.

        Args:
            timeout_s: for all of it; None for that of the policy.

        Raises:
            InvalidInputError: for a request that cannot be sent.
            NotRegisteredError: for an unknown token source.
            ForbiddenAddressError: if the policy forbids the host, or one that the request is redirected to.
            DurableHttpTimeoutError: if it takes too long.
            DurableHttpError: if there is no answer, none within the limits, or no token.
        """
        check_request(request)
        limit_s = self._policy.timeout_s if timeout_s is None else timeout_s
        if not is_timeout(limit_s):
            raise InvalidInputError(f"The timeout is {limit_s!r}; it must be a number of seconds, more than zero.")
        try:
            async with asyncio.timeout(limit_s):
                return await self._follow(request)
        except TimeoutError:
            raise DurableHttpTimeoutError(
                f"{request.method} {parse_uri(request.uri).origin} was not answered within {limit_s:g} s. "
                "Whether it took effect is not known."
            ) from None

    async def close(self) -> None:
        """Close all connections, once no call runs any more; later ones are refused."""
        self._closed = True
        if self._wire is not None:
            await self._wire.close()

    async def _follow(self, request: DurableHttpRequest) -> DurableHttpResponse:
        redirects_max = self._policy.redirects_max
        hop = request
        for _ in range(redirects_max + 1):
            response = await self._send(hop)
            following = redirect_request(hop, response) if redirects_max else None
            if following is None:
                return response if hop is request else _with_absolute_location(response, hop)
            hop = following
        raise DurableHttpError(
            f"{request.method} {parse_uri(request.uri).origin} was redirected more than {redirects_max} times. "
            "Call the final URI, or raise redirects_max."
        )

    async def _send(self, request: DurableHttpRequest) -> DurableHttpResponse:
        uri = parse_uri(request.uri)
        self._policy.check_host(uri.host, uri.port)
        token = None if request.token_source is None else await self._token(request.token_source, uri)
        return await self._open_wire().exchange(request, uri, token)

    async def _token(self, name: str, uri: HttpUri) -> str:
        source = self._token_sources.get(name)
        if source is None:
            known = ", ".join(sorted(self._token_sources)) or "none"
            raise NotRegisteredError(f"There is no token source {name!r}; nothing was sent. Known: {known}.")
        try:
            token = await source(uri.origin)
            is_token = _TOKEN.fullmatch(token)
        except Exception as error:
            raise DurableHttpError(
                f"The token source {name!r} gave no token for {uri.origin}: {type(error).__name__}: {error}"
            ) from error
        if not is_token:
            raise DurableHttpError(f"The token source {name!r} gave something that is no token for {uri.origin}.")
        return token

    def _open_wire(self) -> Wire:
        if self._closed:
            raise HostStoppedError("The host is stopping; nothing was sent.")
        if self._wire is None:
            # Here, so that a program that makes no calls does not load an HTTP library.
            from holdfast.durable_http.wire import Wire

            self._wire = Wire(self._policy, self._resolve, self._network)
        return self._wire


def _with_absolute_location(response: DurableHttpResponse, answered: DurableHttpRequest) -> DurableHttpResponse:
    """The one who asked does not know the URI that answered, and could not resolve a Location against it."""
    location = response.header("location")
    if location is None:
        return response
    try:
        absolute = resolve_location(answered.uri, location)
    except DurableHttpError:
        return response  # not one to be called, which need not matter: it is refused when it is
    return msgspec.structs.replace(response, headers=response.headers | {"location": absolute})
