"""The converter that an app uses unless it brings its own: JSON by annotation, exact or refused.

What is written is a function of the value alone, because a replay compares it with what was written before: dict keys
and sets are sorted. So the order of a dict does not survive; a list of pairs keeps one.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any, cast

import msgspec

from holdfast.codec.hints import type_name
from holdfast.codec.misfit import MisfitError, UnsupportedTypeError, misfit_of
from holdfast.codec.models import dump_model, is_model
from holdfast.codec.plain import RefusalError, UnknownKindError, holds_set_of_structures, to_plain
from holdfast.codec.shapes import Decode, Shapes, from_plain, is_foreign
from holdfast.errors import PayloadError, PayloadTooLargeError

_DECODERS_MAX = 1024
_OFFSET = re.compile(rb"T\d\d:\d\d:\d\d(?:\.\d+)?[+-]")
"""A datetime with an offset other than Z."""
_NON_FINITE = re.compile(rb"\xcb[\x7f\xff][\xf0-\xff]", re.DOTALL)
"""A float of MessagePack whose exponent is all ones. It may also match by accident, in a text."""


class JsonConverter:
    """A `DataConverter` for dataclasses, msgspec Structs, pydantic models, and the usual types of the standard library.

    A value comes back equal when it is decoded with its own type. What JSON would lose without a word is refused:
    NaN and infinities, lone surrogates, dict keys that are no texts, UTC offsets with seconds. Without an annotation
    (`Any`), plain JSON values come back: a tuple as a list, a datetime as text.

    A union is decoded with the member whose value would have been written as this very JSON; failing that, with the
    first that leaves nothing of it out; failing that, with the first that takes it. Two members that fit equally
    well are told apart by their order only.

    One instance serves any number of threads.
    """

    def __init__(self, *, payload_bytes_max: int) -> None:
        self._payload_bytes_max = payload_bytes_max
        self._encoder = msgspec.json.Encoder(enc_hook=_converted, order="deterministic")
        self._scout = msgspec.msgpack.Encoder(enc_hook=_converted)
        self._shapes = Shapes(self._decoder_of, self._encoded_in_full)
        self._decoders: dict[int, tuple[Any, Decode]] = {}  # by id: equal unions can differ in order; it keeps the type

    def encode(self, value: object, /) -> str:
        """Return the value as JSON.

        Raises:
            PayloadError: naming the path and the type of what cannot be encoded.
            PayloadTooLargeError: naming the size and the limit.
        """
        encoded = self._encoded(value)
        if len(encoded) > self._payload_bytes_max:
            raise PayloadTooLargeError(
                f"A {type_name(type(value))} takes {len(encoded):,} bytes as JSON; the limit is "
                f"{self._payload_bytes_max:,}. Store it elsewhere and pass a reference (a path, a key, a URL), split "
                "it into several calls, or raise payload_bytes_max."
            )
        return encoded.decode()

    def decode(self, text: str, expected_type: Any, /) -> Any:
        """Return the JSON as a value of a type; `Any` gives plain JSON values.

        Raises:
            PayloadError: naming the path of what does not fit the type.
        """
        try:
            entry = self._decoders.get(id(expected_type))
            return (entry[1] if entry is not None else self._decoder_of(expected_type))(text)
        except UnsupportedTypeError as error:
            raise PayloadError(f"No JSON can be decoded into {type_name(expected_type)}: {error}") from error.__cause__
        except Exception as error:
            raise _unfit(error, expected_type) from (
                error.__cause__ if isinstance(error, msgspec.MsgspecError | MisfitError) else error
            )

    def _encoded(self, value: object) -> bytes:
        try:
            encoded = self._encoder.encode(value)
            suspicious = _OFFSET.search(encoded) or (
                b"null" in encoded and _NON_FINITE.search(self._scout.encode(value))
            )
        except Exception:  # the walk finds a way, or the reason
            return self._encoded_in_full(value)
        if b"[[" in encoded and holds_set_of_structures(value):
            return self._encoded_in_full(value)
        if suspicious:
            self._encoded_in_full(value)  # for the error, if there is one
        return encoded

    def _encoded_in_full(self, value: object) -> bytes:
        """Encode by the slow walk: it misses nothing, and writes the defaults that msgspec left out of an instance."""
        try:
            return self._encoder.encode(to_plain(value, self._encoder.encode, _converted))
        except RefusalError as refusal:
            raise PayloadError(str(refusal)) from refusal.__cause__
        except Exception as error:
            raise PayloadError(f"$ is a {type_name(type(value))} that cannot be written as JSON: {error}") from error

    def _decoder_of(self, annotation: Any) -> Decode:
        entry = self._decoders.get(id(annotation))
        if entry is None:
            if len(self._decoders) >= _DECODERS_MAX:
                self._decoders.clear()
            entry = self._decoders[id(annotation)] = (annotation, self._built(annotation))
        return entry[1]

    def _built(self, annotation: Any) -> Decode:
        if is_foreign(annotation):
            return self._shapes.build(annotation, None)
        try:
            return cast("Decode", msgspec.json.Decoder(annotation, dec_hook=self._foreign).decode)
        except Exception as refusal:  # msgspec raises TypeError, and what evaluating annotations raises
            return self._shapes.build(annotation, refusal)

    def _foreign(self, annotation: Any, plain: Any) -> object:
        """Decode what msgspec leaves to a hook. It adds the path to a ValueError, and to nothing else."""
        try:
            if is_foreign(annotation):
                return self._decoder_of(annotation)(self._encoder.encode(plain))
            return from_plain(annotation, plain)
        except Exception as error:
            misfit = misfit_of(error)
            raise misfit from (misfit.__cause__ if misfit is error else error)


def _converted(value: Any) -> object:
    """Turn values that msgspec does not know into some that it does."""
    if is_model(cast("type[Any]", type(value))):
        return dump_model(value)
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    if isinstance(value, deque):
        return list(cast("deque[object]", value))
    raise UnknownKindError


def _unfit(error: Exception, expected_type: Any) -> PayloadError:
    misfit = misfit_of(error)
    place = "The JSON" if misfit.path == "$" else f"`{misfit.path}` of the JSON"
    return PayloadError(f"{place} does not fit {type_name(expected_type)}: {misfit.reason.rstrip('.')}.")
