"""What only the PostgreSQL adapter promises: its lease, its schema, and faults of the server and of the way to it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
import pytest
from postgres_faults import gate, until, wire
from storage_builders import (
    NOW,
    Hub,
    Owner,
    activity,
    child,
    history,
    in_loop,
    instance,
    message,
    operation_key,
    own,
    timer,
    update,
)

from holdfast.errors import (
    CommitFailedError,
    ConfigurationError,
    OwnershipLostError,
    StorageError,
    StoreInUseError,
)
from holdfast.storage.open_store import open_store
from holdfast.storage.port import ArrivalRow, Store
from holdfast.storage.postgres import connections, ownership, queries
from holdfast.storage.postgres.ownership import SCHEMA_VERSION
from holdfast.storage.postgres.queries import QUERIES
from postgres_kit import connect, drop, execute, new_schema, schema_of

HERE: Final = Path(__file__).parent


@pytest.fixture
def pg_hub(postgres_server: str, tmp_path: Path) -> Iterator[Hub]:
    hub = Hub("postgres", tmp_path / "no file", new_schema(postgres_server))
    yield hub
    drop(hub.url)


@pytest.fixture
def short_hub(postgres_server: str, tmp_path: Path) -> Iterator[Hub]:
    """One with a lease of a second."""
    hub = Hub("postgres", tmp_path / "no file", f"{new_schema(postgres_server)}&lease_s=1")
    yield hub
    drop(hub.url)


async def ask(hub: Hub, query: str, *parameters: object) -> Any:
    connection = await connect(hub.url)
    try:
        return await connection.fetchval(query, *parameters)
    finally:
        await connection.close()


async def refused(store: Store, match: str) -> StorageError:
    with pytest.raises(StorageError, match=match) as caught:
        await store.acquire(NOW)
    return caught.value


def pool_of(store: Store) -> connections.Connections:
    return store._connections  # pyright: ignore


async def sleep_long(connection: connections.Connection) -> None:
    await connection.execute("SELECT pg_sleep(50)")


def forget(*_: object) -> None:
    """Do nothing."""


async def take_over(hub: Hub) -> Owner:
    """Acquire as soon as that is possible."""
    store = hub.connect()
    while True:
        try:
            return Owner(store, await store.acquire(NOW))
        except StoreInUseError:
            await asyncio.sleep(0.02)


# The lease


@in_loop
async def test_an_owner_of_which_nothing_is_heard_is_replaced_when_its_lease_is_over(short_hub: Hub) -> None:
    owner = await own(short_hub)
    await owner.commit(instances_inserted=[instance()])
    await refused(short_hub.connect(), r"in use by process \d+ on host .*, whose lease runs for [01]\.\d s more")
    successor = await take_over(short_hub)
    assert (successor.fence.incarnation, successor.lsn) == (2, 1)
    with pytest.raises(OwnershipLostError):
        await owner.commit(instances_updated=[update()])
    with pytest.raises(OwnershipLostError):
        await owner.store.renew(owner.fence)
    with pytest.raises(OwnershipLostError):
        await owner.store.release(owner.fence)
    await successor.commit(instances_updated=[update()])


@pytest.mark.parametrize("ahead_s", [-600, 600, 10**9])
@in_loop
async def test_clocks_of_hosts_have_no_say_in_leases(pg_hub: Hub, ahead_s: int) -> None:
    owner = await own(pg_hub)
    with pytest.raises(StoreInUseError, match=r"whose lease runs for 1\d\.\d s more"):
        await pg_hub.connect().acquire(NOW + ahead_s * 1_000_000)
    await pg_hub.lose_lock()
    store = pg_hub.connect()
    await store.acquire(NOW + ahead_s * 1_000_000)
    assert 14 < await ask(pg_hub, "SELECT max(extract(epoch FROM lease_until - clock_timestamp())) FROM node") <= 15
    with pytest.raises(OwnershipLostError):
        await owner.commit(instances_inserted=[instance()])


@pytest.mark.parametrize("how", ["commit", "renew"])
@in_loop
async def test_an_owner_prolongs_its_lease(pg_hub: Hub, how: str) -> None:
    owner = await own(pg_hub)
    await pg_hub.lose_lock()
    if how == "commit":
        await owner.commit(instances_inserted=[instance()])
    else:
        await owner.store.renew(owner.fence)
    assert 10 < await ask(pg_hub, "SELECT extract(epoch FROM lease_until - clock_timestamp()) FROM node") <= 15
    await refused(pg_hub.connect(), "in use by process")


@in_loop
async def test_an_owner_whose_lease_is_over_goes_on_if_nobody_came(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    await pg_hub.lose_lock()
    await owner.commit(instances_inserted=[instance()])
    assert owner.lsn == 1


@in_loop
async def test_closing_lets_another_one_in_at_once_which_counts_the_deliveries(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    await owner.commit(instances_inserted=[instance()], activities_inserted=[activity()])
    await owner.store.close()
    successor = await own(pg_hub)
    assert [row.deliveries for row in (await successor.load_one()).activities] == [1]


@in_loop
async def test_closing_a_store_that_was_replaced_does_not_end_the_lease_of_its_successor(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    await pg_hub.lose_lock()
    await own(pg_hub)
    await owner.store.close()
    await refused(pg_hub.connect(), "in use")


@in_loop
async def test_an_owner_that_never_heard_that_it_is_one_lets_the_next_in_when_it_closes(pg_hub: Hub) -> None:
    await (await own(pg_hub)).store.close()
    async with wire(pg_hub.url) as cut:
        deaf = open_store(cut.url)
        deaf._is_prepared = True  # pyright: ignore - else it is the answer about the tables that gets lost
        cut.loses = "its answer"
        assert "not known" in str(await refused(deaf, "not known"))
        assert await ask(pg_hub, "SELECT incarnation FROM node") == 2
        await deaf.close()
    assert (await own(pg_hub)).fence.incarnation == 3


@in_loop
async def test_of_many_that_acquire_at_once_a_hub_that_is_not_there_yet_one_has_it(pg_hub: Hub) -> None:
    stores = [pg_hub.connect() for _ in range(8)]
    outcomes = await asyncio.gather(*(store.acquire(NOW) for store in stores), return_exceptions=True)
    assert [type(each) for each in outcomes if isinstance(each, BaseException)] == [StoreInUseError] * 7
    assert await ask(pg_hub, "SELECT incarnation FROM node") == 1
    assert await ask(pg_hub, "SELECT count(*) FROM hub") == 1


# Schemas that cannot be used


@in_loop
async def test_reading_before_a_host_came_says_that_there_is_no_hub(pg_hub: Hub) -> None:
    with pytest.raises(StorageError, match=r"no task hub at .* yet: it is created when a host first starts on it"):
        await pg_hub.connect().read_instance("i")
    assert await ask(pg_hub, "SELECT count(*) FROM pg_namespace WHERE nspname = $1", schema_of(pg_hub.url)) == 0


@in_loop
async def test_the_schema_of_another_application_is_refused(pg_hub: Hub) -> None:
    schema = schema_of(pg_hub.url)
    await execute(pg_hub.url, f"CREATE SCHEMA {schema}; CREATE TABLE {schema}.hub (name text)")
    await refused(pg_hub.connect(), r"belongs to something else; name another one with \?schema=")
    assert await ask(pg_hub, "SELECT count(*) FROM pg_tables WHERE schemaname = $1", schema) == 1


@in_loop
async def test_a_newer_version_is_refused_to_hosts_and_readers(pg_hub: Hub) -> None:
    await (await own(pg_hub)).store.close()
    newer = SCHEMA_VERSION + 1
    await execute(pg_hub.url, f"UPDATE hub SET schema_version = {newer}, compatible_version = {newer}")
    await refused(pg_hub.connect(), "used by a newer one. Upgrade Holdfast")
    with pytest.raises(StorageError, match=r"used by a newer one\. Upgrade Holdfast"):
        await pg_hub.connect().read_instance("i")


MORE_COLUMNS: Final = "; ".join(
    f"ALTER TABLE {table} ADD COLUMN of_the_next_version TEXT"
    for table in (
        *("hub", "node", "partition", "instance", "history", "inbox", "arrival", "request"),
        *("activity", "offer", "timer", "child", "operation_key"),
    )
)


@in_loop
async def test_tables_are_migrated_once_and_owners_of_the_version_before_go_on(
    pg_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = await own(pg_hub)
    await before.commit(
        instances_inserted=[instance()],
        history_inserted=[history()],
        messages_inserted=[message()],
        arrivals_inserted=[ArrivalRow(0, "i", None, "{}")],
        activities_inserted=[activity()],
        timers_inserted=[timer()],
        children_inserted=[child()],
    )
    stored = await before.load_one()
    scripts, migrated = ownership.migration, list[int]()

    def planted(package: str, number: int) -> str:
        migrated.append(number)
        return MORE_COLUMNS if number > SCHEMA_VERSION else scripts(package, number)

    with monkeypatch.context() as of_the_next_version:
        of_the_next_version.setattr(ownership, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        of_the_next_version.setattr(ownership, "migration", planted)
        newcomers = [pg_hub.connect() for _ in range(3)]
        outcomes = await asyncio.gather(*(each.acquire(NOW) for each in newcomers), return_exceptions=True)
        assert [type(each) for each in outcomes] == [StoreInUseError] * 3
        assert migrated == [SCHEMA_VERSION + 1]
    assert await ask(pg_hub, "SELECT ARRAY[schema_version, compatible_version] FROM hub") == [SCHEMA_VERSION + 1, 1]
    assert await before.load_one() == stored
    assert await before.store.load_history("i", "i-e") == ["[]"]
    assert await before.store.arrivals(0, 9) == [ArrivalRow(0, "i", None, "{}", 1)]
    assert (await before.store.activities_visible(NOW, 9), await before.store.timers_due(NOW, 9)) == (
        [activity()],
        [timer()],
    )
    await before.commit(
        instances_updated=[update()],
        messages_removed=[1],
        arrivals_removed=[1],
        activities_removed=[activity().key],
        timers_removed=[timer().key],
        children_removed=[child().key],
    )
    assert await before.store.renew(before.fence) is False
    assert (await before.store.acquire(NOW)).lsn == before.lsn


@pytest.mark.parametrize(("table", "match"), [("hub", "the hub's own row"), ("partition", "rows of its partitions")])
@in_loop
async def test_a_hub_that_has_lost_its_own_rows_is_refused(pg_hub: Hub, table: str, match: str) -> None:
    await (await own(pg_hub)).store.close()
    await execute(pg_hub.url, f"DELETE FROM {table}")
    await refused(pg_hub.connect(), f"has lost {match}; restore (it|them) from a backup")


@in_loop
async def test_who_may_not_create_schemas_can_be_given_one(pg_hub: Hub) -> None:
    role = f"guest_{schema_of(pg_hub.url)}"
    await execute(pg_hub.url, f"CREATE ROLE {role} LOGIN")
    as_guest = Hub("postgres", pg_hub.path, pg_hub.url.replace("postgres:@", f"{role}@"))
    assert as_guest.url != pg_hub.url
    try:
        await refused(as_guest.connect(), "must be allowed to create a schema in the database, or own the one")
        await execute(pg_hub.url, f"CREATE SCHEMA {schema_of(pg_hub.url)} AUTHORIZATION {role}")
        owner = await own(as_guest)
        await owner.commit(instances_inserted=[instance()])
    finally:
        await as_guest.close()
        await execute(pg_hub.url, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@in_loop
async def test_a_database_that_does_not_keep_unicode_is_refused(pg_hub: Hub) -> None:
    name = f"latin_{schema_of(pg_hub.url)}"
    await execute(pg_hub.url, f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    store = open_store(pg_hub.url.replace("/postgres?", f"/{name}?"))
    await refused(store, "keeps texts as LATIN1; create one with ENCODING 'UTF8'")
    await store.close()
    await execute(pg_hub.url, f"DROP DATABASE {name}")


@in_loop
async def test_values_that_cannot_be_stored_refuse_their_group_alone(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    for bad in (instance(updated_at=2**63), instance(name="\ud800"), instance(name="\0"), instance(output="x\0")):
        with pytest.raises(CommitFailedError, match="Nothing was committed") as caught:
            await owner.commit(instances_inserted=[bad])
        assert not caught.value.outcome_unknown
    with pytest.raises(StorageError):
        await owner.store.read_instance("\ud800")
    await owner.commit(instances_inserted=[instance()])


@in_loop
async def test_a_url_with_another_number_of_partitions_than_the_hub_has_is_reported_once(
    pg_hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    await (await own(pg_hub)).store.close()
    url = pg_hub.url.replace("partitions=1", "partitions=7")
    store = open_store(url)
    for _ in range(2):
        assert (await store.acquire(NOW)).partition_count == 1
    await store.close()
    [said] = [each.getMessage() for each in caplog.records if "partitions=" in each.getMessage()]
    assert "has 1 partitions, and ?partitions=7 of the URL has no effect" in said


@in_loop
async def test_a_hub_has_64_partitions_unless_the_url_says_another_number(pg_hub: Hub) -> None:
    store = open_store(pg_hub.url.replace("&partitions=1", ""))
    ownership = await store.acquire(NOW)
    assert (ownership.partition_count, sorted(ownership.fence.epochs)) == (64, list(range(64)))
    await store.close()


@pytest.mark.parametrize("asked", ["&partitions=1", ""])
@in_loop
async def test_a_url_that_names_no_other_number_of_partitions_is_not_worth_a_word(
    pg_hub: Hub, caplog: pytest.LogCaptureFixture, asked: str
) -> None:
    await (await own(pg_hub)).store.close()
    store = open_store(pg_hub.url.replace("&partitions=1", asked))
    assert (await store.acquire(NOW)).partition_count == 1
    await store.close()
    assert "partitions=" not in caplog.text


# Ways to the server that lead nowhere


SECRET: Final = "s3cret"


@pytest.mark.parametrize(
    ("url", "match"),
    [
        (f"postgresql://me:{SECRET}@127.0.0.1:1/db", "Is the server running, and may this host reach it"),
        (f"postgresql://me:{SECRET}@/db?host=/nowhere", "Is the server running"),
        (f"postgresql://me@/db?host=/nowhere&password={SECRET}", "Is the server running"),
        (f"postgresql://me:{SECRET}@/db?host=/nowhere&sslmode=bad", "sslmode"),
    ],
)
@in_loop
async def test_a_server_that_is_not_there_is_reported_without_the_password(url: str, match: str) -> None:
    store = open_store(url)
    for method in (lambda: store.acquire(NOW), lambda: store.read_instance("i")):
        with pytest.raises(StorageError, match=match) as caught:
            await method()
        assert SECRET not in str(caught.value)
    await store.close()


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:x/{SECRET}@host/db",
        f"postgresql://me:1/{SECRET}@host/db",
        f"postgresql://me:1?{SECRET}@host/db",
        f"postgresql://me:1#{SECRET}@host/db",
        f"postgresql://me:[{SECRET}@host/db",
        f"postgresql://me:x@host:{SECRET}/db",
        f"postgresql://me:{SECRET}@host:999999/db",
    ],
)
def test_a_url_with_a_password_that_is_not_encoded_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match="must be percent-encoded") as caught:
        open_store(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("lease", ["0", "0.9", "3601", "-1", "nan", "inf", "1e3", "", "x"])
def test_a_lease_that_cannot_be_is_refused(lease: str) -> None:
    with pytest.raises(ConfigurationError, match="from 1 to 3600 seconds"):
        open_store(f"postgresql://host/db?lease_s={lease}")


@in_loop
async def test_a_database_that_is_not_there_is_reported(pg_hub: Hub) -> None:
    store = open_store(pg_hub.url.replace("/postgres?", "/nowhere?"))
    await refused(store, "Create the database first")
    await store.close()


@in_loop
async def test_a_wrong_password_is_reported_without_it(pg_hub: Hub) -> None:
    role = f"locked_{schema_of(pg_hub.url)}"
    await execute(pg_hub.url, f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'right@/?#:[]%'")
    rules = Path(await ask(pg_hub, "SHOW hba_file"))
    rules_before = rules.read_text()  # noqa: ASYNC240 - nothing else runs in this loop
    rules.write_text(f"local all {role} scram-sha-256\n{rules_before}")  # noqa: ASYNC240
    try:
        await execute(pg_hub.url, "SELECT pg_reload_conf()")

        def url(password: str) -> str:
            return pg_hub.url.replace("postgres:@", f"{role}:{password}@")

        async def is_locked() -> bool:
            store = open_store(url("wrong"))
            try:
                await store.acquire(NOW)
                await execute(pg_hub.url, "UPDATE node SET released = true")
            except StorageError:
                return True
            finally:
                await store.close()
            return False

        await until(is_locked)
        store = open_store(url(SECRET))
        error = await refused(store, "password authentication failed.*Check the user and the password of the URL")
        assert SECRET not in str(error)
        await store.close()
        store = open_store(url("right%40%2F%3F%23%3A%5B%5D%25"))
        await store.acquire(NOW)
        await store.close()
    finally:
        rules.write_text(rules_before)  # noqa: ASYNC240
        await execute(pg_hub.url, f"SELECT pg_reload_conf(); DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


# Durability


@pytest.mark.parametrize(("default", "held"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
@in_loop
async def test_a_default_that_is_not_durable_does_not_hold_for_commits(pg_hub: Hub, default: str, held: str) -> None:
    role = f"relaxed_{schema_of(pg_hub.url)}"
    await execute(pg_hub.url, f"CREATE ROLE {role} LOGIN SUPERUSER")
    await execute(pg_hub.url, f"ALTER ROLE {role} SET synchronous_commit = {default}")
    relaxed = Hub("postgres", pg_hub.path, pg_hub.url.replace("postgres:@", f"{role}@"))
    try:
        owner = await own(relaxed)
        await execute(
            pg_hub.url,
            """
            CREATE TABLE seen (setting text);
            CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
            CREATE CONSTRAINT TRIGGER see AFTER UPDATE ON node DEFERRABLE INITIALLY DEFERRED
                FOR EACH ROW EXECUTE FUNCTION see();
            """,
        )
        await owner.commit(instances_inserted=[instance()])
        await owner.store.renew(owner.fence)
        assert await ask(pg_hub, "SELECT array_agg(setting) FROM seen") == [held, held]
    finally:
        await relaxed.close()
        await execute(pg_hub.url, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


# Connections that break

POOLERS: Final = ("none", "transaction")
"""A commit is one call that is a transaction by itself, or three within one that can be told apart."""


def through(hub: Hub, pooler: str) -> Hub:
    """Connect to a hub in this way from now on."""
    hub.url += f"&pooler={pooler}"
    return hub


@in_loop
async def test_a_connection_that_was_cut_between_commits_is_opened_again(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    await owner.commit(instances_inserted=[instance()])
    await owner.load_one()
    keeper = await connect(pg_hub.url)
    await keeper.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    pool = pool_of(owner.store)
    while not all(each.is_closed() for each in (pool._writer, *pool._readers) if each):  # pyright: ignore
        await asyncio.sleep(0)
    assert (await owner.load_one()).row == instance()
    await owner.commit(instances_updated=[update()])
    await keeper.close()


def end_at_once(pids: list[int]) -> None:
    """End processes of the server, and give the loop no chance to hear of it."""
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
    for pid in pids:
        with suppress(ProcessLookupError):
            for _ in range(3_000):
                os.kill(pid, 0)
                time.sleep(0.01)


@pytest.mark.parametrize("pooler", POOLERS)
@in_loop
async def test_a_connection_of_which_nobody_knows_yet_that_it_broke_is_opened_again(pg_hub: Hub, pooler: str) -> None:
    """As after a restart of the server, or behind a network that forgets connections on which nothing is said."""
    owner = await own(through(pg_hub, pooler))
    await owner.commit(instances_inserted=[instance()])
    await asyncio.gather(owner.load_one(), owner.load_one())
    pool = pool_of(owner.store)
    kept = [each for each in (pool._writer, *pool._readers) if each]  # pyright: ignore
    assert len(kept) == 3
    end_at_once([each.get_server_pid() for each in kept])
    assert not any(each.is_closed() for each in kept)
    assert (await owner.load_one()).row == instance()
    if pooler == "none":  # what is a transaction by itself has nothing before it that could fail first
        await owner.store.renew(owner.fence)
    await owner.commit(instances_updated=[update()])
    assert owner.lsn == 2


@pytest.mark.parametrize("pooler", POOLERS)
@in_loop
async def test_a_question_on_a_connection_that_broke_unnoticed_is_asked_again(pg_hub: Hub, pooler: str) -> None:
    owner = await own(through(pg_hub, pooler))
    await owner.commit(instances_inserted=[instance()])
    await asyncio.gather(owner.load_one(), owner.load_one())
    pool = pool_of(owner.store)
    end_at_once([each.get_server_pid() for each in pool._readers])  # pyright: ignore
    assert not any(each.is_closed() for each in pool._readers)  # pyright: ignore
    assert await owner.store.read_instance("i") == instance()
    assert await owner.store.read_instance("i") == instance()
    with pytest.raises(StorageError, match="division by zero"):
        await pool.ask("SELECT 1 / 0")


@in_loop
async def test_of_a_commit_on_a_connection_that_broke_unnoticed_the_outcome_is_not_known(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    await owner.commit(instances_inserted=[instance()])
    pool = pool_of(owner.store)
    writer = pool._writer  # pyright: ignore
    assert writer is not None
    end_at_once([writer.get_server_pid()])
    assert not writer.is_closed()
    with pytest.raises(CommitFailedError, match="not known whether the commit was applied") as caught:
        await owner.commit(instances_updated=[update()])
    assert caught.value.outcome_unknown
    assert (await owner.load_one()).row == instance(), "it was not made again"
    await owner.commit(instances_updated=[update()])
    assert owner.lsn == 2


@pytest.mark.parametrize(("kind", "pooler"), [("read", "none"), ("renew", "none"), ("commit", "transaction")])
@in_loop
async def test_a_transaction_that_cannot_begin_twice_is_not_begun_again(pg_hub: Hub, kind: str, pooler: str) -> None:
    owner = await own(through(pg_hub, pooler))
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "read": owner.load_one,
        "renew": lambda: owner.store.renew(owner.fence),
        "commit": lambda: owner.commit(instances_updated=[update()]),
    }
    await owner.commit(instances_inserted=[instance()])
    await owner.load_one()
    pool = pool_of(owner.store)
    opened: list[connections.Connection] = []

    async def broken() -> connections.Connection:
        opened.append(await connect(pg_hub.url))
        end_at_once([opened[-1].get_server_pid()])
        return opened[-1]

    end_at_once([each.get_server_pid() for each in (pool._writer, *pool._readers) if each])  # pyright: ignore
    pool.connect = broken  # pyright: ignore
    with pytest.raises(StorageError) as caught:
        await calls[kind]()
    if isinstance(caught.value, CommitFailedError):
        assert not caught.value.outcome_unknown
    assert [each.is_closed() for each in opened] == [True]
    del pool.connect  # pyright: ignore
    assert (await owner.load_one()).row == instance()


@in_loop
async def test_who_forgets_to_name_a_pooler_is_told(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    await owner.commit(instances_inserted=[instance()])
    await owner.load_one()
    [connection] = pool_of(owner.store)._readers  # pyright: ignore
    await connection.execute("DEALLOCATE ALL")  # as if another connection had answered
    with pytest.raises(StorageError, match=r"pooler=transaction") as caught:
        await owner.load_one()
    assert "statement_cache_size" not in str(caught.value)


ASLEEP: Final = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"


@in_loop
async def test_a_read_that_was_given_up_stops_on_the_server_and_leaves_a_connection_that_works(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    await owner.commit(instances_inserted=[instance()])
    await owner.load_one()
    pool = pool_of(owner.store)
    [connection] = pool._readers  # pyright: ignore
    pid = connection.get_server_pid()
    keeper = await connect(pg_hub.url)
    for _ in range(6):  # more often than there are places
        reading = asyncio.ensure_future(pool.read(sleep_long))
        await until(lambda: keeper.fetchval(f"{ASLEEP} AND pid = $1", pid))
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await until(lambda: keeper.fetchval("SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $1", pid))
        while not pool._readers:  # pyright: ignore
            await asyncio.sleep(0)
        assert pool._readers == [connection]  # pyright: ignore
    assert (await owner.load_one()).row == instance()
    await keeper.close()


@in_loop
async def test_a_read_that_failed_leaves_a_connection_that_works(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    pool = pool_of(owner.store)
    for _ in range(6):
        with pytest.raises(StorageError, match="division by zero"):
            await pool.read(lambda each: each.execute("SELECT 1 / 0"))
        while pool._undoing:  # pyright: ignore
            await asyncio.sleep(0)
        assert len(pool._readers) == 1  # pyright: ignore
    assert await owner.store.load(["i"]) == []


@in_loop
async def test_closing_waits_for_reads_that_were_given_up_and_leaves_no_connection(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    pool = pool_of(owner.store)
    keeper = await connect(pg_hub.url)
    reading = [asyncio.ensure_future(pool.read(sleep_long)) for _ in range(6)]
    await until(lambda: keeper.fetchval(f"SELECT ({ASLEEP}) = 4"))
    for each in reading:
        each.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    await owner.store.close()
    assert not pool._undoing  # pyright: ignore
    others = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    await until(lambda: keeper.fetchval(f"SELECT ({others}) = 0"))
    await keeper.close()


@in_loop
async def test_a_read_that_cannot_be_undone_gives_its_place_back(pg_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_UNDO_S", 0.01)
    monkeypatch.setattr(asyncpg.Connection, "_cancel_current_command", forget)  # it gets lost on the way
    owner = await own(pg_hub)
    await owner.commit(instances_inserted=[instance()])
    pool = pool_of(owner.store)

    keeper = await connect(pg_hub.url)
    for done in range(6):
        reading = asyncio.ensure_future(pool.read(sleep_long))
        await until(lambda: keeper.fetchval(f"SELECT ({ASLEEP}) = {done + 1}"))  # noqa: B023 - awaited here
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert (await owner.load_one()).row == instance()
    await keeper.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'")
    await keeper.close()


@pytest.mark.parametrize("pooler", POOLERS)
@in_loop
async def test_a_connection_that_is_cut_within_a_transaction_has_applied_nothing(pg_hub: Hub, pooler: str) -> None:
    owner = await own(through(pg_hub, pooler))
    async with gate(pg_hub.url, "INSERT ON history") as held:
        await held.shut()
        committing = asyncio.ensure_future(owner.commit(history_inserted=[history()]))
        await held.terminate(await held.arrival())
        with pytest.raises(CommitFailedError, match="terminating connection") as caught:
            await committing
        assert caught.value.outcome_unknown == (pooler == "none")
        assert ("Nothing was committed" in str(caught.value)) == (pooler == "transaction")
        await held.open()
        await owner.commit(history_inserted=[history()])
    assert await owner.store.load_history("i", "i-e") == ["[]"]


@pytest.mark.parametrize("pooler", POOLERS)
@in_loop
async def test_of_a_connection_that_is_cut_at_the_commit_the_outcome_is_not_known(pg_hub: Hub, pooler: str) -> None:
    owner = await own(through(pg_hub, pooler))
    async with gate(pg_hub.url, "INSERT ON history", deferred=True) as held:
        await held.shut()
        committing = asyncio.ensure_future(owner.commit(history_inserted=[history()]))
        pid = await held.arrival()
        query = await held.keeper.fetchval("SELECT query FROM pg_stat_activity WHERE pid = $1", pid)
        assert (query == "COMMIT") == (pooler == "transaction")
        await held.terminate(pid)
        with pytest.raises(CommitFailedError, match="not known whether the commit was applied") as caught:
            await committing
        assert caught.value.outcome_unknown
        await held.open()
        await owner.commit(history_inserted=[history()])
    assert await owner.store.load_history("i", "i-e") == ["[]"]


@pytest.mark.parametrize("pooler", POOLERS)
@in_loop
async def test_a_commit_whose_answer_got_lost_is_found_when_acquired_again(pg_hub: Hub, pooler: str) -> None:
    async with wire(through(pg_hub, pooler).url) as cut:
        store = open_store(cut.url)
        owner = Owner(store, await store.acquire(NOW))
        cut.commit = b"insert_instances" if pooler == "none" else cut.commit
        cut.loses = "its answer"
        with pytest.raises(CommitFailedError) as caught:
            await owner.commit(instances_inserted=[instance()])
        assert caught.value.outcome_unknown
        with pytest.raises(CommitFailedError, match="follows lsn 0, but the store is at 1") as again:
            await owner.commit(instances_inserted=[instance()])
        assert not again.value.outcome_unknown
        owner = Owner(store, await store.acquire(NOW, after_crash=False))
        assert (owner.lsn, (await owner.load_one()).row) == (1, instance())
        await store.close()


@pytest.mark.parametrize("pooler", POOLERS)
@pytest.mark.parametrize(("state", "unknown"), [("40001", False), ("23505", False), ("40003", True), ("58000", True)])
@in_loop
async def test_an_error_at_a_commit_is_certain_or_not(pg_hub: Hub, state: str, unknown: bool, pooler: str) -> None:
    owner = await own(through(pg_hub, pooler))
    await execute(
        pg_hub.url,
        f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'planted' USING ERRCODE = '{state}'; END $$;
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON history DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION refuse();
        """,
    )
    with pytest.raises(CommitFailedError, match="planted") as caught:
        await owner.commit(history_inserted=[history()])
    assert caught.value.outcome_unknown == unknown
    await owner.commit(instances_inserted=[instance()])


@in_loop
async def test_a_commit_for_which_there_is_no_server_has_failed_for_certain(pg_hub: Hub) -> None:
    async with wire(pg_hub.url) as way:
        store = open_store(way.url)
        owner = Owner(store, await store.acquire(NOW))
        pool = pool_of(store)
        pool._writer.terminate()  # pyright: ignore
    with pytest.raises(CommitFailedError, match=r"Nothing was committed.*Is the server running") as caught:
        await owner.commit(instances_inserted=[instance()])
    assert not caught.value.outcome_unknown
    await store.close()


@in_loop
async def test_a_store_that_is_closed_leaves_no_connection_behind(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    await owner.commit(instances_inserted=[instance()])
    keeper = await connect(pg_hub.url)
    await keeper.execute("BEGIN; LOCK TABLE instance")
    reading = [asyncio.ensure_future(owner.store.read_instance("i")) for _ in range(6)]
    query = "SELECT count(*) FROM pg_locks WHERE relation = 'instance'::regclass AND NOT granted"
    await until(lambda: keeper.fetchval(query))
    await owner.store.close()
    await keeper.execute("COMMIT")
    outcomes = await asyncio.gather(*reading, return_exceptions=True)
    assert [each for each in outcomes if not isinstance(each, StorageError)].count(instance()) >= 1
    others = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    await until(lambda: keeper.fetchval(f"SELECT ({others}) = 0"))
    await keeper.close()


@in_loop
async def test_a_commit_does_not_rely_on_what_the_session_is_like(pg_hub: Hub) -> None:
    """A pooler that nobody told of may have given it to somebody else, or not kept what was set."""
    owner = await own(pg_hub)
    await owner.commit(instances_inserted=[instance()])
    await execute(
        pg_hub.url,
        """
        CREATE TABLE seen (setting text);
        CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER see AFTER UPDATE ON node DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION see();
        """,
    )
    pool: connections.Connections = owner.store._connections  # pyright: ignore
    await pool._writer.execute("SET search_path = public; SET synchronous_commit = off")  # pyright: ignore
    await owner.commit(instances_updated=[update()])
    assert (await owner.load_one()).row == update().row
    assert await ask(pg_hub, "SELECT array_agg(setting) FROM seen") == ["on"]


@in_loop
async def test_a_commit_that_was_given_up_leaves_a_connection_that_works(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    async with gate(pg_hub.url, "INSERT ON history") as held:
        await held.shut()
        committing = asyncio.ensure_future(owner.commit(history_inserted=[history()]))
        await held.arrival()
        committing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await committing
        await held.open()
        await owner.commit(history_inserted=[history()])
    assert owner.lsn == 1


STUCK: Final = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
NOTIFIES: Final = "INSERT INTO noise VALUES (1); NOTIFY somebody"


@in_loop
async def test_a_commit_does_not_wait_for_those_who_notify(pg_hub: Hub) -> None:
    """Transactions with a NOTIFY commit one after the other, all over the database: none of ours is one of them."""
    await execute(pg_hub.url, "ALTER DATABASE postgres SET synchronous_commit = local")
    owner = await own(pg_hub)
    await execute(pg_hub.url, "CREATE TABLE noise (loudness integer)")
    keeper, notifier, other = [await connect(pg_hub.url) for _ in range(3)]
    await keeper.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    notifying = list[asyncio.Future[str]]()
    try:
        await keeper.execute("SELECT pg_reload_conf()")
        await until(lambda: keeper.fetchval("SELECT current_setting('synchronous_standby_names') = 'nobody'"))
        await notifier.execute("SET synchronous_commit = on")
        while not await keeper.fetchval(STUCK):  # the first may be through before all have heard of the setting
            if all(each.done() for each in notifying):
                notifying.append(asyncio.ensure_future(notifier.execute(NOTIFIES)))
            await asyncio.sleep(0.01)
        notifying.append(asyncio.ensure_future(other.execute(NOTIFIES)))
        await until(lambda: keeper.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        await owner.commit(
            instances_inserted=[instance()], arrivals_inserted=[ArrivalRow(0, "of-somebody-else", "e", "[]")]
        )
        await owner.store.renew(owner.fence)
        assert not any(each.done() for each in notifying[-2:])
    finally:
        await keeper.execute("ALTER SYSTEM RESET synchronous_standby_names")
        await keeper.execute("SELECT pg_reload_conf()")
        await keeper.execute("ALTER DATABASE postgres RESET synchronous_commit")
        await asyncio.gather(*notifying)
        for each in (keeper, notifier, other):
            await each.close()


# What takes long


SLOWLY: Final = "PERFORM pg_sleep(1.5)"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements are to take a second at most."""
    monkeypatch.setattr(connections, "_STATEMENT_S", 1.0)
    monkeypatch.setattr(connections, "DRIVER_S", 0.0)


@pytest.mark.usefixtures("hurried")
@in_loop
async def test_a_migration_may_take_longer_than_other_statements(pg_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = ownership.migration

    def slow(package: str, number: int) -> str:
        return f"{scripts(package, number)}; DO 'BEGIN {SLOWLY}; END'"

    monkeypatch.setattr(ownership, "migration", slow)
    owner = await own(pg_hub)
    await owner.commit(instances_inserted=[instance()])
    with pytest.raises(StorageError, match=r"(?i)timeout"):
        await pool_of(owner.store).read(sleep_long)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("episodes", [20_000, 20_001])
@in_loop
async def test_a_commit_that_removes_a_very_long_history_may_take_longer(pg_hub: Hub, episodes: int) -> None:
    owner = await own(pg_hub)
    await execute(
        pg_hub.url,
        f"""
        INSERT INTO history SELECT 0, 'i-e', n, '[]' FROM generate_series(0, {episodes - 1}) AS n;
        CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {SLOWLY}; RETURN NULL; END';
        CREATE TRIGGER slowly AFTER DELETE ON history FOR EACH STATEMENT EXECUTE FUNCTION slowly();
        """,
    )
    if episodes > 20_000:
        await owner.commit(executions_removed=[("i-e", episodes)])
        assert await ask(pg_hub, "SELECT count(*) FROM history") == 0
    else:
        with pytest.raises(CommitFailedError, match=r"(?i)timeout"):
            await owner.commit(executions_removed=[("i-e", episodes)])


# Two hosts at once


@pytest.mark.parametrize("end", ["applied", "cut"])
@in_loop
async def test_a_takeover_waits_for_the_commit_in_flight(pg_hub: Hub, end: str) -> None:
    owner = await own(pg_hub)
    await pg_hub.lose_lock()
    async with gate(pg_hub.url, "INSERT ON history", deferred=True) as held:
        await held.shut()
        committing = asyncio.ensure_future(owner.commit(history_inserted=[history()]))
        pid = await held.arrival()
        store = pg_hub.connect()
        taking = asyncio.ensure_future(store.acquire(NOW))
        await held.blocked_by(pid)
        if end == "applied":
            await held.open()
            await committing
            with pytest.raises(StoreInUseError):  # for it has just been heard of
                await taking
            await pg_hub.lose_lock()
            assert (await store.acquire(NOW)).lsn == 1
        else:
            await held.terminate(pid)
            with pytest.raises(CommitFailedError, match="not known"):
                await committing
            assert (await taking).lsn == 0
            await held.open()
    with pytest.raises(OwnershipLostError):
        await owner.commit(history_inserted=[history("i-e", 1)])
    assert await store.load_history("i", "i-e") == (["[]"] if end == "applied" else [])


@in_loop
async def test_a_commit_that_waits_for_a_takeover_is_refused(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    await pg_hub.lose_lock()
    async with gate(pg_hub.url, "UPDATE ON partition") as held:
        await held.shut()
        store = pg_hub.connect()
        taking = asyncio.ensure_future(store.acquire(NOW))
        pid = await held.arrival()
        committing = asyncio.ensure_future(owner.commit(history_inserted=[history()]))
        await held.blocked_by(pid)
        await held.open()
        assert (await taking).lsn == 0
        with pytest.raises(OwnershipLostError):
            await committing
    assert await store.load_history("i", "i-e") == []


@in_loop
async def test_who_wants_the_hub_while_a_commit_stands_still_is_refused_after_a_while(
    pg_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "_WAIT_BRIEFLY", ownership._WAIT_BRIEFLY.replace("3000", "500"))  # pyright: ignore
    owner = await own(pg_hub)
    await pg_hub.lose_lock()
    async with gate(pg_hub.url, "INSERT ON history") as held:
        await held.shut()
        committing = asyncio.ensure_future(owner.commit(history_inserted=[history()]))
        pid = await held.arrival()
        taking = asyncio.ensure_future(pg_hub.connect().acquire(NOW))
        await held.blocked_by(pid)
        with pytest.raises(StoreInUseError, match="somebody is just changing it"):
            await taking
        await held.open()
        await committing
    assert await owner.store.load_history("i", "i-e") == ["[]"]


@in_loop
async def test_all_who_want_something_of_a_hub_that_is_being_taken_wait_in_a_row(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    await pg_hub.lose_lock()
    async with gate(pg_hub.url, "UPDATE ON partition") as held:
        await held.shut()
        store = pg_hub.connect()
        taking = asyncio.ensure_future(store.acquire(NOW))
        pid = await held.arrival()
        waiting: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(owner.commit(history_inserted=[history()])),
            asyncio.ensure_future(owner.store.renew(owner.fence)),
            asyncio.ensure_future(pg_hub.connect().acquire(NOW)),
        ]
        blocked = "SELECT count(*) >= 2 FROM pg_stat_activity WHERE $1 = ANY (pg_blocking_pids(pid))"
        await until(lambda: held.keeper.fetchval(blocked, pid))
        await held.open()
        assert (await taking).lsn == 0
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in outcomes] == [OwnershipLostError, OwnershipLostError, StoreInUseError]


@in_loop
async def test_an_owner_that_falls_silent_within_a_transaction_keeps_nobody_out(short_hub: Hub) -> None:
    """As one does whose machine lost its power, or which was paused: the server does not know, and holds its locks."""
    async with wire(through(short_hub, "transaction").url) as way:
        store = open_store(way.url)
        owner = Owner(store, await store.acquire(NOW))
        way.loses = "COMMIT"
        committing = asyncio.ensure_future(owner.commit(instances_inserted=[instance()]))
        await until(lambda: ask(short_hub, "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"))
        successor = await take_over(short_hub)
        assert successor.lsn == 0
        with pytest.raises(CommitFailedError):
            await committing
        with pytest.raises(OwnershipLostError):
            await owner.commit(instances_inserted=[instance()])
        await store.close()
    await successor.commit(instances_inserted=[instance()])


# The schema and the statements


DUMP: Final = """
SELECT format('column %s.%s %s%s%s%s', table_name, column_name, data_type,
    CASE WHEN collation_name IS NOT NULL THEN ' COLLATE ' || collation_name END,
    CASE WHEN is_nullable = 'NO' THEN ' NOT NULL' END,
    CASE WHEN generation_expression IS NOT NULL
        THEN ' = ' || regexp_replace(generation_expression, '\\s+', ' ', 'g') END),
    1 AS kind, table_name, ordinal_position::int
FROM information_schema.columns WHERE table_schema = $1
UNION ALL
SELECT format('index %s', replace(indexdef, $1 || '.', '')), 2, tablename, 0 FROM pg_indexes WHERE schemaname = $1
UNION ALL
SELECT format('check %s.%s %s', relname, conname, pg_get_constraintdef(pg_constraint.oid)), 3, relname, 0
FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
WHERE connamespace = $1::regnamespace AND contype NOT IN ('p', 'n')
UNION ALL
SELECT format('settings %s %s', relname, array_to_string(reloptions, ', ')), 4, relname, 0
FROM pg_class WHERE relnamespace = $1::regnamespace AND reloptions IS NOT NULL
UNION ALL
SELECT format('function %s(%s) %s %s %s', proname, pg_get_function_arguments(oid), provolatile, proparallel,
    regexp_replace(trim(prosrc), '\\s+', ' ', 'g')), 5, proname, 0
FROM pg_proc WHERE pronamespace = $1::regnamespace
ORDER BY 2, 3, 4, 1
"""


@in_loop
async def test_the_schema_is_what_the_committed_dump_says(pg_hub: Hub) -> None:
    """After a new migration, replace schema_postgres.sql by the dump that this test shows."""
    await own(pg_hub)
    connection = await connect(pg_hub.url)
    schema = schema_of(pg_hub.url)
    dump = "".join(f"{row[0]}\n".replace(schema, "SCHEMA") for row in await connection.fetch(DUMP, schema))
    await connection.close()
    assert dump == HERE.joinpath("schema_postgres.sql").read_text("utf-8")


def test_every_table_leads_with_the_partition_in_its_key_too() -> None:
    dump = HERE.joinpath("schema_postgres.sql").read_text("utf-8")
    first_columns: dict[str, str] = {}
    for table, column in re.findall(r"^column (\w+)\.(\w+) ", dump, re.MULTILINE):
        first_columns.setdefault(table, column)
    keys = dict(re.findall(r"^index CREATE UNIQUE INDEX \w+_pkey ON (\w+) USING btree \((\w+)", dump, re.MULTILINE))
    of_the_hub_and_of_hosts = {"hub": "id", "node": "node_id"}
    assert first_columns == keys == {**dict.fromkeys(first_columns, "partition"), **of_the_hub_and_of_hosts}
    assert len(keys) == 13


@in_loop
async def test_updates_of_a_running_instance_leave_the_indexes_alone(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    await owner.commit(instances_inserted=[instance()])
    for revision in range(1, 201):
        await owner.commit(
            instances_updated=[update("i", revision, updated_at=NOW + revision, state=f'"{revision}"', deliveries=1)]
        )
    await owner.store.close()  # what a connection counted is known when it ends
    keeper = await connect(pg_hub.url)
    for table, updates in (("instance", 200), ("node", 201)):
        counts = (
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_all_tables "
            f"WHERE schemaname = current_schema() AND relname = '{table}' AND n_tup_upd >= {updates}"
        )
        await until(lambda: keeper.fetchrow(counts))  # noqa: B023 - awaited here
        row = await keeper.fetchrow(counts)
        assert row is not None
        assert row["n_tup_hot_upd"] >= 0.95 * row["n_tup_upd"], table
    await keeper.close()


FILL: Final = """
INSERT INTO instance (partition, instance_id, execution_id, revision, name, status, created_at, updated_at, episodes,
    history_events, deliveries, events_buffered)
  SELECT 0, 'i' || n, 'e' || n, 1, 'greet', CASE n % 2 WHEN 0 THEN 'Running' ELSE 'Completed' END, n, n, 1, 1, 0, 0
  FROM generate_series(1, 10000) AS n;
INSERT INTO history SELECT 0, 'e' || n, 0, '[]' FROM generate_series(1, 10000) AS n;
INSERT INTO inbox SELECT 0, n, 'i' || n, NULL, '{}' FROM generate_series(1, 10000) AS n;
INSERT INTO arrival (partition, instance_id, event) SELECT 0, 'i' || n, '{}' FROM generate_series(1, 10000) AS n;
INSERT INTO request (request_id, partition, method, arguments, caller, taker, status)
  SELECT n, 0, 'send', '{}', 'c' || n, 't', CASE WHEN n % 100 = 0 THEN 200 END FROM generate_series(1, 10000) AS n;
INSERT INTO activity SELECT 0, 'e' || n, 0, 'i' || n, 'say', NULL, NULL, 1, 0, n, n FROM generate_series(1, 10000) AS n;
INSERT INTO timer SELECT 0, 'e' || n, 1, 'i' || n, n, NULL FROM generate_series(1, 10000) AS n;
INSERT INTO child SELECT 0, 'e' || n, 2, 'i' || n, 'c' || n FROM generate_series(1, 10000) AS n;
INSERT INTO operation_key SELECT 0, 'i' || n, 'k', n, NULL FROM generate_series(1, 10000) AS n;
"""
VALUES: Final = {
    "int4[]": "'{0,0}'",
    "int8[]": "'{1,2}'",
    "text[]": "'{i5,i7}'",
    "int4": "0",
    "int8": "5",
    "text": "'5'",
    "float8": "15",
    "bool": "false",
}
MAY_SCAN: Final = {
    *("count_instances", "find_instances", "count_activity_deliveries", "count_instance_deliveries"),
    *("take_orphans", "borrow_activities", "reclaim_activities", "clear_offers"),
}
"""What goes through everything: questions of people, what is done after a crash, and what is asked of small tables."""


def scans(plan: Any) -> Iterator[str]:
    if plan["Node Type"] == "Seq Scan":
        yield plan["Relation Name"]
    for part in plan.get("Plans", ()):
        yield from scans(part)


@in_loop
async def test_nothing_goes_through_a_whole_table_but_what_has_to(pg_hub: Hub) -> None:
    await own(pg_hub)
    connection = await connect(pg_hub.url)
    found: set[tuple[str, str]] = set()
    try:
        await connection.execute(f"{FILL}; ANALYZE")
        for name, sql in QUERIES.items():
            types = [each.name for each in (await connection.prepare(sql)).get_parameters()]
            await connection.execute(f"PREPARE {name} AS {sql}")
            values = f"({', '.join(VALUES[each] for each in types)})" if types else ""
            for mode in ("force_custom_plan", "force_generic_plan"):
                await connection.execute(f"SET plan_cache_mode = {mode}")
                plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE {name}{values}")
                found |= {(name, table) for table in scans(msgspec.json.decode(plan)[0]["Plan"])}
    finally:
        await connection.close()
    small = {"hub", "node", "partition", "offer"}
    assert {each for each in found if each[0] not in MAY_SCAN and each[1] not in small} == set()


@in_loop
async def test_no_commit_and_no_load_goes_through_a_whole_table_not_even_while_the_hub_is_new(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    for number in range(20):
        id_, gone = f"i{number}", f"i{number - 1}"
        await owner.commit(
            instances_inserted=[instance(id_), instance(f"@c@{id_}")],
            history_inserted=[history(f"{id_}-e")],
            messages_inserted=[message(number, id_)],
            arrivals_inserted=[ArrivalRow(0, id_, None, "{}")],
            activities_inserted=[activity(0, id_)],
            timers_inserted=[timer(1, id_)],
            children_inserted=[child(2, id_)],
            operation_keys_inserted=[operation_key("k", number, f"@c@{id_}")],
        )
        await owner.load_one(id_)
        await owner.load_one(f"@c@{id_}")
        if number:
            await owner.commit(
                instances_updated=[update(gone, new_execution=True)],
                instances_removed=[(f"@c@{gone}", 1)],
                executions_removed=[(f"{gone}-e", 1)],
                messages_removed=[number - 1],
                arrivals_removed=[number],
                activities_updated=[activity(0, id_, attempt=2)],
                activities_removed=[activity(0, gone).key],
                timers_removed=[timer(1, gone).key],
                children_removed=[child(2, gone).key],
                operation_keys_removed=[(f"@c@{gone}", "k")],
            )
    await owner.store.close()  # what a connection counted is known when it ends
    counts = "SELECT {} FROM pg_stat_all_tables WHERE schemaname = current_schema() AND relname {}"
    await until(lambda: ask(pg_hub, counts.format("n_tup_ins = 40", "= 'instance'")))
    assert await ask(pg_hub, counts.format("sum(n_tup_del)::int", "<> 'node'")) == 19 * 8
    read = counts.format("array_agg(relname::text)", "NOT IN ('hub', 'node', 'partition') AND seq_tup_read > 0")
    assert await ask(pg_hub, read) is None


def test_every_statement_has_a_purpose_and_a_user() -> None:
    folder = Path(queries.__file__).parent
    sources = "".join(file.read_text("utf-8") for file in folder.glob("*.py"))
    for name, sql in QUERIES.items():
        assert sql.startswith("-- "), name
        assert f'"{name}"' in sources, name
        assert not re.search(r"\{\w+\}", sql), name


@in_loop
async def test_refusals_name_the_table_and_the_counts(pg_hub: Hub) -> None:
    owner = await own(pg_hub)
    with pytest.raises(CommitFailedError, match="2 rows of table inbox, but 0"):
        await owner.commit(messages_removed=[1, 2])
    await owner.commit(arrivals_inserted=[ArrivalRow(0, "i", None, "{}"), ArrivalRow(7, "of-somebody-else", "e", "[]")])
    with pytest.raises(CommitFailedError, match="2 rows of table arrival, but 1"):
        await owner.commit(arrivals_removed=[1, 2])
    assert await owner.store.arrivals(0, 9) == [
        ArrivalRow(0, "i", None, "{}", 1),
        ArrivalRow(7, "of-somebody-else", "e", "[]", 2),
    ]
    await owner.commit(activities_inserted=[activity()], messages_inserted=[message()])
    with pytest.raises(CommitFailedError, match="table activity"):
        await owner.commit(activities_inserted=[activity()])
