"""Who may write: the schema and its version, and the lease of the owner, by the clock of the database."""

from __future__ import annotations

import os
import platform
from typing import Final

import asyncpg
import msgspec

from holdfast.errors import OwnershipLostError, StorageError, StoreInUseError
from holdfast.storage.port import Fence, Ownership
from holdfast.storage.postgres.connections import Connection
from holdfast.storage.postgres.location import Location
from holdfast.storage.postgres.patience import execute_patiently
from holdfast.storage.postgres.queries import PACKAGE, QUERIES
from holdfast.storage.postgres.writes import check_fence
from holdfast.storage.statements import migration

SCHEMA_VERSION: Final = 1
_COUNTING_S: Final = 605.0
_WAIT_BRIEFLY: Final = "SET LOCAL lock_timeout = 3000"
"""For whoever has the owner's row: then somebody works with it."""
_WAIT_LONG: Final = "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 600000"
"""For what is counted after a crash, which may be very much."""
_MIGRATIONS: Final = 0x486F6C64
"""`Hold`: the advisory lock of whoever creates or changes the tables of a schema, beside a hash of its name."""

_HAS_SCHEMA: Final = "SELECT count(*) FROM pg_namespace WHERE nspname = $1"
"""`CREATE SCHEMA IF NOT EXISTS` asks for the right to create one even if somebody else has done it already."""


class HubRow(msgspec.Struct, frozen=True):
    """What never changes in a hub, but the version of its tables."""

    schema_version: int
    partition_count: int


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a store asks for when it takes a hub. `token` tells it from every other store."""

    token: str
    lease_s: float
    was_owner: bool
    now: int
    after_crash: bool | None
    suspect_deliveries: int


async def prepare(connection: Connection, location: Location) -> None:
    """Create or migrate the tables, in the open transaction; two hosts that start at once do it one after the other.

    Raises:
        StorageError: if the schema is another application's, or was used by a newer version.
    """
    encoding = connection.get_settings().server_encoding
    if encoding != "UTF8":
        raise StorageError(f"{location.text}: the database keeps texts as {encoding}; create one with ENCODING 'UTF8'.")
    await connection.execute("SELECT pg_advisory_xact_lock($1, hashtext($2))", _MIGRATIONS, location.schema)
    version = await _version(connection, location)
    if version == 0 and not await connection.fetchval(_HAS_SCHEMA, location.schema):
        await connection.execute(f'CREATE SCHEMA "{location.schema}"')
    for number in range(version + 1, SCHEMA_VERSION + 1):
        await execute_patiently(connection, migration(PACKAGE, number))
    if version == 0:
        await connection.execute(QUERIES["create_hub"], SCHEMA_VERSION, location.partitions)
        await connection.execute(QUERIES["create_node"])
        await connection.execute(QUERIES["create_partitions"], location.partitions)


async def _version(connection: Connection, location: Location) -> int:
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", location.schema)
    names = {row["tablename"] for row in tables}
    if not names:
        return 0
    if not names >= {"hub", "node", "partition", "instance"}:
        raise StorageError(f"{location.text}: the schema belongs to something else; name another one with ?schema=.")
    return (await read_hub(connection, location)).schema_version


async def read_hub(connection: Connection, location: Location) -> HubRow:
    """Return what is stored of the hub itself.

    Raises:
        StorageError: if it was used by a newer version.
    """
    row = await connection.fetchrow(QUERIES["read_hub"])
    if row is None:
        raise StorageError(f"{location.text} has lost the hub's own row; restore it from a backup.")
    hub = HubRow(*row)
    if hub.schema_version > SCHEMA_VERSION:
        raise StorageError(
            f"{location.text} has schema version {hub.schema_version}, and this version of Holdfast knows "
            f"{SCHEMA_VERSION}: it was used by a newer one. Upgrade Holdfast, or name another schema with ?schema=."
        )
    return hub


async def take(connection: Connection, location: Location, claim: Claim) -> Ownership:
    """Take the hub, in the open transaction, as a new incarnation with new epochs.

    Raises:
        StoreInUseError: if the lease of another owner is not over.
        OwnershipLostError: if another one has had it since this store owned it: what happened there is not known here.
    """
    await connection.execute(_WAIT_BRIEFLY)
    try:
        node = await connection.fetchrow(QUERIES["read_node"])
    except asyncpg.LockNotAvailableError as error:
        raise StoreInUseError(f"{location.text} is in use: somebody is just changing it, or taking it.") from error
    if node is None:
        raise StorageError(f"{location.text} has lost its owner's row; restore it from a backup.")
    released, owner, token, left_s = node
    if not released and token != claim.token and left_s > 0:
        raise StoreInUseError(
            f"{location.text} is in use by {owner}, whose lease runs for {left_s:.1f} s more unless it renews it. Stop "
            "that one first, or let this one wait for it: the setting standby_s."
        )
    if claim.was_owner and token != claim.token:
        raise OwnershipLostError(f"{location.text} was taken over by {owner} meanwhile.")
    taken = await connection.fetchrow(QUERIES["take_node"], describe_owner(), claim.token, claim.lease_s)
    assert taken is not None, "its row was just read, and is locked"
    node_id, incarnation, lsn = taken
    epochs = {row["partition"]: row["epoch"] for row in await connection.fetch(QUERIES["take_partitions"], node_id)}
    if claim.after_crash if claim.after_crash is not None else not released:
        bounds = (claim.now, claim.suspect_deliveries)
        await connection.execute(_WAIT_LONG)
        await connection.execute(QUERIES["count_activity_deliveries"], *bounds, timeout=_COUNTING_S)
        await connection.execute(QUERIES["count_instance_deliveries"], *bounds, timeout=_COUNTING_S)
    if (await read_hub(connection, location)).partition_count != len(epochs):
        raise StorageError(f"{location.text} has lost rows of its partitions; restore them from a backup.")
    await connection.execute(QUERIES["renew_lease"], node_id, incarnation, claim.lease_s)  # it runs from now on
    return Ownership(Fence(node_id, incarnation, epochs), lsn, len(epochs), claim.lease_s)


async def renew(connection: Connection, fence: Fence, lease_s: float) -> None:
    """Prolong the lease.

    Raises:
        OwnershipLostError: if the fence does not hold any more.
    """
    if await connection.execute(QUERIES["renew_lease"], fence.node_id, fence.incarnation, lease_s) != "UPDATE 1":
        raise OwnershipLostError("Another host took the task hub over, or it was released.")
    await check_fence(connection, fence)


async def leave(connection: Connection, fence: Fence) -> None:
    """Give the hub up in good order.

    Raises:
        OwnershipLostError: if the fence does not hold any more.
    """
    if await connection.execute(QUERIES["release_node"], fence.node_id, fence.incarnation) != "UPDATE 1":
        raise OwnershipLostError("Another host took the task hub over, or it was released already.")


def describe_owner() -> str:
    """Describe this process to whoever finds the hub in use."""
    return f"process {os.getpid()} on host {platform.node() or 'unknown'}"
