"""The OpenAPI document: it describes each route, and what it says of the answers is so."""

from __future__ import annotations

import re

from http_app import BASE, ORIGIN, Served, make_app, serve
from starlette.routing import Route

from holdfast.http.openapi import openapi_document
from holdfast.http.payload import LEGACY_BASE_PATH, Links
from holdfast.http.routing import management_routes
from holdfast.http.table import OPERATIONS

DOCUMENT = openapi_document(BASE)


def served_routes() -> list[Route]:
    host = make_app().host("memory://")
    return management_routes(host, host.client, Links(None))


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
        assert served - {("GET", "/openapi.json")} == described
    assert described == {(operation.method, _anonymous(operation.path)) for operation in OPERATIONS}


def _anonymous(path: str) -> str:
    return re.sub(r"\{[^}]+\}", "{}", path)


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
