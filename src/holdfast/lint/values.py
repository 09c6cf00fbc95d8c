"""What an expression can stand for, as far as reading tells."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from holdfast.lint.scopes import Function
from holdfast.lint.source import Module

CONTEXT: Final = "holdfast.OrchestrationContext()"
"""The name of every orchestration context, whatever it is called."""


class External(msgspec.Struct, frozen=True):
    """Something from elsewhere; `()` behind a part of the name stands for a call, or for an instance of a class."""

    dotted: str


class LocalFunction(msgspec.Struct, frozen=True, eq=False):
    """A function that was read."""

    module: Module
    node: Function


class LocalClass(msgspec.Struct, frozen=True, eq=False):
    """A class that was read."""

    module: Module
    node: ast.ClassDef


class Instance(msgspec.Struct, frozen=True):
    """An object of a class that was read."""

    of: LocalClass


class LocalModule(msgspec.Struct, frozen=True, eq=False):
    """A module or a package that was read, or a folder without an `__init__.py`."""

    module: Module | None
    folder: Path | None


Value: TypeAlias = External | LocalFunction | LocalClass | Instance | LocalModule


def dotted_name(value: Value | None) -> str:
    """The name of something from elsewhere, or an empty text."""
    return value.dotted if isinstance(value, External) else ""


def is_set(value: Value | None) -> bool:
    return dotted_name(value) in ("set()", "frozenset()")


def same(values: Iterable[Value | None]) -> Value | None:
    """Return the one value that all are; None if they differ."""
    found = list(values)
    if not found or any(each is None for each in found):
        return None
    first = found[0]
    return first if all(_key(each) == _key(first) for each in found) else None


def _key(value: Value | None) -> object:
    match value:
        case LocalFunction(node=node) | LocalClass(node=node) | Instance(of=LocalClass(node=node)):
            return (type(value), node)
        case LocalModule(module=module, folder=folder):
            return (module, folder)
        case _:
            return value
