"""What one endpoint is, in plain values: its path, what it takes, what it answers.

The routes and the OpenAPI document are made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

import msgspec

Schema: TypeAlias = Mapping[str, object]
"""A JSON schema."""

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
EVENT_STREAM: Final = "text/event-stream"
TEXT: Final = "text/plain"
HTML: Final = "text/html"
TOKEN_HEADER: Final = "x-ms-continuation-token"


def _schema(**keywords: object) -> Schema:
    return MappingProxyType(keywords)


STRING: Final = _schema(type="string")
BOOLEAN: Final = _schema(type="boolean")
INTEGER: Final = _schema(type="integer", minimum=1)
SECONDS: Final = _schema(type="number", minimum=0, maximum=86_400)
INSTANT: Final = _schema(type="string", format="date-time")
STRINGS: Final = _schema(type="array", items={"type": "string"})
SEGMENT: Final = _schema(type="string", minLength=1)


def ref(name: str) -> Schema:
    """Return a schema that is described under a name."""
    return _schema(**{"$ref": f"#/components/schemas/{name}"})


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of the query, or with `where` of the path or the header."""

    name: str
    text: str
    schema: Schema = STRING
    where: Literal["query", "path", "header"] = "query"
    required: bool = False


class Answer(msgspec.Struct, frozen=True):
    """What one status means. Without a schema the answer has no body."""

    status: int
    text: str
    schema: Schema | None = None
    media: str = JSON
    headers: tuple[str, ...] = ()


class Body(msgspec.Struct, frozen=True):
    """The body of a request, which may always be empty."""

    text: str
    media: tuple[str, ...] = (JSON,)


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint. `name` is also that of its implementation."""

    name: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    """Below the base path; names in braces stand for one segment each."""
    group: str
    text: str
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    answers: tuple[Answer, ...]
    is_collection: bool = False
    """Older clients of the family ask for it with a slash at the end of the path; that is no other endpoint."""
    open_tail: bool = False
    """The last segment may have slashes, so that what may not have any is refused by name."""
    repeats: bool = False
    """It lets run again what an instance runs, so it needs a key that might have started that."""
    is_signed: bool = False
    """It asks for a signature in place of a key. What any other endpoint may answer is not said of it."""


RETRIED: Final = frozenset({429, 503})
"""What may be tried again later, as it was."""
RETRY_HEADERS: Final = ("Retry-After",)


def no_content(status: int, text: str) -> Answer:
    return Answer(status, text)


def failure(status: int, text: str) -> Answer:
    return Answer(status, text, ref("Error"), headers=RETRY_HEADERS if status in RETRIED else ())


GONE: Final = failure(410, "It has ended.")
TOO_MANY_WAITS: Final = failure(429, "A bound is reached, such as `http_waits_max`; nothing was stored.")
NO_INSTANCE: Final = failure(404, "There is no such instance.")

COMMON_ANSWERS: Final = (
    failure(400, "An id, a name, an input or a body that cannot be; nothing was stored."),
    failure(401, "The request has no valid key."),
    failure(403, "The key does not allow this; or a host without keys is asked from elsewhere."),
    failure(404, "There is nothing here."),
    failure(413, "The body is over `payload_bytes_max`."),
    failure(429, "A bound is reached; nothing was stored; see `Retry-After`."),
    failure(503, "The host is starting, recovering or stopping, or the store does not work; see `Retry-After`."),
)
"""What any endpoint may answer that asks for a key."""

COMMON_PARAMETERS: Final = (
    Parameter("taskHub", "the task hub, repeated in URLs; a host with another name (`task_hub`) answers with 404"),
    Parameter("connection", "likewise; `connectionName` is the same"),
    Parameter("code", "the key, if the host has one and no header carries it"),
)
"""What any endpoint takes."""
