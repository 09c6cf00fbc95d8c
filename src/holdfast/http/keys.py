"""The keys of a host: fixed ones, and those of a file that may change while it runs."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol, cast

import msgspec

from holdfast.errors import ConfigurationError
from holdfast.model.access import RANK, AccessKey, AccessScope, check_secret, is_same_hub
from holdfast.model.nearest import did_you_mean

logger = logging.getLogger("holdfast.http")

KEYS_MAX: Final = 1_000
LINK_SECRETS_MAX: Final = 100
_FILE_BYTES_MAX: Final = 1024 * 1024
_LOOK_S: Final = 1.0
"""How often the file of keys is looked at."""
_TABLES: Final = ("keys", "links")
_FIELDS: Final = ("name", "secret", "scope", "expires_at", "hubs")


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who has sent a request: the name of the key, what it allows, and the key as it came, for URLs in the answer."""

    name: str | None
    scope: AccessScope
    code: str | None = None
    elsewhere: tuple[str, ...] = ()
    """The task hubs that the key is for, if this is none of them."""

    def may(self, needed: AccessScope) -> bool:
        return RANK[self.scope] >= RANK[needed]


ANYBODY: Final = Caller(name=None, scope="admin")
"""Whoever reaches a host that has no keys."""


class _Entry(msgspec.Struct, frozen=True):
    name: str
    digest: bytes
    scope: AccessScope
    expires_at: datetime | None
    elsewhere: tuple[str, ...]

    @property
    def rank(self) -> tuple[bool, int]:
        return not self.elsewhere, RANK[self.scope]

    def is_valid_at(self, now: datetime) -> bool:
        return self.expires_at is None or now < self.expires_at


class KeyRing:
    """Keys that a request may carry. It holds digests only, made with a secret of its own."""

    def __init__(self, keys: Sequence[AccessKey], key: str | None = None, *, hub: str | None = None) -> None:
        """Take named keys, and perhaps one of any form that allows everything; `hub` is the task hub of this host.

        Raises:
            ConfigurationError: if there is none, there are too many, or two have one name or one secret.
        """
        self._salt = secrets.token_bytes(32)
        if key == "":
            raise ConfigurationError("The key is empty, so that everybody would have it. Leave it out, or choose one.")
        single = [] if key is None else [_Entry("key", self._digest(key.encode()), "admin", None, ())]
        named = [
            _Entry(
                each.name,
                self._digest(each.secret.encode()),
                each.scope,
                None if each.expires_at is None else each.expires_at.astimezone(UTC),
                _elsewhere(each, hub),
            )
            for each in keys
        ]
        self._entries = (*single, *named)
        if not 1 <= len(self._entries) <= KEYS_MAX:
            raise ConfigurationError(f"There are {len(self._entries)} keys; there must be 1 to {KEYS_MAX:,}.")
        _refuse_twins(self._entries)

    def find(self, presented: Iterable[bytes], now: datetime) -> Caller | None:
        """Return who has sent these keys: of several that are valid, one for this hub, that which allows most.

        All are compared with all, each in constant time, so that the time tells nothing.
        """
        found: Caller | None = None
        rank = (False, -1)
        for code in presented:
            digest = self._digest(code)
            for entry in self._entries:
                is_it = hmac.compare_digest(digest, entry.digest)
                if is_it and entry.is_valid_at(now) and entry.rank > rank:
                    rank, text = entry.rank, code.decode("utf-8", "replace")
                    found = Caller(name=entry.name, scope=entry.scope, code=text, elsewhere=entry.elsewhere)
        return found

    def _digest(self, code: bytes) -> bytes:
        return hashlib.blake2b(code, key=self._salt, digest_size=32).digest()


def _elsewhere(key: AccessKey, hub: str | None) -> tuple[str, ...]:
    if key.hubs is None or (hub is not None and any(is_same_hub(each, hub) for each in key.hubs)):
        return ()
    return tuple(key.hubs)


def _refuse_twins(entries: Sequence[_Entry]) -> None:
    names, digests = set[str](), dict[bytes, str]()
    for entry in entries:
        if entry.name in names:
            raise ConfigurationError(f"Two keys have the name {entry.name!r}; the audit log could not tell them apart.")
        if entry.digest in digests:
            raise ConfigurationError(f"The keys {digests[entry.digest]!r} and {entry.name!r} have the same secret.")
        names.add(entry.name)
        digests[entry.digest] = entry.name


class KeySource(Protocol):
    """Where the keys are."""

    def current(self) -> KeyRing: ...

    def link_secrets(self) -> Sequence[str] | None:
        """Return what signed links may be signed with, the newest first; None if there never are such secrets here."""
        ...


class FixedKeys:
    """Keys that do not change."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def current(self) -> KeyRing:
        return self._ring

    def link_secrets(self) -> None:
        return None


@dataclass(frozen=True)
class FileContent:
    """What a file of keys has."""

    keys: Sequence[AccessKey]
    link_secrets: Sequence[str] = field(default=(), repr=False)


class KeyFile:
    """The keys of a file, read again when it has changed. While it is broken, what it had stays valid."""

    def __init__(
        self,
        path: Path,
        key: str | None = None,
        *,
        hub: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the file.

        Raises:
            ConfigurationError: if it cannot be read, or is no file of keys.
        """
        self._path, self._key, self._hub, self._clock = path, key, hub, clock
        self._looked_at = clock()
        self._stamp = _stamp(path)
        self._ring, self._link_secrets = self._read()
        self._is_broken = False

    def current(self) -> KeyRing:
        now = self._clock()
        if now - self._looked_at >= _LOOK_S:
            self._looked_at = now
            self._look()
        return self._ring

    def link_secrets(self) -> Sequence[str]:
        self.current()
        return self._link_secrets

    def _read(self) -> tuple[KeyRing, Sequence[str]]:
        found = read_keys(self._path)
        return KeyRing(found.keys, self._key, hub=self._hub), found.link_secrets

    def _look(self) -> None:
        stamp = _stamp(self._path)
        is_new, self._stamp = stamp != self._stamp, stamp
        if not (is_new or self._is_broken):
            return
        try:
            self._ring, self._link_secrets = self._read()
        except ConfigurationError as error:
            self._is_broken = True
            if is_new:
                logger.error("The keys stay as they were: %s", error)  # noqa: TRY400 - a traceback would say no more
        else:
            self._is_broken = False
            logger.info("The keys in %s were read again, and are in force.", self._path)


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def read_keys(path: Path) -> FileContent:
    """Read a file of keys: TOML with a table `[[keys]]` for each, and perhaps `[links]` with the secrets of links.

    Raises:
        ConfigurationError: saying what is wrong with it, without what it holds.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigurationError(
            f"The file of keys {str(path)!r} cannot be read: {error.strerror or error}."
        ) from error
    if len(content) > _FILE_BYTES_MAX:
        raise ConfigurationError(f"The file of keys {str(path)!r} is over {_FILE_BYTES_MAX:,} bytes.")
    try:
        found = tomllib.loads(content.decode())
    except ValueError as error:  # of the syntax, or no UTF-8
        raise ConfigurationError(f"The file of keys {str(path)!r} is no TOML: {_without_content(error)}.") from None
    try:
        return FileContent(_keys_of(found), _link_secrets_of(found.get("links", {})))
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _without_content(error: ValueError) -> str:
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _keys_of(found: Mapping[str, object]) -> list[AccessKey]:
    for name in found:
        if name not in _TABLES:
            raise ConfigurationError(f"A file of keys has no {name!r}.{did_you_mean(name, _TABLES)}")
    tables = found.get("keys")
    if not isinstance(tables, list) or not tables:
        raise ConfigurationError("There are no keys; write a table [[keys]] with name, secret and scope for each.")
    return [_key_of(each) for each in cast("list[object]", tables)]


def _link_secrets_of(table: object) -> tuple[str, ...]:
    if not isinstance(table, dict):
        raise ConfigurationError("The secrets of signed links must be in a table [links].")
    fields = cast("dict[str, object]", table)
    for name in fields:
        if name != "secrets":
            raise ConfigurationError(f"The table [links] has no {name!r}.{did_you_mean(name, ('secrets',))}")
    found = fields.get("secrets", [])
    if not isinstance(found, list) or len(cast("list[object]", found)) > LINK_SECRETS_MAX:
        raise ConfigurationError(f"The secrets of signed links must be a list of at most {LINK_SECRETS_MAX}.")
    for each in cast("list[object]", found):
        check_secret("signed links", each)
    return tuple(cast("list[str]", found))


def _key_of(table: object) -> AccessKey:
    if not isinstance(table, dict):
        raise ConfigurationError("Each key must be a table [[keys]].")
    fields = cast("dict[str, object]", table)
    for name in fields:
        if name not in _FIELDS:
            raise ConfigurationError(f"A key has no {name!r}.{did_you_mean(name, _FIELDS)}")
    missing = [each for each in _FIELDS[:3] if each not in fields]
    if missing:
        raise ConfigurationError(f"The key {fields.get('name', '')!r} has no {' and no '.join(missing)}.")
    # The class checks each of them itself, with better words.
    return AccessKey(
        name=cast("str", fields["name"]),
        secret=cast("str", fields["secret"]),
        scope=cast("AccessScope", fields["scope"]),
        expires_at=cast("datetime | None", fields.get("expires_at")),
        hubs=cast("Sequence[str] | None", fields.get("hubs")),
    )
