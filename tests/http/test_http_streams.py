"""Histories by pages and as a stream, and live updates."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from http_app import BASE, PATIENCE, Served, serve
from starlette.requests import Request
from starlette.responses import StreamingResponse

from holdfast import HostConfig, OverloadedError
from holdfast.http.history import one_line
from holdfast.http.live import LiveUpdates
from holdfast.http.payload import StatusView, status_object
from holdfast.storage.memory import MemoryStore
from holdfast.storage.port import InstanceRow

INSTANCES = f"{BASE}/instances"
TOKEN = "x-ms-continuation-token"


async def staged(served: Served) -> None:
    await served.start("staged", "x")
    for status in ("first", "second"):
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while (await served.http.get(f"{INSTANCES}/x")).json()["customStatus"] != status:
                await asyncio.sleep(0.005)
        await served.http.post(f"{INSTANCES}/x/raiseEvent/Next", json={"at": status})
    await served.ended("x")


def test_pages_of_a_history_are_its_stream() -> None:
    async def scenario(served: Served) -> None:
        await staged(served)
        rows: list[dict[str, Any]] = []
        headers: dict[str, str] = {}
        pages = 0
        while True:
            page = await served.http.get(f"{INSTANCES}/x/history?top=1", headers=headers)
            assert page.status_code == 200
            rows, pages = rows + page.json(), pages + 1
            if TOKEN not in page.headers:
                break
            headers = {TOKEN: page.headers[TOKEN]}
        kinds = [row["EventType"] for row in rows]
        assert kinds.count("OrchestratorStarted") == pages == 3
        assert "ExecutionStarted" in kinds
        assert kinds[-1] == "ExecutionCompleted"

        whole = await served.http.get(f"{INSTANCES}/x/history")
        assert whole.json() == rows
        assert TOKEN not in whole.headers
        stream = await served.http.get(f"{INSTANCES}/x/history", headers={"Accept": "application/x-ndjson"})
        assert stream.headers["content-type"] == "application/x-ndjson"
        assert [json.loads(line) for line in stream.text.splitlines()] == rows
        assert {"at": "first"} in [row.get("Input") for row in rows]
        hidden = await served.http.get(f"{INSTANCES}/x/history?showInput=false&showHistoryOutput=false")
        assert not [row for row in hidden.json() if "Input" in row or "Result" in row]

    serve(scenario)


def test_a_page_reads_no_more_than_it_shows_and_whether_there_is_more(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[tuple[int, int]] = []
    load = MemoryStore.load_history

    async def watched(
        store: MemoryStore, instance_id: str, execution_id: str, first: int = 0, limit: int | None = None
    ) -> list[str]:
        texts = await load(store, instance_id, execution_id, first, limit)
        reads.append((first, len(texts)))
        return texts

    async def scenario(served: Served) -> None:
        await staged(served)
        monkeypatch.setattr(MemoryStore, "load_history", watched)
        headers: dict[str, str] = {}
        for _ in range(3):
            page = await served.http.get(f"{INSTANCES}/x/history?top=1", headers=headers)
            headers = {TOKEN: page.headers.get(TOKEN, "")}
        assert headers == {TOKEN: ""}
        assert reads == [(0, 2), (1, 2), (2, 1)]

    serve(scenario)


def test_pages_of_what_goes_on_meanwhile_go_on_where_they_were() -> None:
    async def scenario(served: Served) -> None:
        await served.start("staged", "x")
        await served.until("x", "Running")
        page = await served.http.get(f"{INSTANCES}/x/history?top=1")
        assert TOKEN not in page.headers  # that is all there is
        await served.http.post(f"{INSTANCES}/x/raiseEvent/Next", json={})
        await served.http.post(f"{INSTANCES}/x/raiseEvent/Next", json={})
        await served.ended("x")
        first = await served.http.get(f"{INSTANCES}/x/history?top=1")
        assert first.json() == page.json()
        rest = await served.http.get(f"{INSTANCES}/x/history", headers={TOKEN: first.headers[TOKEN]})
        beyond = await served.http.get(
            f"{INSTANCES}/x/history", headers={TOKEN: first.headers[TOKEN].replace(":1", ":999999999")}
        )
        whole = await served.http.get(f"{INSTANCES}/x/history")
        assert first.json() + rest.json() == whole.json()
        assert (beyond.status_code, beyond.json(), TOKEN in beyond.headers) == (200, [], False)

    serve(scenario)


def test_pages_of_another_execution_do_not_follow_each_other() -> None:
    async def scenario(served: Served) -> None:
        await staged(served)
        page = await served.http.get(f"{INSTANCES}/x/history?top=1")
        token = {TOKEN: page.headers[TOKEN]}
        await served.start("echo", "x")
        await served.ended("x")
        changed = await served.http.get(f"{INSTANCES}/x/history", headers=token)
        assert changed.status_code == 409
        assert "first page" in changed.json()["ExceptionMessage"]

    serve(scenario)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("nobody/history", {}, 404),
        ("%40counter%40x/history", {}, 404),
        ("x/history", {TOKEN: "nonsense"}, 400),
        ("x/history", {TOKEN: "x:-1"}, 400),
        ("x/history?top=0", {}, 400),
        ("nobody/events", {}, 404),
        ("%40counter%40x/events", {}, 404),
    ],
)
def test_bad_reads(path: str, headers: dict[str, str], status: int) -> None:
    async def scenario(served: Served) -> None:
        await served.start("echo", "x")
        assert (await served.http.get(f"{INSTANCES}/{path}", headers=headers)).status_code == status

    serve(scenario)


def statuses(stream: httpx.Response) -> list[dict[str, Any]]:
    assert stream.status_code == 200
    assert stream.headers["content-type"].startswith("text/event-stream")
    found: list[dict[str, Any]] = []
    for block in stream.text.removesuffix("\n\n").split("\n\n"):
        if not block.startswith(":"):
            name, data = block.split("\n")
            assert name == "event: status"
            found.append(json.loads(data.removeprefix("data: ")))
    return found


def test_a_watched_instance_tells_each_status_until_it_ends() -> None:
    async def scenario(served: Served) -> None:
        await served.start("staged", "x", {"secret": 1})
        await served.until("x", "Running")
        watching = asyncio.create_task(served.http.get(f"{INSTANCES}/x/events?showInput=false"))
        for _ in range(2):
            await served.http.post(f"{INSTANCES}/x/raiseEvent/Next", json=1)
        told = statuses(await watching)
        final = (await served.http.get(f"{INSTANCES}/x?showInput=false")).json()
        assert told[-1] == final
        assert final["output"] == "done"
        assert "secret" not in str(told)
        again = statuses(await served.http.get(f"{INSTANCES}/x/events?showInput=false"))
        assert again == [final]

    serve(scenario)


def test_the_number_of_streams_is_bounded_and_places_are_given_back() -> None:
    async def scenario(served: Served) -> None:
        await served.start("WaitForApproval", "x")
        url = f"{INSTANCES}/x/events"
        watching = asyncio.create_task(served.http.get(url))
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while True:  # a head request takes no place, so that only the stream that goes on has it
                refused = asyncio.create_task(served.http.get(url))
                done, _ = await asyncio.wait({refused}, timeout=0.1)
                if done:
                    break
                refused.cancel()
        assert refused.result().status_code == 429
        assert "http_streams_max" in refused.result().json()["ExceptionMessage"]
        assert (await served.http.head(url)).status_code == 200
        watching.cancel()
        await asyncio.wait({watching})
        await served.http.post(f"{INSTANCES}/x/terminate")
        await served.ended("x")
        assert statuses(await served.http.get(url))[-1]["runtimeStatus"] == "Terminated"

    serve(scenario, config=HostConfig(http_streams_max=1))


def test_a_silent_stream_is_kept_alive_by_comments() -> None:
    async def scenario(served: Served) -> None:
        await served.start("WaitForApproval", "x")
        await served.until("x", "Running")
        updates = LiveUpdates(served.host.client, streams_max=1, keep_alive_s=0.0001)
        stream = await updates.events(_request("x"))
        assert isinstance(stream, StreamingResponse)
        chunks = aiter(stream.body_iterator)
        assert bytes(await anext(chunks)).startswith(b"event: status")
        assert await anext(chunks) == b": nothing new\n\n"
        with pytest.raises(OverloadedError):
            await updates.events(_request("x"))
        await served.http.post(f"{INSTANCES}/x/terminate")
        assert b"Terminated" in [bytes(chunk) async for chunk in chunks][-1]

    serve(scenario)


def test_a_stream_reads_only_what_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = MemoryStore.read_instance

    async def watched(store: MemoryStore, instance_id: str) -> InstanceRow | None:
        reads.append(instance_id)
        return await read(store, instance_id)

    async def scenario(served: Served) -> None:
        await served.start("staged", "x")
        await served.until("x", "Running")
        stream = await LiveUpdates(served.host.client, streams_max=1, keep_alive_s=0.0001).events(_request("x"))
        assert isinstance(stream, StreamingResponse)
        chunks = aiter(stream.body_iterator)
        assert b'"first"' in bytes(await anext(chunks))
        assert await anext(chunks) == b": nothing new\n\n"
        monkeypatch.setattr(MemoryStore, "read_instance", watched)
        await served.host.client.start_new("echo", instance_id="y")  # another one
        for _ in range(100):
            assert await anext(chunks) == b": nothing new\n\n"
        assert reads == []
        await served.host.client.raise_event("x", "Next")
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while (told := bytes(await anext(chunks))).startswith(b":"):
                pass
        assert b'"second"' in told
        assert set(reads) == {"x"}
        await served.host.client.terminate("x")
        assert b"Terminated" in await _last(chunks)

    serve(scenario)


def test_a_stream_ends_with_what_is_purged() -> None:
    async def scenario(served: Served) -> None:
        await served.start("WaitForApproval", "x")
        await served.until("x", "Running")
        stream = await LiveUpdates(served.host.client, streams_max=1).events(_request("x"))
        assert isinstance(stream, StreamingResponse)
        chunks = aiter(stream.body_iterator)
        assert b"Running" in bytes(await anext(chunks))
        await served.host.client.terminate("x")
        await served.ended("x")
        await served.host.client.purge("x")
        async with asyncio.timeout(PATIENCE.total_seconds()):
            assert [bytes(chunk) async for chunk in chunks] == []

    serve(scenario)


def test_a_stream_goes_on_with_what_had_stopped_and_goes_on() -> None:
    async def scenario(served: Served) -> None:
        await served.start("WaitForApproval", "x")
        await served.until("x", "Running")
        stream = await LiveUpdates(served.host.client, streams_max=1).events(_request("x"))
        assert isinstance(stream, StreamingResponse)
        chunks = aiter(stream.body_iterator)
        assert b"Running" in bytes(await anext(chunks))
        await served.http.post(f"{INSTANCES}/x/terminate")
        await served.ended("x")
        await served.start("WaitForApproval", "x")  # before the stream has looked again
        await served.until("x", "Running")
        watching = asyncio.create_task(_last(chunks))
        await asyncio.sleep(0)
        await served.http.post(f"{INSTANCES}/x/raiseEvent/ApprovalEvent", json="yes")
        assert b'"output":"yes"' in await watching

    serve(scenario)


async def _last(chunks: AsyncIterator[Any]) -> bytes:
    return [bytes(chunk) async for chunk in chunks][-1]


def _request(instance_id: str) -> Request:
    return Request(
        {
            "type": "http",
            "method": "GET",
            "path": "/",
            "headers": [],
            "query_string": b"",
            "path_params": {"instance_id": instance_id},
        }
    )


def test_payloads_on_several_lines_break_no_stream() -> None:
    async def scenario(served: Served) -> None:
        await served.host.client.start_new("echo", instance_id="x")
        found = await served.host.client.get_status("x")
        assert found is not None
        broken = msgspec.structs.replace(found.state, input='[1,\r\n\n"event: fake"]')
        line = one_line(status_object(broken, StatusView(), None))
        assert b"\n" not in line
        assert b"\r" not in line
        assert json.loads(line)["input"] == [1, "event: fake"]

    serve(scenario)


def test_a_stream_ends_when_the_host_stops() -> None:
    async def scenario(served: Served) -> None:
        await served.start("WaitForApproval", "x")
        await served.until("x", "Running")
        watching = asyncio.create_task(served.http.get(f"{INSTANCES}/x/events"))
        await asyncio.sleep(0)
        await served.host.stop()
        response = await watching
        assert response.status_code in (200, 503)

    serve(scenario)
