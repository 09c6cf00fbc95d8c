"""A task hub in a schema of a PostgreSQL database."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from typing import Final, TypeVar

import asyncpg
import msgspec

from holdfast.errors import StorageError, StoreInUseError
from holdfast.model.ids import partition_of
from holdfast.storage.groups import check_disjoint, check_partitions
from holdfast.storage.port import (
    ActivityRow,
    ArrivalRow,
    ChildRow,
    Fence,
    InboxRow,
    InstanceRow,
    OperationKeyRow,
    Ownership,
    PageKey,
    StoredInstance,
    TimerRow,
    WriteSet,
)
from holdfast.storage.postgres.connections import Connection, Connections
from holdfast.storage.postgres.location import Location
from holdfast.storage.postgres.mail import PostgresMail
from holdfast.storage.postgres.ownership import Claim, leave, prepare, read_hub, renew, take
from holdfast.storage.postgres.queries import QUERIES
from holdfast.storage.postgres.transactions import PostgresTransactions
from holdfast.storage.postgres.writes import apply
from holdfast.storage.selection import EndedInstance, EntityRow, InstanceConditions

_R = TypeVar("_R", ActivityRow, ChildRow, InboxRow, OperationKeyRow, TimerRow)

_FIRST_PAGE: Final[PageKey] = (-(2**63), "", 0)
_AFTER_ALL: Final = "\U0010ffff"


class PostgresStore:
    """The store at a location, which is created when first acquired.

    It owns some of the partitions, for as long as it renews its lease; every commit does. Another one that takes them
    after that fences it off.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._connections = Connections(location)
        self._token = uuid.uuid4().hex
        self._mail = PostgresMail(location, self._token)
        self._transactions = PostgresTransactions(location, self._connections)
        self._partition_count: int | None = None
        self._owned: list[int] | None = None
        """The partitions of which reads for the engine tell; None for all."""
        self._is_prepared = self._may_own = self._is_owner = False
        self._closed = False

    @property
    def mail(self) -> PostgresMail:
        return self._mail

    @property
    def transactions(self) -> PostgresTransactions:
        return self._transactions

    async def acquire(self, now: int, *, after_crash: bool | None = None, suspect_deliveries: int = 3) -> Ownership:
        self._check_open()
        claim = Claim(
            token=self._token,
            lease_s=self._location.lease_s,
            functions=self._mail.functions,
            was_owner=self._is_owner,
            now=now,
            after_crash=after_crash,
            suspect_deliveries=suspect_deliveries,
        )

        if not self._is_prepared:
            await self._connections.write(lambda connection: prepare(connection, self._location))
            self._is_prepared = True
        self._may_own = True  # also if nobody hears of it: then the hub is free when this store is closed
        ownership = await self._connections.write(lambda connection: take(connection, self._location, claim))
        await self._tell_hosts()  # of a new one, or of what another one may have now
        if isinstance(ownership, StoreInUseError):
            raise ownership
        if not self._is_owner:
            self._location.warn_if_other_than(ownership.partition_count)
        self._partition_count, self._is_owner = ownership.partition_count, True
        owned = ownership.fence.epochs
        self._owned = None if len(owned) == ownership.partition_count else sorted(owned)
        self._mail.owned = self._owned
        return ownership

    async def renew(self, fence: Fence) -> bool:
        self._check_open()
        return await renew(self._connections, fence, self._location.lease_s)

    async def release(self, fence: Fence) -> None:
        self._check_open()
        await self._connections.write(lambda connection: leave(connection, fence))
        self._may_own = self._is_owner = False
        await self._tell_hosts()

    async def _tell_hosts(self) -> None:
        with contextlib.suppress(StorageError):  # they find out by themselves, too
            await self._mail.hint("hosts", ())

    async def commit(self, fence: Fence, writes: WriteSet) -> None:
        self._check_open()
        check_partitions(fence, writes)
        check_disjoint(writes)
        await apply(self._connections, self._location, fence, writes)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._may_own:
            try:  # nothing more is written, so another host need not wait for the end of the lease
                await self._connections.write(
                    lambda connection: connection.execute(QUERIES["expire_lease"], self._token)
                )
            except StorageError:
                self._may_own = False  # then it waits
        await self._transactions.close()
        await self._mail.close()
        await self._connections.close()

    async def load(self, instance_ids: list[str]) -> list[StoredInstance]:
        count = await self._partitions()
        return await self._connections.read(
            lambda connection: load_stored(connection, instance_ids, count), by_keys=True
        )

    async def load_history(
        self, instance_id: str, execution_id: str, first: int = 0, limit: int | None = None
    ) -> list[str]:
        partition = partition_of(instance_id, await self._partitions())
        return [row[0] for row in await self._select("load_history", partition, execution_id, first, limit)]

    async def read_instance(self, instance_id: str) -> InstanceRow | None:
        partition = partition_of(instance_id, await self._partitions())
        rows = await self._select("read_instance", partition, instance_id)
        return InstanceRow(**rows[0]) if rows else None

    async def instances(self, after: str, limit: int) -> list[InstanceRow]:
        return [InstanceRow(**row) for row in await self._select("instances", after, limit)]

    async def find_instances(self, wanted: InstanceConditions, after: str, limit: int) -> list[InstanceRow]:
        return [InstanceRow(**row) for row in await self._select("find_instances", *_conditions(wanted), after, limit)]

    async def count_instances(self, wanted: InstanceConditions) -> dict[str, int]:
        return {row[0]: row[1] for row in await self._select("count_instances", *_conditions(wanted))}

    async def ended_instances(
        self, wanted: InstanceConditions, after: tuple[int, str], limit: int
    ) -> list[EndedInstance]:
        rows = await self._select("ended_instances", *_conditions(wanted), *after, limit)
        return [EndedInstance(*row) for row in rows]

    async def entities(
        self,
        prefix: str,
        after: str,
        limit: int,
        *,
        updated_from: int | None = None,
        updated_until: int | None = None,
        with_state: bool = True,
        with_empty: bool = False,
        only_parked: bool = False,
    ) -> list[EntityRow]:
        asked = (prefix, prefix + _AFTER_ALL, after, updated_from, updated_until, with_state, with_empty, only_parked)
        return [_entity_row(row) for row in await self._select("entities", *asked, limit)]

    async def entities_locked(self, after: str, limit: int) -> list[EntityRow]:
        return [_entity_row(row) for row in await self._select("entities_locked", after, limit)]

    async def arrivals(self, after: int, limit: int) -> list[ArrivalRow]:
        return [ArrivalRow(*row) for row in await self._select("arrivals", self._owned, after, limit)]

    async def instances_with_messages(self, after: str, limit: int) -> list[str]:
        return [row[0] for row in await self._select("instances_with_messages", self._owned, after, limit)]

    async def activities_visible(self, until: int, limit: int, after: PageKey | None = None) -> list[ActivityRow]:
        rows = await self._select("activities_visible", self._owned, until, *(after or _FIRST_PAGE), limit)
        return [ActivityRow(*row) for row in rows]

    async def timers_due(self, until: int, limit: int, after: PageKey | None = None) -> list[TimerRow]:
        rows = await self._select("timers_due", self._owned, until, *(after or _FIRST_PAGE), limit)
        return [TimerRow(*row) for row in rows]

    async def _select(self, query: str, *parameters: object) -> list[asyncpg.Record]:
        await self._partitions()
        return await self._connections.ask(QUERIES[query], *parameters)

    async def _partitions(self) -> int:
        """Return how many partitions the hub has, which never changes.

        Raises:
            StorageError: if there is no hub yet, or this store is closed.
        """
        self._check_open()
        if self._partition_count is None:
            self._partition_count = await self._connections.read(self._count_partitions)
        return self._partition_count

    async def _count_partitions(self, connection: Connection) -> int:
        try:
            return (await read_hub(connection, self._location)).partition_count
        except asyncpg.UndefinedTableError as error:
            raise StorageError(
                f"There is no task hub at {self._location.text} yet: it is created when a host first starts on it."
            ) from error

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(f"The store {self._location.text} is closed.")


async def load_stored(connection: Connection, instance_ids: Sequence[str], count: int) -> list[StoredInstance]:
    """Return what `Store.load` returns, of a hub with so many partitions."""
    places = [partition_of(instance_id, count) for instance_id in instance_ids]
    found = await connection.fetch(QUERIES["load_instances"], places, instance_ids)
    rows = [InstanceRow(**row) for row in found]
    by_id = {row.instance_id: StoredInstance(row.instance_id, row, [], [], [], [], []) for row in rows}
    for message in await _rows(connection, InboxRow, "load_messages", instance_ids):
        id_ = message.instance_id
        by_id.setdefault(id_, StoredInstance(id_, None, [], [], [], [], [])).messages.append(message)
    executions = [row.partition for row in rows], [row.execution_id for row in rows]
    if rows:
        for activity in await _rows(connection, ActivityRow, "load_activities", *executions):
            by_id[activity.instance_id].activities.append(activity)
        for timer in await _rows(connection, TimerRow, "load_timers", *executions):
            by_id[timer.instance_id].timers.append(timer)
        for child in await _rows(connection, ChildRow, "load_children", *executions):
            by_id[child.instance_id].children.append(child)
    entities = [id_ for id_ in by_id if id_.startswith("@")]
    if entities:
        places = [partition_of(instance_id, count) for instance_id in entities]
        for key in await _rows(connection, OperationKeyRow, "load_operation_keys", places, entities):
            by_id[key.instance_id].operation_keys.append(key)
    return list(by_id.values())


async def _rows(connection: Connection, row_type: type[_R], query: str, *arrays: Sequence[object]) -> list[_R]:
    return [row_type(*row) for row in await connection.fetch(QUERIES[query], *arrays)]


def _conditions(wanted: InstanceConditions) -> tuple[object, ...]:
    """Return the parameters of the part `conditions`."""
    return (
        wanted.prefix,
        wanted.prefix + _AFTER_ALL,
        wanted.name,
        wanted.names_excluded or None,
        wanted.statuses or None,
        wanted.created_from,
        wanted.created_until,
        wanted.updated_from,
        wanted.updated_until,
        wanted.parent_instance_id,
        msgspec.json.encode(wanted.tags).decode() if wanted.tags else None,
        wanted.custom_status,
        wanted.parked,
    )


def _entity_row(row: asyncpg.Record) -> EntityRow:
    return EntityRow(**dict(zip(EntityRow.__struct_fields__, row, strict=True)))
