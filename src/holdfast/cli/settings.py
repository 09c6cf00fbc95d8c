"""From `--set NAME=VALUE` to a config."""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.cli.errors import CommandError
from holdfast.engine.config import HostConfig, config_from_mapping


def config_from_settings(settings: Iterable[str]) -> HostConfig:
    """Return the config that the settings of a command line make.

    Raises:
        CommandError: for one without a value.
        ConfigurationError: for an unknown name or a value that cannot be meant.
    """
    parsed: dict[str, object] = {}
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            raise CommandError(f"--set {setting!r} has no value; write it as NAME=VALUE.")
        parsed[name.strip()] = value.strip()
    return config_from_mapping(parsed)
