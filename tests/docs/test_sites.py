"""The page on Django and Flask: its programs take orders, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

from holdfast import App, OrchestrationContext
from holdfast.cli.server import HttpServer, bind, url_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "use-with-django.md"
KEY = "a key for tests"

_ASK_DJANGO = """
import shop
from datetime import timedelta
from django.test import Client

site = Client()
assert site.get("/orders/17").status_code == 404
placed = site.post("/orders/17/place", data='["tea", "cup"]', content_type="application/json")
assert placed.status_code == 202, placed.content
shop.durable.wait_for_completion("17", timeout=timedelta(seconds=30))
assert site.get("/orders/17").json() == {"status": "Completed", "result": ["packed tea", "packed cup"]}
shop.durable.start_new("wait", instance_id="18")
again = site.post("/orders/18/place", data='["tea"]', content_type="application/json")
assert again.status_code == 409, again.content
"""

_ASK_FLASK = """
import shop
from datetime import timedelta

site = shop.shop.test_client()
assert site.get("/orders/nobody").status_code == 404
placed = site.post("/orders", json=["tea"])
assert placed.status_code == 202
order = placed.get_json()["order"]
shop.durable.wait_for_completion(order, timeout=timedelta(seconds=30))
assert site.get(f"/orders/{order}").get_json() == {"status": "Completed", "result": ["packed tea"]}
"""


def program(framework: str) -> str:
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    [found] = [block for block in blocks if f"from {framework}" in block]
    return str(found)


def run(folder: Path, framework: str, script: str, **environment: str) -> None:
    (folder / "shop.py").write_text(program(framework), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr


def test_django_takes_orders_as_a_client_of_a_host(tmp_path: Path) -> None:
    app = App()

    @app.orchestrator
    async def fulfil(ctx: OrchestrationContext, items: list[str]) -> list[str]:
        return [f"packed {item}" for item in items]

    @app.orchestrator
    async def wait(ctx: OrchestrationContext) -> None:
        await ctx.wait_for_external_event("never")

    async def main() -> None:
        async with app.host("memory://") as host:
            with contextlib.closing(bind("127.0.0.1", 0)) as listener:
                server = HttpServer(host.http_app(KEY), listener)
                job = asyncio.create_task(server.serve())
                try:
                    await asyncio.to_thread(
                        run, tmp_path, "django", _ASK_DJANGO, HOLDFAST_URL=url_of(listener), HOLDFAST_KEY=KEY
                    )
                finally:
                    server.stop()
                    await job

    asyncio.run(main())


def test_flask_takes_orders_and_runs_the_host_itself(tmp_path: Path) -> None:
    run(tmp_path, "flask", _ASK_FLASK)
