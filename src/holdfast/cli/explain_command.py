"""`holdfast explain`: reads what an explanation needs, from a host or from a store, and prints it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, Protocol

import typer

from holdfast.cli.connection import DEFAULT_URL, AsJson, Key, Url, with_client
from holdfast.cli.errors import leaving
from holdfast.cli.explain import (
    Explanation,
    Stored,
    StoredActivity,
    Surroundings,
    explain,
    explain_entity,
    open_of,
)
from holdfast.cli.instances import InstanceId
from holdfast.cli.output import print_fields, print_json, shown
from holdfast.cli.stored import reading
from holdfast.cli.values import instant_text
from holdfast.client.client import Client
from holdfast.engine.clock import from_microseconds
from holdfast.engine.entity_requests import entity_state
from holdfast.engine.exports import read_history
from holdfast.engine.readable import readable_state
from holdfast.errors import InstanceNotFoundError
from holdfast.hub.instance import RUN_TIMEOUT, SCHEDULED_START
from holdfast.model.history import HistoryEvent
from holdfast.model.ids import EntityId, is_entity
from holdfast.model.status import EntityState, OrchestrationState
from holdfast.storage.port import Store

_NEIGHBOURS_MAX: Final = 100
"""How many of the instances that one waits for are looked at."""


class _Source(Protocol):
    """Where a command learns of instances."""

    async def state(self, instance_id: str) -> OrchestrationState | None: ...

    async def history(self, instance_id: str) -> Sequence[HistoryEvent]: ...

    async def entity(self, instance_id: str) -> EntityState | None: ...

    async def stored(self, instance_id: str) -> Stored | None: ...


class _FromHost:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def state(self, instance_id: str) -> OrchestrationState | None:
        found = await self._client.get_status(instance_id)
        return None if found is None else found.state

    async def history(self, instance_id: str) -> Sequence[HistoryEvent]:
        return await self._client.get_history(instance_id)

    async def entity(self, instance_id: str) -> EntityState | None:
        found = await self._client.get_entity(EntityId.parse(instance_id))
        return None if found is None else found.found

    async def stored(self, instance_id: str) -> Stored | None:
        return None


class _FromStore:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def state(self, instance_id: str) -> OrchestrationState | None:
        row = await self._store.read_instance(instance_id)
        return None if row is None else readable_state(row)

    async def history(self, instance_id: str) -> Sequence[HistoryEvent]:
        found = await read_history(self._store, instance_id)
        return [event for episode in found.episodes for event in episode]

    async def entity(self, instance_id: str) -> EntityState | None:
        rows = await self._store.entities(instance_id, "", 1, with_state=False, with_empty=True)
        return entity_state(rows[0], ()) if rows and rows[0].instance_id == instance_id else None

    async def stored(self, instance_id: str) -> Stored | None:
        [found] = await self._store.load([instance_id])
        timers = {row.sequence: from_microseconds(row.due_at) for row in found.timers}
        return Stored(
            activities={
                row.sequence: StoredActivity(
                    attempt=row.attempt, deliveries=row.deliveries, visible_at=from_microseconds(row.visible_at)
                )
                for row in found.activities
            },
            timers=timers,
            messages=len(found.messages),
            start_at=timers.get(SCHEDULED_START),
            run_until=timers.get(RUN_TIMEOUT),
            declared=None if self._store.mail is None else await self._store.mail.declared(),
        )


def explain_instance(
    instance_id: InstanceId,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Read a store instead of asking a host; it also knows attempts, retries and timers."
        ),
    ] = None,
    as_json: AsJson = False,
    url: Url = DEFAULT_URL,
    key: Key = None,
) -> None:
    """Say why an instance is not moving: what it waits for, since when, and what to do."""
    now = datetime.now(UTC)
    if store is None:
        found = with_client(url, key, lambda client: _explained(_FromHost(client), instance_id, now))
    else:
        with leaving():
            found = asyncio.run(_explained_in_store(store, instance_id, now))
    if as_json:
        print_json(found)
    else:
        _show(found)


async def _explained_in_store(url: str, instance_id: str, now: datetime) -> Explanation:
    async with reading(url) as store:
        return await _explained(_FromStore(store), instance_id, now)


async def _explained(source: _Source, instance_id: str, now: datetime) -> Explanation:
    if is_entity(instance_id):
        entity = await source.entity(instance_id)
        if entity is None:
            raise InstanceNotFoundError(instance_id)
        return explain_entity(entity, now)
    state = await source.state(instance_id)
    if state is None:
        raise InstanceNotFoundError(instance_id)
    if state.runtime_status.is_terminal:
        return explain(state, (), Surroundings(now=now))
    history = await source.history(instance_id)
    found = open_of(history)
    children = {each: await source.state(each) for each in found.child_ids[:_NEIGHBOURS_MAX]}
    entities = {each: await source.entity(each) for each in found.entity_ids[:_NEIGHBOURS_MAX]}
    around = Surroundings(
        now=now,
        children={name: each for name, each in children.items() if each is not None},
        entities={name: each for name, each in entities.items() if each is not None},
        stored=await source.stored(instance_id),
    )
    return explain(state, history, around)


def _show(found: Explanation) -> None:
    print_fields([("Instance", found.instance_id), ("Status", found.status)])
    typer.echo(f"\n{shown(found.summary, chars_max=None)}")
    if found.waits_for:
        typer.echo("\nWaits for:")
        for each in found.waits_for:
            since = f" since {instant_text(each.since)}" if each.since is not None else ""
            detail = f"\n      {each.detail}" if each.detail else ""
            typer.echo(f"  - {each.kind} {shown(each.what, chars_max=None)}{since}{detail}")
    for title, lines in (("Besides", found.notes), ("What to do", found.advice)):
        if lines:
            typer.echo(f"\n{title}:")
            for line in lines:
                typer.echo(f"  {shown(line, chars_max=None)}")
