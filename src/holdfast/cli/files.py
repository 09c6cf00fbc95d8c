"""New files for what a hub holds: readable by their owner alone, and never in the place of another file."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from holdfast.cli.errors import CommandError


def create(path: Path) -> BinaryIO:
    """Make a file and open it for writing.

    Raises:
        CommandError: if it is there already, be it as a link that leads nowhere, or cannot be made.
    """
    try:
        return open(path, "xb", opener=_open_private)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise _not_written(path, error) from error


@contextmanager
def creating(path: Path) -> Generator[BinaryIO, None, None]:
    """Make a file that appears under its name when all of it is on the disk; if anything fails, it never does.

    Raises:
        CommandError: if it is there already, also if it came meanwhile, or cannot be written.
    """
    if os.path.lexists(path):
        raise _exists(path)
    # A name that nobody can foresee: others may write in the directory too.
    partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with create(partial) as file:
            yield file
            make_durable(file)
        _give_name(partial, path)
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise _not_written(path, error) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def make_durable(file: BinaryIO) -> None:
    """Return once all that was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _give_name(partial: Path, path: Path) -> None:
    """Name a file without replacing another one, which a plain rename would do."""
    try:
        os.link(partial, path)
    except FileExistsError:
        raise
    except OSError:  # no links on this file system, such as FAT: take the name with a file of ours, and replace that
        os.close(_open_private(str(path), os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        partial.replace(path)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _exists(path: Path) -> CommandError:
    return CommandError(f"{str(path)!r} exists; name a new file.")


def _not_written(path: Path, error: OSError) -> CommandError:
    return CommandError(f"{str(path)!r} cannot be written: {error.strerror or error}.")
