"""The one shape in which errors of decoding travel inside the room."""

from __future__ import annotations

import msgspec

from holdfast.codec.hints import type_name


class MisfitError(ValueError):
    """JSON does not fit a type. `path` leads to the part that does not."""

    def __init__(self, reason: str, path: str = "$") -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason
        self.path = path


class UnsupportedTypeError(TypeError):
    """An annotation that no JSON can be decoded into."""


def misfit_of(error: Exception) -> MisfitError:
    """Return any error of a decoder as a misfit, with the path that msgspec appends to its texts taken apart."""
    if isinstance(error, MisfitError):
        return error
    if not isinstance(error, msgspec.MsgspecError):
        if isinstance(error, RecursionError):
            return MisfitError("it is nested too deeply")
        if isinstance(error, UnsupportedTypeError):
            return MisfitError(str(error))
        return MisfitError(f"{type_name(type(error))}: {error}")
    reason, mark, place = str(error).rpartition(" - at `")
    if not mark:
        reason, place = str(error), "$"
    if place.startswith("key` in `"):
        reason, place = f"a key: {reason}", place.removeprefix("key` in `")
    place = place.removesuffix("`")
    inner = error.__cause__
    return (
        MisfitError(inner.reason, place + inner.path[1:])
        if isinstance(inner, MisfitError)
        else MisfitError(reason, place)
    )
