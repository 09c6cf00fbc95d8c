"""Keys: who may ask a host for what."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, cast

from holdfast.errors import ConfigurationError

AccessScope: TypeAlias = Literal["read", "operate", "admin"]
"""Each allows what those before it allow: to look; to start and steer instances; to remove what is stored."""

RANK: Final[Mapping[str, int]] = MappingProxyType({"read": 0, "operate": 1, "admin": 2})
SECRET_CHARS_MIN: Final = 16
SECRET_CHARS_MAX: Final = 256
_NAME_CHARS_MAX: Final = 64
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9._\-]{1,64}")


@dataclass(frozen=True)
class AccessKey:
    """A secret that requests may carry, and what they may then do; `expires_at` is when it stops being valid.

    The name stands in the audit log. The secret has 16 to 256 printable ASCII characters, none of them a blank. With
    `hubs` it is for hosts of these task hubs only.
    """

    name: str
    secret: str = field(repr=False)
    scope: AccessScope
    expires_at: datetime | None = None
    hubs: Sequence[str] | None = None

    def __post_init__(self) -> None:
        name = self.name
        if not isinstance(name, str) or not 1 <= len(name) <= _NAME_CHARS_MAX or not name.isprintable():  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise ConfigurationError(
                f"The name of a key is {name!r}; it must be a text of 1 to {_NAME_CHARS_MAX} printable characters."
            )
        check_secret(f"the key {name!r}", self.secret)
        if self.scope not in RANK:
            raise ConfigurationError(f"The scope of the key {name!r} is {self.scope!r}; use one of {', '.join(RANK)}.")
        at = self.expires_at
        if at is not None and (not isinstance(at, datetime) or at.tzinfo is None):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
            raise ConfigurationError(
                f"expires_at of the key {name!r} is {at!r}; it must be a time with a time zone: 2027-01-01T00:00:00Z."
            )
        if self.hubs is not None:
            object.__setattr__(self, "hubs", _hub_names(name, self.hubs))


def _hub_names(key: str, hubs: object) -> tuple[str, ...]:
    if not isinstance(hubs, list | tuple) or not hubs:
        raise ConfigurationError(
            f"hubs of the key {key!r} is {hubs!r}; it must be a list of names of task hubs. "
            "Leave it out for a key that is for all."
        )
    return tuple(check_hub_name(f"one of the hubs of the key {key!r}", each) for each in cast("list[object]", hubs))


def check_hub_name(what: str, name: object) -> str:
    """Return the name of a task hub.

    Raises:
        ConfigurationError: if it is none.
    """
    if not isinstance(name, str) or not _HUB_NAME.fullmatch(name):
        raise ConfigurationError(
            f"{what} is {name!r}; the name of a task hub has 1 to 64 letters, digits, dots, dashes and underlines."
        )
    return name


def is_same_hub(name: str, other: str) -> bool:
    """Tell whether two names mean one task hub; as elsewhere in the family, case makes no difference."""
    return name.lower() == other.lower()


def check_secret(what: str, secret: object) -> None:
    """Raise ConfigurationError for a secret that is too short or that a header cannot carry; never show it."""
    if not isinstance(secret, str):
        raise ConfigurationError(f"The secret of {what} is no text.")
    if not SECRET_CHARS_MIN <= len(secret) <= SECRET_CHARS_MAX:
        raise ConfigurationError(
            f"The secret of {what} has {len(secret)} characters; it must have {SECRET_CHARS_MIN} to "
            f"{SECRET_CHARS_MAX}. `python -c 'import secrets; print(secrets.token_urlsafe())'` makes one."
        )
    if not all("!" <= char <= "~" for char in secret):
        raise ConfigurationError(f"The secret of {what} must be printable ASCII without blanks.")
