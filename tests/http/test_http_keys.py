"""What keys allow: scopes, expiry, rotation; and what a key may look like."""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_app import BASE, PATIENCE, Served, make_app, serve
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, Router

from holdfast import AccessKey, ConfigurationError, EntityId, HostConfig, InstanceQuery
from holdfast.http.audit import Audit
from holdfast.http.keys import Caller, FixedKeys, KeyFile, KeyRing, read_keys
from holdfast.http.links import LinkEndpoints
from holdfast.http.payload import LEGACY_BASE_PATH, Links
from holdfast.http.routing import management_routes
from holdfast.http.scopes import governed, needed_scope, scopes_of
from holdfast.http.security import Guard

SECRETS = {scope: f"{scope}-secret-0123456789" for scope in ("read", "operate", "admin")}
KEYS = [AccessKey(f"the {scope} one", secret, scope) for scope, secret in SECRETS.items()]
NOW = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)
LINK_SECRET = "a secret for links".replace(" ", "-")


# Every endpoint, and every scope

BASES = f"^(?:{BASE}|{LEGACY_BASE_PATH}|/api)"


def _management() -> list[Route]:
    host = make_app().host("memory://")
    return [
        *management_routes(host, host.client, Links()),
        *LinkEndpoints(host, host.client, [LINK_SECRET]).routes(),
    ]


EXPECTED = {
    ("GET", "/openapi.json"): "read",
    ("POST", "/orchestrators/{function_name}"): "operate",
    ("POST", "/orchestrators/{function_name}/{instance_id:path}"): "operate",
    ("GET", "/instances"): "read",
    ("GET", "/instances/"): "read",
    ("DELETE", "/instances/"): "admin",
    ("GET", "/parked"): "read",
    ("GET", "/instances/counts"): "read",
    ("DELETE", "/instances"): "admin",
    ("POST", "/bulk/{action}"): "admin",
    ("GET", "/instances/{instance_id}"): "read",
    ("DELETE", "/instances/{instance_id}"): "admin",
    ("GET", "/instances/{instance_id}/history"): "read",
    ("GET", "/instances/{instance_id}/events"): "read",
    ("POST", "/instances/{instance_id}/raiseEvent/{event_name}"): "operate",
    ("POST", "/instances/{instance_id}/terminate"): "operate",
    ("POST", "/instances/{instance_id}/cancel"): "operate",
    ("POST", "/instances/{instance_id}/suspend"): "operate",
    ("POST", "/instances/{instance_id}/resume"): "operate",
    ("POST", "/instances/{instance_id}/rewind"): "operate",
    ("POST", "/instances/{instance_id}/restart"): "operate",
    ("POST", "/instances/{instance_id}/fork"): "operate",
    ("POST", "/instances/{instance_id}/query/{query_name}"): "read",
    ("POST", "/instances/{instance_id}/update/{update_name}"): "operate",
    ("POST", "/makeprimary"): "admin",
    ("GET", "/entities"): "read",
    ("GET", "/entities/"): "read",
    ("GET", "/entities/{entity_name}"): "read",
    ("GET", "/entities/{entity_name}/"): "read",
    ("GET", "/entities/{entity_name}/{entity_key}"): "read",
    ("POST", "/entities/{entity_name}/{entity_key}"): "operate",
    ("DELETE", "/entities/{entity_name}/{entity_key}"): "admin",
    ("GET", "/entities/{entity_name}/{entity_key}/lock"): "read",
    ("DELETE", "/entities/{entity_name}/{entity_key}/lock"): "admin",
    ("GET", "/links/{instance_id}/{action:path}"): "read",
    ("POST", "/links/{instance_id}/{action:path}"): "operate",
}


def test_each_endpoint_needs_the_scope_that_is_written_down_here() -> None:
    found = {
        (method, re.sub(BASES, "", path)): scope
        for (method, path), scope in scopes_of(_management()).items()
        if method != "HEAD"
    }
    assert found == EXPECTED


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("HEAD", "/instances/{instance_id}", "read"),
        ("GET", "/openapi.json", "read"),
        ("DELETE", "/instances", "admin"),
        ("POST", "/instances/{instance_id}/rewind", "operate"),
        ("POST", "/instances/{instance_id}/query/{query_name}", "read"),
        ("POST", "/instances/{instance_id}/update/{update_name}", "operate"),
        ("POST", "/makeprimary", "admin"),
        ("POST", "/orchestrators/BuiltIn::Bulk", "admin"),
        ("POST", "/orchestrators/builtin::Bulk/x", "admin"),
        ("POST", "/hub/get_state", "read"),
        ("POST", "/hub/list_instances", "read"),
        ("POST", "/hub/count_instances", "read"),
        ("POST", "/hub/wait_until_stopped", "read"),
        ("POST", "/hub/export_history", "read"),
        ("POST", "/hub/query", "read"),
        ("POST", "/hub/send", "operate"),
        ("POST", "/hub/start_orchestration", "operate"),
        ("POST", "/hub/get_state/../purge", "operate"),
        ("POST", "/hub/purge", "admin"),
        ("POST", "/hub/purge_instances", "admin"),
        ("POST", "/hub/break_lock", "admin"),
        ("POST", "/hub/clean_entities", "admin"),
    ],
)
def test_the_table_fits_what_other_rooms_add(method: str, path: str, scope: str) -> None:
    assert needed_scope(method, f"{BASE}{path}") == scope
    assert needed_scope(method, f"/admin/extensions/DurableTaskExtension{path}") == scope


async def _endpoint(_: object) -> None: ...


@pytest.mark.parametrize(
    "route",
    [
        Route(f"{BASE}/instances/{{instance_id}}", _endpoint, methods=["PUT"]),
        Route("/elsewhere", _endpoint, methods=["GET"]),
        Route(f"{BASE}/anything", Router([])),
        Mount("/elsewhere", Router([])),
    ],
)
def test_a_route_without_a_rule_is_refused_at_construction(route: Route | Mount) -> None:
    with pytest.raises(ConfigurationError, match="rule"):
        governed([route], Audit())


_PLACES = {
    "{function_name}": "echo",
    "{instance_id:path}": "x",
    "{instance_id}": "nobody",
    "{action}": "suspend",
    "{event_name}": "Go",
    "{entity_name}": "counter",
    "{entity_key}": "nobody",
}


def _requests() -> Iterator[tuple[str, str, str]]:
    for (method, path), scope in EXPECTED.items():
        for name, value in _PLACES.items():
            path = path.replace(name, value)
        if not path.startswith("/links"):  # they have an authorisation of their own
            yield method, f"{BASE}{path}", scope


def test_every_endpoint_with_every_scope() -> None:
    rank = {"read": 0, "operate": 1, "admin": 2}

    async def scenario(served: Served) -> None:
        refused = 0
        for method, path, needed in _requests():
            assert (await served.http.request(method, path)).status_code == 401
            for scope, secret in SECRETS.items():
                answer = await served.http.request(method, path, headers={"x-functions-key": secret})
                assert (answer.status_code == 403) == (rank[scope] < rank[needed]), (method, path, scope)
                assert answer.status_code != 401
                refused += answer.status_code == 403
        assert refused == sum(rank[needed] for _, _, needed in _requests()) > 10
        for secret in SECRETS.values():  # the app's own functions decide for themselves
            assert (await served.http.get(f"/api/value?code={secret}")).status_code == 200
        assert (await served.http.get("/api/value")).status_code == 401

    serve(scenario, keys=KEYS)


def test_every_endpoint_with_every_scope_for_this_hub_and_for_others() -> None:
    rank = {"read": 0, "operate": 1, "admin": 2}
    here = [replace(key, hubs=["Billing", "Orders"]) for key in KEYS]
    there = [AccessKey(f"{key.name}, there", f"{key.secret}-there", key.scope, hubs=["billing"]) for key in KEYS]

    async def scenario(served: Served) -> None:
        paths = [*_requests(), ("GET", "/api/value", "read"), ("POST", f"{BASE}/hub/get_state", "read")]
        for method, path, needed in paths:
            for key in here:
                answer = await served.http.request(method, path, headers={"x-functions-key": key.secret})
                assert (answer.status_code == 403) == (rank[key.scope] < rank[needed]), (method, path, key)
            for key in there:
                answer = await served.http.request(method, path, headers={"x-functions-key": key.secret})
                assert answer.status_code == 403, (method, path, key)
                assert method == "HEAD" or "other task hubs than that of this host: billing" in answer.json()["Message"]

    serve(scenario, keys=[*here, *there], config=HostConfig(task_hub="orders"))


def test_a_key_for_some_hubs_is_for_no_host_without_a_name() -> None:
    async def scenario(served: Served) -> None:
        for key, status in ((limited, 403), (KEYS[0], 404)):
            answer = await served.http.get(f"{BASE}/instances/x?code={key.secret}")
            assert answer.status_code == status

    limited = AccessKey("limited", "limited-secret-0123456789", "admin", hubs=("orders",))
    serve(scenario, keys=[KEYS[0], limited])


def test_of_two_keys_the_one_for_this_hub_counts() -> None:
    there, here = AccessKey("there", "1" * 16, "admin", hubs=["a"]), AccessKey("here", "2" * 16, "read", hubs=["b"])
    ring = KeyRing([there, here], hub="b")
    for presented in ([b"1" * 16, b"2" * 16], [b"2" * 16, b"1" * 16]):
        assert ring.find(presented, NOW) == Caller(name="here", scope="read", code="2" * 16)
    assert ring.find([b"1" * 16], NOW) == Caller(name="there", scope="admin", code="1" * 16, elsewhere=("a",))


def test_a_request_for_another_hub_finds_nothing_if_the_host_has_a_name() -> None:
    async def named(served: Served) -> None:
        await served.host.client.start_new("echo", 1, instance_id="x")
        await served.host.client.wait_until_stopped("x", timeout=PATIENCE)
        for query, status in (
            ("", 200),
            ("taskHub=Orders&connection=any", 200),
            ("taskHub=", 200),
            ("taskHub=billing", 404),
            ("taskHub=billing&taskHub=orders", 404),
        ):
            answer = await served.http.get(f"{BASE}/instances/x?{query}&code={SECRETS['admin']}")
            assert answer.status_code == status, query
            assert (status == 404) == ("'orders', not 'billing'" in answer.text)
        for method, path, scope in _requests():
            if not path.endswith("openapi.json"):
                for secret in (SECRETS[scope], SECRETS["read"]):
                    answer = await served.http.request(method, f"{path}?taskHub=billing&code={secret}")
                    assert answer.status_code == (404 if secret == SECRETS[scope] else 403), (method, path)
        purged = await served.http.get(f"{BASE}/instances/x?code={SECRETS['read']}")
        assert purged.status_code == 200  # nothing of all this was done

    async def nameless(served: Served) -> None:
        assert (await served.start("echo", "x", 1)).status_code == 202
        found = await served.http.get(f"{BASE}/instances/x?taskHub=any")
        assert found.status_code in (200, 202)

    serve(named, keys=KEYS, config=HostConfig(task_hub="orders"))
    serve(nameless)


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "schlüssel", 7, "a/b"])
def test_a_name_of_a_hub_that_cannot_be_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match="task_hub is"):
        HostConfig(task_hub=name)
    with pytest.raises(ConfigurationError, match="one of the hubs of the key 'n' is"):
        AccessKey("n", "x" * 16, "read", hubs=[name])


def test_what_comes_with_holdfast_is_started_by_administrators_only() -> None:
    async def scenario(served: Served) -> None:
        for path in ("/api/orchestrators/BuiltIn::Bulk", f"{BASE}/orchestrators/BuiltIn%3a%3aBulk/x"):
            answers = [(await served.http.post(f"{path}?code={secret}")).status_code for secret in SECRETS.values()]
            assert answers[:2] == [403, 403]
            assert answers[2] != 403

    serve(scenario, keys=KEYS)


def test_a_client_elsewhere_is_held_to_the_same() -> None:
    async def scenario(served: Served) -> None:
        body = {"request": {"name": "BuiltIn::Bulk", "instance_id": "x", "input": "{}"}}
        statuses = {}
        for scope, secret in SECRETS.items():
            for method in ("start_orchestration", "purge", "get_state"):
                url = f"{BASE}/hub/{method}?code={secret}"
                arguments = body if method == "start_orchestration" else {"instance_id": "nobody"}
                statuses[scope, method] = (await served.http.post(url, json=arguments)).status_code == 403
        assert [key for key, is_refused in statuses.items() if is_refused] == [
            ("read", "start_orchestration"),
            ("read", "purge"),
            ("operate", "start_orchestration"),
            ("operate", "purge"),
        ]

    serve(scenario, keys=KEYS)


def test_what_a_path_names_never_makes_it_need_less() -> None:
    async def scenario(served: Served) -> None:
        for path in ("/entities/counter/get_state", "/instances/query/raiseEvent/query", "/instances/hub/terminate"):
            answer = await served.http.post(f"{BASE}{path}?code={SECRETS['read']}")
            assert answer.status_code == 403

    serve(scenario, keys=KEYS)


def test_a_bulk_job_is_not_started_again_with_less() -> None:
    async def scenario(served: Served) -> None:
        job = await served.host.client.start_bulk("purge", InstanceQuery(name="absent"))
        await job.wait_for_completion(timeout=PATIENCE)
        names = {"instance_id": job.instance_id}
        for scope, secret in SECRETS.items():
            for way in ("rewind", "fork", "restart"):
                again = await served.http.post(f"{BASE}/instances/{job.instance_id}/{way}?code={secret}")
                assert (again.status_code == 403) == (scope != "admin"), (scope, way, again.text)
            for way, arguments in (("rewind", names), ("fork", {**names, "new_instance_id": f"of-{scope}"})):
                again = await served.http.post(f"{BASE}/hub/{way}?code={secret}", json=arguments)
                assert (again.status_code == 403) == (scope != "admin"), (scope, way, again.text)
            own = await served.http.post(f"{BASE}/orchestrators/echo/own-{scope}?code={SECRETS['operate']}")
            assert own.status_code == 202
            again = await served.http.post(f"{BASE}/instances/own-{scope}/fork?code={secret}")
            assert (again.status_code == 403) == (scope == "read")

    serve(scenario, keys=KEYS)


def test_to_operate_includes_the_operation_delete_and_starts_anew_but_no_purge() -> None:
    async def scenario(served: Served) -> None:
        entity, code = f"{BASE}/entities/counter/x", f"code={SECRETS['operate']}"
        await served.host.client.call_entity(EntityId("counter", "x"), "add", 1, timeout=PATIENCE)
        assert (await served.http.delete(f"{entity}?{code}")).status_code == 403
        assert (await served.http.post(f"{entity}?op=delete&{code}")).status_code == 202
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while (await served.http.get(f"{entity}?{code}")).status_code != 404:
                await asyncio.sleep(0.005)
        for number in (1, 2):
            await served.http.post(f"{BASE}/orchestrators/echo/y?{code}", json=number)
            ended = await served.host.client.wait_until_stopped("y", timeout=PATIENCE)
            assert ended.state.output == str(number)
        assert (await served.http.delete(f"{BASE}/instances/y?{code}")).status_code == 403

    serve(scenario, keys=KEYS)


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ("operate", ["start", "rewind", "restart", "fork", "send events", "any operation of any entity"]),
        ("admin", ["purge", "break locks", "clean entities", "bulk jobs"]),
    ],
)
def test_the_guide_says_what_a_scope_allows(scope: str, words: list[str]) -> None:
    guide = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "secure-the-http-api.md"
    [row] = re.findall(rf"^\| `{scope}` \| (.*) \|$", guide.read_text(encoding="utf-8"), re.MULTILINE)
    assert [word for word in words if word not in row] == []
    assert "remove" not in row


def test_a_mount_is_governed_by_the_last_part_of_the_path() -> None:
    async def scenario() -> None:
        async def hub(request: Request) -> Response:
            return Response(status_code=200)

        mount = Mount(f"{BASE}/hub", Router([Route("/{method}", hub, methods=["POST"])]))
        guarded = Guard(Router(governed([mount], Audit())), FixedKeys(KeyRing(KEYS)), Audit())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(guarded), base_url="http://localhost") as http:
            for name, allowed in (("get_state", 3), ("send", 2), ("purge", 1)):
                answers = [
                    (await http.post(f"{BASE}/hub/{name}?code={secret}")).status_code for secret in SECRETS.values()
                ]
                assert sorted(answers) == [200] * allowed + [403] * (3 - allowed)
            assert (await http.put(f"{BASE}/hub/get_state?code={SECRETS['operate']}")).status_code == 403

    asyncio.run(scenario())


def test_the_urls_of_an_answer_carry_the_key_of_the_request() -> None:
    app_key = "an older key"

    async def scenario(served: Served) -> None:
        for code in (SECRETS["operate"], app_key):
            started = await served.http.post(f"{BASE}/orchestrators/echo?code={code}")
            assert f"code={code.replace(' ', '%20')}" in started.json()["terminatePostUri"]
            # From a handler of the app, with the key in a header, too.
            ordered = await served.http.post(f"/api/orders/{len(code)}", json=1, headers={"x-functions-key": code})
            assert f"code={code.replace(' ', '%20')}" in ordered.json()["statusQueryGetUri"]

    serve(scenario, keys=KEYS, key=app_key)


def test_a_route_that_is_anonymous_needs_no_key_and_gives_none_away() -> None:
    async def scenario(served: Served) -> None:
        assert (await served.http.get("/api/open")).status_code == 200
        assert (await served.http.post("/api/open")).status_code == 401
        submitted = await served.http.post("/api/submit", json=1)
        assert submitted.status_code == 202
        assert "code=" not in submitted.text

    serve(scenario, keys=KEYS)


def test_another_kind_of_route_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'nobody'; it must be 'key' or 'anonymous'"):
        make_app().route("/x", auth="nobody")  # type: ignore[arg-type] - that is what is refused


# The ring


def _expiring(at: datetime | None) -> KeyRing:
    return KeyRing([AccessKey("guest", SECRETS["read"], "read", at)])


@pytest.mark.parametrize(
    ("expires_at", "is_valid"),
    [
        (None, True),
        (NOW + timedelta(seconds=1), True),
        (NOW, False),
        (NOW - timedelta(days=1), False),
        ((NOW + timedelta(seconds=1)).astimezone(timezone(timedelta(hours=9))), True),
    ],
)
def test_a_key_is_valid_until_it_expires(expires_at: datetime | None, is_valid: bool) -> None:
    found = _expiring(expires_at).find([SECRETS["read"].encode()], NOW)
    assert (found is not None) == is_valid


def test_of_two_keys_the_one_that_allows_more_counts() -> None:
    ring = KeyRing(KEYS)
    presented = [SECRETS["operate"].encode(), SECRETS["read"].encode()]
    expected = Caller(name="the operate one", scope="operate", code=SECRETS["operate"])
    assert ring.find(presented, NOW) == ring.find(presented[::-1], NOW) == expected
    assert ring.find([b"", b"x", SECRETS["read"].encode()[:-1]], NOW) is None


def test_every_key_is_compared_whatever_was_found_before(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[bool] = []

    def compare(left: bytes, right: bytes) -> bool:
        assert len(left) == len(right) == 32
        compared.append(left == right)
        return left == right

    monkeypatch.setattr("holdfast.http.keys.hmac.compare_digest", compare)
    ring = KeyRing(KEYS)
    for code in (b"", b"wrong", *(secret.encode() for secret in SECRETS.values())):
        compared.clear()
        ring.find([code, b"short"], NOW)
        assert len(compared) == 6


def test_no_secret_can_be_seen() -> None:
    ring = KeyRing(KEYS)
    assert SECRETS["read"] not in repr(KEYS)
    assert SECRETS["read"] not in repr(vars(ring))


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ([], "There are 0 keys"),
        ([AccessKey("a", "1" * 16, "read"), AccessKey("a", "2" * 16, "read")], "the name 'a'"),
        ([AccessKey("a", "1" * 16, "read"), AccessKey("b", "1" * 16, "admin")], "'a' and 'b' have the same secret"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys: list[AccessKey], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        KeyRing(keys)


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="everybody"):
        make_app().host("memory://").http_app("")


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"secret": "fifteen-letters"}, "15 characters; it must have 16"),
        ({"secret": "x" * 257}, "257 characters"),
        ({"secret": "with a blank in it"}, "printable ASCII"),
        ({"secret": "schlüssel-schlüssel"}, "printable ASCII"),
        ({"secret": 1234567890123456}, "no text"),
        ({"name": ""}, "1 to 64 printable"),
        ({"name": "line\nbreak"}, "1 to 64 printable"),
        ({"hubs": []}, "Leave it out"),
        ({"hubs": "orders"}, "it must be a list"),
        ({"hubs": None, "scope": "root"}, "'root'; use one of read, operate, admin"),
        ({"expires_at": datetime(2027, 1, 1)}, "time zone"),  # noqa: DTZ001 - that is what is refused
    ],
)
def test_a_key_that_cannot_be_is_refused(fields: dict[str, object], complaint: str) -> None:
    good: dict[str, object] = {"name": "n", "secret": "x" * 16, "scope": "read"}
    with pytest.raises(ConfigurationError, match=complaint) as refused:
        AccessKey(**{**good, **fields})  # type: ignore[arg-type] - that is what is refused
    assert str(fields.get("secret", "?!")) not in str(refused.value)


# Keys in a file


def _table(name: str, secret: str, scope: str, more: str = "") -> str:
    return f'[[keys]]\nname = "{name}"\nsecret = "{secret}"\nscope = "{scope}"\n{more}'


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _write(path: Path, text: str) -> None:
    """Write it with another time, however fast the test and coarse the clock of the file system is."""
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 1_000_000_000, before + 1_000_000_000))


def test_keys_are_rotated_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, clock = tmp_path / "keys.toml", Clock()
    old, new = "old-secret-0123456789", "new-secret-0123456789"
    _write(path, _table("one", old, "read"))
    keys = KeyFile(path, clock=clock)

    def scope(secret: str) -> str | None:
        found = keys.current().find([secret.encode()], NOW)
        return None if found is None else found.scope

    with caplog.at_level(logging.INFO, "holdfast.http"):
        _write(path, _table("one", old, "read") + _table("two", new, "admin"))
        assert (scope(old), scope(new)) == ("read", None)  # it was looked at a moment ago
        clock.now += 1
        assert (scope(old), scope(new)) == ("read", "admin")
        _write(path, _table("two", new, "admin"))
        clock.now += 1
        assert (scope(old), scope(new)) == (None, "admin")

        for broken in ("[[keys", "", _table("three", "short", "read"), _table("x", old, "read", "expires = 1")):
            caplog.clear()
            _write(path, broken)
            for _ in range(3):
                clock.now += 1
                assert (scope(old), scope(new)) == (None, "admin")
            [complaint] = [each.message for each in caplog.records if each.levelno == logging.ERROR]
            assert "stay as they were" in complaint
            assert old not in complaint
        path.unlink()
        clock.now += 1
        assert scope(new) == "admin"
        _write(path, _table("one", old, "operate"))
        clock.now += 1
        assert (scope(old), scope(new)) == ("operate", None)


def test_hosts_of_several_hubs_share_a_file(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys.toml", Clock()
    one, both = "one-secret-0123456789", "both-secret-0123456789"
    _write(path, _table("one", one, "read", 'hubs = ["a"]\n') + _table("both", both, "read", 'hubs = ["b", "a"]\n'))
    files = [KeyFile(path, hub=hub, clock=clock) for hub in ("a", "b")]

    def served(secret: str) -> list[bool]:
        found = [file.current().find([secret.encode()], NOW) for file in files]
        return [caller is not None and not caller.elsewhere for caller in found]

    assert (served(one), served(both)) == ([True, False], [True, True])
    _write(path, _table("one", one, "read", 'hubs = ["b"]\n') + _table("both", both, "read"))
    clock.now += 1
    assert (served(one), served(both)) == ([False, True], [True, True])


def test_a_host_takes_its_keys_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(_table("one", SECRETS["read"], "read", "expires_at = 2999-01-01T00:00:00Z"))

    async def scenario(served: Served) -> None:
        status = f"{BASE}/instances/x"
        assert (await served.http.get(status)).status_code == 401
        assert (await served.http.get(f"{status}?code={SECRETS['read']}")).status_code == 404
        assert (await served.http.post(f"{status}/terminate?code={SECRETS['read']}")).status_code == 403
        assert (await served.http.post(f"{status}/terminate?code=single")).status_code == 404

    serve(scenario, keys=path, key="single")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "cannot be read"),
        ("", "There are no keys"),
        ("keys = 1", "There are no keys"),
        ("keys = [1]", "must be a table"),
        ("key = 1", "no 'key'. Did you mean 'keys'"),
        ('[[keys]]\nname = "x"', "no secret and no scope"),
        (_table("x", "1" * 16, "read", "expires = 1"), "no 'expires'. Did you mean 'expires_at'"),
        (_table("x", "1" * 16, "read", "expires_at = 2027-01-01"), "time zone"),
        (_table("x", "1" * 16, "reed"), "use one of read"),
        (_table("x", "1" * 16, "read", "hubs = []"), "Leave it out"),
        (_table("x", "1" * 16, "read", "hubs = [1]"), "one of the hubs of the key 'x' is 1"),
        (_table("x", "1" * 16, "read", 'hub = ["a"]'), "Did you mean 'hubs'"),
        ("[[keys", "no TOML"),
        ("#" * (1024 * 1024 + 1), "over 1,048,576"),
    ],
)
def test_a_file_that_has_no_good_keys_is_refused(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = tmp_path / "keys.toml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigurationError, match=complaint) as refused:
        read_keys(path)
    assert "keys.toml" in str(refused.value)
