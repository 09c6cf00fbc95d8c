"""`holdfast config`: every value, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec
import typer

from holdfast.cli.config import SECRET_NAMES, SETTINGS, Configuration, known_names
from holdfast.storage.open_store import without_password

HIDDEN: Final = "***"


class ShownValue(msgspec.Struct, frozen=True):
    """A value as it may be seen."""

    name: str
    value: object
    origin: str


def show_config(configuration: Configuration, *, as_json: bool) -> None:
    """Print a table, or one JSON object with an object for each name."""
    shown = list(shown_values(configuration))
    if as_json:
        objects = {each.name: {"value": each.value, "origin": each.origin} for each in shown}
        typer.echo(msgspec.json.format(msgspec.json.encode(objects)).decode())
        return
    rows = [(each.name, _text(each), each.origin) for each in shown]
    names, values = (max(len(row[column]) for row in rows) for column in (0, 1))
    for name, value, origin in rows:
        typer.echo(f"{name:<{names}}  {value:<{values}}  {origin}")


def shown_values(configuration: Configuration) -> Iterator[ShownValue]:
    """Yield all values in the order of the documentation, without secrets."""
    for name in known_names():
        value: object = configuration.host if name.startswith(SETTINGS) else configuration.server
        for part in name.removeprefix(SETTINGS).split("."):
            value = getattr(value, part)
        if name in SECRET_NAMES and value:
            value = HIDDEN
        elif isinstance(value, str):
            value = without_password(value)
        yield ShownValue(name, msgspec.to_builtins(value), configuration.origins[name])


def _text(shown: ShownValue) -> str:
    value = shown.value
    if value is None or (value == () and shown.origin == "default"):  # else the empty list was meant
        return "-"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
