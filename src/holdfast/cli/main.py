"""The commands and their options."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import holdfast
from holdfast.cli.errors import CommandError
from holdfast.cli.run import RunOptions, run_app
from holdfast.errors import HoldfastError

_APP_HELP = "A file or a dotted module, with :NAME behind it if the app has another name than `app`."


def main() -> None:
    """Run the command that the arguments ask for, and exit."""
    commands()


# Locals in a traceback would show the key.
commands = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"holdfast {holdfast.__version__}")
        raise typer.Exit


@commands.callback()
def everything(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Durable Functions for Python, without a cloud."""


@commands.command()
def run(
    target: Annotated[str, typer.Argument(metavar="FILE_OR_MODULE[:APP]", help=_APP_HELP)],
    store: Annotated[
        str | None,
        typer.Option(help="Where everything is kept: sqlite:///file.db or memory://. [holdfast.db beside the file]"),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7071,
    host: Annotated[str, typer.Option(help="The address to listen on; others than this machine's need a key.")] = (
        "127.0.0.1"
    ),
    key: Annotated[
        str | None, typer.Option(envvar="HOLDFAST_KEY", help="What each request must carry, as ?code= or in a header.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the host; may be repeated.")
    ] = None,
) -> None:
    """Run an app: its orchestrations, activities and entities, and its HTTP API."""
    # Without this, processes that run activities would inherit the key.
    os.environ.pop("HOLDFAST_KEY", None)
    options = RunOptions(target, store, host, port, key or None, tuple(settings or ()))
    try:
        run_app(options)
    except CommandError as error:
        _leave(str(error), error.exit_code)
    except HoldfastError as error:
        _leave(str(error), 2)


def _leave(message: str, exit_code: int) -> None:
    typer.echo(f"holdfast: {message}", err=True)
    sys.exit(exit_code)
