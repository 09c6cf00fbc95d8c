"""Where the management URLs lead: the bases, the common parameters, the creation URLs, what embedders ask for."""

from __future__ import annotations

import pytest
from http_app import BASE, ORIGIN, Served, serve
from test_http_orchestrations import management_urls

from holdfast import HostConfig

LEGACY_BASE = "/admin/extensions/DurableTaskExtension"


def test_the_older_base_is_the_same_api_and_its_urls_stay_there() -> None:
    async def scenario(served: Served) -> None:
        started = await served.http.post(f"{LEGACY_BASE}/orchestrators/WaitForApproval/x")
        assert started.status_code == 202
        assert started.json() == {"id": "x", **management_urls("x", base=LEGACY_BASE)}
        status = await served.http.get(started.headers["location"])
        assert (status.status_code, status.headers["location"]) == (202, started.headers["location"])
        assert (await served.http.get(f"{LEGACY_BASE}/instances")).json()[0]["instanceId"] == "x"
        assert (await served.http.get(f"{LEGACY_BASE}/openapi.json")).status_code == 200
        assert (await served.http.post(f"{LEGACY_BASE}/entities/counter/x?op=clear")).status_code == 202

    serve(scenario)


@pytest.mark.parametrize(
    ("query", "repeated"),
    [
        ("", ""),
        ("?taskHub=a%20b", "taskHub=a%20b"),
        ("?connection=c&taskHub=h", "taskHub=h&connection=c"),
        ("?connectionName=c", "connection=c"),
        ("?taskHub=&connection=", ""),
        ("?taskHub=x%22%0D%0A%26", "taskHub=x%22%0D%0A%26"),
    ],
)
def test_hub_and_connection_are_repeated(query: str, repeated: str) -> None:
    async def scenario(served: Served) -> None:
        started = await served.http.post(f"{BASE}/orchestrators/WaitForApproval/x{query}")
        assert started.json() == {"id": "x", **management_urls("x", repeated)}
        status = await served.http.get(started.headers["location"])
        assert status.status_code == 202
        assert (await served.http.get(f"{BASE}/instances/x{query}")).status_code == 202

    serve(scenario)


def test_every_url_of_a_payload_does_what_it_says() -> None:
    async def scenario(served: Served) -> None:
        async def post(url: str) -> int:
            return (await served.http.post(url.replace("{text}", "why"))).status_code

        urls = (await served.http.post(f"{BASE}/orchestrators/WaitForApproval/x?taskHub=h", content=b"")).json()
        await served.until("x", "Running")
        assert await post(urls["suspendPostUri"]) == 202
        assert await post(urls["resumePostUri"]) == 202
        assert await post(urls["restartPostUri"]) == 202
        assert await post(urls["rewindPostUri"]) == 412
        event = urls["sendEventPostUri"].replace("{eventName}", "ApprovalEvent")
        assert (await served.http.post(event, json="yes")).status_code == 202
        await served.ended("x")
        assert (await served.http.get(urls["statusQueryGetUri"])).json()["output"] == "yes"
        assert await post(urls["terminatePostUri"]) == 410
        assert (await served.http.delete(urls["purgeHistoryDeleteUri"])).json() == {"instancesDeleted": 1}

    serve(scenario)


def test_an_embedder_gets_all_urls() -> None:
    async def scenario(served: Served) -> None:
        payload = (await served.http.get("/api/payload/x?taskHub=h")).json()
        orchestrators = f"{ORIGIN}{BASE}/orchestrators/{{functionName}}[/{{instanceId}}]"
        assert payload == {
            "id": "x",
            **management_urls("x", "taskHub=h&code=k"),
            "createNewInstancePostUri": f"{orchestrators}?taskHub=h&code=k",
            "createAndWaitOnNewInstancePostUri": (
                f"{orchestrators}?timeout={{timeoutInSeconds}}&pollingInterval={{intervalInSeconds}}&taskHub=h&code=k"
            ),
        }

    async def with_key(served: Served) -> None:
        served.http.headers["x-functions-key"] = "k"
        await scenario(served)

    serve(with_key, key="k")


PROXY = {"X-Forwarded-Host": "flows.example.org", "X-Forwarded-Proto": "https"}


@pytest.mark.parametrize(
    ("setting", "headers", "origin"),
    [
        ("ignore", PROXY, ORIGIN),
        ("trust", PROXY, "https://flows.example.org"),
        ("trust", {}, ORIGIN),
        ("trust", {"X-Forwarded-Host": "a.example:8443, b.example"}, "http://a.example:8443"),
        ("trust", {"X-Forwarded-Host": "[2001:db8::1]:443"}, "http://[2001:db8::1]:443"),
        ("trust", {"X-Forwarded-Proto": "https, http"}, ORIGIN.replace("http:", "https:")),
        ("trust", {"X-Forwarded-Host": "evil.example/path?x=", "X-Forwarded-Proto": "javascript"}, ORIGIN),
    ],
)
def test_urls_are_those_of_the_proxy_if_it_is_trusted(setting: str, headers: dict[str, str], origin: str) -> None:
    async def scenario(served: Served) -> None:
        for path in (f"{BASE}/orchestrators/WaitForApproval/x", "/api/orders/y"):
            response = await served.http.post(path, headers=headers, content=b"1" if "orders" in path else b"")
            assert response.headers["location"] == f"{origin}{BASE}/instances/{path[-1]}"

    config = HostConfig(http_forwarded_host=setting)  # type: ignore[arg-type]  # one of the two
    serve(scenario, config=config)


def test_a_proxy_does_not_open_what_is_for_this_machine_only() -> None:
    async def scenario(served: Served) -> None:
        headers = {"Host": "evil.example", "X-Forwarded-Host": "localhost"}
        assert (await served.http.get(f"{BASE}/instances", headers=headers)).status_code == 403

    serve(scenario, config=HostConfig(http_forwarded_host="trust"), loopback_only=True)
