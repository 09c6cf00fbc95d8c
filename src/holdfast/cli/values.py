"""From the texts of a command line to values: JSON, times, tags."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
import typer

_UNITS_S: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")
_DAYS_MAX: Final = 36_500


class Given(msgspec.Struct, frozen=True):
    """A JSON value that was given; JSON null differs from nothing."""

    value: object


def parse_json(text: str) -> Given:
    """Read JSON, as it stands, out of `@file`, or from the standard input for `-`.

    Raises:
        typer.BadParameter: showing how to quote it.
    """
    source = text
    if text == "-":
        source = sys.stdin.read()
    elif text.startswith("@"):
        source = _file_text(Path(text[1:]))
    try:
        return Given(msgspec.json.decode(source))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise typer.BadParameter(_no_json(text, source, str(error))) from error


def _file_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise typer.BadParameter(f"{str(path)!r} cannot be read: {why}.") from error


def _no_json(text: str, source: str, why: str) -> str:
    if text == "-" or text.startswith("@"):
        where = "the standard input" if text == "-" else repr(text[1:])
        return f"{where} is no JSON: {why}."
    as_text = msgspec.json.encode(source).decode() if _is_storable(source) else '"..."'
    return (
        f"{source:.60} is no JSON: {why}. A text has quotation marks of its own, within those of the shell: "
        f"'{as_text:.60}'. An object is written '{{\"name\": 1}}', and @file.json reads a file."
    )


def _is_storable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


def parse_duration(text: str) -> timedelta:
    """Read `500ms`, `30s`, `5m`, `2h`, `7d`, `1w`, or several together, as `1h30m`.

    Raises:
        typer.BadParameter: for anything else.
    """
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise typer.BadParameter(f"{text!r} is no duration; write 500ms, 30s, 5m, 2h, 7d, 1w, or 1h30m.")
    duration_s = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    if duration_s > _DAYS_MAX * _UNITS_S["d"]:
        raise typer.BadParameter(f"{text!r} is longer than {_DAYS_MAX} days.")
    return timedelta(seconds=duration_s)


def parse_timeout(text: str) -> timedelta:
    """Read a duration; a number alone is seconds, as programs that wait have it.

    Elsewhere it needs a unit: who asks to remove what is older than 7 hardly means seconds.

    Raises:
        typer.BadParameter: for anything else.
    """
    return parse_duration(f"{text}s" if _NUMBER.fullmatch(text) else text)


def parse_instant(text: str) -> datetime:
    """Read an ISO 8601 date or time; without a zone it is local.

    Raises:
        typer.BadParameter: for anything else.
    """
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError) as error:
        raise typer.BadParameter(
            f"{text!r} is no instant; write 2026-11-30, 2026-11-30T18:00 (local) or 2026-11-30T17:00Z."
        ) from error


def parse_tags(texts: Iterable[str]) -> dict[str, str]:
    """Read texts of the form `name=value`.

    Raises:
        typer.BadParameter: for one without a value, or without a name.
    """
    tags: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{text!r} is no tag; write NAME=VALUE.")
        tags[name] = value
    return tags


def instant_text(instant: datetime | None) -> str:
    """Return an instant for people: local, to the second, with its zone."""
    return "" if instant is None else instant.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def duration_text(duration: timedelta) -> str:
    """Return a duration for people, with its two greatest units."""
    left_s = max(0, round(duration.total_seconds()))
    parts: list[str] = []
    for unit in ("d", "h", "m", "s"):
        count, left_s = divmod(left_s, round(_UNITS_S[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"
