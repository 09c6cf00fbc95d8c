"""Each status that the table of endpoints has, by a request that gets it; and what comes with it."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final, NamedTuple

import httpx
import pytest
from http_app import BASE, PATIENCE, Served, serve

from holdfast import EntityId, HostConfig
from holdfast.http.operations import Operation
from holdfast.http.table import OPERATIONS

JSON: Final = {"Content-Type": "application/json"}
NDJSON: Final = {"Accept": "application/x-ndjson"}
LEGACY: Final = HostConfig(http_status_codes="legacy")
ERROR: Final = {"Message", "ExceptionMessage", "ExceptionType"}
STATUS: Final = {"name", "instanceId", "runtimeStatus", "input", "customStatus", "output", "createdTime"} | {
    "lastUpdatedTime"
}
URLS: Final = {
    "id",
    "purgeHistoryDeleteUri",
    "sendEventPostUri",
    "statusQueryGetUri",
    "terminatePostUri",
    "suspendPostUri",
    "resumePostUri",
    "rewindPostUri",
    "restartPostUri",
}
WAIT: Final = "timeout=30&pollingInterval=1"
FAILS: Final = "returnInternalServerErrorOnFailure=true"


class Case(NamedTuple):
    """A request, its status, and the fields of its answer: of the object, or of the first one of a list."""

    operation: str
    path: str
    status: int
    fields: set[str] | None = None
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012 - nobody changes it
    config: HostConfig = HostConfig()

    def __str__(self) -> str:
        return f"{self.operation}-{self.status}-{self.config.http_status_codes}"


NOTHING: Final[set[str]] = set()
"""The answer has no body."""

CASES: Final = [
    Case("start", "/orchestrators/echo", 202, URLS),
    Case("start", f"/orchestrators/echo?{WAIT}", 200, None, b"1"),
    Case("start", f"/orchestrators/failing?{WAIT}&{FAILS}", 500, STATUS, b'"no"'),
    Case("start", "/orchestrators/ecko", 400, ERROR),
    Case("startWithId", "/orchestrators/echo/new", 202, URLS),
    Case("startWithId", f"/orchestrators/failing/new?{WAIT}", 200, STATUS, b'"no"'),
    Case("startWithId", f"/orchestrators/failing/new?{WAIT}&{FAILS}", 500, STATUS, b'"no"'),
    Case("startWithId", "/orchestrators/echo/a%2Fb", 400, ERROR),
    Case("startWithId", "/orchestrators/echo/waiting", 409, ERROR),
    Case("startWithId", "/orchestrators/echo/waiting", 400, ERROR, config=LEGACY),
    Case("list", "/instances", 200, STATUS),
    Case("parked", "/parked", 200, NOTHING),
    Case("count", "/instances/counts?name=cart", 200, {"Running", "Suspended"}),
    Case("purgeMany", "/instances?createdTimeFrom=2020-01-01", 200, {"instancesDeleted"}),
    Case("purgeMany", "/instances", 400, ERROR),
    Case("bulk", "/bulk/suspend?name=absent", 202, URLS),
    Case("bulk", "/bulk/suspend", 400, ERROR),
    Case("purgeMany", "/instances?createdTimeFrom=2100-01-01", 404, {"Message"}),
    Case("status", "/instances/done", 200, STATUS),
    Case("status", "/instances/done?showHistory=true", 200, STATUS | {"historyEvents"}),
    Case("status", "/instances/waiting", 202, STATUS),
    Case("status", "/instances/nobody", 404, ERROR),
    Case("status", f"/instances/failed?{FAILS}", 500, STATUS),
    Case("purge", "/instances/done", 200, {"instancesDeleted"}),
    Case("purge", "/instances/nobody", 404, ERROR),
    Case("purge", "/instances/waiting", 412, ERROR),
    Case("purge", "/instances/waiting", 404, ERROR, config=LEGACY),
    Case("history", "/instances/done/history", 200, {"EventType", "Timestamp"}),
    Case("history", "/instances/done/history", 200, None, headers=NDJSON),
    Case("history", "/instances/nobody/history", 404, ERROR),
    Case("history", "/instances/done/history", 409, ERROR, headers={"x-ms-continuation-token": "other:1"}),
    Case("events", "/instances/done/events", 200, None),
    Case("events", "/instances/nobody/events", 404, ERROR),
    Case("raiseEvent", "/instances/waiting/raiseEvent/E", 202, NOTHING, b"1", JSON),
    Case("raiseEvent", "/instances/waiting/raiseEvent/E", 400, ERROR, b"1"),
    Case("raiseEvent", "/instances/nobody/raiseEvent/E", 404, ERROR, b"1", JSON),
    Case("raiseEvent", "/instances/done/raiseEvent/E", 410, ERROR, b"1", JSON),
    *(
        Case(name, f"/instances/{instance_id}/{name}", status, fields)
        for name in ("terminate", "cancel", "suspend")
        for instance_id, status, fields in (("waiting", 202, NOTHING), ("nobody", 404, ERROR), ("done", 410, ERROR))
    ),
    Case("suspend", "/instances/suspended/suspend", 500, ERROR),
    Case("resume", "/instances/suspended/resume", 202, NOTHING),
    Case("resume", "/instances/nobody/resume", 404, ERROR),
    Case("resume", "/instances/done/resume", 410, ERROR),
    Case("resume", "/instances/waiting/resume", 500, ERROR),
    Case("rewind", "/instances/failed/rewind", 202, NOTHING),
    Case("rewind", "/instances/nobody/rewind", 404, ERROR),
    Case("rewind", "/instances/locked/rewind", 409, ERROR),
    Case("rewind", "/instances/done/rewind", 412, ERROR),
    Case("rewind", "/instances/done/rewind", 410, ERROR, config=LEGACY),
    Case("rewind", "/instances/waiting/rewind", 500, ERROR, config=LEGACY),
    Case("restart", "/instances/done/restart", 202, URLS),
    Case("restart", f"/instances/done/restart?{WAIT}", 200, None),
    Case("restart", f"/instances/failed/restart?{WAIT}&{FAILS}", 500, STATUS),
    Case("restart", "/instances/nobody/restart", 400, ERROR),
    Case("restart", "/instances/waiting/restart?restartWithNewInstanceId=false", 409, ERROR),
    Case("restart", "/instances/waiting/restart?restartWithNewInstanceId=false", 400, ERROR, config=LEGACY),
    Case("fork", "/instances/done/fork", 202, URLS),
    Case("fork", "/instances/nobody/fork", 404, ERROR),
    Case("fork", "/instances/done/fork?newInstanceId=waiting", 409, ERROR),
    Case("query", "/instances/cart/query/items", 200, NOTHING),
    Case("query", "/instances/nobody/query/items", 404, ERROR),
    Case("query", "/instances/waiting/query/items", 409, ERROR),
    Case("query", "/instances/done/query/items", 410, ERROR),
    Case("update", "/instances/cart/update/add", 200, None, b'"fig"'),
    Case("update", "/instances/nobody/update/add", 404, ERROR, b'"fig"'),
    Case("update", "/instances/waiting/update/add", 409, ERROR, b'"fig"'),
    Case("update", "/instances/done/update/add", 410, ERROR, b'"fig"'),
    Case("update", "/instances/cart/update/remove", 422, ERROR, b'"fig"'),
    Case("update", "/instances/suspended/update/add?timeout=0.01", 504, ERROR, b'"fig"'),
    Case("makePrimary", "/makeprimary", 200, NOTHING),
    Case("listEntities", "/entities", 200, {"entityId", "lastOperationTime"}),
    Case("listEntitiesOfName", "/entities/counter?fetchState=true", 200, {"entityId", "lastOperationTime", "state"}),
    Case("readEntity", "/entities/counter/shared", 200, {"value", "notes"}),
    Case("readEntity", "/entities/counter/nobody", 404, {"Message"}),
    Case("signalEntity", "/entities/counter/shared?op=add", 202, NOTHING, b"1", JSON),
    Case("signalEntity", "/entities/counter/shared?op=add", 400, ERROR, b"{", JSON),
    Case("deleteEntity", "/entities/counter/shared", 202, NOTHING),
    Case("readLock", "/entities/counter/shared/lock", 200, {"lockedBy", "waiting"}),
    Case("readLock", "/entities/counter/nobody/lock", 404, {"Message"}),
    Case("breakLock", "/entities/counter/shared/lock", 200, {"lockedBy"}),
]

ELSEWHERE: Final = {(name, 429) for name in ("events", "start", "startWithId", "restart", "update")}
"""What needs more than one request; see the tests of streams, and those of waits."""

BY_NAME: Final = {operation.name: operation for operation in OPERATIONS}


async def populate(served: Served) -> None:
    client = served.host.client
    await client.signal_entity(EntityId("counter", "shared"), "add", 1)
    await client.start_new("echo", 1, instance_id="done")
    await client.start_new("failing", "no", instance_id="failed")
    await client.start_new("fails_locked", instance_id="locked")
    for instance_id in ("done", "failed", "locked"):
        await client.wait_until_stopped(instance_id, timeout=PATIENCE)
    for instance_id, name in {"waiting": "WaitForApproval", "cart": "cart", "suspended": "cart"}.items():
        await client.start_new(name, instance_id=instance_id)
        await served.until(instance_id, "Running")
    await client.suspend("suspended")
    await served.until("suspended", "Suspended")
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while (await served.http.get(f"{BASE}/entities/counter/shared")).status_code != 200:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_endpoint_answers_as_its_table_says(case: Case) -> None:
    operation = BY_NAME[case.operation]

    async def scenario(served: Served) -> None:
        await populate(served)
        response = await served.http.request(
            operation.method, f"{BASE}{case.path}", content=case.body, headers=case.headers
        )
        assert response.status_code == case.status, response.text
        _check_shape(response, operation)
        if case.fields is not None:
            assert _fields(response) == case.fields

    pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(operation.path))
    assert re.fullmatch(pattern, case.path.partition("?")[0])
    serve(scenario, config=case.config)


def _check_shape(response: httpx.Response, operation: Operation) -> None:
    answers = [answer for answer in operation.answers if answer.status == response.status_code]
    media = response.headers.get("content-type", "").partition(";")[0]
    [answer] = [each for each in answers if each.schema is None or each.media == media][:1]
    assert (answer.schema is None) == (response.content == b"")
    for header in ("location", "retry-after"):
        expected = header in [each.lower() for each in answer.headers] or (header, response.status_code) == (
            "retry-after",
            429,
        )
        assert (header in response.headers) == expected


def _fields(response: httpx.Response) -> set[str]:
    if not response.content:
        return set()
    told: Any = response.json()
    if isinstance(told, list):
        told = told[0] if told else {}
    return set(told)


def test_each_status_of_each_endpoint_has_its_case() -> None:
    in_table = {(each.name, answer.status) for each in OPERATIONS for answer in each.answers}
    assert {(case.operation, case.status) for case in CASES} | ELSEWHERE == in_table
