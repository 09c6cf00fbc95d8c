"""Lists, counts and purges of instances."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from http_app import BASE, PATIENCE, Served, serve

from holdfast import HostConfig
from holdfast.codec.history import encode_record
from holdfast.model.failure import FailureDetails

INSTANCES = f"{BASE}/instances"
TOKEN = "x-ms-continuation-token"
LEGACY = HostConfig(http_status_codes="legacy")
WHY = encode_record(FailureDetails("Odd", "differs"))


async def populate(served: Served) -> None:
    await served.start("doubled", "a-1", 1)
    await served.start("failing", "a-2", "no")
    for instance_id in ("a-1", "a-2"):
        await served.ended(instance_id)
    client = served.host.client
    await client.start_new("staged", instance_id="b-1", tags={"team": "red", "kind": "x:y"})
    await client.start_new("keeps_child", instance_id="b-2", tags={"team": "red"})
    for instance_id in ("b-1", "b-2", "child"):
        await served.until(instance_id, "Running")


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", ["a-1", "a-2", "b-1", "b-2", "child"]),
        ("runtimeStatus=Completed", ["a-1"]),
        ("runtimeStatus=completed,FAILED", ["a-1", "a-2"]),
        ("runtimeStatus=Completed&runtimeStatus=Running", ["a-1", "b-1", "b-2", "child"]),
        ("runtimeStatus=Completed,Nonsense", ["a-1"]),
        ("runtimeStatus=Nonsense", ["a-1", "a-2", "b-1", "b-2", "child"]),
        ("runtimeStatus=", ["a-1", "a-2", "b-1", "b-2", "child"]),
        ("instanceIdPrefix=b-", ["b-1", "b-2"]),
        ("createdTimeFrom=2020-01-01", ["a-1", "a-2", "b-1", "b-2", "child"]),
        ("createdTimeFrom=0001-01-01T00:00:00", ["a-1", "a-2", "b-1", "b-2", "child"]),
        ("createdTimeFrom=1-01-01", ["a-1", "a-2", "b-1", "b-2", "child"]),
        ("createdTimeFrom=2020-01-01T00:00:00.0000000Z", ["a-1", "a-2", "b-1", "b-2", "child"]),
        ("createdTimeFrom=2100-01-01T00:00:00+01:00", []),
        ("createdTimeFrom=01/31/2100 10:00:00 PM", []),
        ("createdTimeFrom=Wed, 01 Jan 2098 00:00:00 GMT", []),
        ("createdTimeTo=2020-01-01", []),
        ("lastUpdatedTimeFrom=2100-01-01", []),
        ("lastUpdatedTimeTo=2100-01-01&instanceIdPrefix=a", ["a-1", "a-2"]),
        ("name=staged", ["b-1", "child"]),
        ("parent=b-2", ["child"]),
        ("tag=team:red&instanceIdPrefix=b", ["b-1", "b-2"]),
        ("tag=team:red&tag=kind:x:y", ["b-1"]),
        ('customStatus="first"&instanceIdPrefix=b', ["b-1"]),
        ("customStatus=first&instanceIdPrefix=b", ["b-1"]),
        ('customStatus={"step":0}', ["a-1"]),
        ("parked=true", []),
        ("parked=FALSE&instanceIdPrefix=a", ["a-1", "a-2"]),
        ("top=2", ["a-1", "a-2"]),
        ("top=5000", ["a-1", "a-2", "b-1", "b-2", "child"]),
    ],
)
def test_conditions(query: str, ids: list[str]) -> None:
    async def scenario(served: Served) -> None:
        await populate(served)
        response = await served.http.get(f"{INSTANCES}?{quote(query, safe='=&+')}")
        assert response.status_code == 200
        assert [each["instanceId"] for each in response.json()] == ids
        assert (TOKEN in response.headers) == (query == "top=2")

    serve(scenario)


@pytest.mark.parametrize(
    "query",
    [
        "top=0",
        "top=x",
        "top=-1",
        "createdTimeFrom=soon",
        "lastUpdatedTimeTo=2026-13-01",
        "tag=team",
        "tag=:red",
        "parent=a%2Fb",
        "name=a%00b",
        "instanceIdPrefix=%07",
    ],
)
def test_conditions_that_cannot_be_meant(query: str) -> None:
    async def scenario(served: Served) -> None:
        for path in ("", "/counts"):
            expected = 200 if path and query.startswith("top") else 400
            assert (await served.http.get(f"{INSTANCES}{path}?{query}")).status_code == expected
        assert (await served.http.get(INSTANCES, headers={TOKEN: "nonsense"})).status_code == 400

    serve(scenario)


def test_a_list_has_status_objects_and_goes_on_where_the_token_says() -> None:
    async def scenario(served: Served) -> None:
        for instance_id in ("null", "ü%25", "z"):
            await served.start("doubled", instance_id, 1)
        for instance_id in ("null", "ü%", "z"):
            await served.host.client.wait_until_stopped(instance_id, timeout=PATIENCE)
        found: list[dict[str, Any]] = []
        headers = {TOKEN: "null"}
        while True:
            page = await served.http.get(f"{INSTANCES}?top=1&showInput=false", headers=headers)
            found += page.json()
            if TOKEN not in page.headers:
                break
            headers = {TOKEN: page.headers[TOKEN]}
        assert [each["instanceId"] for each in found] == ["null", "z", "ü%"]
        assert [each["input"] for each in found] == [None] * 3
        assert found[0] | {"input": 1} == (await served.http.get(f"{INSTANCES}/null")).json()

    serve(scenario)


def test_counts() -> None:
    async def scenario(served: Served) -> None:
        assert (await served.http.get(f"{INSTANCES}/counts")).json() == {}
        await populate(served)
        counts = (await served.http.get(f"{INSTANCES}/counts")).json()
        assert counts == {"Completed": 1, "Failed": 1, "Running": 3}
        counts = (await served.http.get(f"{INSTANCES}/counts?name=staged")).json()
        assert counts == {"Running": 2}

    serve(scenario)


def test_entities_are_no_instances_of_a_list() -> None:
    async def scenario(served: Served) -> None:
        await served.http.post(f"{BASE}/entities/counter/x?op=note", content="hello")
        assert (await served.http.get(INSTANCES)).json() == []
        assert (await served.http.get(f"{BASE}/parked")).json() == []

    serve(scenario)


@pytest.mark.parametrize(("config", "running"), [(HostConfig(), 412), (LEGACY, 404)], ids=["current", "legacy"])
def test_one_instance_is_purged(config: HostConfig, running: int) -> None:
    async def scenario(served: Served) -> None:
        await populate(served)
        purged = await served.http.delete(f"{INSTANCES}/a-1")
        assert (purged.status_code, purged.json()) == (200, {"instancesDeleted": 1})
        assert (await served.http.get(f"{INSTANCES}/a-1")).status_code == 404
        assert (await served.http.delete(f"{INSTANCES}/a-1")).status_code == 404
        assert (await served.http.delete(f"{INSTANCES}/b-1")).status_code == running
        await served.start("doubled", "a-1", 2)
        assert (await served.ended("a-1"))["output"] == 4

    serve(scenario, config=config)


def test_many_are_purged_and_only_what_has_ended() -> None:
    async def scenario(served: Served) -> None:
        await populate(served)
        missing = await served.http.delete(INSTANCES)
        assert missing.status_code == 400
        assert missing.json()["Message"] == "Please provide value for 'createdTimeFrom' parameter."
        unknown = await served.http.delete(f"{INSTANCES}?createdTimeFrom=2020-01-01&runtimeStatus=Complete")
        assert unknown.status_code == 400
        failed = await served.http.delete(f"{INSTANCES}?createdTimeFrom=2020-01-01&runtimeStatus=Failed")
        assert (failed.status_code, failed.json()) == (200, {"instancesDeleted": 1})
        others = await served.http.delete(f"{INSTANCES}?createdTimeFrom=2020-01-01")
        assert (others.status_code, others.json()) == (200, {"instancesDeleted": 1})
        nothing = await served.http.delete(f"{INSTANCES}?createdTimeFrom=2020-01-01")
        assert nothing.status_code == 404
        left = (await served.http.get(INSTANCES)).json()
        assert [each["instanceId"] for each in left] == ["b-1", "b-2", "child"]

    serve(scenario)


def test_a_bulk_job_does_it_to_all_that_match() -> None:
    async def scenario(served: Served) -> None:
        await populate(served)
        answer = await served.http.post(f"{BASE}/bulk/terminate?tag=team:red&reason=closing")
        assert answer.status_code == 202
        await served.ended(answer.json()["id"])
        job = await served.http.get(answer.json()["statusQueryGetUri"])
        assert job.json()["output"] == {"done": 3, "refused": 0}  # a child has the tags of its parent
        ended = await served.http.get(f"{INSTANCES}/b-1")
        assert (ended.json()["runtimeStatus"], ended.json()["output"]) == ("Terminated", "closing")
        for path in ("delete?tag=team:red", "terminate", "terminate?runtimeStatus=Nonsense"):
            refused = await served.http.post(f"{BASE}/bulk/{path}")
            assert refused.status_code == 400, path

    serve(scenario)


def test_what_is_parked_is_listed_with_entities_and_what_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    store = f"sqlite:///{path.as_posix()}"

    async def before(served: Served) -> None:
        for instance_id in ("hurt", "p1", "p2", "well"):
            await served.start("WaitForApproval", instance_id)
        for key in ("a", "b", "well"):
            await served.http.post(f"{BASE}/entities/counter/{key}?op=note", content="hello")

    async def after(served: Served) -> None:
        async def ids(query: str, headers: dict[str, str]) -> tuple[list[str], dict[str, str]]:
            answer = await served.http.get(f"{BASE}/parked{query}", headers=headers)
            assert answer.status_code == 200, answer.text
            assert all(each["runtimeStatus"] == "Suspended" for each in answer.json())
            assert all(each["parked"]["reason"] for each in answer.json())
            more = {name: answer.headers[name] for name in [TOKEN] if name in answer.headers}
            return [each["instanceId"] for each in answer.json()], more

        expected = ["hurt", "p1", "p2", "@counter@a", "@counter@b"]
        assert await ids("", {}) == (expected, {})
        for top in (1, 2, 3, 4):
            found, more = await ids(f"?top={top}", {})
            while more:
                page, more = await ids(f"?top={top}", more)
                assert len(page) <= top
                found += page
            assert found == expected
        assert await ids("?name=WaitForApproval", {}) == (expected[:3], {})
        assert await ids("?lastUpdatedTimeTo=2001-01-01T00:00:00Z", {}) == ([], {})
        assert {each["instanceId"] for each in (await served.http.get(INSTANCES)).json()} == {*expected[:3], "well"}
        hurt = await served.http.get(f"{INSTANCES}/hurt")
        assert (hurt.status_code, "tags" in hurt.json()["parked"]["reason"]) == (202, True), hurt.text
        assert (await served.http.post(f"{INSTANCES}/@counter@a/resume")).status_code == 202
        assert (await served.http.post(f"{INSTANCES}/p1/resume")).status_code == 202
        assert (await served.http.post(f"{INSTANCES}/p2/terminate")).status_code == 202
        assert (await served.http.delete(f"{INSTANCES}/well")).status_code == 412
        for instance_id in ("@counter@b", "hurt"):
            assert (await served.http.delete(f"{INSTANCES}/{instance_id}")).status_code == 200
            assert (await served.http.delete(f"{INSTANCES}/{instance_id}")).status_code == 404
        while (await ids("", {}))[0]:
            pass
        assert (await served.http.get(f"{BASE}/entities/counter/a")).status_code == 200

    serve(before, store)
    with closing(sqlite3.connect(path)) as connection, connection:
        park = "UPDATE instance SET parked = ?, status = 'Suspended' WHERE instance_id IN (?, ?, ?, ?)"
        assert connection.execute(park, (WHY, "p1", "p2", "@counter@a", "@counter@b")).rowcount == 4
        assert connection.execute("UPDATE instance SET tags = '{' WHERE instance_id = 'hurt'").rowcount == 1
    serve(after, store)
