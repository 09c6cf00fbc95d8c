"""A hub goes from one kind of store to another with all that is under way, and what comes out is the same."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from moving_app import CONFIG, EXPECTED, begin, finish, make_app, park
from typer.testing import CliRunner

from holdfast import Client
from holdfast.cli.main import commands
from holdfast.cli.output import Progress
from holdfast.cli.transfer import _Reader
from holdfast.errors import OwnershipLostError
from holdfast.model.ids import partition_of
from holdfast.storage.open_store import open_store, open_whole
from holdfast.storage.port import ArrivalRow, WriteSet
from holdfast.storage.transfer import COLUMNS, TABLES, AnyRow, columns_for
from postgres_kit import connect, drop, execute, new_schema, schema_of

NewHub = Callable[[str], str]


@pytest.fixture
def new_hub(postgres_server: str, tmp_path: Path) -> Iterator[NewHub]:
    """Makes the URL of a store in which nothing is: `sqlite`, or `pg7` for one of seven partitions."""
    made: list[str] = []
    numbers = itertools.count()

    def make(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path}/hub{next(numbers)}.db"
        made.append(new_schema(postgres_server, int(kind[2:])))
        return made[-1]

    yield make
    for url in made:
        drop(url)


def holdfast(*arguments: str) -> Result:
    done = CliRunner().invoke(commands, arguments, env={"COLUMNS": "200", "TZ": "UTC"})
    assert "Traceback" not in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def ok(*arguments: str) -> str:
    done = holdfast(*arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def on_host(url: str, work: Callable[[Client], Coroutine[Any, Any, Any]], **how: bool) -> Any:
    """Run a host for as long as the work takes."""

    async def run() -> Any:
        async with make_app(**how).host(url, config=CONFIG) as host:
            return await work(host.client)

    return asyncio.run(run())


def begun(url: str) -> str:
    on_host(url, begin, is_open=False)
    on_host(url, park, is_open=False, is_changed=True)
    return url


def contents(url: str, partition_count: int | None = None) -> dict[str, list[Any]]:
    """Return all rows as a hub with so many partitions has them; else as they are, which must be right."""
    with open_whole(url).snapshot() as snapshot:
        count = partition_count or snapshot.partition_count
        found: dict[str, list[Any]] = {}
        for table in TABLES:
            rows = list(snapshot.rows(table))
            assert partition_count or all(is_in_place(row, count) for row in rows)
            found[table] = sorted((columns_for(row, count) for row in rows), key=str)
        return found


def is_in_place(row: AnyRow, count: int) -> bool:
    assert row.instance_id is not None
    return row.partition == partition_of(row.instance_id, count)


def partitions_of(url: str) -> int:
    with open_whole(url).snapshot() as snapshot:
        return snapshot.partition_count


def move(source: str, target: str, file: Path) -> None:
    assert "Exported" in ok("export", str(file), "--store", source)
    assert "Imported" in ok("import", str(file), "--store", target)
    assert contents(target) == contents(source, partitions_of(target))
    assert ok("doctor", "--store", target).endswith("All is well.\n")


@pytest.mark.parametrize(
    "way",
    [["sqlite"], ["sqlite", "pg7"], ["pg7", "sqlite"], ["pg3", "pg64", "pg1"], ["sqlite", "pg64", "sqlite"]],
    ids=str,
)
def test_everything_ends_as_if_it_had_never_moved(new_hub: NewHub, way: list[str], tmp_path: Path) -> None:
    urls = [new_hub(way[0])]
    begun(urls[0])
    there = contents(urls[0])
    assert there.pop("arrival") == []  # a host has taken it in
    assert all(there.values()), {table: len(rows) for table, rows in there.items()}
    for kind in way[1:]:
        urls.append(new_hub(kind))
        move(urls[-2], urls[-1], tmp_path / f"{len(urls)}.jsonl")
    assert on_host(urls[-1], finish, is_open=True) == EXPECTED
    assert ok("doctor", "--store", urls[-1]).endswith("All is well.\n")
    assert all(contents(url) == contents(urls[0], partitions_of(url)) for url in urls[:-1])


@pytest.mark.parametrize("way", [["sqlite", "pg7", "sqlite"], ["pg7", "sqlite", "pg3"]], ids=str)
def test_what_has_arrived_goes_along_in_its_order(new_hub: NewHub, way: list[str], tmp_path: Path) -> None:
    sent = [f'{{"number":{number}}}' for number in range(30)]

    async def send(url: str) -> None:
        store = open_store(url)
        owned = await store.acquire(0)
        rows = [ArrivalRow(partition_of("i", owned.partition_count), "i", None, event) for event in sent]
        lists: dict[str, list[Any]] = {name: [] for name in WriteSet.__struct_fields__ if not name.startswith("lsn")}
        lists["arrivals_inserted"] = rows
        await store.commit(owned.fence, WriteSet(lsn_before=owned.lsn, lsn=owned.lsn + 1, **lists))
        await store.release(owned.fence)
        await store.close()

    async def arrived(url: str) -> list[str]:
        store = open_store(url)
        await store.acquire(0)
        rows = await store.arrivals(0, 100)
        await store.close()
        return [row.event for row in rows]

    urls = [new_hub(kind) for kind in way]
    asyncio.run(send(urls[0]))
    for number, (source, target) in enumerate(itertools.pairwise(urls)):
        move(source, target, tmp_path / f"{number}.jsonl")
    assert asyncio.run(arrived(urls[-1])) == sent


@pytest.mark.parametrize("way", [["sqlite", "pg7", "sqlite"], ["pg7", "sqlite", "pg3"]], ids=str)
def test_what_an_earlier_owner_made_is_not_made_again(new_hub: NewHub, way: list[str], tmp_path: Path) -> None:
    """Ids of executions and messages are made of the incarnation and the watermark."""
    executions: list[str] = []

    async def start(client: Client) -> None:
        for number in range(3):
            run = await client.start_new("never")
            await client.raise_event(run.instance_id, "Other", number)

    urls = [new_hub(kind) for kind in way]
    for number, url in enumerate(urls):
        if number:
            move(urls[number - 1], url, tmp_path / f"{number}.jsonl")
        on_host(url, start, is_open=False)
        with open_whole(url).snapshot() as snapshot:
            rows = list(snapshot.rows("instance"))
            record = snapshot.hub()
        assert record is not None
        executions.append(f"{record.incarnation}")
        assert len({getattr(row, "execution_id", "") for row in rows}) == len(rows) == 3 * (number + 1)
    assert len(set(executions)) == len(way)
    assert [int(a) < int(b) for a, b in itertools.pairwise(executions)] == [True] * (len(way) - 1)


def test_a_host_may_run_while_its_hub_is_exported_and_checked(new_hub: NewHub, tmp_path: Path) -> None:
    url, target = new_hub("pg7"), new_hub("sqlite")

    async def export(client: Client) -> None:
        await begin(client)
        await asyncio.to_thread(ok, "export", str(tmp_path / "hub.jsonl"), "--store", url)
        said = await asyncio.to_thread(ok, "doctor", "--store", url)
        assert "owned by process" in said
        assert "whose lease runs for" in said
        assert "pg_amcheck" in said
        refused = await asyncio.to_thread(holdfast, "import", str(tmp_path / "hub.jsonl"), "--store", url)
        assert (refused.exit_code, "in use by process" in refused.stderr) == (2, True), refused.output
        mended = await asyncio.to_thread(holdfast, "doctor", "--mend", "--store", url)
        assert (mended.exit_code, "in use by process" in mended.stderr) == (2, True), mended.output

    on_host(url, export, is_open=False)
    ok("import", str(tmp_path / "hub.jsonl"), "--store", target)
    on_host(target, park, is_open=False, is_changed=True)
    assert on_host(target, finish, is_open=True) == EXPECTED


@pytest.fixture
def exported(new_hub: NewHub, tmp_path: Path) -> Path:
    ok("export", str(tmp_path / "hub.jsonl"), "--store", begun(new_hub("sqlite")))
    return tmp_path / "hub.jsonl"


def schemas(url: str) -> list[str]:
    """Return the tables of the schema that a URL names."""

    async def ask() -> list[str]:
        connection = await connect(url)
        try:
            query = "SELECT tablename FROM pg_tables WHERE schemaname = $1"
            return [row[0] for row in await connection.fetch(query, schema_of(url))]
        finally:
            await connection.close()

    return asyncio.run(ask())


def acquire_and_release(url: str) -> None:
    async def run() -> None:
        store = open_store(url)
        ownership = await store.acquire(0)
        await store.release(ownership.fence)
        await store.close()

    asyncio.run(run())


@pytest.mark.parametrize("is_new", [True, False])
def test_a_file_that_is_not_whole_changes_nothing(new_hub: NewHub, exported: Path, is_new: bool) -> None:
    url = new_hub("pg7")
    if not is_new:
        acquire_and_release(url)
    lines = exported.read_text().splitlines(keepends=True)
    damaged = {
        "was cut": lines[:-1],
        "was changed": [*lines[:-3], *lines[-2:]],
        "line 9": [*lines[:8], lines[8][:20]],
        "there twice": [*lines[:2], *lines[1:]],
    }
    for part, left in damaged.items():
        exported.write_text("".join(left))
        refused = holdfast("import", str(exported), "--store", url)
        assert (refused.exit_code, part in refused.stderr) == (2, True), refused.output
        assert (schemas(url) == []) is is_new
        assert is_new or not any(contents(url).values())
    exported.write_text("".join(lines))
    ok("import", str(exported), "--store", url)


def test_a_hub_in_which_anything_was_stored_is_refused(new_hub: NewHub, exported: Path) -> None:
    url = new_hub("pg2")
    ok("import", str(exported), "--store", url)
    before = contents(url)
    refused = holdfast("import", str(exported), "--store", url)
    assert (refused.exit_code, "new or empty" in refused.stderr) == (2, True), refused.output
    assert contents(url) == before


def test_a_hub_that_somebody_has_just_taken_is_refused(new_hub: NewHub, exported: Path) -> None:
    url = new_hub("pg2")

    async def taken() -> None:
        store = open_store(url)
        await store.acquire(0)
        refused = await asyncio.to_thread(holdfast, "import", str(exported), "--store", url)
        assert (refused.exit_code, "in use by process" in refused.stderr) == (2, True), refused.output
        await store.close()

    asyncio.run(taken())
    ok("import", str(exported), "--store", url)


@pytest.mark.parametrize("page", [1, 100])
def test_rows_that_nobody_can_read_travel_as_they_are(
    new_hub: NewHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    for module in ("snapshot", "offline"):
        monkeypatch.setattr(f"holdfast.storage.postgres.{module}._PAGE", page)
    source, between, target = new_hub("sqlite"), new_hub("pg7"), tmp_path / "target.db"
    begun(source)
    with closing(sqlite3.connect(source.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("UPDATE instance SET failure = 'no json', status = 'Odd' WHERE instance_id = 'waits'")
        connection.execute("UPDATE history SET events = '{' WHERE episode = 1")
        connection.execute("UPDATE history SET execution_id = 'gone' || rowid WHERE episode = 2 AND rowid % 2")
        connection.execute("INSERT INTO history VALUES (0, 'nobody', 0, 'x')")
        connection.execute("INSERT INTO timer VALUES (0, 'nobody', 1, 'none', 0, 'not an event')")
    for from_, to in ((source, between), (between, f"sqlite:///{target}")):
        ok("export", str(tmp_path / f"{len(to)}.jsonl"), "--store", from_)
        ok("import", str(tmp_path / f"{len(to)}.jsonl"), "--store", to)
    assert contents(between, 1) == contents(source, 1) == contents(f"sqlite:///{target}", 1)


# What `doctor` finds


def change(url: str, statement: str) -> None:
    assert not asyncio.run(execute(url, statement)).endswith(" 0"), statement


_EXECUTION = "(SELECT execution_id FROM instance WHERE instance_id = '{}')"


@pytest.fixture(scope="module")
def well(postgres_server: str) -> Iterator[str]:
    """A hub with something of everything."""
    url = begun(new_schema(postgres_server, 7))
    yield url
    drop(url)


@pytest.mark.parametrize(
    ("statement", "expected", "part"),
    [
        ("DELETE FROM child WHERE instance_id = 'parent'", "parent: ", "[lost work]"),
        ("DELETE FROM activity WHERE sequence = 0", "held: ", "[lost work]"),
        ("UPDATE instance SET status = 'Odd' WHERE instance_id = 'done'", "done: ", "[unreadable]"),
        ("UPDATE instance SET episodes = 9 WHERE instance_id = 'done'", "done: ", "[history]"),
        ("DELETE FROM instance WHERE instance_id = 'locks'", "@account@a: ", "[lock]"),
        ("DELETE FROM instance WHERE instance_id = 'sleeps'", "sleeps: timer", "[orphan]"),
        ("DELETE FROM instance WHERE instance_id = 'done'", "the store: history of", "[orphan]"),
        ("UPDATE inbox SET partition = (partition + 1) % 7 WHERE instance_id = 'paused'", "paused: mes", "[partition]"),
        (
            "UPDATE instance SET partition = (partition + 1) % 7 WHERE instance_id = 'done'",
            "done: it is",
            "[partition]",
        ),
        (
            f"UPDATE instance SET execution_id = {_EXECUTION.format('done')} WHERE instance_id = 'sleeps'",
            "done: it has the same execution",
            "[double]",
        ),
        ("DELETE FROM instance WHERE instance_id = 'paused'", "paused: there is no such", "[message]"),
    ],
)
def test_what_is_wrong_is_found_on_postgres(
    new_hub: NewHub, well: str, tmp_path: Path, statement: str, expected: str, part: str
) -> None:
    url = new_hub("pg7")
    move(well, url, tmp_path / "well.jsonl")
    change(url, statement)
    done = holdfast("doctor", "--store", url)
    assert done.exit_code == 1
    assert any(line.startswith(expected) and line.endswith(part) for line in done.stdout.splitlines()), done.stdout
    as_json = holdfast("doctor", "--store", url, "--json").stdout.splitlines()
    assert all(line.startswith("{") for line in as_json)
    assert as_json


def test_orphans_on_postgres_are_mended_and_nothing_else(new_hub: NewHub, well: str, tmp_path: Path) -> None:
    url = new_hub("pg7")
    move(well, url, tmp_path / "well.jsonl")
    change(url, "INSERT INTO history VALUES (3, 'gone', 0, '[]'), (3, 'gone', 1, '[]')")
    change(url, "INSERT INTO timer VALUES (3, 'gone', 0, 'nobody', 0)")
    change(
        url,
        "INSERT INTO activity SELECT partition, 'gone', 0, instance_id, '', '', '', 0, 0, 0, 0 FROM instance "
        "WHERE instance_id = 'done'",
    )
    change(url, "INSERT INTO child VALUES (3, 'gone', 0, 'nobody', 'none')")
    change(url, "INSERT INTO operation_key VALUES (3, '@nobody@x', 'k', 1)")
    assert holdfast("doctor", "--store", url).stdout.count("[orphan]") == 5
    assert "Removed 5 rows" in ok("doctor", "--store", url, "--mend")
    assert contents(url) == contents(well)


@pytest.mark.parametrize("command", [("doctor",), ("export", "x.jsonl")])
def test_a_schema_in_which_nothing_is(new_hub: NewHub, command: tuple[str, ...]) -> None:
    refused = holdfast(*command, "--store", new_hub("pg1"))
    assert (refused.exit_code, "There is no task hub at" in refused.stderr) == (2, True), refused.output


@pytest.mark.parametrize("command", [("doctor",), ("export", "x.jsonl"), ("import", __file__)])
def test_a_server_that_is_not_there(command: tuple[str, ...], tmp_path: Path) -> None:
    refused = holdfast(*command, "--store", f"postgresql://u:s3cret@/db?host={tmp_path}")
    assert refused.exit_code in (2, 3), refused.output
    assert "s3cret" not in refused.output


def test_every_table_and_every_column_goes_along(new_hub: NewHub) -> None:
    """But for those by which a store keeps its owners apart."""
    file, schema = new_hub("sqlite"), new_hub("pg1")
    for url in (file, schema):
        acquire_and_release(url)
    kept = {"hub", "node", "partition", "request", "offer", "sqlite_sequence"}
    with closing(sqlite3.connect(file.removeprefix("sqlite:///"))) as connection:
        names = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        columns = {
            table: tuple(row[1] for row in connection.execute(f"PRAGMA table_info({table})")) for table in names - kept
        }
    columns["arrival"] = columns["arrival"][:-1]  # its id is given anew
    assert columns == COLUMNS
    assert set(schemas(schema)) - kept == set(TABLES)


@pytest.mark.parametrize("kind", ["sqlite", "pg7"])
def test_a_hub_whose_owner_died_counts_what_may_have_been_running(new_hub: NewHub, tmp_path: Path, kind: str) -> None:
    source, target, file = new_hub("sqlite"), new_hub(kind), tmp_path / "hub.jsonl"

    async def die() -> None:
        store = open_store(source)
        await store.acquire(0)
        await store.close()

    async def take() -> None:
        store = open_store(target)
        await store.acquire(1)
        assert [row.deliveries for row in await store.activities_visible(1, 9)] == [1]
        await store.close()

    asyncio.run(die())
    with closing(sqlite3.connect(source.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute("INSERT INTO activity VALUES (0, 'x', 1, 'one', '', '', '', 1, 0, 0, 0, NULL)")
    ok("export", str(file), "--store", source)
    ok("import", str(file), "--store", target)
    asyncio.run(take())


def test_the_doctor_tells_an_owner_that_has_left_from_one_that_was_taken_for_dead(new_hub: NewHub) -> None:
    url = new_hub("pg7")
    acquire_and_release(url)
    assert "has left in good order." in ok("doctor", "--store", url)
    asyncio.run(execute(url, "UPDATE node SET owner_token = ''"))  # as whoever takes what it owned does
    assert "was taken for dead when its lease was over; others may have" in ok("doctor", "--store", url)


def test_an_owner_that_was_paused_stores_nothing_beside_what_was_imported(new_hub: NewHub, tmp_path: Path) -> None:
    """Its incarnation and its watermark may be those that were imported."""
    source, target, file = new_hub("pg1"), new_hub("pg1"), tmp_path / "hub.jsonl"

    async def pause_and_wake() -> None:
        first, paused = open_store(source), open_store(target)
        await first.acquire(0)
        ownership = await paused.acquire(0)
        for url in (source, target):
            await execute(url, "UPDATE node SET lease_until = '-infinity'")
        await asyncio.to_thread(ok, "export", str(file), "--store", source)
        await asyncio.to_thread(ok, "import", str(file), "--store", target)
        with pytest.raises(OwnershipLostError):
            await paused.renew(ownership.fence)
        await first.close()
        await paused.close()

    asyncio.run(pause_and_wake())


def test_a_host_that_starts_during_an_import_waits_for_its_end(new_hub: NewHub, exported: Path) -> None:
    url = new_hub("pg7")
    started: list[asyncio.Task[Any]] = []

    async def start_meanwhile() -> None:
        store = open_store(url)
        with exported.open("rb") as source:
            reader = _Reader(source, "", Progress())
            hub = reader.header()
            loop = asyncio.get_running_loop()

            def rows() -> Iterator[AnyRow]:
                yield next(found := reader.rows())
                loop.call_soon_threadsafe(lambda: started.append(loop.create_task(store.acquire(0))))
                while not started:
                    pass
                yield from found

            await asyncio.to_thread(open_whole(url).restore, hub, rows())
        await started[0]
        assert await store.instances("", 9) != []
        await store.close()

    asyncio.run(start_meanwhile())
