"""Start, watch and steer orchestrations over HTTP, as clients of the protocol do."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_app import BASE, ORIGIN, PATIENCE, Served, make_app, serve, serving
from starlette.applications import Starlette
from starlette.routing import Mount

from holdfast import App

FALSY = [b"null", b"0", b'""', b"[]", b"{}", b"false"]


def management_urls(instance: str, query: str = "", base: str = BASE) -> dict[str, str]:
    url = f"{ORIGIN}{base}/instances/{instance}"
    first, more = (f"?{query}", f"&{query}") if query else ("", "")
    return {
        "purgeHistoryDeleteUri": url + first,
        "sendEventPostUri": f"{url}/raiseEvent/{{eventName}}{first}",
        "statusQueryGetUri": url + first,
        "restartPostUri": f"{url}/restart{first}",
        "terminatePostUri": f"{url}/terminate?reason={{text}}{more}",
        "suspendPostUri": f"{url}/suspend?reason={{text}}{more}",
        "resumePostUri": f"{url}/resume?reason={{text}}{more}",
        "rewindPostUri": f"{url}/rewind?reason={{text}}{more}",
    }


@pytest.mark.parametrize("base", [BASE, "/api"])
def test_a_start_answers_202_with_the_management_urls(base: str) -> None:
    async def scenario(served: Served) -> None:
        response = await served.http.post(f"{base}/orchestrators/echo", content=b"")
        assert response.status_code == 202
        assert response.headers["content-type"] == "application/json"
        assert response.headers["retry-after"] == "10"
        body = response.json()
        assert re.fullmatch("[0-9a-f]{32}", body["id"])
        assert body == {"id": body["id"], **management_urls(body["id"])}
        assert response.headers["location"] == body["statusQueryGetUri"]
        assert (await served.ended(body["id"]))["runtimeStatus"] == "Completed"

    serve(scenario)


@pytest.mark.parametrize("base", [BASE, "/api"])
def test_a_start_takes_an_id_and_common_parameters(base: str) -> None:
    async def scenario(served: Served) -> None:
        query = "?taskHub=hub&connection=Storage&code=ignored&returnInternalServerErrorOnFailure=TRUE"
        response = await served.http.post(f"{base}/orchestrators/echo/mine{query}", content=b"")
        assert response.status_code == 202
        repeated = "taskHub=hub&connection=Storage"
        urls = management_urls("mine", repeated)
        urls["statusQueryGetUri"] = urls["purgeHistoryDeleteUri"].replace(
            "?", "?returnInternalServerErrorOnFailure=true&"
        )
        assert response.json() == {"id": "mine", **urls}

    serve(scenario)


def test_ids_are_decoded_and_encoded(tmp_path: Path) -> None:
    async def scenario(served: Served) -> None:
        for encoded, instance_id in {
            "two%20words": "two words",
            "gr%C3%BC%C3%9Fe": "grüße",
            "order%3A7": "order:7",
            "50%25": "50%",
            "a+b&c=d": "a+b&c=d",
        }.items():
            response = await served.http.post(f"{BASE}/orchestrators/echo/{encoded}", content=b"1")
            assert response.json()["id"] == instance_id
            await served.host.client.wait_until_stopped(instance_id, timeout=PATIENCE)
            status = await served.http.get(response.headers["location"])
            assert status.status_code == 200
            assert status.json()["instanceId"] == instance_id

    serve(scenario, f"sqlite:///{(tmp_path / 'hub.db').as_posix()}")


@pytest.mark.parametrize("body", FALSY)
def test_falsy_inputs_arrive_unchanged(body: bytes) -> None:
    async def scenario(served: Served) -> None:
        response = await served.http.post(f"{BASE}/orchestrators/echo/x", content=body)
        assert response.status_code == 202
        await served.ended("x")
        raw = (await served.http.get(f"{BASE}/instances/x")).content
        assert b'"input":' + body + b"," in raw
        assert b'"output":' + body + b"," in raw

    serve(scenario)


@pytest.mark.parametrize("body", [b"", b"  \n"])
def test_an_empty_body_is_no_input(body: bytes) -> None:
    async def scenario(served: Served) -> None:
        await served.http.post(f"{BASE}/orchestrators/WaitForApproval/x", content=body)
        state = await served.host.client.get_status("x")
        assert state is not None
        assert state.state.input is None

    serve(scenario)


@pytest.mark.parametrize("body", [*FALSY, b""])
def test_falsy_events_arrive_unchanged(body: bytes) -> None:
    async def scenario(served: Served) -> None:
        await served.start("WaitForApproval", "x")
        response = await served.http.post(
            f"{BASE}/instances/x/raiseEvent/ApprovalEvent", content=body, headers={"Content-Type": "application/json"}
        )
        assert (response.status_code, response.content) == (202, b"")
        await served.ended("x")
        assert b'"output":' + (body or b"null") + b"," in (await served.http.get(f"{BASE}/instances/x")).content

    serve(scenario)


def test_the_polling_client_of_the_async_http_pattern(tmp_path: Path) -> None:
    """Start, poll the location while it says 202, read the result at 200."""

    async def scenario(served: Served) -> None:
        started = await served.http.post("/api/orchestrators/WaitForApproval", headers={"Content-Length": "0"})
        assert started.status_code == 202
        location = started.headers["location"]
        assert location.endswith(f"{BASE}/instances/{started.json()['id']}")

        running = await served.http.get(location)
        assert running.status_code == 202
        assert running.headers["location"] == location
        assert running.headers["retry-after"] == "5"
        assert running.json()["runtimeStatus"] in ("Pending", "Running")

        # curl -d "true" .../raiseEvent/ApprovalEvent -H "Content-Type: application/json"
        approved = await served.http.post(
            f"{BASE}/instances/{started.json()['id']}/raiseEvent/ApprovalEvent",
            content="true",
            headers={"Content-Type": "application/json"},
        )
        assert approved.status_code == 202
        await served.ended(started.json()["id"])

        done = await served.http.get(location)
        assert done.status_code == 200
        assert "location" not in done.headers
        assert "retry-after" not in done.headers
        assert done.json()["runtimeStatus"] == "Completed"
        assert done.json()["output"] is True

    serve(scenario, f"sqlite:///{(tmp_path / 'hub.db').as_posix()}")


def test_the_status_object() -> None:
    async def scenario(served: Served) -> None:
        await served.start("doubled", "x", 21)
        status = await served.ended("x")
        times = status.pop("createdTime"), status.pop("lastUpdatedTime")
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", time) for time in times)
        assert status == {
            "name": "doubled",
            "instanceId": "x",
            "runtimeStatus": "Completed",
            "input": 21,
            "customStatus": {"step": 0},
            "output": 42,
        }
        for query, shown in {"false": None, "FALSE": None, "true": 21, "maybe": 21, "": 21}.items():
            hidden = (await served.http.get(f"{BASE}/instances/x?showInput={query}")).json()
            assert hidden["input"] == shown

    serve(scenario)


def test_a_location_repeats_the_query_of_a_status_request() -> None:
    async def scenario(served: Served) -> None:
        await served.start("WaitForApproval", "two%20words")
        url = f"{BASE}/instances/two%20words?showInput=false&code=x"
        assert (await served.http.get(url)).headers["location"] == f"{ORIGIN}{url}"

    serve(scenario)


def test_a_failure_is_an_output_and_a_500_on_request() -> None:
    async def scenario(served: Served) -> None:
        await served.start("failing", "x", "no such card")
        status = await served.ended("x")
        assert status["runtimeStatus"] == "Failed"
        assert "no such card" in status["output"]
        response = await served.http.get(f"{BASE}/instances/x")
        assert response.status_code == 200
        response = await served.http.get(f"{BASE}/instances/x?returnInternalServerErrorOnFailure=true")
        assert response.status_code == 500
        assert response.json() == status

    serve(scenario)


def test_the_history_is_folded() -> None:
    async def scenario(served: Served) -> None:
        await served.start("doubled", "x", 21)
        await served.ended("x")
        rows = await history(served, "x", "showHistory=true&showHistoryOutput=true")
        assert rows == [
            {"EventType": "ExecutionStarted", "FunctionName": "doubled", "Input": 21},
            {"EventType": "TaskCompleted", "FunctionName": "double", "Input": 21, "Result": 42},
            {"EventType": "ExecutionCompleted", "OrchestrationStatus": "Completed", "Result": 42},
        ]
        rows = await history(served, "x", "showHistory=true&showInput=false")
        assert rows == [
            {"EventType": "ExecutionStarted", "FunctionName": "doubled"},
            {"EventType": "TaskCompleted", "FunctionName": "double"},
            {"EventType": "ExecutionCompleted", "OrchestrationStatus": "Completed"},
        ]
        assert "historyEvents" not in (await served.http.get(f"{BASE}/instances/x?showHistory=false")).json()

    serve(scenario)


def test_versions_and_tags_are_no_part_of_a_folded_history() -> None:
    async def scenario(served: Served) -> None:
        await served.host.client.start_new("versioned", instance_id="x", version="2", tags={"team": "red"})
        await served.ended("x")
        rows = await history(served, "x", "showHistory=true")
        assert rows[0] == {"EventType": "ExecutionStarted", "FunctionName": "versioned"}
        whole = (await served.http.get(f"{BASE}/instances/x/history")).json()
        [started] = [row for row in whole if row["EventType"] == "ExecutionStarted"]
        assert (started["Version"], started["Tags"]) == ("2", {"team": "red"})

    serve(scenario)


async def history(served: Served, instance_id: str, query: str) -> list[dict[str, Any]]:
    """Return the rows of a history without their times, which must be there."""
    rows = (await served.http.get(f"{BASE}/instances/{instance_id}?{query}")).json()["historyEvents"]
    for row in rows:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", row.pop("Timestamp"))
        if row["EventType"] in ("TaskCompleted", "TaskFailed", "SubOrchestrationInstanceCompleted"):
            assert row.pop("ScheduledTime")
    return rows


def test_the_history_of_failures_events_and_children() -> None:
    async def scenario(served: Served) -> None:
        await served.start("failing", "failed", "no")
        await served.ended("failed")
        rows = await history(served, "failed", "showHistory=true")
        assert [row["EventType"] for row in rows] == ["ExecutionStarted", "TaskFailed", "ExecutionCompleted"]
        assert rows[1]["FunctionName"] == "refuse"
        assert rows[1]["Reason"] == "builtins.ValueError: no"
        assert "Details" in rows[1]
        assert rows[2]["OrchestrationStatus"] == "Failed"

        await served.start("nested", "parent", 1)
        await served.ended("parent")
        rows = await history(served, "parent", "showHistory=true&showHistoryOutput=true")
        assert rows[1] == {
            "EventType": "SubOrchestrationInstanceCompleted",
            "FunctionName": "doubled",
            "Input": 1,
            "Result": 2,
        }

        await served.start("WaitForApproval", "approved")
        await served.host.client.raise_event("approved", "ApprovalEvent", [1])
        await served.ended("approved")
        raised = {"EventType": "EventRaised", "Name": "ApprovalEvent", "Input": [1]}
        assert raised in await history(served, "approved", "showHistory=true")
        del raised["Input"]
        assert raised in await history(served, "approved", "showHistory=true&showInput=false")

    serve(scenario)


def test_terminate_tells_the_reason_and_works_once() -> None:
    async def scenario(served: Served) -> None:
        await served.start("WaitForApproval", "x")
        response = await served.http.post(f"{BASE}/instances/x/terminate?reason=not%20needed")
        assert (response.status_code, response.content) == (202, b"")
        status = await served.ended("x")
        assert (status["runtimeStatus"], status["output"]) == ("Terminated", "not needed")
        for operation in ("terminate", "suspend", "resume"):
            again = await served.http.post(f"{BASE}/instances/x/{operation}")
            assert again.status_code == 410, operation
        event = await served.http.post(f"{BASE}/instances/x/raiseEvent/ApprovalEvent", json=1)
        assert event.status_code == 410

    serve(scenario)


async def until_status(served: Served, instance_id: str, status: str) -> Any:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            found = (await served.http.get(f"{BASE}/instances/{instance_id}")).json()
            if found["runtimeStatus"] == status:
                return found
            await asyncio.sleep(0.005)


def test_suspend_and_resume() -> None:
    async def scenario(served: Served) -> None:
        await served.start("WaitForApproval", "x")
        await until_status(served, "x", "Running")
        suspended = await served.http.post(f"{BASE}/instances/x/suspend?reason=lunch")
        assert (suspended.status_code, suspended.content) == (202, b"")
        await until_status(served, "x", "Suspended")
        shown = await served.http.get(f"{BASE}/instances/x")
        assert (shown.status_code, shown.json()["output"]) == (202, "lunch")
        again = await served.http.post(f"{BASE}/instances/x/suspend")
        assert again.status_code == 500
        assert "Suspended" in again.json()["ExceptionMessage"]

        await served.http.post(f"{BASE}/instances/x/raiseEvent/ApprovalEvent", json=False)
        resumed = await served.http.post(f"{BASE}/instances/x/resume")
        assert (resumed.status_code, resumed.content) == (202, b"")
        assert (await served.ended("x"))["output"] is False

        await served.start("WaitForApproval", "y")
        await until_status(served, "y", "Running")
        await served.http.post(f"{BASE}/instances/y/suspend?reason=lunch")
        await until_status(served, "y", "Suspended")
        await served.http.post(f"{BASE}/instances/y/resume?reason=back")
        await until_status(served, "y", "Running")
        assert (await served.http.get(f"{BASE}/instances/y")).json()["output"] is None

    serve(scenario)


def test_a_start_waits_for_the_result() -> None:
    async def scenario(served: Served) -> None:
        url = f"{BASE}/orchestrators/{{}}?timeout=30&pollingInterval=0.5"
        done = await served.http.post(url.format("doubled"), json=4)
        assert (done.status_code, done.content) == (200, b"8")
        nothing = await served.http.post(url.format("echo"), content=b"")
        assert (nothing.status_code, nothing.content) == (200, b"null")
        text = await served.http.post(url.format("echo"), json="hi")
        assert text.content == b'"hi"'

        failed = await served.http.post(url.format("failing"), json="no")
        assert failed.status_code == 200
        assert failed.json()["runtimeStatus"] == "Failed"
        failed = await served.http.post(url.format("failing") + "&returnInternalServerErrorOnFailure=true", json="no")
        assert failed.status_code == 500

        late = await served.http.post(f"{BASE}/orchestrators/WaitForApproval/late?timeout=0&pollingInterval=0")
        assert late.status_code == 202
        assert late.json()["id"] == "late"
        assert late.headers["location"] == late.json()["statusQueryGetUri"]
        one = await served.http.post(f"{BASE}/orchestrators/WaitForApproval/one?timeout=30")
        assert one.status_code == 202

    serve(scenario)


def test_a_wait_that_outlives_its_host_still_tells_the_id() -> None:
    async def run() -> None:
        async with serving() as served:
            url = f"{BASE}/orchestrators/WaitForApproval/x?timeout=60&pollingInterval=1"
            waiting = asyncio.create_task(served.http.post(url))
            await until_there(served, "x")
            await served.host.stop()
            response = await waiting
            assert (response.status_code, response.json()["id"]) == (202, "x")

    asyncio.run(run())


async def until_there(served: Served, instance_id: str) -> None:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            if await served.host.client.get_status(instance_id) is not None:
                return
            await asyncio.sleep(0.005)


def test_an_ended_instance_gives_its_id_back() -> None:
    async def scenario(served: Served) -> None:
        await served.start("echo", "x", 1)
        await served.ended("x")
        await served.start("echo", "x", 2)
        assert (await served.ended("x"))["output"] == 2

    serve(scenario)


def test_links_lead_to_where_the_app_is_mounted() -> None:
    async def run() -> None:
        async with make_app().host("memory://") as host:
            outer = Starlette(routes=[Mount("/durable", host.asgi)])
            transport = httpx.ASGITransport(outer)
            async with httpx.AsyncClient(transport=transport, base_url="https://example.org") as http:
                response = await http.post(f"/durable{BASE}/orchestrators/WaitForApproval/x")
                location = response.headers["location"]
                assert location == f"https://example.org/durable{BASE}/instances/x"
                assert (await http.get(location)).headers["location"] == location
                assert (await http.get("/durable/healthz")).status_code == 200
                order = await http.post("/durable/api/orders/y", json=1)
                assert order.headers["location"] == f"https://example.org/durable{BASE}/instances/y"

    asyncio.run(run())


def test_a_parked_instance_says_why(tmp_path: Path) -> None:
    """The instance outlives the code of its orchestrator."""
    store = f"sqlite:///{(tmp_path / 'hub.db').as_posix()}"

    async def before(served: Served) -> None:
        await served.start("WaitForApproval", "x")
        assert "parked" not in await until_status(served, "x", "Running")

    async def after() -> None:
        async with App().host(store) as host:
            transport = httpx.ASGITransport(host.asgi)
            async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as http:
                await http.post(f"{BASE}/instances/x/raiseEvent/ApprovalEvent", json=1)
                await host.client.wait_until_stopped("x", timeout=PATIENCE)
                response = await http.get(f"{BASE}/instances/x")
                assert response.status_code == 202
                status = response.json()
                assert status["runtimeStatus"] == "Suspended"
                assert "WaitForApproval" in status["parked"]["reason"]

    serve(before, store)
    asyncio.run(after())
