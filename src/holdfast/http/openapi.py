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
from holdfast.http.schemas import SCHEMAS
from holdfast.http.table import OPERATIONS

DOCUMENT_PATH: Final = "/openapi.json"
_VERSION: Final = "1.0"
"""Of the API. What clients of the protocol know does not change within it."""
_MEDIA_SCHEMAS: Final[Mapping[str, Schema]] = {JSON: {}, TEXT: {"type": "string"}}
_IMPLIED_HEADERS: Final = frozenset({"Accept"})
"""OpenAPI says these in another way: the media types of the answers."""


def openapi_document(base_path: str) -> dict[str, object]:
    """Return the document about the management API below a base path."""
    paths: dict[str, dict[str, object]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Holdfast HTTP management API", "version": _VERSION},
        "servers": [{"url": base_path}],
        "security": [{"code": []}, {"header": []}, {}],
        "paths": paths,
        "components": {
            "schemas": {name: dict(schema) for name, schema in SCHEMAS.items()},
            "securitySchemes": {
                "code": {"type": "apiKey", "in": "query", "name": "code"},
                "header": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
            },
        },
    }


def path_parameters(operation: Operation) -> list[str]:
    """Return the names that stand in a path, in order."""
    return re.findall(r"\{(\w+)\}", operation.path)


def answers_of(operation: Operation) -> list[Answer]:
    """Return what an endpoint may answer, by status; the common answers only where it has none of its own."""
    own = {answer.status for answer in operation.answers}
    common = [answer for answer in COMMON_ANSWERS if answer.status not in own]
    return sorted([*operation.answers, *common], key=lambda answer: answer.status)


def _operation(operation: Operation) -> dict[str, object]:
    in_path = [Parameter(name, "", SEGMENT, "path", required=True) for name in path_parameters(operation)]
    in_query = [each for each in COMMON_PARAMETERS if each.name != "code"]  # that one is the security scheme
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
    return described


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
