"""`holdfast export-history`: one instance's history as a text, to be kept beside the code."""

from __future__ import annotations

import asyncio
from pathlib import Path

import typer

from holdfast.cli.files import creating
from holdfast.cli.stored import reading
from holdfast.codec.exported import encode_exported
from holdfast.engine.exports import read_history
from holdfast.model.ids import validate_instance_id


def export_history(instance_id: str, store: str, output: Path | None) -> None:
    """Write the history of an instance to a new file for its owner alone, or to the standard output.

    Raises:
        CommandError: if the file is there already, or cannot be written.
        HoldfastError: if there is no such store or instance, or it cannot be read.
    """
    # As bytes: it is UTF-8 whatever the terminal is.
    text = asyncio.run(_read(validate_instance_id(instance_id), store)).encode()
    if output is None:
        typer.echo(text, nl=False)
        return
    with creating(output) as file:
        file.write(text)


async def _read(instance_id: str, url: str) -> str:
    async with reading(url) as store:
        return encode_exported(await read_history(store, instance_id))
