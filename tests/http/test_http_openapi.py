"""The OpenAPI document: it describes each route, and what it says of the answers is so."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from http_app import BASE, ORIGIN, PATIENCE, Served, make_app, serve
from starlette.routing import Route

from holdfast import AccessKey, EntityId
from holdfast.http import sign_link
from holdfast.http.links import LinkEndpoints
from holdfast.http.openapi import openapi_document
from holdfast.http.payload import LEGACY_BASE_PATH, Links
from holdfast.http.routing import management_routes
from holdfast.http.scopes import scopes_of
from holdfast.http.table import DOCUMENTED

DOCUMENT = openapi_document(BASE)
READER = "reader-0123456789"


SAME_WITH_A_SLASH = {
    ("GET", "/instances/"),
    ("DELETE", "/instances/"),
    ("GET", "/entities/"),
    ("GET", "/entities/{}/"),
}
"""As older clients spell them; the document has each endpoint once."""


def served_routes() -> list[Route]:
    host = make_app().host("memory://")
    links = LinkEndpoints(host, host.client, ["a-secret-of-links"])
    return [*management_routes(host, host.client, Links()), *links.routes()]


def test_each_route_is_in_the_document_and_the_other_way_round() -> None:
    paths = DOCUMENT["paths"]
    assert isinstance(paths, dict)
    described = {(method.upper(), _anonymous(path)) for path, methods in paths.items() for method in methods}
    for base in (BASE, LEGACY_BASE_PATH):
        served = {
            (method, _anonymous(route.path.removeprefix(base)))
            for route in served_routes()
            if route.path.startswith(base)
            for method in (route.methods or set()) - {"HEAD"}
        }
        assert served - {("GET", "/openapi.json")} - SAME_WITH_A_SLASH == described
        assert served >= SAME_WITH_A_SLASH
        assert described >= {(method, path.rstrip("/")) for method, path in SAME_WITH_A_SLASH}
    assert described == {(operation.method, _anonymous(operation.path)) for operation in DOCUMENTED}


def _anonymous(path: str) -> str:
    return re.sub(r"\{[^}]+\}", "{}", path)


def described_operations() -> list[tuple[str, str, dict[str, Any]]]:
    paths: Any = DOCUMENT["paths"]
    return [(method.upper(), path, each) for path, methods in paths.items() for method, each in methods.items()]


def test_each_operation_says_which_scope_it_needs() -> None:
    needed = {
        (method, _anonymous(path.removeprefix(BASE))): scope
        for (method, path), scope in scopes_of(served_routes()).items()
    }
    signed = []
    for method, path, operation in described_operations():
        scope = operation.get("x-required-scope")
        if scope is None:
            assert operation["security"] == [{"signature": []}]
            signed.append((method, path))
        else:
            assert scope == needed[method, _anonymous(path)]
            assert operation["security"] == [{"code": [scope]}, {"header": [scope]}, {}]
    assert signed == [(method, "/links/{instanceId}/{action}") for method in ("GET", "POST")]


def test_what_needs_more_for_the_builtins_is_said() -> None:
    field = "x-required-scope-of-builtins"
    more = {
        operation["operationId"]: operation[field] for _, _, operation in described_operations() if field in operation
    }
    assert more == dict.fromkeys(["start", "startWithId", "rewind", "restart", "fork"], "admin")


def test_the_security_schemes_are_what_a_request_may_carry() -> None:
    components: Any = DOCUMENT["components"]
    schemes = components["securitySchemes"].values()
    assert {(each["type"], each["in"], each["name"]) for each in schemes} == {
        ("apiKey", "query", "code"),
        ("apiKey", "header", "x-functions-key"),
        ("apiKey", "query", "sig"),
    }
    used = {name for _, _, operation in described_operations() for each in operation["security"] for name in each}
    assert used == set(components["securitySchemes"])


def test_refusals_have_a_body_and_say_when_to_try_again() -> None:
    for method, path, operation in described_operations():
        for status in ("401", "403", "429", "503"):
            answer = operation["responses"].get(status)
            if (method, status) not in {("GET", "429"), ("GET", "503")} or not path.startswith("/links/"):
                assert answer["content"], (method, path, status)
                assert ("Retry-After" in answer.get("headers", {})) == (status in {"429", "503"})


def test_a_refusal_is_as_the_document_says() -> None:
    asked = re.compile(r"\{\w+\}")

    async def scenario(served: Served) -> None:
        for method, path, operation in described_operations():
            if "x-required-scope" in operation:
                url = f"{BASE}{asked.sub('x', path)}"
                for headers, status in (({}, "401"), ({"x-functions-key": READER}, "403")):
                    answer = await served.http.request(method, url, headers=headers)
                    allowed = status == "403" and operation["x-required-scope"] == "read"
                    assert (answer.status_code == int(status)) != allowed, (method, path)
                    if not allowed:
                        assert set(answer.json()) == {"Message"}
                        assert operation["responses"][status]["content"].keys() == {"application/json"}

    serve(scenario, keys=[AccessKey("dashboard", READER, "read")])


def test_a_signed_link_is_answered_as_the_document_says() -> None:
    def described(method: str, status: int) -> Any:
        [found] = [each for verb, path, each in described_operations() if (verb, path[:6]) == (method, "/links")]
        return found["responses"][str(status)]

    async def scenario(served: Served) -> None:
        await served.host.client.start_new("WaitForApproval", instance_id="x")
        later = datetime.now(UTC) + timedelta(days=1)
        good = sign_link("a-secret-of-links", ORIGIN, "x", "terminate", expires_at=later)
        missing = sign_link("a-secret-of-links", ORIGIN, "nobody", "terminate", expires_at=later)
        for method, url, status in (
            ("GET", good, 200),
            ("GET", good.replace(BASE, LEGACY_BASE_PATH), 200),
            ("GET", good[:-1], 403),
            ("POST", good[:-1], 403),
            ("POST", missing, 404),
            ("POST", good, 202),
            ("POST", good, 410),
        ):
            answer = await served.http.request(method, url)
            assert answer.status_code == status
            assert answer.headers["content-type"].partition(";")[0] in described(method, status)["content"]

    serve(scenario, link_secrets=["a-secret-of-links"])


def test_a_link_that_is_refused_for_now_says_when_to_try_again() -> None:
    async def scenario() -> None:
        host = make_app().host("memory://")  # it was not started
        app = host.http_app(link_secrets=["a-secret-of-links"])
        link = sign_link(
            "a-secret-of-links", ORIGIN, "x", "terminate", expires_at=datetime.now(UTC) + timedelta(days=1)
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http:
            answer = await http.post(link)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")

    asyncio.run(scenario())


def test_a_slash_at_the_end_of_a_collection_makes_no_difference() -> None:
    async def scenario(served: Served) -> None:
        await served.start("echo", "a")
        await served.ended("a")
        await served.host.client.call_entity(EntityId("counter", "x"), "add", 1, timeout=PATIENCE)
        for path in ("/instances", "/entities", "/entities/counter"):
            for base in (BASE, LEGACY_BASE_PATH):
                plain = await served.http.get(f"{base}{path}?showInput=false")
                slashed = await served.http.get(f"{base}{path}/?showInput=false")
                assert (slashed.status_code, slashed.json()) == (200, plain.json())
        purged = await served.http.delete(f"{BASE}/instances/?createdTimeFrom=2020-01-01")
        assert (purged.status_code, purged.json()) == (200, {"instancesDeleted": 1})

    serve(scenario)


def test_only_the_starts_are_elsewhere_too() -> None:
    elsewhere = {route.path for route in served_routes() if not route.path.startswith((BASE, LEGACY_BASE_PATH))}
    assert elsewhere == {"/api/orchestrators/{function_name}", "/api/orchestrators/{function_name}/{instance_id:path}"}


def test_names_are_those_of_one_operation_each() -> None:
    names = [operation.name for operation in DOCUMENTED]
    assert len(names) == len(set(names))
    requests = [(operation.method, _anonymous(operation.path)) for operation in DOCUMENTED]
    assert len(requests) == len(set(requests))


def test_the_document_is_served() -> None:
    async def scenario(served: Served) -> None:
        for base in (BASE, LEGACY_BASE_PATH):
            response = await served.http.get(f"{base}/openapi.json")
            assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
            assert response.json() == {**DOCUMENT, "servers": [{"url": f"{ORIGIN}{base}"}]}

    serve(scenario)
