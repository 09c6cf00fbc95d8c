"""Who may write: the schema and its version, and the lease of the owner, by the clock of the database."""

from __future__ import annotations

import logging
import os
import platform
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import asyncpg
import msgspec

from holdfast.errors import OwnershipLostError, StorageError, StoreInUseError
from holdfast.storage.port import Fence, Ownership
from holdfast.storage.postgres.connections import Connection, Connections
from holdfast.storage.postgres.location import Location
from holdfast.storage.postgres.patience import execute_patiently
from holdfast.storage.postgres.queries import PACKAGE, QUERIES
from holdfast.storage.statements import migration

logger = logging.getLogger("holdfast.storage")

SCHEMA_VERSION: Final = 1
COMPATIBLE_VERSION: Final = 1
"""The least version that a host must know to use these tables beside hosts of this one."""
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
    compatible_version: int
    partition_count: int


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a store asks for when it takes partitions. `token` tells it from every other store."""

    token: str
    lease_s: float
    functions: Sequence[str]
    was_owner: bool
    now: int
    after_crash: bool | None
    suspect_deliveries: int


class _Place(msgspec.Struct, frozen=True):
    """What is stored of a host, or was of the last one that had this place."""

    node_id: str
    released: bool
    owner: str
    token: str
    left_s: float

    @property
    def is_living(self) -> bool:
        return not self.released and self.left_s > 0


async def prepare(connection: Connection, location: Location) -> None:
    """Create or migrate the tables, in the open transaction; two hosts that start at once do it one after the other.

    It may lock whole tables, so nothing else should be waited for in this transaction.

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
        await connection.execute(QUERIES["create_hub"], location.partitions)
        await connection.execute(QUERIES["create_partitions"], location.partitions)
    if version < SCHEMA_VERSION:
        await connection.execute(QUERIES["migrated"], SCHEMA_VERSION, COMPATIBLE_VERSION)


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
    if hub.compatible_version > SCHEMA_VERSION:
        raise StorageError(
            f"{location.text} has schema version {hub.schema_version}, and this version of Holdfast knows "
            f"{SCHEMA_VERSION}: it was used by a newer one. Upgrade Holdfast, or name another schema with ?schema=."
        )
    return hub


async def take(connection: Connection, location: Location, claim: Claim) -> Ownership | StoreInUseError:
    """Take a fair share of the partitions, in the open transaction: what nobody owns who lives, never from the living.

    A host that owns more than its share gives up the rest. If there is nothing to have, the host has a place all the
    same, and the others give it a share when they hear of it; until then the error says who they are.

    Raises:
        StoreInUseError: if another host is just taking partitions.
    """
    await connection.execute(_WAIT_BRIEFLY)
    try:
        await connection.fetchval(QUERIES["lock_hub"])
        places = [_Place(*row) for row in await connection.fetch(QUERIES["read_nodes"])]
        crashed, freed = await _bury(connection, places, claim.token)
        mine = await _find_place(connection, places, claim.token, freed)
    except asyncpg.LockNotAvailableError as error:
        raise StoreInUseError(f"{location.text} is in use: somebody is just changing it, or taking it.") from error
    others = [each for each in places if each.is_living and each.node_id != mine]
    owners = {row["partition"]: row["node_id"] for row in await connection.fetch(QUERIES["read_partitions"])}
    hub = await read_hub(connection, location)
    if hub.partition_count != len(owners):
        raise StorageError(f"{location.text} has lost rows of its partitions; restore them from a backup.")
    kept, taken = share(owners, mine, len(others) + 1)
    incarnation = await connection.fetchval(QUERIES["next_incarnation"]) if kept or taken else 0
    lsn = await connection.fetchval(
        QUERIES["take_node"], mine, incarnation, describe_owner(), claim.token, claim.lease_s, claim.functions
    )
    await connection.execute(QUERIES["leave_partitions"], [each for each in owners if owners[each] == mine])
    rows = await connection.fetch(QUERIES["take_partitions"], mine, [*kept, *taken])
    counted = _that_may_have_crashed(claim, kept, taken, crashed)
    if counted:
        await _count_deliveries(connection, claim, counted)
        await connection.execute(QUERIES["renew_lease"], mine, incarnation, claim.lease_s)  # it runs from now on
    if not rows:
        return _in_use(location, others, share_is_due=len(others) < len(owners))
    epochs = {row["partition"]: row["epoch"] for row in rows}
    return Ownership(Fence(mine, incarnation, epochs), lsn, len(owners), claim.lease_s)


async def _find_place(connection: Connection, places: Sequence[_Place], token: str, freed: Collection[str]) -> str:
    """Return the place of this host: the one that it has, or one that is free, or a new one; locked."""
    own = [each.node_id for each in places if each.token == token and not each.released]
    free = [each.node_id for each in places if each.released or each.node_id in freed]
    mine = next(iter(own or free), f"n{len(places)}")
    if mine == f"n{len(places)}":
        await connection.execute(QUERIES["create_node"], mine)
    await connection.execute(QUERIES["lock_node"], mine)
    return mine


async def _bury(connection: Connection, places: Sequence[_Place], token: str) -> tuple[set[int], set[str]]:
    """Free the places of those whose leases are over; return which partitions they had, and the places."""
    partitions, nodes = set[int](), set[str]()
    for place in places:
        if place.is_living or place.released or place.token == token:
            continue
        row = await connection.fetchrow(QUERIES["lock_node"], place.node_id)
        assert row is not None, "places are never removed"
        released, left_s = row
        if not released and left_s <= 0:  # else a commit that was in flight has prolonged it
            logger.warning("The lease of %s is over: what it owned is free for others.", place.owner)
            await connection.execute(QUERIES["free_node"], place.node_id)
            freed = await connection.fetch(QUERIES["free_partitions"], place.node_id)
            partitions.update(row["partition"] for row in freed)
            nodes.add(place.node_id)
    return partitions, nodes


def share(owners: Mapping[int, str], mine: str, hosts: int) -> tuple[list[int], list[int]]:
    """Return which of its partitions a host keeps, and which it takes of those that nobody owns.

    All hosts are to own as many, or one less; and nothing moves that need not.
    """
    counts = Counter(owner for owner in owners.values() if owner and owner != mine)
    fair = fair_share(len(owners), hosts, counts.values())
    kept = [partition for partition in sorted(owners) if owners[partition] == mine][:fair]
    free = [partition for partition in sorted(owners) if not owners[partition]]
    return kept, free[: fair - len(kept)]


def fair_share(partitions: int, hosts: int, others: Iterable[int]) -> int:
    """Return how many partitions a host may own, given how many the other ones do.

    What is left over when they are divided evenly, one each, is for those that have it already, then for who comes.
    """
    least, left_over = divmod(partitions, hosts)
    return least + (sum(count > least for count in others) < left_over)


def _that_may_have_crashed(claim: Claim, kept: list[int], taken: list[int], crashed: set[int]) -> set[int]:
    """Return the partitions in which the deliveries of what may have been running are to be counted.

    What a store says of a crash is about what it owned itself; if it owned nothing, about whatever it takes.
    """
    if claim.was_owner:
        return crashed | (set() if claim.after_crash is False else set(kept))
    if claim.after_crash is None:
        return crashed
    return {*kept, *taken, *crashed} if claim.after_crash else set()


async def _count_deliveries(connection: Connection, claim: Claim, partitions: set[int]) -> None:
    bounds = (claim.now, claim.suspect_deliveries, sorted(partitions))
    await connection.execute(_WAIT_LONG)
    await connection.execute(QUERIES["count_activity_deliveries"], *bounds, timeout=_COUNTING_S)
    await connection.execute(QUERIES["count_instance_deliveries"], *bounds, timeout=_COUNTING_S)


def _in_use(location: Location, others: Sequence[_Place], *, share_is_due: bool) -> StoreInUseError:
    if not others:
        return StoreInUseError(f"{location.text} is in use: its partitions are just changing hands.", share_is_due=True)
    first, more = others[0], f" and {len(others) - 1} more" if len(others) > 1 else ""
    if share_is_due:
        return StoreInUseError(
            f"{location.text} is in use by {first.owner}{more}. They hear of this host now, and give up its share.",
            share_is_due=True,
        )
    return StoreInUseError(
        f"{location.text} is in use by {first.owner}{more}, whose lease runs for {first.left_s:.1f} s more unless it "
        "renews it, and there is no partition for another host. One with the setting standby_s waits for its turn."
    )


async def renew(connections: Connections, fence: Fence, lease_s: float) -> bool:
    """Prolong the lease; return whether partitions should move, to or from this host.

    Raises:
        OwnershipLostError: if the fence does not hold any more.
    """
    owned, epochs = list(fence.epochs), list(fence.epochs.values())
    asked = (fence.node_id, fence.incarnation, owned, epochs, lease_s)
    [row] = await connections.commit(QUERIES["renew"], *asked, is_repeatable=True)
    if not row["holds"]:
        raise OwnershipLostError("Another host took the task hub over, or it was released.")
    partitions, others = row["partitions"], row["others"]
    fair = fair_share(partitions, len(others) + 1, others)
    return len(owned) > fair or (len(owned) < fair and len(owned) + sum(others) < partitions)


async def leave(connection: Connection, fence: Fence) -> None:
    """Give the hub up in good order.

    Raises:
        OwnershipLostError: if the fence does not hold any more.
    """
    if await connection.execute(QUERIES["release_node"], fence.node_id, fence.incarnation) != "UPDATE 1":
        raise OwnershipLostError("Another host took the task hub over, or it was released already.")
    await connection.execute(QUERIES["free_partitions"], fence.node_id)


def describe_owner() -> str:
    """Describe this process to whoever finds the hub in use."""
    return f"process {os.getpid()} on host {platform.node() or 'unknown'}"
