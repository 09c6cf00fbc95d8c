"""Who is let in."""

from __future__ import annotations

import pytest
from http_app import BASE, PATIENCE, Served, serve

KEY = "s3cret/+ é"
ENCODED = "s3cret%2F%2B%20%C3%A9"
URL = f"{BASE}/orchestrators/WaitForApproval"


def test_with_a_key_each_request_must_carry_it() -> None:
    async def scenario(served: Served) -> None:
        for path in (f"{URL}/a", "/api/orchestrators/echo", "/api/orders/1", "/nowhere"):
            refused = await served.http.post(path, content=b"")
            assert refused.status_code == 401, path
            assert "x-functions-key" in refused.json()["Message"]
            for wrong in ("", "S3cret", ENCODED + "x", "%FF"):
                assert (await served.http.post(f"{path}?code={wrong}", content=b"")).status_code == 401
        assert await served.host.client.get_status("a") is None
        assert (await served.http.get("/healthz")).status_code == 200
        assert (await served.http.post(f"{URL}/b?code={ENCODED}")).status_code == 202
        header = {"x-functions-key": KEY.encode()}
        assert (await served.http.post(f"{URL}/c", headers=header)).status_code == 202
        assert (await served.http.get("/nowhere", headers=header)).status_code == 404

    serve(scenario, key=KEY)


def test_the_urls_of_a_payload_carry_the_key() -> None:
    async def scenario(served: Served) -> None:
        payload = (await served.http.post(f"{URL}/x?code={ENCODED}")).json()
        assert payload.pop("id") == "x"
        assert all(url.endswith((f"?code={ENCODED}", f"&code={ENCODED}")) for url in payload.values())
        status = await served.http.get(payload["statusQueryGetUri"])
        assert status.status_code == 202
        event = payload["sendEventPostUri"].replace("{eventName}", "ApprovalEvent")
        assert (await served.http.post(event, json=True)).status_code == 202
        await served.host.client.wait_until_stopped("x", timeout=PATIENCE)
        assert (await served.http.get(payload["statusQueryGetUri"])).json()["output"] is True

    serve(scenario, key=KEY)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost"}, 202),
        ({"Host": "LOCALHOST:7071"}, 202),
        ({"Host": "127.0.0.1:1"}, 202),
        ({"Host": "[::1]:7071"}, 202),
        ({"Host": "localhost:7071", "Origin": "http://localhost:7071"}, 202),
        ({"Host": "localhost:7071", "Origin": "http://127.0.0.1:3000"}, 202),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example:7071"}, 403),
        ({"Host": "localhost@evil.example"}, 403),
        ({"Host": "192.168.0.7:7071"}, 403),
        ({"Host": "[::1"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost:7071", "Origin": "https://evil.example"}, 403),
        ({"Host": "localhost:7071", "Origin": "http://localhost.evil.example"}, 403),
        ({"Host": "localhost:7071", "Origin": "null"}, 403),
    ],
)
def test_without_a_key_only_this_machine_is_answered(headers: dict[str, str], status: int) -> None:
    async def scenario(served: Served) -> None:
        response = await served.http.post(URL, headers=headers)
        assert response.status_code == status

    serve(scenario, loopback_only=True)


def test_a_mounted_app_works_behind_any_name() -> None:
    async def scenario(served: Served) -> None:
        response = await served.http.post(URL, headers={"Host": "api.example.org", "Origin": "https://example.org"})
        assert response.status_code == 202
        assert response.headers["location"].startswith(f"http://api.example.org{BASE}/instances/")

    serve(scenario)
