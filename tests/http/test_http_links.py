"""Signed links: they do one thing, for those who confirm it, until they expire."""

from __future__ import annotations

import asyncio
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from http_app import ORIGIN, PATIENCE, Served, make_app, serve
from starlette.routing import Router

from holdfast import ConfigurationError, InvalidInputError
from holdfast.http import sign_link
from holdfast.http.keys import KeyFile, read_keys
from holdfast.http.links import LinkEndpoints

SECRET, OLDER = "the-secret-of-links", "the-older-secret-of-links"
LATER = datetime.now(UTC) + timedelta(days=1)
KEY = "an ordinary key"


def link(instance_id: str, action: str = "raiseEvent/ApprovalEvent", data: object = True, **options: Any) -> str:
    return sign_link(
        options.get("secret", SECRET), ORIGIN, instance_id, action, data, expires_at=options.get("expires_at", LATER)
    )


def serve_links(scenario: Any, **options: Any) -> None:
    serve(scenario, key=KEY, link_secrets=(SECRET, OLDER), **options)


def test_following_it_asks_and_only_the_confirmation_acts() -> None:
    async def scenario(served: Served) -> None:
        await served.host.client.start_new("WaitForApproval", instance_id="o'<b>&")
        url = link("o'<b>&", data={"ok": "<i>"})
        for method in ("GET", "HEAD", "GET"):
            asked = await served.http.request(method, url)
            assert asked.status_code == 200
        page = asked.text
        assert '<form method="post">' in page
        assert "o&#x27;&lt;b&gt;&amp;" in page
        assert "{&quot;ok&quot;:&quot;&lt;i&gt;&quot;}" in page
        assert "<b>" not in page
        assert "<i>" not in page
        assert re.search(r"https?:|src=|script", page) is None
        assert asked.headers["content-security-policy"].startswith("default-src 'none'; form-action 'self'")
        assert asked.headers["cache-control"] == "no-store"
        assert "no-store" in asked.headers["cache-control"]
        state = await served.host.client.get_status("o'<b>&")
        assert state is not None
        assert not state.runtime_status.is_terminal

        confirmed = await served.http.post(url)
        assert confirmed.status_code == 202
        assert "<b>" not in confirmed.text
        assert await served.host.client.wait_for_completion("o'<b>&", timeout=PATIENCE) == {"ok": "<i>"}
        assert (await served.http.post(url)).status_code == 410

    serve_links(scenario)


def test_an_event_of_one_link_counts_once() -> None:
    async def scenario(served: Served) -> None:
        client = served.host.client
        await client.start_new("twice", instance_id="x")
        for _ in range(3):
            assert (await served.http.post(link("x", "raiseEvent/Answer", 1))).status_code == 202
        await client.raise_event("x", "Answer", 2)
        assert await client.wait_for_completion("x", timeout=PATIENCE) == [1, 2]

    serve_links(scenario)


@pytest.mark.parametrize(("action", "status"), [("terminate", "Terminated"), ("cancel", "Canceled")])
def test_it_ends_an_instance(action: str, status: str) -> None:
    async def scenario(served: Served) -> None:
        await served.host.client.start_new("WaitForApproval", instance_id="x")
        assert (await served.http.post(link("x", action, "enough"))).status_code == 202
        state = await served.host.client.wait_until_stopped("x", timeout=PATIENCE)
        assert state.runtime_status == status

    serve_links(scenario)


def test_it_suspends_and_resumes() -> None:
    async def scenario(served: Served) -> None:
        client = served.host.client
        await client.start_new("WaitForApproval", instance_id="x")
        assert (await served.http.post(link("x", "suspend", None))).status_code == 202
        state = await client.get_status("x")
        assert state is not None
        assert state.runtime_status == "Suspended"
        assert (await served.http.post(link("x", "resume", None))).status_code == 202
        assert (await served.http.post(link("x", secret=OLDER))).status_code == 202
        assert await client.wait_for_completion("x", timeout=PATIENCE) is True
        assert (await served.http.post(link("nobody"))).status_code == 404

    serve_links(scenario)


def test_what_was_changed_or_has_expired_is_refused() -> None:
    async def scenario(served: Served) -> None:
        await served.host.client.start_new("WaitForApproval", instance_id="x")
        await served.host.client.start_new("WaitForApproval", instance_id="y")
        good = link("x", data=False)
        expired = link("x", expires_at=datetime.now(UTC) - timedelta(seconds=1))
        expires = re.search(r"exp=(\d+)", expired)
        assert expires is not None
        changed = [
            good.replace("/x/", "/y/"),
            good.replace("ApprovalEvent", "Another"),
            good.replace("raiseEvent/ApprovalEvent", "terminate"),
            good.replace("data=false", "data=true"),
            good.replace("data=false", ""),
            good.replace("exp=", "exp=1"),
            good.replace("exp=", "exp=-"),
            good.replace("exp=", "exp=99999999999999999999"),
            good.replace("sig=", "sig=0"),
            good[:-1],
            good[: good.index("&sig=")],
            good[: good.index("?")],
            good.replace("sig=", "sig=%FF%C3%A9"),
            expired,
            expired.replace(f"exp={expires[1]}", f"exp={int(LATER.timestamp())}"),
            link("x", secret="another-secret-of-links"),
        ]
        for url in changed:
            for method in ("GET", "POST"):
                refused = await served.http.request(method, url)
                assert refused.status_code == 403, url
                assert "<form" not in refused.text
        for instance_id in ("x", "y"):
            state = await served.host.client.get_status(instance_id)
            assert state is not None
            assert not state.runtime_status.is_terminal
        # It is a key for nothing else.
        query = urlsplit(good).query
        assert (await served.http.get(f"/runtime/webhooks/durabletask/instances/x?{query}")).status_code == 401

    serve_links(scenario)


def test_a_link_expires_at_its_second() -> None:
    expires_at = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)

    async def scenario() -> None:
        now = expires_at - timedelta(seconds=1)
        host = make_app().host("memory://")
        app = Router(LinkEndpoints(host, host.client, [SECRET], lambda: now).routes())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
            assert (await http.get(link("x", expires_at=expires_at))).status_code == 200
            now = expires_at
            assert (await http.get(link("x", expires_at=expires_at))).status_code == 403

    asyncio.run(scenario())


def test_without_a_secret_there_are_no_links() -> None:
    async def scenario(served: Served) -> None:
        assert (await served.http.get(link("x"))).status_code == 404

    serve(scenario)


def _file(secrets: list[str]) -> str:
    return f'[links]\nsecrets = {secrets}\n[[keys]]\nname = "x"\nsecret = "the-secret-of-x-itself"\nscope = "read"\n'


def test_secrets_in_the_file_of_keys_change_without_a_restart(tmp_path: Path) -> None:
    path, looked_at = tmp_path / "keys.toml", 0.0

    def write(*secrets: str) -> None:
        nonlocal looked_at
        path.write_text(_file(list(secrets)))
        looked_at += 1
        os.utime(path, (looked_at, looked_at))

    async def scenario() -> None:
        host = make_app().host("memory://")
        keys = KeyFile(path, clock=lambda: looked_at)
        app = Router(LinkEndpoints(host, host.client, [], keys=keys).routes())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:

            async def is_valid(url: str) -> bool:
                status = (await http.get(url)).status_code
                assert status in {200, 403}
                return status == 200

            first = link("x", secret=path)
            assert first == link("x", secret=OLDER)
            write(SECRET, OLDER)
            second = link("x", secret=path)
            assert second == link("x", secret=SECRET)
            assert (await is_valid(first), await is_valid(second)) == (True, True)
            write(SECRET)
            assert (await is_valid(first), await is_valid(second)) == (False, True)
            write("short")
            assert await is_valid(second)  # what it had stays
            write()
            assert not await is_valid(second)

    write(OLDER)
    asyncio.run(scenario())


def test_secrets_of_the_host_and_of_its_file_count_alike(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(_file([OLDER]))

    async def scenario(served: Served) -> None:
        for secret in (SECRET, OLDER, path):
            assert (await served.http.get(link("x", secret=secret))).status_code == 200
        assert (await served.http.get(link("x", secret="another-secret-of-links"))).status_code == 403
        assert (await served.http.get("/runtime/webhooks/durabletask/instances/x")).status_code == 401

    serve(scenario, keys=path, link_secrets=[SECRET])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (_file(["short"]), "16"),
        (_file([SECRET]).replace("secrets", "secret", 1), "no 'secret'. Did you mean 'secrets'"),
        (_file([]).replace("[]", f"'{SECRET}'"), "must be a list of at most 100"),
        (_file([SECRET] * 101), "must be a list of at most 100"),
        (_file([SECRET]).replace("[links]\nsecrets", "links"), r"in a table \[links\]"),
        (_file([SECRET]).replace("links", "link", 1), "no 'link'. Did you mean 'links'"),
    ],
)
def test_a_file_with_secrets_that_cannot_be_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=complaint) as refused:
        make_app().host("memory://").http_app(keys=path)
    assert SECRET not in str(refused.value)


def test_a_file_without_a_secret_signs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(_file([]))
    with pytest.raises(ConfigurationError, match="has no secret for links"):
        link("x", secret=path)
    path.write_text(_file([SECRET]))
    assert read_keys(path).link_secrets == (SECRET,)
    assert SECRET not in repr(read_keys(path))


def test_links_work_on_a_host_for_this_machine_only() -> None:
    async def scenario(served: Served) -> None:
        assert (await served.http.post(link("nobody"), headers={"Origin": ORIGIN})).status_code == 404
        assert (await served.http.post(link("nobody"), headers={"Origin": "https://evil.example"})).status_code == 403

    serve(scenario, link_secrets=[SECRET], loopback_only=True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"instance_id": "a/b"}, "instance id"),
        ({"instance_id": ".."}, "another path"),
        ({"instance_id": "@counter@x"}, "entities"),
        ({"action": "purge"}, "raiseEvent/NAME, or one of terminate"),
        ({"action": "raiseEvent/"}, "external event"),
        ({"action": "raiseEvent/a/b"}, "another path"),
        ({"action": "terminate", "data": 3}, "must be a text"),
        ({"data": object()}, "plain JSON"),
        ({"data": "x" * 2_000}, "the most is 2000"),
        ({"expires_at": datetime(2027, 1, 1)}, "time zone"),  # noqa: DTZ001 - that is what is refused
        ({"base_url": "flows.example.com"}, "base_url"),
        ({"base_url": "https://flows.example.com?x=1"}, "base_url"),
    ],
)
def test_a_link_that_could_not_work_is_not_made(arguments: dict[str, Any], complaint: str) -> None:
    given: dict[str, Any] = {
        "base_url": ORIGIN,
        "instance_id": "x",
        "action": "raiseEvent/Go",
        "expires_at": LATER,
        **arguments,
    }
    with pytest.raises(InvalidInputError, match=complaint):
        sign_link(SECRET, **given)


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="16"):
        link("x", secret="short")
    with pytest.raises(ConfigurationError, match="16"):
        make_app().host("memory://").http_app(link_secrets=["short"])
