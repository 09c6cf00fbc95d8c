"""The OpenAPI document, made of the table of endpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

from holdfast.http.operations import (
    COMMON_ANSWERS,
    COMMON_PARAMETERS,
    JSON,
    SEGMENT,
    TEXT,
    Answer,
    Body,
    Operation,
    Parameter,
    Schema,
)
from holdfast.http.payload import BASE_PATH
from holdfast.http.schemas import SCHEMAS
from holdfast.http.scopes import needed_scope, scope_for_builtins
from holdfast.http.table import DOCUMENTED

DOCUMENT_PATH: Final = "/openapi.json"
_VERSION: Final = "1.0"
"""Of the API. What clients of the protocol know does not change within it."""
_MEDIA_SCHEMAS: Final[Mapping[str, Schema]] = {JSON: {}, TEXT: {"type": "string"}}
_ABOUT: Final = (
    "Each operation says as `x-required-scope` what a key must allow for it, and as `x-required-scope-of-builtins` "
    "what it must allow if this starts, or runs again, what comes with Holdfast. Without keys a host asks for none. "
    "The requests below `/hub` are not described: they are between hosts and clients of the same version, and change."
)
_KEY_SCHEMES: Final = ("code", "header")
_SCHEMES: Final[Mapping[str, Mapping[str, str]]] = {
    "code": {"type": "apiKey", "in": "query", "name": "code", "description": "A key."},
    "header": {"type": "apiKey", "in": "header", "name": "x-functions-key", "description": "A key."},
    "signature": {
        "type": "apiKey",
        "in": "query",
        "name": "sig",
        "description": "The signature of one link: of its path, `data` and `exp`. It is valid for nothing else.",
    },
}
_START_PATH: Final = "/orchestrators/{functionName}"
_IMPLIED_HEADERS: Final = frozenset({"Accept"})
"""OpenAPI says these in another way: the media types of the answers."""


def openapi_document(base_path: str) -> dict[str, object]:
    """Return the document about the management API below a base path."""
    paths: dict[str, dict[str, object]] = {}
    for operation in DOCUMENTED:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Holdfast HTTP management API", "version": _VERSION, "description": _ABOUT},
        "servers": [{"url": base_path}],
        "paths": paths,
        "components": {
            "schemas": {name: dict(schema) for name, schema in SCHEMAS.items()},
            "securitySchemes": {name: dict(scheme) for name, scheme in _SCHEMES.items()},
        },
    }


def path_parameters(operation: Operation) -> list[str]:
    """Return the names that stand in a path, in order."""
    return re.findall(r"\{(\w+)\}", operation.path)


def answers_of(operation: Operation) -> list[Answer]:
    """Return what an endpoint may answer, by status; the common answers only where it has none of its own."""
    own = {answer.status for answer in operation.answers}
    common = [answer for answer in COMMON_ANSWERS if answer.status not in own and not operation.is_signed]
    return sorted([*operation.answers, *common], key=lambda answer: answer.status)


def _operation(operation: Operation) -> dict[str, object]:
    in_path = [Parameter(name, "", SEGMENT, "path", required=True) for name in path_parameters(operation)]
    # The key is the security scheme.
    in_query = [each for each in COMMON_PARAMETERS if each.name != "code" and not operation.is_signed]
    given = [each for each in operation.parameters if each.name not in _IMPLIED_HEADERS]
    described: dict[str, object] = {
        "operationId": operation.name,
        "tags": [operation.group],
        "summary": operation.text,
        "parameters": [_parameter(each) for each in (*in_path, *given, *in_query)],
        "responses": _responses(answers_of(operation)),
    }
    if operation.body is not None:
        described["requestBody"] = _body(operation.body)
    return described | _security(operation)


def _security(operation: Operation) -> dict[str, object]:
    """Return what a request needs, as the table of scopes has it."""
    if operation.is_signed:
        return {"security": [{"signature": list[str]()}]}
    needed = needed_scope(operation.method, f"{BASE_PATH}{operation.path}")
    runs = _START_PATH if operation.repeats else operation.path
    of_builtins = scope_for_builtins(operation.method, f"{BASE_PATH}{runs}")
    also = {} if of_builtins == needed else {"x-required-scope-of-builtins": of_builtins}
    # Keys have no scopes for OpenAPI; the names are those of roles, of which it asks nothing.
    return {"security": [*({name: [needed]} for name in _KEY_SCHEMES), {}], "x-required-scope": needed, **also}


def _parameter(parameter: Parameter) -> dict[str, object]:
    described: dict[str, object] = {
        "name": parameter.name,
        "in": parameter.where,
        "required": parameter.required,
        "schema": dict(parameter.schema),
    }
    if parameter.text:
        described["description"] = parameter.text
    return described


def _body(body: Body) -> dict[str, object]:
    content = {media: {"schema": dict(_MEDIA_SCHEMAS[media])} for media in body.media}
    return {"description": body.text, "required": False, "content": content}


def _responses(answers: Sequence[Answer]) -> dict[str, object]:
    return {str(status): _response(list(same)) for status, same in groupby(answers, key=lambda answer: answer.status)}


def _response(answers: Sequence[Answer]) -> dict[str, object]:
    described: dict[str, object] = {"description": " ".join(answer.text for answer in answers)}
    headers = {name: {"schema": {"type": "string"}} for answer in answers for name in answer.headers}
    content = {answer.media: {"schema": dict(answer.schema)} for answer in answers if answer.schema is not None}
    return described | ({"headers": headers} if headers else {}) | ({"content": content} if content else {})
