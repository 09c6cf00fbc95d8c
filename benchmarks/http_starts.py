"""HTTP: starts over the management API, on a server of its own as `holdfast run` serves it.

`python -m benchmarks.http_starts` is a bare server: what uvicorn can do on this machine with nothing behind it.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.types import Receive, Scope, Send

from benchmarks.functions import chain_of_three, start_only
from benchmarks.http_client import post_all
from benchmarks.loop import run
from benchmarks.results import Machine, Ratio, Result, fsyncs, percentile
from holdfast.cli.server import HttpServer, bind

_CONNECTIONS = 50
_PATH = "/runtime/webhooks/durabletask/orchestrators/"
_LISTENS = re.compile(rb"http://127\.0\.0\.1:(\d+)")
_ANSWER = b'{"id":"00000000000000000000000000000000"}'


async def http_starts(url: str, machine: Machine, *, quick: bool) -> list[Result]:
    """HTTP: starts that are durable before they are answered, over 50 connections that are kept.

    The client is this process, and the server another one. What was started does nothing but end: as long as the server
    is busy with it, it answers later.
    """
    count = 500 if quick else 5_000
    async with _server("-m", "benchmarks.http_starts") as port:
        bare_per_s, _, _ = await _measured(port, "bare", count)
    async with _server("-m", "holdfast", "run", "benchmarks.functions:app", "--port", "0", "--store", url) as port:
        await _measured(port, chain_of_three.name, 100)
        per_s, taken, busy = await _measured(port, start_only.name, count)
    p50_s, p99_s = percentile(taken, 50), percentile(taken, 99)
    return [
        Result("HTTP", "bare uvicorn, requests", bare_per_s, "/s"),
        Result("HTTP", "starts, 50 connections", per_s, "/s", Ratio(per_s / bare_per_s, "x bare uvicorn")),
        Result("HTTP", "start, p50", p50_s * 1e3, "ms", fsyncs(p50_s, machine)),
        Result("HTTP", "start, p99", p99_s * 1e3, "ms", fsyncs(p99_s, machine)),
        Result("HTTP", "processor time of the client", busy * 100, "%"),
    ]


async def _measured(port: int, name: str, count: int) -> tuple[float, list[float], float]:
    """Return starts per second, what each took, and which part of the time the client was computing."""
    bodies = (str(number).encode() for number in itertools.islice(itertools.count(), count))
    begin, computed = time.perf_counter(), time.process_time()
    taken = await post_all(port, _PATH + name, bodies, _CONNECTIONS)
    took_s = time.perf_counter() - begin
    return count / took_s, taken, (time.process_time() - computed) / took_s


@asynccontextmanager
async def _server(*command: str) -> AsyncGenerator[int]:
    """Run a server until the end of the block; give its port. What it logs goes into a file."""
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=log, cwd=Path(__file__).parent.parent
        )
        assert process.stdout is not None
        try:
            listens = None
            while listens is None:
                line = await process.stdout.readline()
                if not line:
                    log.seek(0)
                    raise RuntimeError(f"The server ended before it listened: {log.read().decode()}")
                listens = _LISTENS.search(line)
            yield int(listens[1])
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _bare(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_ANSWER))]
    await send({"type": "http.response.start", "status": 202, "headers": headers})
    await send({"type": "http.response.body", "body": _ANSWER})


if __name__ == "__main__":
    server = HttpServer(_bare, bind("127.0.0.1", 0))
    print(server.url, flush=True)
    run(server.serve())
