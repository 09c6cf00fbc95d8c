"""`holdfast purge`: remove what has ended, for good."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import msgspec
import typer

from holdfast.cli.attempts import Attempts
from holdfast.cli.confirm import confirm
from holdfast.cli.connection import DEFAULT_URL, AsJson, Key, Url, with_client
from holdfast.cli.errors import CONFLICT, NOT_FOUND, CommandError
from holdfast.cli.files import create, make_durable
from holdfast.cli.output import Bar, print_json
from holdfast.cli.selection import Selection, selecting
from holdfast.cli.values import parse_duration
from holdfast.cli.views import EntityView, InstanceView, entity_view, event_view, view_of
from holdfast.client.client import Client
from holdfast.client.instances import InstanceQuery
from holdfast.client.status import InstanceStatus
from holdfast.errors import InstanceNotEndedError, InstanceNotFoundError
from holdfast.model.ids import EntityId, is_entity
from holdfast.model.status import EntityState

_ENDED: Final = "Completed, Failed, Terminated, Canceled"


class ExportedInstance(msgspec.Struct, frozen=True):
    """One line of `--export`."""

    instance: InstanceView
    history: list[dict[str, object]]


class ExportedEntity(msgspec.Struct, frozen=True):
    """A line for an entity that was named."""

    entity: EntityView


@selecting(without=("parked",))
def purge(
    chosen: Selection,
    instance_ids: Annotated[
        list[str] | None, typer.Argument(metavar="INSTANCE_ID", help="These; or filters instead.")
    ] = None,
    older_than: Annotated[
        timedelta | None, typer.Option(parser=parse_duration, metavar="DURATION", help="That ended so long ago, as 7d.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All that has ended, without a filter.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    export: Annotated[
        Path | None, typer.Option(metavar="FILE", help="First write there what is purged, one JSON object per line.")
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Remove instances that have ended, with their histories. What goes on is never purged.

    One of several that cannot be purged is told, and stops no other; the exit code is the highest of theirs.
    """
    if older_than is not None:
        ended = datetime.now(UTC) - older_than
        chosen = replace(chosen, updated_until=min(ended, chosen.updated_until or ended))
    query = chosen.query()
    _check(instance_ids, everything, has_filter=not chosen.is_empty)
    if open_ones := [each.value for each in chosen.statuses or () if not each.is_terminal]:
        raise typer.BadParameter(f"Only what has ended is purged ({_ENDED}), not what is {', '.join(open_ones)}.")

    attempts = with_client(
        url, key, lambda client: _purge(client, instance_ids, query, export, yes=yes, as_json=as_json)
    )
    if as_json:
        print_json({"purged": attempts.done})
    else:
        typer.echo(f"Purged {attempts.done} instance{'' if attempts.done == 1 else 's'}.")
    attempts.leave()


async def _purge(
    client: Client,
    instance_ids: list[str] | None,
    query: InstanceQuery,
    export: Path | None,
    *,
    yes: bool,
    as_json: bool,
) -> Attempts:
    attempts = Attempts()
    if instance_ids:
        await _purge_ids(client, instance_ids, export, attempts)
        return attempts
    number = await _count(client, query)
    if number and not yes:
        confirm(f"Purge {number} instance{'' if number == 1 else 's'} for good?")
    with Bar("Purging", number, is_quiet=as_json) as shown:
        if export is not None:
            attempts.done = await _purge_exported(client, query, export, shown)
        else:
            attempts.done = await client.purge_instances(query, progress=shown.tell)
    return attempts


def _check(instance_ids: list[str] | None, everything: bool, *, has_filter: bool) -> None:
    if sum((bool(instance_ids), has_filter, everything)) == 1:
        return
    if not (instance_ids or has_filter or everything):
        raise typer.BadParameter("Say what to purge: instance ids, filters such as --older-than 7d, or --all.")
    raise typer.BadParameter("Instance ids, filters and --all exclude one another.")


async def _count(client: Client, query: InstanceQuery) -> int:
    counts = await client.count_instances(query)
    return sum(count for status, count in counts.items() if status.is_terminal)


async def _purge_ids(client: Client, instance_ids: list[str], export: Path | None, attempts: Attempts) -> None:
    async def purge_unseen(instance_id: str) -> bool:
        await client.purge(instance_id)
        return True

    if export is None:
        return await attempts.each(instance_ids, purge_unseen)
    with _exporting(export) as file:

        async def purge_written(instance_id: str) -> bool:
            written = await _state_of(client, instance_id)
            await _write(client, written, file)
            make_durable(file)
            if not await _purge_written(client, instance_id, written):
                raise CommandError(f"{instance_id!r} was not purged: it has changed since it was written.", CONFLICT)
            return True

        await attempts.each(instance_ids, purge_written)


async def _state_of(client: Client, instance_id: str) -> InstanceStatus | EntityState:
    """Return what is to be written of something that can be purged."""
    if is_entity(instance_id):
        entity = await client.get_entity(EntityId.parse(instance_id))
        if entity is None:
            raise CommandError(f"There is no entity {instance_id!r} in this task hub.", NOT_FOUND)
        return entity.found
    found = await client.get_status(instance_id)
    if found is None:
        raise CommandError(f"There is no instance {instance_id!r} in this task hub.", NOT_FOUND)
    if not found.runtime_status.is_terminal:
        raise CommandError(
            f"Instance {instance_id!r} has not ended: it is {found.runtime_status.value}. Terminate it first.", CONFLICT
        )
    return found


async def _purge_written(client: Client, instance_id: str, written: InstanceStatus | EntityState) -> bool:
    """Purge exactly what was written; return False if it is not there any more, or has changed."""
    if isinstance(written, EntityState):
        # What comes between the two is lost: entities have no executions that a purge could name.
        if await _state_of(client, instance_id) != written:
            return False
        await client.purge(instance_id)
        return True
    try:
        await client.purge(instance_id, if_execution=written.execution_id)
    except (InstanceNotFoundError, InstanceNotEndedError):
        return False
    return True


async def _purge_exported(client: Client, query: InstanceQuery, export: Path, shown: Bar) -> int:
    """Purge page by page exactly what was written; what was started anew under its id meanwhile is left."""
    purged, token = 0, None
    with _exporting(export) as file:
        while True:
            page = await client.list_instances(query, limit=100, continuation_token=token)
            ended = [each for each in page.instances if each.runtime_status.is_terminal]
            for each in ended:
                await _write(client, each, file)
            make_durable(file)
            for each in ended:
                purged += await _purge_written(client, each.instance_id, each)
                shown.tell(purged)
            token = page.continuation_token
            if token is None:
                return purged


@contextmanager
def _exporting(path: Path) -> Generator[BinaryIO, None, None]:
    """Make a file for what is purged; it goes again if nothing was written."""
    try:
        with create(path) as file:
            try:
                yield file
            finally:
                if file.tell() == 0:
                    path.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"{str(path)!r} cannot be written: {error.strerror or error}.") from error


async def _write(client: Client, found: InstanceStatus | EntityState, file: BinaryIO) -> None:
    if isinstance(found, EntityState):
        line: msgspec.Struct = ExportedEntity(entity_view(found))
    else:
        history = await client.get_history(found.instance_id)
        line = ExportedInstance(view_of(found), [event_view(event) for event in history])
    file.write(msgspec.json.encode(line) + b"\n")
