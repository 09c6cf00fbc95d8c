"""What commands go by: defaults, then a file, then the environment, then the command line; later ones win."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from holdfast.engine.config import HostConfig, config_from_mapping, setting_names
from holdfast.errors import ConfigurationError
from holdfast.model.nearest import did_you_mean

SETTINGS: Final = "settings."
"""Before the names of what belongs to the host."""
SECRET_NAMES: Final = frozenset({"key", "link_secrets"})
DEFAULT: Final = "default"

Port: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=65535)]


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where a host keeps things, where it listens, and to whom; `settings` are apart."""

    store: str | None = None
    """If there is none, `holdfast.db` beside the app."""
    host: str = "127.0.0.1"
    port: Port = 7071
    key: str | None = None
    keys: str | None = None
    """A file of keys."""
    link_secrets: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    access_log: bool = False
    url: str | None = None
    """Where other commands find the host; if there is none, where it listens."""

    @property
    def has_keys(self) -> bool:
        return self.key is not None or self.keys is not None


class Given(msgspec.Struct, frozen=True):
    """A value that somebody has set, and where: a file, a variable or an option."""

    name: str
    value: object
    origin: str


class Configuration(msgspec.Struct, frozen=True):
    """All values, and for each name where it comes from."""

    server: ServerConfig
    host: HostConfig
    origins: Mapping[str, str]


def known_names() -> list[str]:
    """Return every name that can be set, those of the host with `settings.` before them."""
    return [*ServerConfig.__struct_fields__, *(f"{SETTINGS}{name}" for name in setting_names())]


def configure(given: Iterable[Given]) -> Configuration:
    """Return what holds if these values are set, of which later ones win.

    Raises:
        ConfigurationError: for an unknown name or a value that cannot be, also one that does not win; with its origin.
    """
    server: dict[str, object] = {}
    settings: dict[str, object] = {}
    origins = dict.fromkeys(known_names(), DEFAULT)
    for each in given:
        if each.name.startswith(SETTINGS):
            settings[each.name.removeprefix(SETTINGS)] = _setting(each)
        elif each.name in origins:
            server[each.name] = _server_value(each)
        else:
            raise ConfigurationError(f"{each.origin}: there is no {each.name!r}.{did_you_mean(each.name, origins)}")
        origins[each.name] = each.origin
    return Configuration(msgspec.convert(server, ServerConfig), config_from_mapping(settings), origins)


def _setting(given: Given) -> object:
    try:
        config_from_mapping({given.name.removeprefix(SETTINGS): given.value})
    except ConfigurationError as error:
        raise ConfigurationError(f"{given.origin}: {error}") from error
    return given.value


def _server_value(given: Given) -> object:
    kind = typing.get_type_hints(ServerConfig, include_extras=True)[given.name]
    value = given.value
    if kind == tuple[str, ...] and isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        converted: Any = msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        shown = "the value" if given.name in SECRET_NAMES else repr(given.value)
        raise ConfigurationError(f"{given.origin}: {shown} cannot be the {given.name}: {error}.") from error
    return converted
