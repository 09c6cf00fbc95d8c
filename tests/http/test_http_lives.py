"""What makes an instance live again, or asks its code something: rewind, restart, fork, cancel, query, update."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from http_app import BASE, ORIGIN, PATIENCE, Served, serve

from holdfast import ConfigurationError, HostConfig

INSTANCES = f"{BASE}/instances"
LEGACY = HostConfig(http_status_codes="legacy")


def test_a_failed_instance_is_rewound() -> None:
    async def scenario(served: Served) -> None:
        await served.start("settling", "x", "bill")
        assert (await served.ended("x"))["runtimeStatus"] == "Failed"
        rewound = await served.http.post(f"{INSTANCES}/x/rewind?reason=paid%20now")
        assert (rewound.status_code, rewound.content) == (202, b"")
        status = await served.ended("x")
        assert (status["runtimeStatus"], status["output"]) == ("Completed", "bill")

    serve(scenario)


@pytest.mark.parametrize(
    ("config", "completed", "running"), [(HostConfig(), 412, 412), (LEGACY, 410, 500)], ids=["current", "legacy"]
)
def test_what_has_not_failed_is_not_rewound(config: HostConfig, completed: int, running: int) -> None:
    async def scenario(served: Served) -> None:
        await served.start("echo", "completed")
        await served.ended("completed")
        await served.start("WaitForApproval", "running")
        await served.until("running", "Running")
        assert (await served.http.post(f"{INSTANCES}/completed/rewind")).status_code == completed
        assert (await served.http.post(f"{INSTANCES}/running/rewind")).status_code == running
        assert (await served.http.post(f"{INSTANCES}/nobody/rewind")).status_code == 404
        assert (await served.http.post(f"{INSTANCES}/%40counter%40x/rewind")).status_code == 404

    serve(scenario, config=config)


def test_a_restart_answers_as_a_start_does() -> None:
    async def scenario(served: Served) -> None:
        await served.start("echo", "x", {"a": 1})
        await served.ended("x")
        again = await served.http.post(f"{INSTANCES}/x/restart")
        assert (again.status_code, again.headers["retry-after"]) == (202, "10")
        new_id = again.json()["id"]
        assert new_id != "x"
        assert again.headers["location"] == f"{ORIGIN}{INSTANCES}/{new_id}"
        assert (await served.ended(new_id))["output"] == {"a": 1}

        same = await served.http.post(f"{INSTANCES}/x/restart?restartWithNewInstanceId=false")
        assert (same.status_code, same.json()["id"]) == (202, "x")
        await served.ended("x")
        waited = await served.http.post(f"{INSTANCES}/x/restart?timeout=30&pollingInterval=1")
        assert (waited.status_code, waited.json()) == (200, {"a": 1})

    serve(scenario)


@pytest.mark.parametrize(("config", "status"), [(HostConfig(), 409), (LEGACY, 400)], ids=["current", "legacy"])
def test_ids_in_use_are_not_taken(config: HostConfig, status: int) -> None:
    async def scenario(served: Served) -> None:
        await served.start("WaitForApproval", "x")
        assert (await served.http.post(f"{BASE}/orchestrators/echo/x")).status_code == status
        same = await served.http.post(f"{INSTANCES}/x/restart?restartWithNewInstanceId=false")
        assert same.status_code == status
        missing = await served.http.post(f"{INSTANCES}/nobody/restart")
        assert missing.status_code == 400
        assert missing.json()["Message"] == "InstanceId does not match a valid orchestration instance."

    serve(scenario, config=config)


def test_the_codes_are_current_or_legacy() -> None:
    with pytest.raises(ConfigurationError, match="'current', 'legacy'"):
        HostConfig(http_status_codes="older")  # type: ignore[arg-type]  # what is being refused


def test_a_cancelled_instance() -> None:
    async def scenario(served: Served) -> None:
        await served.start("WaitForApproval", "x")
        cancelled = await served.http.post(f"{INSTANCES}/x/cancel?reason=rain")
        assert (cancelled.status_code, cancelled.content) == (202, b"")
        assert (await served.ended("x"))["runtimeStatus"] == "Canceled"
        assert (await served.http.get(f"{INSTANCES}/x")).status_code == 200
        assert (await served.http.post(f"{INSTANCES}/x/cancel")).status_code == 410
        assert (await served.http.post(f"{INSTANCES}/nobody/cancel")).status_code == 404

    serve(scenario)


def test_a_fork_goes_on_from_an_episode() -> None:
    async def scenario(served: Served) -> None:
        await served.start("staged", "x")
        for _ in range(2):
            await served.http.post(f"{INSTANCES}/x/raiseEvent/Next", json=1)
        await served.ended("x")
        forked = await served.http.post(f"{INSTANCES}/x/fork?newInstanceId=y&episode=1")
        assert (forked.status_code, forked.json()["id"]) == (202, "y")
        await served.until("y", "Running")
        await served.http.post(f"{INSTANCES}/y/raiseEvent/Next", json=1)
        while (await served.until("y", "Running"))["customStatus"] != "second":  # it waits for the other one then
            await asyncio.sleep(0.005)
        for query, status in {
            "newInstanceId=y": 409,
            "episode=99": 400,
            "episode=x": 400,
            "newInstanceId=a/b": 400,
        }.items():
            assert (await served.http.post(f"{INSTANCES}/x/fork?{query}")).status_code == status, query
        assert (await served.http.post(f"{INSTANCES}/nobody/fork")).status_code == 404

    serve(scenario)


@pytest.mark.parametrize(
    ("path", "body", "status", "answer"),
    [
        ("c/query/items", None, 200, ["fig"]),
        ("c/query/nothing", None, 409, "holdfast.errors.QueryFailedError"),
        ("nobody/query/items", None, 404, "holdfast.errors.InstanceNotFoundError"),
        ("ended/query/items", None, 410, "holdfast.errors.InstanceNotRunningError"),
        ("c/query/items", b"{", 400, "holdfast.http.errors.BadRequestError"),
        ("c/update/add", b'"pear"', 200, 2),
        ("c/update/add?updateId=again&timeout=20", b'"pear"', 200, 2),
        ("c/update/add", b'"fig"', 409, "holdfast.errors.UpdateRejectedError"),
        ("c/update/nothing", b"1", 409, "holdfast.errors.UpdateRejectedError"),
        ("c/update/remove", b'"kiwi"', 422, "builtins.ValueError"),
        ("ended/update/add", b'"pear"', 410, "holdfast.errors.InstanceNotRunningError"),
        ("nobody/update/add", b'"pear"', 404, "holdfast.errors.InstanceNotFoundError"),
        ("c/update/add?timeout=x", b'"pear"', 400, "holdfast.http.errors.BadRequestError"),
        ("c/update/add?timeout=0", b'"pear"', 400, "holdfast.errors.InvalidInputError"),
    ],
)
def test_queries_and_updates(path: str, body: bytes | None, status: int, answer: Any) -> None:
    async def scenario(served: Served) -> None:
        await served.start("echo", "ended")
        await served.ended("ended")
        await served.start("cart", "c")
        await served.host.client.update("c", "add", "fig", timeout=PATIENCE)
        response = await served.http.post(f"{INSTANCES}/{path}", content=body)
        assert response.status_code == status, response.text
        told = response.json()
        assert (told if status == 200 else told["ExceptionType"]) == answer
        if "updateId" in path:
            assert (await served.http.post(f"{INSTANCES}/{path}", content=body)).json() == answer

    serve(scenario)


def test_an_update_without_an_answer_in_time() -> None:
    async def scenario(served: Served) -> None:
        await served.start("cart", "c")
        await served.until("c", "Running")
        await served.http.post(f"{INSTANCES}/c/suspend")
        await served.until("c", "Suspended")
        late = await served.http.post(f"{INSTANCES}/c/update/add?timeout=0.01&updateId=u", json="fig")
        assert late.status_code == 504
        await served.http.post(f"{INSTANCES}/c/resume")
        answer = await served.http.post(f"{INSTANCES}/c/update/add?updateId=u", json="fig")
        assert (answer.status_code, answer.json()) == (200, 1)

    serve(scenario)


@pytest.mark.parametrize("operation", ["terminate", "suspend"])
def test_children_are_reached_on_request(operation: str) -> None:
    async def scenario(served: Served) -> None:
        await served.start("keeps_child", "parent")
        await served.until("child", "Running")
        assert (await served.http.post(f"{INSTANCES}/parent/{operation}?recursive=true")).status_code == 202
        expected = {"terminate": "Terminated", "suspend": "Suspended"}[operation]
        await served.until("parent", expected)
        await served.until("child", expected)

    serve(scenario)


def test_a_start_takes_a_version_and_ignores_traces() -> None:
    async def scenario(served: Served) -> None:
        trace = {"traceparent": "not a trace", "tracestate": "x" * 2000}
        url = f"{BASE}/orchestrators/versioned/x?version=2&timeout=30&pollingInterval=1"
        response = await served.http.post(url, headers=trace)
        assert (response.status_code, response.json()) == (200, "two")
        refused = await served.http.post(f"{BASE}/orchestrators/versioned?version=3")
        assert refused.status_code == 400

    serve(scenario)


def test_this_host_is_the_primary_one() -> None:
    async def scenario(served: Served) -> None:
        assert (await served.http.post(f"{BASE}/makeprimary")).status_code == 200
        await served.host.stop()
        assert (await served.http.post(f"{BASE}/makeprimary")).status_code == 503

    serve(scenario)


def test_rewinding_and_waiting_clients_do_not_disturb_each_other() -> None:
    async def scenario(served: Served) -> None:
        await served.start("settling", "x", "bill")
        await served.ended("x")
        rewinds = [served.http.post(f"{INSTANCES}/x/rewind") for _ in range(5)]
        codes = sorted([each.status_code for each in await asyncio.gather(*rewinds)])
        assert codes[0] == 202
        assert set(codes[1:]) <= {412, 429}

    serve(scenario)
