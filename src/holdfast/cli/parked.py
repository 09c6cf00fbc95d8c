"""`holdfast parked list | show | retry | discard`: what waits for an operator, orchestrations and entities."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Final

import typer

from holdfast.cli.attempts import Attempts
from holdfast.cli.confirm import confirm
from holdfast.cli.connection import DEFAULT_URL, AsJson, Key, Url, with_client
from holdfast.cli.entities import entity_fields
from holdfast.cli.errors import CONFLICT, NOT_FOUND, CommandError, leaving
from holdfast.cli.output import Progress, print_fields, print_json, print_table
from holdfast.cli.steering import Reason
from holdfast.cli.values import instant_text
from holdfast.cli.views import entity_view, failure_text, fields_of, view_of
from holdfast.client.client import Client
from holdfast.client.entity_status import EntityQuery
from holdfast.client.instances import InstanceQuery
from holdfast.client.status import InstanceStatus
from holdfast.errors import CorruptRecordError, InstanceNotFoundError, InstanceNotRunningError
from holdfast.model.ids import EntityId, is_entity, name_of
from holdfast.model.status import EntityState

_TITLES: Final = ("INSTANCE", "NAME", "SINCE", "WHY")
_PAGE: Final = 100
_PARKED: Final = InstanceQuery(parked=True)
_PARKED_ENTITIES: Final = EntityQuery(only_parked=True, with_state=False)

InstanceIds = Annotated[list[str] | None, typer.Argument(metavar="INSTANCE_ID", help="Entities as @name@key.")]
All = Annotated[bool, typer.Option("--all", help="All that is parked.")]

parked_commands = typer.Typer(
    no_args_is_help=True, help="Instances that were set aside, unharmed, until somebody mends the cause."
)


@parked_commands.command("list")
def list_parked(as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """List what is parked, orchestrations and then entities, and why."""
    if with_client(url, key, lambda client: _show_list(client, as_json)) == 0 and not as_json:
        typer.echo("Nothing is parked.")


async def _show_list(client: Client, as_json: bool) -> int:
    number = 0
    async for page in _pages(client):
        if as_json:
            for each in page:
                print_json(_view(each))
        else:
            print_table(_TITLES, map(_row, page), with_titles=number == 0)
        number += len(page)
    return number


async def _pages(client: Client) -> AsyncIterator[list[InstanceStatus | EntityState]]:
    """Return all that is parked, page by page."""
    token: str | None = None
    while True:
        found = await client.list_instances(_PARKED, limit=_PAGE, continuation_token=token)
        yield [*found.instances]
        token = found.continuation_token
        if token is None:
            break
    while True:
        entities = await client.list_entities(_PARKED_ENTITIES, limit=_PAGE, continuation_token=token)
        yield [each.found for each in entities.entities]
        token = entities.continuation_token
        if token is None:
            break


def _view(found: InstanceStatus | EntityState) -> object:
    return entity_view(found) if isinstance(found, EntityState) else view_of(found)


def _row(found: InstanceStatus | EntityState) -> tuple[str, ...]:
    return (
        found.instance_id,
        name_of(found.instance_id) if isinstance(found, EntityState) else found.name,
        instant_text(found.last_updated_at),
        failure_text(found.parked),
    )


@parked_commands.command("show")
def show(
    instance_id: Annotated[str, typer.Argument(metavar="INSTANCE_ID", help="An entity as @name@key.")],
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Show why an instance is parked, with the stack where there is one."""
    found = with_client(url, key, lambda client: _parked(client, instance_id))
    if as_json:
        print_json(_view(found))
        return
    print_fields(entity_fields(found) if isinstance(found, EntityState) else fields_of(found))
    if found.parked is not None and found.parked.stack_trace:
        typer.echo(f"\n{found.parked.stack_trace.rstrip()}")
    typer.echo(f"\nMend the cause; then: holdfast parked retry {instance_id}")


async def _parked(client: Client, instance_id: str) -> InstanceStatus | EntityState:
    found: InstanceStatus | EntityState | None
    if is_entity(instance_id):
        entity = await client.get_entity(EntityId.parse(instance_id))
        found, status = (None, "") if entity is None else (entity.found, "an entity that works")
    else:
        found = await client.get_status(instance_id)
        status = "" if found is None else found.runtime_status.value
    if found is None:
        raise CommandError(f"There is no instance {instance_id!r} in this task hub.", NOT_FOUND)
    if found.parked is None:
        raise CommandError(f"Instance {instance_id!r} is not parked: it is {status}.", CONFLICT)
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
    """Give up what is parked: orchestrations are terminated, entities removed with their states and all that waits.

    An orchestration whose record is damaged cannot be terminated any more, and is removed, too. One that cannot be
    discarded is told, and stops no other.
    """
    chosen = _chosen(instance_ids, everything)
    if everything and not yes:
        with leaving():
            confirm("Terminate all orchestrations that are parked, and remove all entities that are, for good?")

    async def give_up(client: Client, instance_id: str) -> None:
        if is_entity(instance_id):
            return await client.purge(instance_id)
        try:
            await client.terminate(instance_id, reason)
        except CorruptRecordError:
            await client.purge(instance_id)

    attempts = with_client(url, key, lambda client: _each(client, chosen, give_up))
    typer.echo(f"Discarded {attempts.done}.")
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
        async for page in _pages(client):
            for each in page:
                await attempts.attempt(act_on_listed(each.instance_id))
                progress.tell(f"{attempts.done} done")
    finally:
        progress.done()
    return attempts
