"""Asking before something is done that cannot be undone."""

from __future__ import annotations

import sys

import typer

from holdfast.cli.errors import NOT_WELL, CommandError


def confirm(question: str) -> None:
    """Ask, and return if the answer is yes.

    Raises:
        CommandError: if it is not, or if nobody can be asked.
    """
    if not _is_terminal():
        raise CommandError(f"{question} Nobody can be asked, since this is no terminal: pass --yes.")
    if not typer.confirm(question, err=True):
        raise CommandError("Nothing was done.", NOT_WELL)


def _is_terminal() -> bool:
    return sys.stdin.isatty()
