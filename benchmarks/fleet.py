"""Three hosts on one hub: two processes beside the one that measures, which is the third and has all the clients.

`python -m benchmarks.fleet URL RENEW_S` is one of the processes beside it.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, cast

from benchmarks.functions import app, long_chain
from benchmarks.loop import run
from holdfast import Client, Host, HostConfig, Orchestrator

_HOSTS = 3
_MARK = f"&hosts={_HOSTS}"
_READY = b"ready"
_STANDING = """
SELECT count(*) = $1 AND max(owned) - min(owned) <= 1 AND sum(owned) = (SELECT count(*) FROM partition)
FROM (SELECT count(*) AS owned FROM partition WHERE node_id <> '' GROUP BY node_id) AS hosts
"""

Enter = Callable[[], AbstractAsyncContextManager[Host]]


def shared(url: str) -> str:
    """Return a URL for which `standing_by` lets three hosts share a hub."""
    return url + _MARK


def plain(url: str) -> str:
    """Return the URL of the hub itself."""
    return url.replace(_MARK, "")


@asynccontextmanager
async def standing_by(url: str, config: HostConfig | None = None) -> AsyncGenerator[Enter]:
    """Get ready to enter a host, or all three if the URL says so: their processes run then, and have imported all."""
    if plain(url) == url:
        yield lambda: app.host(url, config=config)
        return
    async with AsyncExitStack() as stack:
        beside = [await stack.enter_async_context(_process(plain(url), config)) for _ in range(_HOSTS - 1)]
        yield lambda: _entered(plain(url), config, beside)


@asynccontextmanager
async def _process(url: str, config: HostConfig | None) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.fleet", url, str((config or HostConfig()).renew_s)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        if (await process.stdout.readline()).strip() != _READY:
            raise RuntimeError("A host beside this one has ended too early.")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def _entered(
    url: str, config: HostConfig | None, beside: list[asyncio.subprocess.Process]
) -> AsyncGenerator[Host]:
    """Let all hosts begin, and wait until each has its share."""
    for process in beside:
        assert process.stdin is not None
        process.stdin.write(b"begin\n")
    async with app.host(url, config=config) as host:
        while not await _is_shared(url):  # noqa: ASYNC110 - nothing tells who is no host
            await asyncio.sleep(0.02)
        yield cast("Host", _Spread(host))


async def _is_shared(url: str) -> bool:
    import asyncpg  # here, since a run on files does without it

    server_url, _, schema = url.partition("&schema=")
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(f"SET search_path = {schema.partition('&')[0]}")
        return bool(await connection.fetchval(_STANDING, _HOSTS))
    finally:
        await connection.close()


class _Spread:
    """A host whose client starts instances all over the hub, as one with ids of its own does."""

    def __init__(self, host: Host) -> None:
        self.client = cast("Client", _SpreadClient(host.client))


class _SpreadClient:
    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def start_new(self, orchestrator: Orchestrator[Any, Any], *values: Any, **options: Any) -> Any:
        if orchestrator is not long_chain:  # which notes times in the process that measures
            options = {"instance_id": uuid.uuid4().hex, **options}
        return await self._client.start_new(orchestrator, *values, **options)


async def _be_beside(url: str, renew_s: float) -> None:
    print(_READY.decode(), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    async with app.host(url, config=HostConfig(renew_s=renew_s)):
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(_be_beside(sys.argv[1], float(sys.argv[2])))
