"""Pydantic models, recognised by their methods: Holdfast neither needs nor imports pydantic."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeGuard, cast

import msgspec

from holdfast.codec.misfit import MisfitError

_ENCODER = msgspec.json.Encoder(order="deterministic")
_ERRORS_SHOWN_MAX = 5


def is_model(candidate: object) -> TypeGuard[type[Any]]:
    """Return whether this is a class like pydantic's BaseModel."""
    return (
        isinstance(candidate, type)
        and callable(getattr(candidate, "model_dump", None))
        and callable(getattr(candidate, "model_validate_json", None))
    )


def dump_model(model: Any) -> object:
    """Return the JSON values of a model, under its field names and without computed fields, so that it can be read.

    Sets come out sorted, because a text that is compared with an older one must not depend on hashing.

    Raises:
        ValueError: for a secret, which pydantic would mask without a word.
        Exception: whatever the model's serializers raise.
    """
    return _faithful(model, model.model_dump(mode="json", by_alias=False, round_trip=True))


def read_model(cls: type[Any], text: bytes | str) -> object:
    """Return a model from JSON, in which fields go by name or by alias.

    Raises:
        MisfitError: saying, in one line, what pydantic objects to.
        Exception: whatever the model's validators raise.
    """
    try:
        try:
            return cls.model_validate_json(text, by_alias=True, by_name=True)
        except TypeError:  # pydantic before 2.11 has no such options; a validator's own TypeError comes again
            return cls.model_validate_json(text)
    except ValueError as error:
        raise MisfitError(_in_one_line(error)) from error


def _faithful(value: Any, plain: Any) -> object:
    """Walk a value beside what pydantic made of it; where their structures part, a serializer of the user decided."""
    if isinstance(plain, str):
        if hasattr(value, "get_secret_value"):
            raise ValueError("a secret, which would be stored as asterisks; pass a reference to it instead")
        return plain
    if isinstance(plain, dict):
        members = cast("dict[str, Any]", plain)
        if isinstance(value, dict):
            if len(cast("dict[Any, Any]", value)) != len(members):
                return members
            pairs = zip(cast("dict[Any, Any]", value).values(), members.items(), strict=True)
            return {name: _faithful(inner, member) for inner, (name, member) in pairs}
        if is_model(cast("type[Any]", type(value))) or dataclasses.is_dataclass(value):
            return {name: _faithful(getattr(value, name, None), member) for name, member in members.items()}
        return members
    if isinstance(plain, list):
        items = cast("list[Any]", plain)
        if is_model(cast("type[Any]", type(value))) and hasattr(value, "root"):
            return _faithful(value.root, items)
        if isinstance(value, set | frozenset):
            return sorted(items, key=_ENCODER.encode)
        if isinstance(value, list | tuple) and len(cast("list[Any]", value)) == len(items):
            return [_faithful(inner, item) for inner, item in zip(cast("list[Any]", value), items, strict=True)]
    return cast("object", plain)


def _in_one_line(error: ValueError) -> str:
    details = getattr(error, "errors", None)
    if not callable(details):
        return str(error)
    found = cast("list[dict[str, Any]]", details())
    shown = [
        f"{'.'.join(str(step) for step in detail['loc']) or 'the value'}: {detail['msg']}"
        for detail in found[:_ERRORS_SHOWN_MAX]
    ]
    more = f"; and {len(found) - _ERRORS_SHOWN_MAX} more" if len(found) > _ERRORS_SHOWN_MAX else ""
    return "; ".join(shown) + more
