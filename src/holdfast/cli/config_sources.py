"""Where values are set: in a file, in the environment, on the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, cast

from holdfast.cli.config import SETTINGS, Configuration, Given, configure, known_names
from holdfast.cli.errors import CommandError
from holdfast.errors import ConfigurationError
from holdfast.model.nearest import did_you_mean

FILE: Final = "holdfast.toml"
PROJECT: Final = "pyproject.toml"
PREFIX: Final = "HOLDFAST_"
CONFIG_VARIABLE: Final = "HOLDFAST_CONFIG"
_OTHERS: Final = frozenset({CONFIG_VARIABLE, "HOLDFAST_DEMO_LOG"})
"""Variables that say something else than what is configured."""


def read_configuration(
    file: Path | None, environment: Mapping[str, str], options: Iterable[Given] = (), *, folder: Path
) -> Configuration:
    """Return what holds.

    Args:
        file: the one to read; None for the one of the folder, if there is one.

    Raises:
        ConfigurationError: for what no source may say; with the source.
    """
    named = environment.get(CONFIG_VARIABLE)
    path = file or (Path(named) if named else None)
    from_file = _of_folder(folder) if path is None else _of_file(path, is_needed=True)
    return configure([*from_file, *_of_environment(environment), *options])


def _of_folder(folder: Path) -> list[Given]:
    own, project = folder / FILE, folder / PROJECT
    in_own = _of_file(own) if own.exists() else []
    in_project = _of_file(project) if project.exists() else []
    if own.exists() and in_project:
        raise ConfigurationError(f"{FILE} and [tool.holdfast] of {PROJECT} both configure the host; keep one of them.")
    return in_own or in_project


def _of_file(path: Path, *, is_needed: bool = False) -> list[Given]:
    try:
        found: object = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigurationError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:  # of the syntax, or no UTF-8
        raise ConfigurationError(f"{str(path)!r} is no TOML: {error}.") from error
    tables = cast("dict[str, object]", found)
    if path.name == PROJECT:
        tool = tables.get("tool")
        ours = cast("dict[str, object]", tool).get("holdfast") if isinstance(tool, dict) else None
        if ours is None and is_needed:
            raise ConfigurationError(f"{str(path)!r} has no [tool.holdfast].")
        found = {} if ours is None else ours
    return [Given(name, value, path.name) for name, value in _flat("", found)]


def _flat(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    """Yield the values of nested tables under their full names: `settings.limits.tags_max`."""
    if isinstance(value, dict):
        for name, inner in cast("dict[str, object]", value).items():
            yield from _flat(f"{prefix}.{name}" if prefix else name, inner)
    else:
        yield prefix, value


def variable_of(name: str) -> str:
    """Return the variable that sets a name: HOLDFAST_SETTINGS__LIMITS__TAGS_MAX for `settings.limits.tags_max`."""
    return f"{PREFIX}{name.upper().replace('.', '__')}"


def _of_environment(environment: Mapping[str, str]) -> list[Given]:
    """Return what variables say; an empty one says nothing."""
    names = {variable_of(name): name for name in known_names()}
    given: list[Given] = []
    for variable, value in environment.items():
        if not variable.startswith(PREFIX) or variable in _OTHERS:
            continue
        if variable not in names:
            raise ConfigurationError(
                f"The environment has {variable}, which configures nothing.{did_you_mean(variable, names)}"
            )
        if value:
            given.append(Given(names[variable], value, variable))
    return given


def of_options(options: Mapping[str, object], settings: Iterable[str] = ()) -> list[Given]:
    """Return what a command line says; an option that is None or empty was not given.

    Raises:
        CommandError: for a `--set` without a value.
    """
    given = [
        Given(name, value, f"--{name.replace('_', '-')}")
        for name, value in options.items()
        if value not in (None, "", [])
    ]
    for setting in settings:
        name, separator, value = setting.partition("=")
        if not separator:
            raise CommandError(f"--set {setting!r} has no value; write it as NAME=VALUE.")
        given.append(Given(f"{SETTINGS}{name.strip()}", value.strip(), "--set"))
    return given
