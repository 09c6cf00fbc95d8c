"""One request over the wire and its answer, without redirects. The only module that knows the HTTP library."""

from __future__ import annotations

import asyncio
import importlib.metadata
import ssl

import httpcore

from holdfast.durable_http.body import decode_text, read_body
from holdfast.durable_http.network import CheckedNetwork, Resolve, resolve_name
from holdfast.durable_http.policy import HttpCallPolicy
from holdfast.errors import DurableHttpError
from holdfast.model.http_call import DurableHttpRequest, DurableHttpResponse, encoded_content
from holdfast.model.http_uri import HttpUri

_IDLE_CONNECTIONS_MAX = 20
_IDLE_S = 5.0
_CAUSES_MAX = 10

_ONE_VALUE = frozenset({"content-encoding", "content-type", "location", "retry-after"})
"""Headers that make no sense as a list; of several, the first counts."""
_OF_ENCODED = frozenset({"content-encoding", "content-length"})
"""They describe what came over the wire, and not the content as it is passed on."""


class Wire:
    """Pools of connections, one for each scheme.

    It keeps no cookies, which would pass from one orchestration to another; reads no proxy settings from the
    environment; and logs no URIs, which may hold secrets.
    """

    def __init__(
        self, policy: HttpCallPolicy, resolve: Resolve | None, network: httpcore.AsyncNetworkBackend | None
    ) -> None:
        self._bytes_max = policy.response_bytes_max
        self._places = asyncio.Semaphore(policy.connections_max)
        self._network = CheckedNetwork(policy, resolve or resolve_name, network or _tcp())
        self._agent = _user_agent()
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}

    async def exchange(self, request: DurableHttpRequest, uri: HttpUri, token: str | None) -> DurableHttpResponse:
        """Send a checked request, and read the whole answer.

        Raises:
            DurableHttpError: if that is not possible.
        """
        content = encoded_content(request)
        if content is None and request.method in ("POST", "PUT", "PATCH"):
            content = b""  # so that a length of 0 is announced, which such requests need
        url = httpcore.URL(scheme=uri.scheme, host=uri.host, port=uri.port, target=uri.target)
        sent = self._headers(request, uri, token)
        try:
            async with self._places:
                pool = await self._pool(uri.scheme)
                async with pool.stream(request.method, url, headers=sent, content=content) as answer:
                    headers = _read_headers(answer.headers)
                    encoding = headers.get("content-encoding", "").strip().lower()
                    body = await read_body(answer.aiter_stream(), encoding, self._bytes_max)
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError) as error:
            reason = _root_of(error)
            raise DurableHttpError(
                f"{request.method} {uri.origin} was not answered: {str(reason) or type(reason).__name__}"
            ) from error
        if body and encoding:
            headers = {name: value for name, value in headers.items() if name not in _OF_ENCODED}
        text = decode_text(body, headers.get("content-type", "")) if body else None
        return DurableHttpResponse(status_code=answer.status, headers=headers, content=text)

    async def close(self) -> None:
        for pool in self._pools.values():
            await pool.aclose()

    async def _pool(self, scheme: str) -> httpcore.AsyncConnectionPool:
        if scheme not in self._pools:
            # Certificates are loaded once, and in a thread: it takes longer than many a request.
            tls = await asyncio.to_thread(httpcore.default_ssl_context) if scheme == "https" else None
            self._pools.setdefault(scheme, self._open_pool(tls))  # another call may have been faster
        return self._pools[scheme]

    def _open_pool(self, tls: ssl.SSLContext | None) -> httpcore.AsyncConnectionPool:
        return httpcore.AsyncConnectionPool(
            ssl_context=tls,
            max_connections=None,  # the places bound them, over all schemes
            max_keepalive_connections=_IDLE_CONNECTIONS_MAX,
            keepalive_expiry=_IDLE_S,
            network_backend=self._network,
        )

    def _headers(self, request: DurableHttpRequest, uri: HttpUri, token: str | None) -> list[tuple[bytes, bytes]]:
        headers = {"accept": "*/*", "accept-encoding": "identity", "user-agent": self._agent}
        if request.content is not None:
            headers["content-type"] = "text/plain; charset=utf-8"
        for given in request.headers:
            headers.pop(given.lower(), None)
        headers = {"Host": uri.authority} | headers | request.headers
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        return [(name.encode(), value.strip(" \t").encode()) for name, value in headers.items()]


def _tcp() -> httpcore.AsyncNetworkBackend:
    return httpcore.AnyIOBackend()  # pyright: ignore[reportReturnType] - it is a stub only where anyio is missing


def _read_headers(raw: list[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name_bytes, value_bytes in raw:
        name = name_bytes.decode("latin-1").lower()
        try:
            value = value_bytes.decode()
        except UnicodeDecodeError:
            value = value_bytes.decode("latin-1")
        if name not in headers:
            headers[name] = value
        elif name not in _ONE_VALUE:
            headers[name] += f", {value}"
    return headers


def _root_of(error: BaseException) -> BaseException:
    """The error that the others were raised for: it says what happened."""
    for _ in range(_CAUSES_MAX):
        earlier = error.__cause__ or error.__context__
        if earlier is None:
            break
        error = earlier
    return error


def _user_agent() -> str:
    try:
        return f"holdfast/{importlib.metadata.version('holdfast')}"
    except importlib.metadata.PackageNotFoundError:  # run from its sources
        return "holdfast"
