"""The command as a process of its own."""

from __future__ import annotations

import os
import queue
import re
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx

BASE = "/runtime/webhooks/durabletask"
PATIENCE_S = 60

TINY = """
import time
from holdfast import App, OrchestrationContext

app = App()

@app.activity
def double(number: int) -> int:
    return 2 * number

@app.activity(process=True)
def negative(number: int) -> int:
    return -number

@app.orchestrator
async def flow(ctx: OrchestrationContext, number: int) -> int:
    doubled = await ctx.call_activity(double, number)
    return await ctx.call_activity(negative, doubled)

@app.orchestrator
async def waiting(ctx: OrchestrationContext) -> str:
    return await ctx.wait_for_external_event("Go")

@app.route("/hello", methods=["GET"])
async def hello(request, client):
    return "hello"
"""


def holdfast(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command until it ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *arguments],
        cwd=cwd,
        env={**_environment(), **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
        check=False,
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "default"}


class Running:
    """`holdfast run`, with a free port, from when it listens until it has ended."""

    def __init__(self, *arguments: str, cwd: Path, verify: ssl.SSLContext | bool = True, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "holdfast", "run", *arguments, "--port", "0"],
            cwd=cwd,
            env={**_environment(), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        self.output = ""
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        # The block that a server prints is over with its routes.
        self.wait_for("Routes")
        found = re.search(r"Listening on\s+(https?://\S+:\d+)", self.output)
        assert found is not None, self.output
        self.url = found[1]
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=PATIENCE_S, verify=verify)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, text: str) -> None:
        """Read the output until a text comes."""
        while text not in self.output:
            line = self._lines.get(timeout=PATIENCE_S)
            assert line is not None, f"ended without {text!r}: {self.output}"
            self.output += line

    def result(self, instance_id: str) -> Any:
        """Start a flow under an id and wait for what it returns."""
        url = f"{BASE}/orchestrators/flow/{instance_id}?timeout={PATIENCE_S}&pollingInterval=1"
        response = self.http.post(url, json=21)
        assert response.status_code == 200, response.text
        return response.json()

    def status(self, instance_id: str) -> Any:
        return self.http.get(f"{BASE}/instances/{instance_id}").json()

    def stop(self) -> int:
        """Send SIGTERM, and return the exit code."""
        self.process.terminate()
        return self.end()

    def end(self) -> int:
        """Wait for the end, and return the exit code."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        while (line := self._lines.get(timeout=PATIENCE_S)) is not None:
            self.output += line
        self.http.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            # Not killed: processes that run activities would be left behind, with the pipe that is read here.
            self.process.terminate()
            self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        self.http.close()
        if self.process.stdout is not None:
            self.process.stdout.close()
