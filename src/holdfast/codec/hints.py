"""What to say about a value that has no JSON form."""

from __future__ import annotations

import inspect
import types
from collections.abc import Awaitable, Iterable, Mapping
from functools import partial
from typing import Any

import msgspec

_HINTS: tuple[tuple[tuple[type[Any], ...], str], ...] = (
    ((Awaitable,), "it was not awaited; await it and pass its result."),
    ((type,), "pass the name of the class, or an instance of it."),
    ((types.ModuleType,), "pass its name as text."),
    ((partial, types.MethodType), "code is not data; pass the name of the function and its arguments."),
    ((BaseException,), "pass str(error), or raise it: failures are recorded with type, message and stack."),
    ((complex,), "pass its real and imaginary parts."),
    ((msgspec.UnsetType,), "leave the field out, or pass None."),
    ((Mapping,), "pass dict(...) of it."),
)
_DEFAULT = (
    "make it a dataclass, a msgspec Struct or a pydantic model; resources (connections, locks, sockets) "
    "belong into the activity that uses them."
)


def hint_for(value: object) -> str:
    """Return what to do about a value that is not JSON-able."""
    if inspect.isroutine(value):
        return "code is not data; pass the name of the function, or call it and pass its result."
    for kinds, hint in _HINTS:
        if isinstance(value, kinds):
            return hint
    if hasattr(value, "__fspath__"):
        return "pass str(path)."
    if hasattr(value, "read") and hasattr(value, "close"):
        return "pass the path or the content, and open it in the activity."
    if callable(getattr(value, "tolist", None)):
        return "pass value.tolist()."
    if isinstance(value, Iterable):
        return "pass list(...) of it."
    return _DEFAULT


def named(value: object) -> str:
    """Return "a" or "an" with the type of a value."""
    name = "class" if isinstance(value, type) else type_name(type(value))
    return f"{'an' if name.lstrip('_')[0] in 'aeiouAEIOU' else 'a'} {name}"


def type_name(annotation: Any) -> str:
    """Return how an annotation is written; classes outside of builtins with their module."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        module = annotation.__module__
        return annotation.__qualname__ if module == "builtins" else f"{module}.{annotation.__qualname__}"
    return repr(annotation).replace("typing.", "")
