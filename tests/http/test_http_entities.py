"""Read and signal entities over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from http_app import BASE, PATIENCE, Served, serve

JSON = {"Content-Type": "application/json"}


async def until_state(served: Served, key: str, expected: dict[str, Any]) -> None:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            response = await served.http.get(f"{BASE}/entities/counter/{key}")
            if response.status_code == 200 and response.json() == expected:
                return
            await asyncio.sleep(0.005)


def test_a_signal_changes_the_state_that_is_read() -> None:
    async def scenario(served: Served) -> None:
        assert (await served.http.get(f"{BASE}/entities/counter/clicks")).status_code == 404
        response = await served.http.post(f"{BASE}/entities/Counter/clicks?op=add", content=b"2", headers=JSON)
        assert (response.status_code, response.content) == (202, b"")
        await until_state(served, "clicks", {"value": 2, "notes": ""})
        await served.http.post(f"{BASE}/entities/counter/clicks?op=clear")
        await until_state(served, "clicks", {"value": 0, "notes": ""})

    serve(scenario)


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_declared_as_json_is_a_text(content_type: str | None) -> None:
    async def scenario(served: Served) -> None:
        headers = {"Content-Type": content_type} if content_type else {}
        await served.http.post(f"{BASE}/entities/counter/x?op=note", content="1 grüner", headers=headers)
        await until_state(served, "x", {"value": 0, "notes": "1 grüner"})

    serve(scenario)


@pytest.mark.parametrize("key", ["a%20b", "%C3%BC", "me@example.org", "eu:1", "%40", "$"])
def test_keys_are_decoded(key: str) -> None:
    async def scenario(served: Served) -> None:
        response = await served.http.post(f"{BASE}/entities/counter/{key}?op=add", content=b"1", headers=JSON)
        assert response.status_code == 202
        await until_state(served, key, {"value": 1, "notes": ""})

    serve(scenario)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "text"),
    [
        ("counter/x?op=add", b"{", JSON, 400, "Could not parse JSON content"),
        ("counter/x?op=note", b"\xff", {}, 400, "UTF-8"),
        ("nobody/x?op=add", b"1", JSON, 400, "no entity 'nobody'"),
        ("counter/x", b"1", JSON, 400, "is not the operation"),
        ("counter/x?op=_hidden", b"1", JSON, 400, "is not the operation"),
        (f"counter/{'x' * 300}?op=add", b"1", JSON, 400, "at most 256"),
        ("counter/a%00b?op=add", b"1", JSON, 400, "not allowed"),
        ("counter/a/b?op=add", b"1", JSON, 404, "There is nothing here"),
        ("counter?op=add", b"1", JSON, 404, "There is nothing here"),
    ],
)
def test_bad_signals(path: str, body: bytes, headers: dict[str, str], status: int, text: str) -> None:
    async def scenario(served: Served) -> None:
        response = await served.http.post(f"{BASE}/entities/{path}", content=body, headers=headers)
        assert response.status_code == status
        assert text in response.text

    serve(scenario)


@pytest.mark.parametrize("operation", ["terminate", "suspend", "raiseEvent/Go"])
def test_an_entity_is_no_orchestration(operation: str) -> None:
    async def scenario(served: Served) -> None:
        await served.http.post(f"{BASE}/entities/counter/x?op=add", content=b"1", headers=JSON)
        await until_state(served, "x", {"value": 1, "notes": ""})
        refused = await served.http.post(f"{BASE}/instances/%40counter%40x/{operation}", content=b"1", headers=JSON)
        assert refused.status_code == 404
        await served.http.post(f"{BASE}/entities/counter/x?op=add", content=b"1", headers=JSON)
        await until_state(served, "x", {"value": 2, "notes": ""})

    serve(scenario)


def test_lists_go_on_where_the_token_says() -> None:
    async def scenario(served: Served) -> None:
        for key in ("a", "b", "ü", "😀"):
            await served.http.post(f"{BASE}/entities/counter/{key}?op=add", content=b"1", headers=JSON)
            await until_state(served, key, {"value": 1, "notes": ""})
        found: list[dict[str, Any]] = []
        headers: dict[str, str] = {}
        while True:
            page = await served.http.get(f"{BASE}/entities/counter?top=3&fetchState=true", headers=headers)
            found += page.json()
            token = page.headers.get("x-ms-continuation-token")
            if token is None:
                break
            headers = {"x-ms-continuation-token": token}
        assert [each["entityId"] for each in found] == [
            {"name": "counter", "key": key} for key in ("a", "b", "ü", "😀")
        ]
        assert [each["state"]["value"] for each in found] == [1, 1, 1, 1]
        everything = (await served.http.get(f"{BASE}/entities")).json()
        assert [each["entityId"]["key"] for each in everything] == ["a", "b", "ü", "😀"]
        assert "state" not in everything[0]
        later = await served.http.get(f"{BASE}/entities?lastOperationTimeFrom=2100-01-01")
        assert later.json() == []
        for bad in ("top=0", "top=-1", "top=x", "lastOperationTimeTo=soon"):
            assert (await served.http.get(f"{BASE}/entities?{bad}")).status_code == 400

    serve(scenario)


def test_a_deleted_entity_is_gone() -> None:
    async def scenario(served: Served) -> None:
        await served.http.post(f"{BASE}/entities/counter/x?op=add", content=b"1", headers=JSON)
        await until_state(served, "x", {"value": 1, "notes": ""})
        assert (await served.http.delete(f"{BASE}/entities/counter/x")).status_code == 202
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while (await served.http.get(f"{BASE}/entities/counter/x")).status_code != 404:
                await asyncio.sleep(0.005)
        assert (await served.http.get(f"{BASE}/entities")).json() == []

    serve(scenario)


def test_a_lock_is_seen_and_broken() -> None:
    async def scenario(served: Served) -> None:
        lock = f"{BASE}/entities/counter/shared/lock"
        assert (await served.http.get(lock)).status_code == 404
        assert (await served.http.delete(lock)).json() == {"lockedBy": None}
        for instance_id in ("first", "second"):
            await served.http.post(f"{BASE}/orchestrators/keep_lock/{instance_id}")
            async with asyncio.timeout(PATIENCE.total_seconds()):
                while instance_id not in (await served.http.get(lock)).text:
                    await asyncio.sleep(0.005)
        seen = (await served.http.get(lock)).json()
        assert seen["lockedBy"]["instanceId"] == "first"
        assert [each["instanceId"] for each in seen["waiting"]] == ["second"]
        assert (await served.http.delete(lock)).json()["lockedBy"]["instanceId"] == "first"
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while (await served.http.get(lock)).json()["lockedBy"]["instanceId"] != "second":
                await asyncio.sleep(0.005)

    serve(scenario)
