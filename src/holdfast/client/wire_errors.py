"""Errors on their way from a host to a client: the same class, attributes and text on both sides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from holdfast import errors
from holdfast.errors import HoldfastError
from holdfast.model.failure import FailureDetails

_STAY: Final[frozenset[type[HoldfastError]]] = frozenset({errors.CompensationFailedError})
"""Raised in orchestrators only; what it carries are exceptions of theirs."""


class WireError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error of a hub. `type` is the name of its class in `holdfast.errors`, or of the nearest base there."""

    type: str
    message: str
    instance_id: str | None = None
    status: str | None = None
    details: FailureDetails | None = None
    outcome_unknown: bool | None = None


def _tree(cls: type[HoldfastError]) -> Iterator[type[HoldfastError]]:
    yield cls
    for each in cls.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from _tree(each)


TRAVELLERS: Final[Mapping[str, type[HoldfastError]]] = MappingProxyType(
    {cls.__name__: cls for cls in _tree(HoldfastError) if cls not in _STAY}
)
"""By name: every public error but those that no hub raises."""


def to_wire(error: HoldfastError) -> WireError:
    """Return what a client needs to raise the same error."""
    name = next(cls.__name__ for cls in type(error).__mro__ if TRAVELLERS.get(cls.__name__) is cls)
    message = error.details.error_message if isinstance(error, errors.TaskFailedError) else str(error)
    if isinstance(error, errors.InstanceParkedError | errors.OrchestrationFailedError | errors.TaskFailedError):
        details = error.details
    else:
        details = None
    return WireError(
        type=name,
        message=message,
        instance_id=error.instance_id
        if isinstance(error, errors.InstanceError | errors.InstanceElsewhereError)
        else None,
        status=getattr(error, "status", None),
        details=details,
        outcome_unknown=error.outcome_unknown if isinstance(error, errors.CommitFailedError) else None,
    )


def from_wire(wire: WireError) -> HoldfastError:
    """Return the error that a hub raised; one of a class that this release does not know is a `HoldfastError`."""
    cls = TRAVELLERS.get(wire.type, HoldfastError)
    # Not through __init__, which makes the text from arguments that did not travel.
    error = cls.__new__(cls, wire.message)
    error.args = (wire.message,)
    fields = {name: getattr(wire, name) for name in ("instance_id", "status", "details", "outcome_unknown")}
    for name, value in fields.items():
        if value is not None or name in _ALWAYS.get(cls, ()):
            setattr(error, name, value)
    return error


_ALWAYS: Final[Mapping[type[HoldfastError], tuple[str, ...]]] = MappingProxyType(
    {errors.OrchestrationFailedError: ("details",)}
)
"""Attributes that are there even if they are None."""
