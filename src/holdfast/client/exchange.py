"""One request and its answer over HTTP, bounded in time, size and connections; no redirects, no retries."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple

from holdfast.errors import PayloadTooLargeError

if TYPE_CHECKING:
    import ssl

    import httpx

_CONNECT_S_MAX: Final = 5.0
_IDLE_S_MAX: Final = 3.0
"""Shorter than servers keep a connection that is idle: a request must not meet one that is just being closed."""


class NotSentError(Exception):
    """The host did not get the request."""


class AnswerLostError(Exception):
    """The host may have got the request; what became of it is not known."""


class Answer(NamedTuple):
    status: int
    body: bytes


class HttpExchange:
    """Requests to one host. It belongs to one event loop.

    Args:
        connections_max: for requests that are answered at once, and as many again for those that wait.
        transport: instead of sockets.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        *,
        timeout_s: float,
        connections_max: int,
        answer_bytes_max: int,
        transport: httpx.AsyncBaseTransport | None,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        # Here, so that a program without clients of other hosts does not load it.
        import httpx

        self._url = url
        self._timeout_s = timeout_s
        self._answer_bytes_max = answer_bytes_max
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if key is not None:
            headers["x-functions-key"] = key

        # Made once, and only if it is needed: to read all the authorities takes longer than many requests.
        needs_ssl = transport is None and url.startswith("https:")
        trusted = ssl_context or (httpx.create_ssl_context(trust_env=False) if needs_ssl else False)

        def pool() -> httpx.AsyncClient:
            return httpx.AsyncClient(
                headers=headers,
                follow_redirects=False,
                # Proxies and credentials that some variable or file names are not asked for with a key at hand.
                trust_env=False,
                limits=httpx.Limits(max_connections=connections_max, keepalive_expiry=_IDLE_S_MAX),
                transport=transport,
                verify=trusted,
            )

        self._requests, self._waits = pool(), pool()

    async def post(self, path: str, body: bytes, wait_s: float | None) -> Answer | None:
        """Send a request and return its answer; None if the wait ran out before there was a connection for it.

        Args:
            wait_s: how long the host may wait before it answers; None for a request that it answers at once.

        Raises:
            NotSentError, AnswerLostError.
            PayloadTooLargeError: if the answer is over the limit.
        """
        import httpx

        pool, patience_s = (self._requests, self._timeout_s) if wait_s is None else (self._waits, wait_s)
        whole_s = (wait_s or 0) + self._timeout_s
        timeout = httpx.Timeout(
            whole_s, connect=min(_CONNECT_S_MAX, self._timeout_s), pool=patience_s, write=self._timeout_s
        )
        try:
            async with asyncio.timeout(patience_s + whole_s):
                async with pool.stream("POST", self._url + path, content=body, timeout=timeout) as response:
                    return Answer(response.status_code, await self._read(response))
        except httpx.PoolTimeout:
            if wait_s is not None:
                return None
            raise NotSentError("all connections are in use") from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise NotSentError(str(error) or type(error).__name__) from error
        except (httpx.HTTPError, TimeoutError) as error:
            raise AnswerLostError(str(error) or type(error).__name__) from error

    async def _read(self, response: httpx.Response) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.aiter_bytes():
            size += len(chunk)
            if size > self._answer_bytes_max:
                raise PayloadTooLargeError(
                    f"The answer of the host is over {self._answer_bytes_max:,} bytes. Ask for less at once, or raise "
                    "answer_bytes_max of the connection."
                )
            chunks.append(chunk)
        return b"".join(chunks)

    async def close(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._requests.aclose)
            stack.push_async_callback(self._waits.aclose)
