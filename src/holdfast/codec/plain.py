"""The slow walk over a value that msgspec cannot encode, or not without loss: it finds a way, or says why not.

Everything here runs only after the fast encoder failed or its output looks suspicious.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import math
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import msgspec

from holdfast.codec.hints import hint_for, named

_AS_IS = frozenset({bool, bytearray, bytes, date, Decimal, memoryview, msgspec.Raw, time, timedelta, type(None), UUID})
_ATOMS = _AS_IS | {datetime, float, int, str}
_KEY_DECODER = msgspec.json.Decoder(dict[str, None])
_KEY_ENCODER = msgspec.json.Encoder()
_CHECKED_INT_BITS_MIN = 2_000
"""Below it, no int has so many digits that Python refuses to write them."""


class RefusalError(Exception):
    """A value has no JSON. `path` leads to the part that has none."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path
        self.reason = reason


class UnknownKindError(TypeError):
    """The hook for foreign types does not know this one."""


def to_plain(value: object, encode: Callable[[object], bytes], convert: Callable[[Any], object]) -> object:
    """Return the value rebuilt from what the fast encoder takes: dict keys are texts, sets are lists in a fixed order.

    Args:
        encode: the fast encoder, for rebuilt parts.
        convert: its hook for foreign types; raises UnknownKindError for those that it does not know.

    Raises:
        RefusalError: for the first part that cannot be JSON, or not without loss.
    """
    try:
        return _Walk(encode, convert).visit(value, "$")
    except RecursionError:
        raise RefusalError("$", "is nested too deeply for JSON; flatten it.") from None


def holds_set_of_structures(value: object) -> bool:
    """Return whether there is a set of tuples or sets in a value that the fast encoder took.

    It sorts sets by `<`, which means "is a subset" for frozensets: then their order depends on hashing.
    """
    pending: list[Any] = [value]
    while pending:
        part = pending.pop()
        kind = cast("type[Any]", type(part))
        if kind in _ATOMS:
            continue
        if kind is list or kind is tuple:
            pending.extend(part)
        elif kind is dict:
            pending.extend(part.values())
        elif isinstance(part, set | frozenset):
            if not all(type(item) in _ATOMS for item in cast("Iterable[Any]", part)):
                return True
        else:
            pending.extend(_parts(part))
    return False


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[Any, Any]", value).values()
    if isinstance(value, tuple | list):
        return cast("Iterable[Any]", value)
    if isinstance(value, msgspec.Struct):
        return [getattr(value, name) for name in value.__struct_fields__]
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return [getattr(value, field.name, None) for field in getattr(value, "__attrs_attrs__", ())]


class _Walk:
    def __init__(self, encode: Callable[[object], bytes], convert: Callable[[Any], object]) -> None:
        self._encode = encode
        self._convert = convert
        self._open: dict[int, str] = {}

    def visit(self, value: Any, path: str) -> Any:
        kind = cast("type[Any]", type(value))
        if kind in _AS_IS:
            return value
        if kind is str:
            return _checked_text(value, path)
        if kind is float:
            return _checked_float(value, path)
        if kind is int:
            return _checked_int(value, path)
        if isinstance(value, datetime):
            return _checked_datetime(value, path)
        if isinstance(value, enum.Enum):
            return self.visit(value.value, path)
        seen_at = self._open.get(id(value))
        if seen_at is not None:
            raise RefusalError(
                path, f"is {seen_at} again: a value that contains itself has no JSON. Refer to it by an id."
            )
        self._open[id(value)] = path
        try:
            return self._structure(value, path)
        finally:
            del self._open[id(value)]

    def _structure(self, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return self._mapping(cast("dict[Any, Any]", value), path)
        if isinstance(value, list | tuple):
            items = cast("Iterable[Any]", value)
            return [self.visit(item, f"{path}[{index}]") for index, item in enumerate(items)]
        if isinstance(value, set | frozenset):
            items = [self.visit(item, f"{path}[...]") for item in cast("Iterable[Any]", value)]
            return sorted(items, key=self._encode)
        if isinstance(value, msgspec.Struct):
            return self._struct(value, path)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            own = getattr(value, "__dict__", None)
            fields = dataclasses.fields(value)
            return self._attributes(value, [f.name for f in fields if f.init or own is None or f.name in own], path)
        if not isinstance(value, type) and hasattr(value, "__attrs_attrs__"):
            return self._attributes(value, [field.name for field in value.__attrs_attrs__], path)
        return self._foreign(value, path)

    def _mapping(self, value: dict[Any, Any], path: str) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, item in value.items():
            text = self._key(key, path)
            if text in plain:
                raise RefusalError(path, f"has two keys that JSON writes as {text!r}; one value would be lost.")
            plain[text] = self.visit(item, _step(path, text))
        return plain

    def _key(self, key: Any, path: str) -> str:
        if type(key) is int:
            return str(_checked_int(key, f"a dict key in {path}"))
        if isinstance(key, enum.Enum):
            key = key.value
        if isinstance(key, str):
            return _checked_text(str(key), f"a dict key in {path}")
        if isinstance(key, float) and not math.isfinite(key):
            raise RefusalError(path, f"has the dict key {key!r}, for which JSON has no form; use text instead.")
        if isinstance(key, datetime):
            _checked_datetime(key, f"a dict key in {path}")
        try:
            (text,) = _KEY_DECODER.decode(_KEY_ENCODER.encode({key: None}))
        except Exception:  # whatever it is, such a key cannot be written
            raise RefusalError(
                path,
                f"has a dict key that is {named(key)}: JSON keys are texts. "
                "Use str, int, UUID or enum keys, or pass a list of (key, value) pairs.",
            ) from None
        return text

    def _struct(self, value: msgspec.Struct, path: str) -> msgspec.Struct:
        plain = copy.copy(value)  # a struct knows best how it is written: renamed, tagged, as an array
        for name in value.__struct_fields__:
            inner = getattr(value, name)
            if inner is not msgspec.UNSET:
                msgspec.structs.force_setattr(plain, name, self.visit(inner, _step(path, name)))
        return plain

    def _attributes(self, value: Any, names: list[str], path: str) -> dict[str, Any]:
        present = ((name, getattr(value, name, msgspec.UNSET)) for name in names)
        return {name: self.visit(inner, _step(path, name)) for name, inner in present if inner is not msgspec.UNSET}

    def _foreign(self, value: Any, path: str) -> Any:
        try:
            plain = self._convert(value)
        except UnknownKindError:
            raise RefusalError(path, f"is {named(value)}, which is not JSON-able: {hint_for(value)}") from None
        except Exception as error:
            raise self._failed(value, path, error) from error
        return self.visit(plain, path)

    def _failed(self, value: Any, path: str, error: Exception) -> RefusalError:
        """Blame the one field of a model whose serialization fails, where that can be found out."""
        cls = cast("Any", type(value))
        for name in getattr(cls, "model_fields", ()):
            try:
                value.model_dump(mode="json", include={name})
            except Exception as blamed:  # any failure marks the field
                return RefusalError(_step(path, name), f"cannot be written by pydantic: {blamed}")
        return RefusalError(path, f"is {named(value)}, which cannot be written: {error}")


def _step(path: str, name: str) -> str:
    return f"{path}.{name}" if name.isidentifier() else f"{path}[{name!r}]"


def _checked_text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RefusalError(
            path,
            f"contains the lone surrogate {text[error.start]!r}, which is no character and has no UTF-8; "
            "decode bytes with errors='replace', or pass them as bytes.",
        ) from None
    return text


def _checked_float(number: float, path: str) -> float:
    if not math.isfinite(number):
        raise RefusalError(path, f"is {number!r}, for which JSON has no form; pass None, a text or a Decimal instead.")
    return number


def _checked_int(number: int, path: str) -> int:
    if number.bit_length() > _CHECKED_INT_BITS_MIN:
        try:
            str(number)
        except ValueError as error:
            raise RefusalError(path, f"is an int of {number.bit_length()} bits, which is too long: {error}") from None
    return number


def _checked_datetime(moment: datetime, path: str) -> datetime:
    offset = moment.utcoffset()
    if offset is not None and offset % timedelta(minutes=1):
        raise RefusalError(
            path,
            f"is a datetime with the UTC offset {offset}, of which JSON keeps whole minutes only; "
            "convert it with .astimezone(timezone.utc).",
        )
    return moment
