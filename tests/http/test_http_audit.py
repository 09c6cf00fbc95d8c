"""What is written down of requests, and what must not be."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from http_app import BASE, ORIGIN, PATIENCE, Served, make_app, serve
from starlette.types import Receive, Scope, Send

from holdfast import (
    AccessKey,
    Client,
    ConfigurationError,
    EntityId,
    EntitySignal,
    HoldfastError,
    HostConfig,
    InstanceQuery,
)
from holdfast.client.exchange import Answer
from holdfast.client.remote import RemoteTaskHub
from holdfast.codec.converter import JsonConverter
from holdfast.http import RedactSecrets, sign_link
from holdfast.http.audit import Audit
from holdfast.http.redaction import redacted_url
from holdfast.http.refusals import REFUSALS_MAX

SECRET, READER, LINKS = "operator-0123456789", "reader-0123456789", "links-secret-0123456789"
KEYS = [AccessKey("ops", SECRET, "operate"), AccessKey("dashboard", READER, "read")]


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(each.message) for each in caplog.records if each.name == "holdfast.audit"]


def test_each_request_that_changes_something_is_written_down(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(served: Served) -> None:
        http, code = served.http, f"code={SECRET}"
        await http.post(f"{BASE}/orchestrators/WaitForApproval?{code}", headers={"X-Request-Id": "start-1"})
        await http.post(f"{BASE}/orchestrators/echo/named?{code}")
        await http.post(f"{BASE}/instances/nobody/terminate?reason=a%20b&{code}")
        await http.post(f"{BASE}/instances/nobody/terminate?code={READER}")
        await http.post(f"{BASE}/entities/counter/x?op=add&{code}", json=1)
        await http.get(f"{BASE}/instances/named?{code}")
        await http.post(f"{BASE}/instances/nobody/terminate?code=wrong")
        expires_at = datetime.now(UTC) + timedelta(days=1)
        link = sign_link(LINKS, ORIGIN, "nobody", "terminate", expires_at=expires_at)
        await http.get(link)
        await http.post(link)

    with caplog.at_level(logging.INFO):
        serve(scenario, keys=KEYS, link_secrets=[LINKS])
    found = lines(caplog)
    [unknown] = [each for each in found if each["status"] == 401]
    assert (unknown["key"], unknown["instance"], unknown["client"]) == (None, None, "127.0.0.1")
    assert (unknown["action"], unknown["query"]) == (f"POST {BASE}/instances/nobody/terminate", "code=***")
    found.remove(unknown)
    assert [(each["key"], each["instance"], each["status"]) for each in found[1:]] == [
        ("ops", "named", 202),
        ("ops", "nobody", 404),
        ("dashboard", "nobody", 403),
        ("ops", "@counter@x", 202),
        (None, "nobody", 404),
    ]
    assert (found[0]["request_id"], found[0]["key"], found[0]["client"]) == ("start-1", "ops", "127.0.0.1")
    assert len(found[0]["instance"]) == 32
    assert found[2]["action"] == f"POST {BASE}/instances/{{instance_id}}/terminate"
    assert found[2]["query"] == "reason=a%20b&code=***"
    assert found[5]["parameters"] == {"instance_id": "nobody", "action": "terminate"}
    assert len({each["request_id"] for each in found}) == len(found)
    assert "sig=***" in found[5]["query"]
    ours = "\n".join(each.getMessage() for each in caplog.records if each.name.startswith("holdfast"))
    assert ours.count("\n") >= 5
    assert [secret for secret in (SECRET, READER, LINKS) if secret in ours] == []


def test_a_client_elsewhere_leaves_the_same_trace(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(served: Served) -> None:
        client = Client(_hub(served.http, SECRET), JsonConverter(payload_bytes_max=1_000))
        await client.start_new("staged", "in confidence", instance_id="a")
        await client.raise_event("a", "Other", "in confidence")
        await client.terminate("a", "no longer wanted")
        counter: EntityId[Any] = EntityId("counter", "x")
        await client.signal_entity(counter, "note", "in confidence")
        await client.signal_many([EntitySignal(counter, "add", 1), EntitySignal(EntityId("counter", "y"), "add", 1)])
        await client.call_entity(counter, "add", 1, timeout=PATIENCE)
        for refused in (client.fork("a", new_instance_id="b"), client.rewind("a"), client.update("a", "change", 1)):
            with contextlib.suppress(HoldfastError):
                await refused
        admin = Client(_hub(served.http, ADMIN), JsonConverter(payload_bytes_max=1_000))
        await admin.purge_instances(InstanceQuery(name="echo"))
        await admin.clean_entities()

    ADMIN = "administrator-0123456789"
    with caplog.at_level(logging.INFO, "holdfast.audit"):
        serve(scenario, keys=[*KEYS, AccessKey("root", ADMIN, "admin")])
    found = [
        (line["action"].rpartition("/")[2], line["instance"], {**line["parameters"], "method": ""})
        for line in lines(caplog)
    ]
    assert found == [
        ("start_orchestration", "a", {"method": "", "instance_id": "a", "function_name": "staged"}),
        ("send", "a", {"method": "", "instance_id": "a", "event": "EventRaised", "event_name": "Other"}),
        ("send", "a", {"method": "", "instance_id": "a", "event": "ExecutionTerminated"}),
        ("signal_entities", "@counter@x", {"method": "", "instance_id": "@counter@x", "operation": "note"}),
        (
            "signal_entities",
            None,
            {"method": "", "signals": "2", "instances": "@counter@x @counter@y", "operations": "add"},
        ),
        ("call_entity", "@counter@x", {"method": "", "instance_id": "@counter@x", "operation": "add"}),
        ("fork", "a", {"method": "", "instance_id": "a", "new_instance_id": "b"}),
        ("rewind", "a", {"method": "", "instance_id": "a"}),
        ("update", "a", {"method": "", "instance_id": "a", "update_name": "change"}),
        ("purge_instances", None, found[9][2]),
        ("clean_entities", None, found[10][2]),
    ]
    assert '"name":"echo"' in found[9][2]["filter"]
    assert "idle" in found[10][2]["filter"]
    assert "confidence" not in caplog.text


def _hub(http: httpx.AsyncClient, key: str) -> RemoteTaskHub:
    class Direct:
        async def post(self, path: str, body: bytes, wait_s: float | None) -> Answer:
            headers = {"content-type": "application/json", "x-functions-key": key}
            answer = await http.post(path, content=body, headers=headers)
            return Answer(answer.status_code, answer.content)

    return RemoteTaskHub(Direct(), ORIGIN, lambda: uuid.uuid4().hex, attempts_max=1)


def test_what_a_request_has_chosen_is_bounded_and_stays_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(served: Served) -> None:
        await served.http.post(f"{BASE}/instances/a%22b%E2%80%A8{'x' * 9_000}/terminate?reason={'y' * 9_000}")

    with caplog.at_level(logging.INFO, "holdfast.audit"):
        serve(scenario)
    [line] = [each.message for each in caplog.records if each.name == "holdfast.audit"]
    assert "\n" not in line
    assert len(line) < 3_000
    assert json.loads(line)["instance"].startswith('a"b\u2028x')


class _Clock:
    now = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_refusals_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 403})

    async def nothing(*_: object) -> Any: ...

    async def scenario() -> None:
        clock = _Clock()
        audit = Audit(clock)
        scope = {"type": "http", "method": "POST", "path": "/x", "query_string": b"code=secret", "headers": []}
        for _ in range(REFUSALS_MAX + 5):
            audit.refused(scope, 401)
        for caller in ("ops", "dashboard"):
            for _ in range(REFUSALS_MAX + 2):
                await audit.run(refuse, scope, nothing, nothing, caller=caller, action="POST /x")
        clock.now += timedelta(seconds=59)
        audit.refused(scope, 401)
        assert len(caplog.records) == 3 * REFUSALS_MAX
        assert "secret" not in caplog.text
        caplog.clear()
        clock.now += timedelta(seconds=1)
        await audit.run(nothing, scope, nothing, nothing, caller="ops", action="POST /x")
        audit.refused(scope, 401)

    with caplog.at_level(logging.INFO, "holdfast.audit"):
        asyncio.run(scenario())
    told = [(each.get("left_out"), each["key"], each["status"]) for each in lines(caplog)]
    assert told == [(6, None, 401), (2, "ops", 403), (2, "dashboard", 403), (None, "ops", 500), (None, None, 401)]
    assert lines(caplog)[0]["since"] == "2026-11-22T18:30:00Z"
    assert lines(caplog)[0]["at"] == "2026-11-22T18:31:00Z"


def test_after_the_clock_was_set_back_refusals_are_written_down_again(caplog: pytest.LogCaptureFixture) -> None:
    clock = _Clock()
    audit = Audit(clock)
    scope = {"type": "http", "method": "GET", "path": "/x", "query_string": b"", "headers": []}
    with caplog.at_level(logging.INFO, "holdfast.audit"):
        for _ in range(REFUSALS_MAX + 1):
            audit.refused(scope, 401)
        clock.now -= timedelta(days=1)
        audit.refused(scope, 401)
    assert [each.get("left_out") for each in lines(caplog)] == [None] * REFUSALS_MAX + [1, None]


def test_links_that_are_not_valid_cannot_fill_the_log_either(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(served: Served) -> None:
        for _ in range(REFUSALS_MAX + 1):
            assert (await served.http.post(f"{BASE}/links/x/terminate?sig=guess")).status_code == 403

    with caplog.at_level(logging.INFO, "holdfast.audit"):
        serve(scenario, keys=KEYS, link_secrets=[LINKS])
    assert len(lines(caplog)) == REFUSALS_MAX
    assert "guess" not in caplog.text


def test_a_key_for_another_hub_is_written_down_with_its_name(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(served: Served) -> None:
        await served.http.get(f"{BASE}/instances/x?code={SECRET}")
        await served.http.post(f"/api/orders/x?code={SECRET}", json=1)

    with caplog.at_level(logging.INFO, "holdfast.audit"):
        serve(scenario, keys=[AccessKey("ops", SECRET, "operate", hubs=["a"])], config=HostConfig(task_hub="b"))
    assert [(line["key"], line["status"], line["action"]) for line in lines(caplog)] == [
        ("ops", 403, f"GET {BASE}/instances/x"),
        ("ops", 403, "POST /api/orders/x"),
    ]
    assert SECRET not in caplog.text


def test_a_look_without_a_key_is_written_down_and_what_needs_none_is_not(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(served: Served) -> None:
        await served.http.get("/healthz")
        await served.http.get("/api/open")
        await served.http.get(f"{BASE}/instances/x?code={READER}")
        await served.http.get(f"{BASE}/instances/x?code=wrong&{'y' * 9_000}", headers={"X-Request-Id": "abc"})

    with caplog.at_level(logging.INFO, "holdfast.audit"):
        serve(scenario, keys=KEYS)
    [line] = lines(caplog)
    assert (line["action"], line["status"], line["request_id"]) == (f"GET {BASE}/instances/x", 401, "abc")
    assert line["query"].startswith("code=***&yyy")
    assert len(line["query"]) == 500


def test_a_request_that_breaks_is_written_down_too(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    async def nothing(*_: object) -> Any: ...

    scope = {"type": "http", "method": "POST", "query_string": b"", "headers": []}
    with caplog.at_level(logging.INFO, "holdfast.audit"), pytest.raises(ZeroDivisionError):
        asyncio.run(Audit().run(broken, scope, nothing, nothing, caller=None, action="POST /x"))
    [line] = lines(caplog)
    assert (line["status"], line["client"], line["request_id"]) == (500, None, "-")


# Ids of requests


@pytest.mark.parametrize("given", ["abc-1.2_3", "x" * 64])
def test_an_id_that_is_safe_is_taken_over(given: str) -> None:
    async def scenario(served: Served) -> None:
        for path in ("/healthz", "/nowhere", f"{BASE}/instances/x"):
            answer = await served.http.get(path, headers={"X-Request-Id": given})
            assert answer.headers["x-request-id"] == given

    serve(scenario, key="any key")


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", 'a"', "é"])
def test_any_other_id_is_replaced(given: str) -> None:
    async def scenario(served: Served) -> None:
        headers = {"X-Request-Id": given.encode("latin-1")}
        ids = {(await served.http.get("/healthz", headers=headers)).headers["x-request-id"] for _ in range(2)}
        assert len(ids) == 2
        assert all(len(each) == 32 for each in ids)

    serve(scenario)


def test_a_failure_is_logged_with_the_id(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(served: Served) -> None:
        await served.http.get("/api/broken", headers={"X-Request-Id": "abc"})

    serve(scenario)
    assert "Request abc failed: GET '/api/broken'" in caplog.text


# Secrets in URLs


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("/a", "/a"),
        ("/a?b=c", "/a?b=c"),
        ("/a?code=secret", "/a?code=***"),
        ("/a?x=1&CODE=secret&y", "/a?x=1&CODE=***&y"),
        ("/a?c%6Fde=secret&sig=abc", "/a?c%6Fde=***&sig=***"),
        ("/a?code=s?cret=1", "/a?code=***"),
        ("/a?barcode=1&+code=2", "/a?barcode=1&+code=***"),
    ],
)
def test_urls_lose_their_secrets(url: str, redacted: str) -> None:
    assert redacted_url(url) == redacted


def test_the_access_log_of_a_server_loses_them_too(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("test.access")
    logger.addFilter(RedactSecrets())
    with caplog.at_level(logging.INFO, "test.access"):
        logger.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", "/x?code=secret&y=1", "1.1", 200)
        logger.info("no arguments?code=kept")
    assert caplog.messages == ['127.0.0.1:1 - "GET /x?code=***&y=1 HTTP/1.1" 200', "no arguments?code=kept"]


# CORS


PAGE = "https://ops.example.com"


def test_pages_of_other_origins_get_nothing_unless_they_are_named() -> None:
    preflight = {"Origin": PAGE, "Access-Control-Request-Method": "POST"}

    async def closed(served: Served) -> None:
        answer = await served.http.get("/healthz", headers={"Origin": PAGE})
        assert not [name for name in answer.headers if name.startswith("access-control")]
        asked = await served.http.options(f"{BASE}/instances/x/terminate", headers=preflight)
        assert asked.status_code == 401

    async def opened(served: Served) -> None:
        asked = await served.http.options(
            f"{BASE}/instances/x/terminate",
            headers={**preflight, "Access-Control-Request-Headers": "x-functions-key"},
        )
        assert asked.status_code == 200
        assert asked.headers["access-control-allow-origin"] == PAGE
        assert "access-control-allow-credentials" not in asked.headers
        refused = await served.http.get(f"{BASE}/instances/x", headers={"Origin": PAGE})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, PAGE)
        other = await served.http.get(f"{BASE}/instances/x", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers

    serve(closed, key="any key")
    serve(opened, key="any key", cors_origins=[PAGE])


def test_a_page_that_is_named_may_use_a_host_without_a_key() -> None:
    async def scenario(served: Served) -> None:
        for origin, status in ((PAGE, 404), ("https://evil.example", 403), ("http://localhost:3000", 404)):
            answer = await served.http.get(f"{BASE}/instances/x", headers={"Origin": origin})
            assert answer.status_code == status

    serve(scenario, loopback_only=True, cors_origins=[PAGE])


@pytest.mark.parametrize(
    ("origins", "complaint"),
    [
        (["ops.example.com"], "no origin"),
        (["https://ops.example.com/"], "without a path"),
        (["https://ops.example.com", "null"], "'null' is no origin"),
        (["*"], "every web page"),
    ],
)
def test_an_origin_that_cannot_be_is_refused(origins: list[str], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        make_app().host("memory://").http_app(cors_origins=origins, loopback_only=True)
