"""Writes what the HTTP reference has of the OpenAPI document: `python -m holdfast.http.reference FILE`."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

import msgspec

from holdfast.http.openapi import openapi_document
from holdfast.http.operations import COMMON_ANSWERS, COMMON_PARAMETERS
from holdfast.http.payload import BASE_PATH

BEGIN: Final = "<!-- made by `python -m holdfast.http.reference`; change the table of endpoints instead -->\n"
END: Final = "<!-- end of what is made -->\n"
_COLUMNS: Final = 120
_USUAL_PARAMETERS: Final = frozenset(each.name for each in COMMON_PARAMETERS)
_USUAL_ANSWERS: Final = frozenset((str(each.status), each.text) for each in COMMON_ANSWERS)
"""The page tells these once."""


class _Named(msgspec.Struct):
    name: str
    where: str = msgspec.field(name="in")
    description: str = ""


class _Described(msgspec.Struct):
    description: str


class _Operation(msgspec.Struct):
    summary: str
    tags: list[str]
    parameters: list[_Named]
    responses: dict[str, _Described]
    request_body: _Described | None = msgspec.field(name="requestBody", default=None)
    scope: str | None = msgspec.field(name="x-required-scope", default=None)
    scope_of_builtins: str | None = msgspec.field(name="x-required-scope-of-builtins", default=None)


class _Document(msgspec.Struct):
    paths: dict[str, dict[str, _Operation]]


def reference() -> str:
    """Return the sections about all endpoints as Markdown."""
    document = msgspec.convert(openapi_document(BASE_PATH), _Document)
    endpoints = [
        (f"{method.upper()} {path}", operation)
        for path, methods in document.paths.items()
        for method, operation in methods.items()
    ]
    lines: list[str] = []
    # What belongs together may be apart in the document.
    by_group = sorted(endpoints, key=lambda each: _order(endpoints, each[1].tags[0]))
    for group, members in groupby(by_group, key=lambda each: each[1].tags[0]):
        lines += [f"## {group}", ""]
        for request, operation in members:
            lines += _section(request, operation)
    return "\n".join(lines)


def _order(endpoints: Sequence[tuple[str, _Operation]], group: str) -> int:
    return next(index for index, (_, operation) in enumerate(endpoints) if operation.tags[0] == group)


def _section(request: str, operation: _Operation) -> Iterator[str]:
    yield from (f"### `{request}`", "", *textwrap.wrap(operation.summary, _COLUMNS), "")
    yield from (_needed(operation), "")
    if operation.request_body is not None:
        yield from (f"Body: {operation.request_body.description}", "")
    own = [each for each in operation.parameters if each.name not in _USUAL_PARAMETERS and each.where != "path"]
    if own:
        yield from ("| Parameter | |", "|---|---|")
        yield from (f"| `{each.name}`{' (header)' * (each.where == 'header')} | {each.description} |" for each in own)
        yield ""
    yield from ("| Status | |", "|---|---|")
    for status, answer in operation.responses.items():
        if (status, answer.description) not in _USUAL_ANSWERS:
            yield f"| {status} | {answer.description} |"
    yield ""


def _needed(operation: _Operation) -> str:
    if operation.scope is None:
        return "Needs no key, but the signature of the link (`sig`)."
    more = operation.scope_of_builtins
    return f"Scope: `{operation.scope}`" + (f"; `{more}` for what comes with Holdfast" if more else "") + "."


def rewritten(page: str) -> str:
    """Return a page with what is made in its place.

    Raises:
        ValueError: if the page has no place for it.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"The page has no lines {BEGIN!r} and {END!r}.")
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}".replace(f"\n\n\n{END}", f"\n\n{END}")


def main(paths: Sequence[str]) -> None:
    for path in map(Path, paths):
        path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
