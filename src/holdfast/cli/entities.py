"""`holdfast signal | call`, and `holdfast entities list | get | unlock | clean | purge`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final

import typer

from holdfast.cli.connection import DEFAULT_URL, AsJson, Key, Url, with_client
from holdfast.cli.errors import NOT_FOUND, CommandError
from holdfast.cli.instances import Input, Timeout
from holdfast.cli.output import print_fields, print_json, print_table
from holdfast.cli.values import instant_text, parse_duration, parse_instant
from holdfast.cli.views import entity_view, failure_text
from holdfast.client.client import Client
from holdfast.client.entity_status import EntityQuery
from holdfast.model.ids import EntityId
from holdfast.model.options import ClientSignalOptions
from holdfast.model.refs import NO_INPUT
from holdfast.model.status import EntityState, LockState

_PAGE: Final = 100
_IDLE_FOR: Final = timedelta(hours=1)
_TITLES: Final = ("ENTITY", "STATE", "LOCKED BY", "MESSAGES", "UPDATED")

Entity = Annotated[str, typer.Argument(metavar="ENTITY", help="As @name@key; the first @ may be left out.")]
Operation = Annotated[str, typer.Argument(metavar="OPERATION")]
RequestKey = Annotated[str | None, typer.Option(help="Names this request: its repetition has no second effect.")]

entity_commands = typer.Typer(no_args_is_help=True, help="What entities hold, and their locks.")


def signal(
    entity: Entity,
    operation: Operation,
    input: Input = None,
    after: Annotated[
        timedelta | None, typer.Option(parser=parse_duration, metavar="DURATION", help="Not before this time is over.")
    ] = None,
    at: Annotated[datetime | None, typer.Option(parser=parse_instant, metavar="INSTANT", help="Not before.")] = None,
    request_key: RequestKey = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Ask an entity to run an operation, and do not wait for it."""
    if after is not None and at is not None:
        raise typer.BadParameter("--after and --at exclude one another.")
    options = ClientSignalOptions(due=after if after is not None else at, key=request_key)
    payload = NO_INPUT if input is None else input.value
    with_client(url, key, lambda client: client.signal_entity(_id(entity), operation, payload, **options))


def call(
    entity: Entity,
    operation: Operation,
    input: Input = None,
    timeout: Timeout = None,
    request_key: RequestKey = None,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Run an operation on an entity, and print its result as JSON."""

    async def work(client: Client) -> object:
        payload = NO_INPUT if input is None else input.value
        return await client.call_entity(_id(entity), operation, payload, timeout=timeout, key=request_key)

    print_json(with_client(url, key, work))


@entity_commands.command("list")
def list_entities(
    name: Annotated[str | None, typer.Option(metavar="ENTITY_NAME", help="Of this name.")] = None,
    key_prefix: Annotated[str, typer.Option(metavar="TEXT", help="With keys that begin so; needs --name.")] = "",
    updated_from: Annotated[
        datetime | None, typer.Option(parser=parse_instant, metavar="INSTANT", help="Used then or later.")
    ] = None,
    updated_until: Annotated[
        datetime | None, typer.Option(parser=parse_instant, metavar="INSTANT", help="Used then or earlier.")
    ] = None,
    with_empty: Annotated[bool, typer.Option("--empty", help="Also those without state and lock.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = _PAGE,
    everything: Annotated[bool, typer.Option("--all", help="All of them, however many.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """List entities, by their ids."""
    query = EntityQuery(
        entity=name,
        key_prefix=key_prefix,
        updated_from=updated_from,
        updated_until=updated_until,
        with_empty=with_empty,
    )
    with_client(url, key, lambda client: _show_list(client, query, None if everything else limit, as_json))


async def _show_list(client: Client, query: EntityQuery, limit: int | None, as_json: bool) -> None:
    token: str | None = None
    left, is_first = limit, True
    while left is None or left > 0:
        page = await client.list_entities(
            query, limit=_PAGE if left is None else min(_PAGE, left), continuation_token=token
        )
        if as_json:
            for each in page.entities:
                print_json(entity_view(each.found))
        else:
            print_table(_TITLES, (_row(each.found) for each in page.entities), with_titles=is_first)
        if is_first and not page.entities:
            typer.echo("There are none.", err=True)
        is_first = False
        token = page.continuation_token
        if token is None:
            return
        left = None if left is None else left - len(page.entities)
    typer.echo(f"There are more than {limit}; --limit N or --all shows them.", err=True)


@entity_commands.command("get")
def get_entity(entity: Entity, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Show one entity: its state, who holds its lock, what waits for it."""

    async def work(client: Client) -> EntityState:
        found = await client.get_entity(_id(entity))
        if found is None:
            raise CommandError(f"There is no entity {_id(entity).instance_id!r} in this task hub.", NOT_FOUND)
        return found.found

    found = with_client(url, key, work)
    if as_json:
        print_json(entity_view(found))
    else:
        print_fields(entity_fields(found))


@entity_commands.command("unlock")
def unlock(entity: Entity, as_json: AsJson = False, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Take the lock of an entity from whoever holds it; that one's next call of the entity fails."""
    holder = with_client(url, key, lambda client: client.break_lock(_id(entity)))
    if as_json:
        print_json({"was_held_by": holder})
    else:
        typer.echo("It was not locked." if holder is None else f"It was locked by {_holder_text(holder)}.")


@entity_commands.command("clean")
def clean(
    idle_for: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_duration, metavar="DURATION", help="Only what nothing happened to so long; 1h if not given."
        ),
    ] = None,
    keep_empty: Annotated[bool, typer.Option("--keep-empty", help="Remove no entities.")] = False,
    keep_locks: Annotated[bool, typer.Option("--keep-locks", help="Give back no locks.")] = False,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Remove entities that hold nothing, and give back locks whose holder is gone."""
    removed = with_client(
        url,
        key,
        lambda client: client.clean_entities(
            idle_for=_IDLE_FOR if idle_for is None else idle_for,
            remove_empty=not keep_empty,
            release_orphaned_locks=not keep_locks,
        ),
    )
    if as_json:
        print_json(removed)
    else:
        typer.echo(
            f"Removed {removed.empty_entities_removed} empty entities; "
            f"gave back {removed.orphaned_locks_released} locks whose holder was gone."
        )


@entity_commands.command("purge")
def purge_entity(entity: Entity, url: Url = DEFAULT_URL, key: Key = None) -> None:
    """Remove an entity with all that it holds, and what waits for it."""
    with_client(url, key, lambda client: client.purge(_id(entity).instance_id))


def _id(text: str) -> EntityId[object]:
    return EntityId.parse(text if text.startswith("@") else f"@{text}")


def _row(found: EntityState) -> tuple[str, ...]:
    return (
        found.instance_id,
        found.state or "-",
        found.lock.instance_id if found.lock else "-",
        str(found.messages),
        instant_text(found.last_updated_at),
    )


def entity_fields(found: EntityState) -> list[tuple[str, str]]:
    """Return what `get` shows of an entity, name by name."""
    return [
        ("Entity", found.instance_id),
        ("State", found.state or ("" if found.has_state else "none")),
        ("State version", found.state_version or ""),
        ("Parked", failure_text(found.parked)),
        ("Locked by", _holder_text(found.lock) if found.lock else ""),
        ("Wait for the lock", ", ".join(map(_holder_text, found.lock_requests))),
        ("Messages", str(found.messages)),
        ("Scheduled signals", str(found.scheduled_signals)),
        ("Created", instant_text(found.created_at)),
        ("Updated", instant_text(found.last_updated_at)),
    ]


def _holder_text(lock: LockState) -> str:
    return f"{lock.instance_id} since {instant_text(lock.since)}"
