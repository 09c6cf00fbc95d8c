"""The page on embedding: its program serves orders and the management API as one ASGI app."""

from __future__ import annotations

import asyncio
import importlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "embed-in-fastapi.md"


def test_shop_serves_orders_and_the_management_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    (tmp_path / "embedded_shop.py").write_text(found[1], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    asyncio.run(place_orders(importlib.import_module("embedded_shop")))


async def place_orders(module: Any) -> None:
    shop = module.shop
    async with (
        asyncio.timeout(30),
        shop.router.lifespan_context(shop),
        httpx.AsyncClient(transport=httpx.ASGITransport(shop), base_url="http://localhost") as http,
    ):
        order = (await http.post("/orders", json=["tea", "cup"])).json()["order"]
        await module.host.client.wait_for_completion(order)
        status = (await http.get(f"/orders/{order}")).json()
        assert status == {"status": "Completed", "result": ["packed tea", "packed cup"]}
        assert (await http.get("/orders/nobody")).status_code == 404
        started = await http.post("/durable/api/orchestrators/fulfil", json=["pot"])
        path = urlsplit(started.headers["Location"]).path
        assert path.startswith("/durable/runtime/webhooks/durabletask/instances/")
        assert (await http.get(path)).status_code in (200, 202)
