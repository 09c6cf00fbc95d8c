"""Decoders for the types that msgspec refuses: unions of similar members, mixed enums, and whatever holds them.

Such a type is taken apart here, level by level; each part that msgspec does accept is left to msgspec.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import types
import typing
from collections import abc
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias, cast

import msgspec

from holdfast.codec.hints import type_name
from holdfast.codec.misfit import MisfitError, UnsupportedTypeError, misfit_of
from holdfast.codec.models import is_model, read_model
from holdfast.errors import PayloadError

Source: TypeAlias = str | bytes | msgspec.Raw
Decode: TypeAlias = Callable[[Source], Any]

ANY: Final = msgspec.json.Decoder()
_RAW_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_RAW_DICT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODER = msgspec.json.Encoder(order="deterministic")

_SEQUENCES: Mapping[Any, Callable[[Iterable[Any]], Any]] = types.MappingProxyType(
    {
        list: list,
        set: set,
        frozenset: frozenset,
        collections.deque: collections.deque,
        abc.Collection: list,
        abc.Iterable: list,
        abc.MutableSequence: list,
        abc.MutableSet: set,
        abc.Sequence: list,
        abc.Set: set,
    }
)
_MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)
_FOREIGN = (collections.deque, abc.Iterable)
_WRAPPERS = (typing.Annotated, typing.Final, typing.NotRequired, typing.Required)
_REASONS_SHOWN_MAX = 4


class _Field(NamedTuple):
    name: str
    key: str
    annotation: Any
    required: bool


class Shapes:
    """Builds decoders, and finds those of parts by `decoder_of`, late, so that a type may contain itself.

    Args:
        encode: the inverse: writes a value in full, with the fields of dataclasses that have their default values.
    """

    def __init__(self, decoder_of: Callable[[Any], Decode], encode: Callable[[object], bytes]) -> None:
        self._decoder_of = decoder_of
        self._encode = encode

    def build(self, annotation: Any, refusal: Exception | None) -> Decode:
        """Return a decoder for a type that msgspec refuses.

        Raises:
            UnsupportedTypeError: with msgspec's reason, if there is nothing to take apart.
        """
        if is_model(annotation):
            return lambda source: read_model(annotation, source if isinstance(source, str) else bytes(source))
        origin = typing.get_origin(annotation)
        arguments = typing.get_args(annotation)
        if origin in (typing.Union, types.UnionType):
            return self._union(annotation, arguments)
        if origin is Literal:
            return self._one_of(annotation, arguments)
        if origin in _WRAPPERS:
            return self._later(arguments[0])
        alias = getattr(annotation, "__supertype__", None) or getattr(annotation, "__value__", None)
        if alias is not None and not isinstance(annotation, type):
            return self._later(alias)
        cls: Any = origin or annotation
        if isinstance(cls, type):
            return self._class(annotation, cast("type[Any]", cls), arguments, refusal)
        raise UnsupportedTypeError(str(refusal))

    def _class(self, annotation: Any, cls: type[Any], arguments: tuple[Any, ...], refusal: Exception | None) -> Decode:
        if issubclass(cls, enum.Enum):
            return self._one_of(annotation, tuple(cls))
        if cls in _SEQUENCES:
            return self._items(_SEQUENCES[cls], arguments[0] if arguments else Any)
        if cls in _MAPPINGS and len(arguments) == 2:
            return self._mapping(*arguments)
        if cls is tuple and arguments:
            if arguments[-1] is Ellipsis:
                return self._items(tuple, arguments[0])
            return self._array(tuple, [_Field(str(i), str(i), part, True) for i, part in enumerate(arguments)])
        if issubclass(cls, msgspec.Struct):
            return self._struct(annotation, cls)
        return self._fields(cast("Any", cls), arguments, refusal)

    def _fields(self, cls: Any, arguments: tuple[Any, ...], refusal: Exception | None) -> Decode:
        hints = _resolved_hints(cls, arguments)
        if dataclasses.is_dataclass(cls):
            return self._dataclass(cls, hints)
        defaults = getattr(cls, "_field_defaults", None)
        if defaults is not None:  # a NamedTuple
            return self._array(
                lambda items: cls(*items),
                [_Field(name, name, hint, name not in defaults) for name, hint in hints.items()],
            )
        if typing.is_typeddict(cls):
            keys = cast("frozenset[str]", getattr(cls, "__required_keys__", frozenset[str]()))
            # where annotations are texts, typing overlooks NotRequired
            required = {name for name in keys if typing.get_origin(hints[name]) is not typing.NotRequired}
            required |= {name for name, hint in hints.items() if typing.get_origin(hint) is typing.Required}
            return self._record(dict, [_Field(name, name, hint, name in required) for name, hint in hints.items()])
        raise UnsupportedTypeError(str(refusal))

    def _later(self, annotation: Any) -> Decode:
        return lambda source: self._decoder_of(annotation)(source)

    def _part(self, annotation: Any, source: Source, step: str) -> Any:
        try:
            return self._decoder_of(annotation)(source)
        except Exception as error:
            misfit = misfit_of(error)
            raise MisfitError(misfit.reason, f"${step}{misfit.path[1:]}") from (misfit.__cause__ or error.__cause__)

    def _union(self, annotation: Any, members: tuple[Any, ...]) -> Decode:
        """Decode with the member that fits best; of those that fit equally well, with the first.

        A member whose value would have been written as this very JSON fits best; next, one that leaves nothing of
        the JSON out; last, one that takes it at all.
        """

        def decode(source: Source) -> Any:
            plain = ANY.decode(source)
            best: Any = None
            best_fit = 0
            reasons: list[str] = []
            for member in members:
                try:
                    value = self._decoder_of(member)(source)
                except Exception as error:  # whatever a validator raises, the next member may fit
                    reasons.append(f"{type_name(member)}: {misfit_of(error)}")
                    continue
                fit = self._fit(plain, value)
                if fit == _EXACT:
                    return value
                if fit > best_fit:
                    best, best_fit = value, fit
            if best_fit:
                return best
            more = "; ..." if len(reasons) > _REASONS_SHOWN_MAX else ""
            raise MisfitError(
                f"no member of {type_name(annotation)} fits ({'; '.join(reasons[:_REASONS_SHOWN_MAX])}{more})"
            )

        return decode

    def _fit(self, plain: object, value: object) -> int:
        try:
            again = ANY.decode(self._encode(value))
        except Exception:  # a value that cannot be written back has been read all the same
            return _ACCEPTED
        if _ENCODER.encode(plain) == _ENCODER.encode(again):
            return _EXACT
        return _COMPLETE if _covers(plain, again) else _ACCEPTED

    def _one_of(self, annotation: Any, values: tuple[Any, ...]) -> Decode:
        by_text: dict[bytes, Any] = {}
        for value in values:
            with contextlib.suppress(PayloadError):  # what cannot be written need not be read
                by_text.setdefault(self._encode(value), value)

        def decode(source: Source) -> Any:
            plain = ANY.decode(source)
            try:
                return by_text[_ENCODER.encode(plain)]
            except KeyError:
                raise MisfitError(f"{plain!r:.80} is none of the values of {type_name(annotation)}") from None

        return decode

    def _items(self, make: Callable[[Iterable[Any]], Any], item: Any) -> Decode:
        def decode(source: Source) -> Any:
            return make([self._part(item, raw, f"[{index}]") for index, raw in enumerate(_RAW_LIST.decode(source))])

        return decode

    def _mapping(self, key: Any, value: Any) -> Decode:
        def decode(source: Source) -> Any:
            return {
                self._key(key, text): self._part(value, raw, f"[{text!r}]")
                for text, raw in _RAW_DICT.decode(source).items()
            }

        return decode

    def _key(self, annotation: Any, text: str) -> Any:
        """Decode a dict key, which JSON has as text only, from that text or from the JSON value that it spells."""
        if annotation is str or annotation is Any:
            return text
        try:
            return self._decoder_of(annotation)(_ENCODER.encode(text))
        except Exception as error:
            try:
                return self._decoder_of(annotation)(text)
            except Exception:  # the first error tells more
                raise MisfitError(f"a key: {misfit_of(error).reason}") from None

    def _array(self, make: Callable[[list[Any]], Any], fields: list[_Field]) -> Decode:
        least = sum(field.required for field in fields)

        def decode(source: Source) -> Any:
            raws = _RAW_LIST.decode(source)
            if not least <= len(raws) <= len(fields):
                expected = str(least) if least == len(fields) else f"{least} to {len(fields)}"
                raise MisfitError(f"expected an array of length {expected}, got {len(raws)}")
            pairs = zip(fields, raws, strict=False)
            return make([self._part(field.annotation, raw, f"[{i}]") for i, (field, raw) in enumerate(pairs)])

        return decode

    def _record(
        self,
        make: Callable[..., Any],
        fields: list[_Field],
        *,
        tag: tuple[str, Any] | None = None,
        closed: bool = False,
    ) -> Decode:
        known = {field.key for field in fields} | ({tag[0]} if tag else set[str]())

        def decode(source: Source) -> Any:
            raws = _RAW_DICT.decode(source)
            if tag is not None and (tag[0] not in raws or ANY.decode(raws[tag[0]]) != tag[1]):
                raise MisfitError(f"its tag {tag[0]!r} is not {tag[1]!r}")
            if closed and not raws.keys() <= known:
                raise MisfitError(f"it has the unknown fields {sorted(raws.keys() - known)}")
            values: dict[str, Any] = {}
            for field in fields:
                raw = raws.get(field.key)
                if raw is not None:
                    values[field.name] = self._part(field.annotation, raw, f".{field.key}")
                elif field.required:
                    raise MisfitError(f"it lacks the required field {field.key!r}")
            return make(**values)

        return decode

    def _dataclass(self, cls: Any, hints: Mapping[str, Any]) -> Decode:
        missing = dataclasses.MISSING
        fields = dataclasses.fields(cls)
        late = {field.name for field in fields if not field.init}

        def make(**values: Any) -> Any:
            value = cls(**{name: inner for name, inner in values.items() if name not in late})
            for name in late & values.keys():
                object.__setattr__(value, name, values[name])
            return value

        return self._record(
            make,
            [
                _Field(f.name, f.name, hints[f.name], f.init and f.default is missing and f.default_factory is missing)
                for f in fields
            ],
        )

    def _struct(self, annotation: Any, cls: type[msgspec.Struct]) -> Decode:
        config = cls.__struct_config__
        fields = [
            _Field(field.name, field.encode_name, field.type, field.required)
            for field in msgspec.structs.fields(annotation)
        ]
        tag = None if config.tag is None else (config.tag_field or "type", config.tag)
        if not config.array_like:
            return self._record(cls, fields, tag=tag, closed=config.forbid_unknown_fields)
        if tag is not None:
            fields.insert(0, _Field("", "", cast("Any", Literal)[config.tag], True))
        start = 0 if tag is None else 1
        names = [field.name for field in fields[start:]]
        return self._array(lambda items: cls(**dict(zip(names, items[start:], strict=False))), fields)


_ACCEPTED, _COMPLETE, _EXACT = 1, 2, 3


def _covers(plain: Any, again: Any) -> bool:
    """Return whether everything in `plain` has its place in `again`."""
    if isinstance(plain, dict):
        if not isinstance(again, dict):
            return False
        wide = cast("dict[str, Any]", again)
        return all(key in wide and _covers(value, wide[key]) for key, value in cast("dict[str, Any]", plain).items())
    if isinstance(plain, list):
        if not isinstance(again, list):
            return False
        here, there = cast("list[Any]", plain), cast("list[Any]", again)
        return len(here) == len(there) and all(_covers(a, b) for a, b in zip(here, there, strict=True))
    return True


def _resolved_hints(cls: type[Any], arguments: tuple[Any, ...]) -> dict[str, Any]:
    """Return the annotations of a class, with its type variables, and those of its bases, replaced."""
    bound: dict[Any, Any] = dict(zip(getattr(cls, "__parameters__", ()), arguments, strict=False))
    pending: list[Any] = list(getattr(cls, "__orig_bases__", ()))
    while pending:
        base = pending.pop()
        origin: Any = typing.get_origin(base)
        for parameter, argument in zip(getattr(origin, "__parameters__", ()), typing.get_args(base), strict=False):
            bound.setdefault(parameter, _substituted(argument, bound))
        pending.extend(getattr(origin, "__orig_bases__", ()))
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        name: _substituted(hint, bound)
        for name, hint in hints.items()
        if typing.get_origin(hint) is not typing.ClassVar
    }


def _substituted(annotation: Any, bound: Mapping[Any, Any]) -> Any:
    if isinstance(annotation, typing.TypeVar):
        return bound.get(annotation, Any)
    is_alias = typing.get_origin(annotation) is not None
    parameters: tuple[Any, ...] = getattr(annotation, "__parameters__", ()) if is_alias else ()
    return annotation[tuple(bound.get(parameter, Any) for parameter in parameters)] if parameters else annotation


def is_foreign(annotation: Any) -> bool:
    """Return whether msgspec leaves a type to its decoder's hook although Holdfast can decode it."""
    return is_model(annotation) or (typing.get_origin(annotation) or annotation) in _FOREIGN


def from_plain(annotation: Any, plain: Any) -> object:
    """Return a value of a class that only its instances, or instances of a plain base, can be made into.

    Raises:
        MisfitError: if there is no such way.
    """
    if isinstance(annotation, type):
        cls = cast("type[Any]", annotation)
        for base in (str, int, float):
            if issubclass(cls, base) and isinstance(plain, base) and not isinstance(plain, bool):
                return cls(plain)
        if isinstance(plain, cls):
            return cast("object", plain)
    raise MisfitError(
        f"{type_name(annotation)} is no type that JSON is decoded into; "
        "use a dataclass, a msgspec Struct, a pydantic model, or types such as list, dict and str"
    )
