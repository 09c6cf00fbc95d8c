"""The commands and their options."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final

import typer

import holdfast
from holdfast.cli import instances, steering
from holdfast.cli.bulk import bulk
from holdfast.cli.config_sources import of_options, read_configuration
from holdfast.cli.config_table import show_config
from holdfast.cli.configured import CONFIGURED_STORE, StoreUrl, configured_store
from holdfast.cli.demo import demo
from holdfast.cli.doctor import doctor
from holdfast.cli.entities import call, entity_commands, signal
from holdfast.cli.errors import NOT_WELL, leaving
from holdfast.cli.explain_command import explain_instance
from holdfast.cli.export_history import export_history
from holdfast.cli.parked import parked_commands
from holdfast.cli.purge import purge
from holdfast.cli.transfer import export_hub, import_hub

_APP_HELP = "A file or a dotted module, with :NAME behind it if the app has another name than `app`."
_SET_HELP = "A setting of the host; may be repeated."
_CONFIG_HELP = "Instead of holdfast.toml, or [tool.holdfast] in pyproject.toml, of the current folder."


def main() -> None:
    """Run the command that the arguments ask for, and exit."""
    commands()


# Locals in a traceback would show the key.
commands = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=True)

_PANELS: Final[Mapping[str, Mapping[str, Callable[..., None]]]] = {
    "Orchestrations": {
        "start": instances.start,
        "status": instances.status,
        "list": instances.list_instances,
        "count": instances.count,
        "history": instances.history,
        "wait": instances.wait,
        "explain": explain_instance,
        "raise": steering.raise_event,
        "query": steering.query,
        "update": steering.update,
        "cancel": steering.cancel,
        "terminate": steering.terminate,
        "suspend": steering.suspend,
        "resume": steering.resume,
        "rewind": steering.rewind,
        "restart": steering.restart,
        "fork": steering.fork,
        "purge": purge,
        "bulk": bulk,
    },
    "Entities": {"signal": signal, "call": call},
    "Commands": {"demo": demo},
    "Stores": {"doctor": doctor, "export": export_hub, "import": import_hub},
}
"""What is not written out below: the commands that talk to a host, or read a store."""


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
        typer.Option(
            help="Where everything is kept: sqlite:///file.db or memory://; if not given, holdfast.db beside the file."
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="7071 if not given; 0 takes a free one.")] = None,
    host: Annotated[
        str | None,
        typer.Option(help="The address to listen on, 127.0.0.1 if not given; others than this machine's need a key."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="What each request must carry, as ?code= or in a header; better in HOLDFAST_KEY.")
    ] = None,
    keys: Annotated[str | None, typer.Option(metavar="FILE", help="A file of keys with scopes; may change.")] = None,
    cors_origins: Annotated[
        list[str] | None,
        typer.Option("--cors-origin", metavar="ORIGIN", help="Whose pages may use it from browsers; may be repeated."),
    ] = None,
    ssl_certfile: Annotated[str | None, typer.Option(metavar="FILE", help="Serve https with it.")] = None,
    ssl_keyfile: Annotated[str | None, typer.Option(metavar="FILE", help="If the certificate has it not.")] = None,
    access_log: Annotated[bool | None, typer.Option("--access-log", help="Log each request, without keys.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=_SET_HELP)] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help=_CONFIG_HELP)] = None,
) -> None:
    """Run an app: its orchestrations, activities and entities, and its HTTP API."""
    from holdfast.cli.run import run_app  # a server: the other commands start faster without

    options = {
        "store": store,
        "port": port,
        "host": host,
        "key": key,
        "keys": keys,
        "cors_origins": cors_origins,
        "ssl_certfile": ssl_certfile,
        "ssl_keyfile": ssl_keyfile,
        "access_log": access_log,
    }
    environment = dict(os.environ)
    # Without this, processes that run activities would inherit the key.
    os.environ.pop("HOLDFAST_KEY", None)
    with leaving():
        given = of_options(options, settings or ())
        run_app(target, read_configuration(config, environment, given, folder=Path.cwd()))


@commands.command("config")
def show(
    config: Annotated[Path | None, typer.Option(metavar="FILE", help=_CONFIG_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show what commands go by here: each value, and where it is set. Secrets are not shown."""
    with leaving():
        show_config(read_configuration(config, os.environ, folder=Path.cwd()), as_json=as_json)


@commands.command()
def replay(
    target: Annotated[str, typer.Argument(metavar="FILE_OR_MODULE[:APP]", help=_APP_HELP)],
    histories: Annotated[
        list[Path] | None, typer.Argument(metavar="HISTORY.json", help="What `export-history` wrote.")
    ] = None,
    app: Annotated[str | None, typer.Option(metavar="NAME", help="The name of the app, instead of :APP.")] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Replay what is in this store, too: sqlite:///file.db. A host may run on it. If neither it nor files "
            "are given: HOLDFAST_STORE, or `store` in holdfast.toml.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="ORCHESTRATOR", help="Only histories of this one.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many from the store.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line for each history.")] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=_SET_HELP)] = None,
) -> None:
    """Replay recorded histories with the code as it is now. Exit code 1 says that some do not replay."""
    from holdfast.cli.replay import ReplayOptions, replay_histories

    chosen = target if app is None else f"{target}:{app}"
    options = ReplayOptions(chosen, tuple(histories or ()), store, name, limit, as_json, tuple(settings or ()))
    with leaving():
        if not replay_histories(options):
            sys.exit(NOT_WELL)


@commands.command("export-history")
def export(
    instance_id: Annotated[str, typer.Argument(metavar="INSTANCE_ID")],
    store: StoreUrl = CONFIGURED_STORE,
    output: Annotated[Path | None, typer.Option(help="A new file, instead of the standard output.")] = None,
) -> None:
    """Write the history of one instance as JSON, for `holdfast replay`. A host may run on the store."""
    with leaving():
        export_history(instance_id, configured_store(store), output)


@commands.command()
def lint(
    paths: Annotated[list[Path] | None, typer.Argument(metavar="PATH", help="Files and folders; by default .")] = None,
    select: Annotated[
        list[str] | None, typer.Option(metavar="CODES", help="Only these, as HF101 or HF1; commas between several.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(metavar="CODES", help="All but these.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line for each finding.")] = False,
) -> None:
    """Look for orchestrator code that would differ on a replay, without running it. Exit code 1: there is some."""
    from holdfast.cli.lint import LintOptions, lint_paths

    options = LintOptions(tuple(paths or [Path()]), tuple(select or ()), tuple(ignore or ()), as_json)
    with leaving():
        if not lint_paths(options):
            sys.exit(NOT_WELL)


for _panel, _commands in _PANELS.items():
    for _name, _command in _commands.items():
        commands.command(_name, rich_help_panel=_panel)(_command)
commands.add_typer(entity_commands, name="entities", rich_help_panel="Entities")
commands.add_typer(parked_commands, name="parked", rich_help_panel="Orchestrations")
