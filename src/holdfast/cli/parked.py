"""`holdfast parked list | show | retry | discard`: what waits for an operator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Final

import typer

from holdfast.cli.attempts import Attempts
from holdfast.cli.confirm import confirm
from holdfast.cli.connection import DEFAULT_URL, AsJson, Key, Url, with_client
from holdfast.cli.errors import CONFLICT, NOT_FOUND, CommandError, leaving
from holdfast.cli.output import Progress, print_fields, print_json, print_table
from holdfast.cli.steering import Reason
from holdfast.cli.values import instant_text
from holdfast.cli.views import failure_text, fields_of, view_of
from holdfast.client.client import Client
from holdfast.client.instances import InstanceQuery
from holdfast.client.status import InstanceStatus
from holdfast.errors import InstanceNotFoundError, InstanceNotRunningError
from holdfast.model.ids import is_entity

_TITLES: Final = ("INSTANCE", "NAME", "SINCE", "WHY")
_PARKED: Final = InstanceQuery(parked=True)

InstanceIds = Annotated[list[str] | None, typer.Argument(metavar="INSTANCE_ID")]
All = Annotated[bool, typer.Option("--all", help="All orchestrations that are parked.")]

parked_commands = typer.Typer(
    no_args_is_help=True, help="Instances that were set aside, unharmed, until somebody mends the cause."
)


@parked_commands.command("list")
def list_parked(as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List the orchestrations that are parked, and why."""
    if with_client(url, key, lambda client: _show_list(client, as_json)) == 0 and not as_json:
        typer.echo("Nothing is parked.")


async def _show_list(client: Client, as_json: bool) -> int:
    token: str | None = None
    number = 0
    while True:
        page = await client.list_instances(_PARKED, continuation_token=token)
        if as_json:
            for each in page.instances:
                print_json(view_of(each))
        else:
            print_table(_TITLES, map(_row, page.instances), with_titles=number == 0)
        number += len(page.instances)
        token = page.continuation_token
        if token is None:
            return number


def _row(status: InstanceStatus) -> tuple[str, ...]:
    return (
        status.instance_id,
        status.name,
        instant_text(status.last_updated_at),
        failure_text(status.parked),
    )


@parked_commands.command("show")
def show(
    instance_id: Annotated[str, typer.Argument(metavar="INSTANCE_ID")],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Show why an instance is parked, with the stack where there is one."""
    found = with_client(url, key, lambda client: _parked(client, instance_id))
    if as_json:
        print_json(view_of(found))
        return
    print_fields(fields_of(found))
    if found.parked is not None and found.parked.stack_trace:
        typer.echo(f"\n{found.parked.stack_trace.rstrip()}")
    typer.echo(f"\nMend the cause; then: holdfast parked retry {instance_id}")


async def _parked(client: Client, instance_id: str) -> InstanceStatus:
    found = await client.get_status(instance_id)
    if found is None:
        raise CommandError(f"There is no instance {instance_id!r} in this task hub.", NOT_FOUND)
    if found.parked is None:
        raise CommandError(f"Instance {instance_id!r} is not parked: it is {found.runtime_status.value}.", CONFLICT)
    return found


@parked_commands.command("retry")
def retry(
    instance_ids: InstanceIds = None,
    everything: All = False,
    reason: Reason = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Let parked instances go on, after the cause was mended. One that cannot is told, and stops no other."""
    chosen = _chosen(instance_ids, everything)

    async def resume(client: Client, instance_id: str) -> None:
        await client.resume(instance_id, reason)

    attempts = with_client(url, key, lambda client: _each(client, chosen, resume))
    typer.echo(f"Resumed {attempts.done}.")
    attempts.leave()


@parked_commands.command("discard")
def discard(
    instance_ids: InstanceIds = None,
    everything: All = False,
    reason: Reason = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Terminate parked orchestrations: they will never finish. One that cannot is told, and stops no other."""
    chosen = _chosen(instance_ids, everything)
    if everything and not yes:
        with leaving():
            confirm("Terminate all orchestrations that are parked?")
    if entity := next((each for each in chosen or () if is_entity(each)), None):
        raise typer.BadParameter(
            f"{entity} is an entity; `holdfast entities purge {entity}` removes it with its state."
        )

    async def terminate(client: Client, instance_id: str) -> None:
        await client.terminate(instance_id, reason)

    attempts = with_client(url, key, lambda client: _each(client, chosen, terminate))
    typer.echo(f"Terminated {attempts.done}.")
    attempts.leave()


def _chosen(instance_ids: list[str] | None, everything: bool) -> Sequence[str] | None:
    """Return the ids that were named, None for all."""
    if bool(instance_ids) == everything:
        raise typer.BadParameter("Name instances, or pass --all.")
    return instance_ids or None


async def _each(
    client: Client, chosen: Sequence[str] | None, act: Callable[[Client, str], Awaitable[None]]
) -> Attempts:
    """Do something with what was named, or with all that is parked."""
    attempts = Attempts()

    async def act_on_parked(instance_id: str) -> bool:
        if not is_entity(instance_id):
            await _parked(client, instance_id)
        await act(client, instance_id)
        return True

    async def act_on_listed(instance_id: str) -> bool:
        try:
            await act(client, instance_id)
        except (InstanceNotFoundError, InstanceNotRunningError):
            return False  # somebody else was faster
        return True

    if chosen is not None:
        await attempts.each(chosen, act_on_parked)
        return attempts
    progress = Progress()
    try:
        async for status in client.iterate_instances(_PARKED):
            await attempts.attempt(act_on_listed(status.instance_id))
            progress.tell(f"{attempts.done} done")
    finally:
        progress.done()
    return attempts
