"""The OpenAPI document: it describes each route, and what it says of the answers is so."""

from __future__ import annotations

import re

from http_app import BASE, ORIGIN, PATIENCE, Served, make_app, serve
from starlette.routing import Route

from holdfast import EntityId
from holdfast.http.openapi import openapi_document
from holdfast.http.payload import LEGACY_BASE_PATH, Links
from holdfast.http.routing import management_routes
from holdfast.http.table import OPERATIONS

DOCUMENT = openapi_document(BASE)


SAME_WITH_A_SLASH = {
    ("GET", "/instances/"),
    ("DELETE", "/instances/"),
    ("GET", "/entities/"),
    ("GET", "/entities/{}/"),
}
"""As older clients spell them; the document has each endpoint once."""


def served_routes() -> list[Route]:
    host = make_app().host("memory://")
    return management_routes(host, host.client, Links())


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
    assert described == {(operation.method, _anonymous(operation.path)) for operation in OPERATIONS}


def _anonymous(path: str) -> str:
    return re.sub(r"\{[^}]+\}", "{}", path)


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
    names = [operation.name for operation in OPERATIONS]
    assert len(names) == len(set(names))
    requests = [(operation.method, _anonymous(operation.path)) for operation in OPERATIONS]
    assert len(requests) == len(set(requests))


def test_the_document_is_served() -> None:
    async def scenario(served: Served) -> None:
        for base in (BASE, LEGACY_BASE_PATH):
            response = await served.http.get(f"{base}/openapi.json")
            assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
            assert response.json() == {**DOCUMENT, "servers": [{"url": f"{ORIGIN}{base}"}]}

    serve(scenario)
