"""What commands print: tables and blocks for people, JSON for programs; never a control character out of data."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import rich.console
import rich.progress
import typer
from rich.cells import cell_len

_STYLES: Final = {
    "Completed": typer.colors.GREEN,
    "Running": typer.colors.BLUE,
    "Pending": typer.colors.CYAN,
    "Suspended": typer.colors.YELLOW,
    "Parked": typer.colors.MAGENTA,
    "Failed": typer.colors.RED,
    "Terminated": typer.colors.RED,
    "Canceled": typer.colors.YELLOW,
}
"""The colours of words that stand alone in a cell."""

CELL_CHARS_MAX: Final = 80


def print_json(value: object) -> None:
    """Print one JSON document on one line."""
    typer.echo(msgspec.json.encode(value).decode())


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, with_titles: bool = True) -> None:
    """Print aligned columns; nothing at all if there are no rows."""
    cells = [[shown(cell) for cell in row] for row in rows]
    if not cells:
        return
    widths = [max(cell_len(line[column]) for line in (list(titles), *cells)) for column in range(len(titles))]
    if with_titles:
        typer.echo(_line(titles, widths, is_title=True))
    for line in cells:
        typer.echo(_line(line, widths))


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print names and values below one another, without those that are empty."""
    present = [(name, text) for name, text in fields if text]
    width = max((len(name) for name, _ in present), default=0)
    for name, text in present:
        typer.echo(f"{name:<{width}}  {_styled(shown(text, chars_max=None))}")


def _line(cells: Sequence[str], widths: Sequence[int], *, is_title: bool = False) -> str:
    padded = [
        (typer.style(cell, bold=True) if is_title and is_coloured() else _styled(cell)) + " " * (width - cell_len(cell))
        for cell, width in zip(cells, widths, strict=True)
    ]
    return "  ".join(padded).rstrip()


def _styled(cell: str) -> str:
    colour = _STYLES.get(cell)
    return typer.style(cell, fg=colour) if colour is not None and is_coloured() else cell


def is_coloured() -> bool:
    """Return whether the output goes to a terminal whose user has nothing against colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def shown(text: str, chars_max: int | None = CELL_CHARS_MAX) -> str:
    """Return a text that a terminal prints as it stands: control characters escaped, and cut if it is too long."""
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
    return safe if chars_max is None or len(safe) <= chars_max else f"{safe[: chars_max - 1]}…"


class Bar:
    """A bar on the error output that tells how much of long work is done; nothing if that is no terminal."""

    def __init__(self, what: str, total: int, *, is_quiet: bool = False) -> None:
        self._bar = rich.progress.Progress(
            "{task.description}",
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeRemainingColumn(),
            console=rich.console.Console(stderr=True),
            transient=True,
            disable=is_quiet or not sys.stderr.isatty(),
        )
        self._work = self._bar.add_task(what, total=total)

    def tell(self, done: int) -> None:
        self._bar.update(self._work, completed=done)

    def __enter__(self) -> Bar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()


class Progress:
    """One line on the error output that tells how far long work has come; nothing if that is no terminal."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._width = 0

    def tell(self, text: str) -> None:
        if self._is_shown:
            typer.echo(f"\r{text:<{self._width}}", nl=False, err=True)
            self._width = len(text)

    def done(self) -> None:
        """Remove the line."""
        if self._width:
            typer.echo(f"\r{'':<{self._width}}\r", nl=False, err=True)
            self._width = 0
