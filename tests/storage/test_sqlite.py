"""What only the SQLite adapter promises: files, processes, and failures of the disk."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path, PurePosixPath

import pytest
from storage_builders import NOW, Hub, activity, history, in_loop, instance, operation_key, own, update

from holdfast.errors import (
    CommitFailedError,
    StorageError,
    StorageWarning,
    StoreInUseError,
)
from holdfast.storage.sqlite import network
from holdfast.storage.sqlite.connection import APPLICATION_ID, SCHEMA_VERSION, open_writer
from holdfast.storage.sqlite.queries import APPLY_SCRIPT, QUERIES
from holdfast.storage.sqlite.store import SqliteStore
from holdfast.storage.sqlite.writes import _KINDS  # pyright: ignore[reportPrivateUsage]

OWNER_PROCESS = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from storage_builders import Hub, own, instance, activity, history, update

async def main():
    owner = await own(Hub("sqlite", Path(sys.argv[1])))
    print(0, flush=True)
    for n in range(int(sys.argv[3])):
        await owner.commit(instances_inserted=[instance(f"i{n}")], activities_inserted=[activity(0, f"i{n}")],
                           history_inserted=[history(f"i{n}-e")])
        print(owner.lsn, flush=True)
    if sys.stdin.readline():
        try:
            await owner.commit(instances_updated=[update("i0")])
        except Exception as error:
            print(type(error).__name__, flush=True)

asyncio.run(main())
"""


class OtherProcess:
    """A process that owns a file, commits `commits` groups and acknowledges each, and tries one more when told."""

    def __init__(self, path: Path, commits: int) -> None:
        arguments = [sys.executable, "-c", OWNER_PROCESS, str(path), str(Path(__file__).parent), str(commits)]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> OtherProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        with self.process:  # closes the pipes
            pass

    def wait_for(self, lsn: int) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if int(line) >= lsn:
                return
        pytest.fail("the process ended early")


# Processes


@in_loop
async def test_a_file_that_another_process_owns_is_refused_naming_it(sqlite_hub: Hub) -> None:
    with OtherProcess(sqlite_hub.path, commits=0) as other:
        other.wait_for(0)
        with pytest.raises(StoreInUseError, match=f"process {other.process.pid} on host .*stop that one"):
            await sqlite_hub.connect().acquire(NOW)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL on Windows")
@in_loop
async def test_a_file_is_taken_over_at_once_when_its_owner_is_killed(sqlite_hub: Hub) -> None:
    with OtherProcess(sqlite_hub.path, commits=10_000) as other:
        other.wait_for(25)
        other.process.send_signal(signal.SIGKILL)
        assert other.process.stdout is not None
        acknowledged = max([25, *(int(line) for line in other.process.stdout)])
        other.process.wait()
    owner = await own(sqlite_hub)
    assert owner.fence.incarnation == 2
    assert acknowledged <= owner.lsn <= acknowledged + 1
    stored = await owner.store.load([f"i{n}" for n in range(owner.lsn + 5)])
    assert len(stored) == owner.lsn
    assert all([row.deliveries for row in each.activities] == [1] for each in stored)
    assert await owner.store.load_history(f"i{owner.lsn - 1}", f"i{owner.lsn - 1}-e") == ["[]"]
    await owner.commit(instances_updated=[update("i0")])


@pytest.mark.skipif(sys.platform == "win32", reason="an open file cannot be deleted on Windows")
@in_loop
async def test_when_the_lock_file_was_deleted_the_fence_stops_the_old_owner(sqlite_hub: Hub) -> None:
    with OtherProcess(sqlite_hub.path, commits=1) as other:
        other.wait_for(1)
        await sqlite_hub.lose_lock()
        owner = await own(sqlite_hub)
        output, _ = other.process.communicate("try\n")
        assert output == "OwnershipLostError\n"
        await owner.commit(instances_updated=[update("i0")])


@in_loop
async def test_a_link_to_a_file_is_the_same_file(sqlite_hub: Hub, tmp_path: Path) -> None:
    await own(sqlite_hub)
    link = tmp_path / "link.db"
    try:
        link.symlink_to(sqlite_hub.path)
    except OSError:
        pytest.skip("links cannot be made here")
    store = SqliteStore(link)
    with pytest.raises(StoreInUseError):
        await store.acquire(NOW)
    await store.close()


@in_loop
async def test_reading_needs_no_ownership(sqlite_hub: Hub) -> None:
    owner = await own(sqlite_hub)
    await owner.commit(instances_inserted=[instance()])
    assert await sqlite_hub.connect().read_instance("i") == instance()


@in_loop
async def test_a_foreign_lock_is_waited_for_and_then_reported(sqlite_hub: Hub) -> None:
    owner = await own(sqlite_hub)
    owner.store._writer.execute("PRAGMA busy_timeout = 10")  # pyright: ignore
    with closing(sqlite3.connect(sqlite_hub.path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        with pytest.raises(CommitFailedError, match="Another program holds a lock") as caught:
            await owner.commit(instances_inserted=[instance()])
    assert not caught.value.outcome_unknown
    await owner.commit(instances_inserted=[instance()])


@in_loop
async def test_closing_leaves_one_file_with_everything(sqlite_hub: Hub) -> None:
    owner = await own(sqlite_hub)
    await owner.commit(instances_inserted=[instance()])
    assert await owner.store.read_instance("i") is not None
    await owner.store.release(owner.fence)
    await owner.store.close()
    assert set(os.listdir(sqlite_hub.path.parent)) == {"hub.db", "hub.db-owner"}


# Files that cannot be used


async def refused(path: Path, match: str) -> None:
    store = SqliteStore(path)
    with pytest.raises(StorageError, match=match):
        await store.acquire(NOW)
    await store.close()


@in_loop
async def test_nothing_is_made_before_the_store_is_acquired(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "hub.db")
    with pytest.raises(StorageError, match="no task hub"):
        await store.read_instance("i")
    await store.close()
    assert os.listdir(tmp_path) == []


@in_loop
async def test_a_missing_directory_is_reported(tmp_path: Path) -> None:
    await refused(tmp_path / "missing" / "hub.db", "directory must exist")


@in_loop
async def test_a_directory_in_place_of_the_file_is_reported(tmp_path: Path) -> None:
    await refused(tmp_path, "must not name a directory")


@in_loop
async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("remember the milk\n" * 100)
    await refused(path, "not an SQLite database")
    assert path.read_text().startswith("remember")


@in_loop
async def test_the_database_of_another_application_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
    await refused(path, "another application")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


@in_loop
async def test_a_file_of_a_newer_version_is_refused(sqlite_hub: Hub) -> None:
    owner = await own(sqlite_hub)
    await owner.store.close()
    with closing(sqlite3.connect(sqlite_hub.path)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    await refused(sqlite_hub.path, "newer one. Upgrade Holdfast")
    reader = sqlite_hub.connect()
    with pytest.raises(StorageError, match="newer one"):
        await reader.read_instance("i")


@in_loop
async def test_a_damaged_header_is_refused(sqlite_hub: Hub) -> None:
    owner = await own(sqlite_hub)
    await owner.store.release(owner.fence)
    await owner.store.close()
    with sqlite_hub.path.open("r+b") as file:
        file.write(b"\xff" * 100)
    await refused(sqlite_hub.path, "not an SQLite database")


def test_a_file_that_may_not_be_written_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    open_writer(path).close()
    chattr = shutil.which("chattr")  # permissions do not stop root, this attribute does
    if chattr is None or subprocess.run([chattr, "+i", path], capture_output=True, check=False).returncode:
        pytest.skip("the immutable attribute cannot be set here")
    try:
        asyncio.run(refused(path, "must be allowed to write"))
    finally:
        subprocess.run([chattr, "-i", path], check=True)


# Failures of the disk


@in_loop
async def test_a_full_disk_refuses_the_group_and_the_next_one_succeeds(sqlite_hub: Hub) -> None:
    owner = await own(sqlite_hub)
    writer: sqlite3.Connection = owner.store._writer  # pyright: ignore
    [pages] = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(CommitFailedError, match=r"Nothing was committed.*is full.*Free some space") as caught:
        await owner.commit(instances_inserted=[instance(input='"' + "x" * 100_000 + '"')])
    assert not caught.value.outcome_unknown
    assert await owner.store.read_instance("i") is None
    writer.execute("PRAGMA max_page_count = 1000000")
    await owner.commit(instances_inserted=[instance()])


LIMITED_PROCESS = """
import asyncio, os, resource, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from holdfast.errors import CommitFailedError
from storage_builders import Hub, Owner, own, instance, NOW

async def main():
    hub = Hub("sqlite", Path(sys.argv[1]))
    owner = await own(hub)
    await owner.commit(instances_inserted=[instance("before")])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = os.stat(sys.argv[1] + "-wal").st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (log + 20_000, hard))
    try:
        await owner.commit(instances_inserted=[instance("lost", input="x" * 100_000)])
    except CommitFailedError as error:
        print(error.outcome_unknown, error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    owner = Owner(owner.store, await owner.store.acquire(NOW))
    print(owner.lsn, owner.fence.incarnation)
    await owner.commit(instances_inserted=[instance("after")])
    print(sorted(each.row.instance_id for each in await owner.store.load(["before", "lost", "after"])))
    await hub.close()

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits on file sizes on Windows")
def test_a_commit_whose_log_could_not_be_written_is_unknown_until_acquired_again(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", LIMITED_PROCESS, str(tmp_path / "hub.db"), str(Path(__file__).parent)]
    lines = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.splitlines()
    assert re.match(r"True It is not known whether .*\(SQLITE_(IOERR|FULL)", lines[0])
    assert lines[1:] == ["1 2", "['after', 'before']"]


@in_loop
async def test_a_value_that_cannot_be_stored_refuses_the_group(sqlite_hub: Hub) -> None:
    owner = await own(sqlite_hub)
    for bad in (instance(updated_at=2**63), instance(updated_at=2**64), instance(name="\ud800")):
        with pytest.raises(CommitFailedError, match="Nothing was committed"):
            await owner.commit(instances_inserted=[bad])
    await owner.commit(instances_inserted=[instance()])
    with pytest.raises(StorageError):
        await owner.store.read_instance("\ud800")
    assert await owner.store.read_instance("i") == instance()


@in_loop
async def test_texts_are_stored_whole_or_not_at_all(sqlite_hub: Hub) -> None:
    """SQLite's JSON ends a text at a NUL that it reads; the letters that stand for one in a payload are none."""
    owner = await own(sqlite_hub)
    with pytest.raises(CommitFailedError, match="NUL"):
        await owner.commit(instances_inserted=[instance(name="a\0b")])
    texts = [
        r'"a\u0000b"',
        r'"\\u0000"',
        r"\u0000",
        '\x7f\x1f\t\n"\\/',
        "\U0001f600 é \u2028",
        "",
        "-0",
        "1e999",
        "9" * 400,
    ]
    await owner.commit(instances_inserted=[instance(f"i{n}", input=text) for n, text in enumerate(texts)])
    await owner.commit(instances_updated=[update(f"i{n}", output=text) for n, text in enumerate(texts)])
    found = await owner.store.instances("", 100)
    assert [(row.input, row.output) for row in found] == [(text, text) for text in texts]


@in_loop
async def test_many_reads_at_once_share_the_connections(sqlite_hub: Hub) -> None:
    owner = await own(sqlite_hub)
    await owner.commit(instances_inserted=[instance()])
    rows = await asyncio.gather(*(owner.store.read_instance("i") for _ in range(200)))
    assert rows == [instance()] * 200


@in_loop
async def test_refusals_name_the_table_and_the_counts(sqlite_hub: Hub) -> None:
    owner = await own(sqlite_hub)
    with pytest.raises(CommitFailedError, match="2 rows of table inbox, which are not all there"):
        await owner.commit(messages_removed=[1, 2])
    await owner.commit(activities_inserted=[activity()], history_inserted=[history()])
    with pytest.raises(CommitFailedError, match=r"there already.*activity"):
        await owner.commit(activities_inserted=[activity()])


# The schema and the statements


def test_the_schema_is_what_the_committed_dump_says(tmp_path: Path) -> None:
    """After a new migration, replace schema.sql by the dump that this test shows."""
    with closing(open_writer(tmp_path / "hub.db")) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        rows = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY tbl_name, name")
        dump = "".join(f"{sql};\n" for (sql,) in rows)
    assert dump == Path(__file__).with_name("schema.sql").read_text("utf-8")


def test_commits_are_durable_by_the_settings_of_the_writer(tmp_path: Path) -> None:
    with closing(open_writer(tmp_path / "hub.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def steps_of_a_commit() -> dict[str, str]:
    """Return the statements of the trigger: `EXPLAIN QUERY PLAN` does not look into one."""
    body = re.split(r"\bBEGIN\b", APPLY_SCRIPT)[1].rpartition("END;")[0]
    for pattern, other in (("--.*", ""), (r"NEW\.\w+", "?"), (r"RAISE\(.*?\)", "1")):
        body = re.sub(pattern, other, body)
    steps = body.split(";")
    return {f"commit, step {number}": step for number, step in enumerate(steps) if step.strip()}


STEPS = steps_of_a_commit()


def test_a_commit_has_a_column_for_each_kind_of_rows(tmp_path: Path) -> None:
    with closing(open_writer(tmp_path / "hub.db")) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(commit_group)")]
    assert columns == ["node_id", "incarnation", "epoch", "lsn_before", "lsn", *_KINDS]


def plan_of(path: Path, sql: str, parameters: object) -> list[str]:
    with closing(open_writer(path)) as connection:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]  # pyright: ignore


# What counts all of them is to go through all of them.
@pytest.mark.parametrize("name", [name for name in QUERIES if name != "count_all_instances"])
def test_no_statement_scans_a_table(tmp_path: Path, name: str) -> None:
    sql = QUERIES[name]
    names = re.findall(r":(\w+)", sql)
    numbers = [int(number) for number in re.findall(r"\?(\d+)", sql)]
    parameters = dict.fromkeys(names, 0) if names else [0] * (max(numbers) if numbers else sql.count("?"))
    parameters = ["[]"] if "json_each" in sql and not names else parameters
    assert not [
        step
        for step in plan_of(tmp_path / "hub.db", sql, parameters)
        if re.match(r"SCAN (instance|history|inbox|activity|timer|child|operation_key)\b(?!.*COVERING)", step)
    ]


@pytest.mark.parametrize("name", STEPS)
def test_a_commit_looks_rows_up_by_their_whole_keys(tmp_path: Path, name: str) -> None:
    """A part of a key would do as well, but go through all that is open in the hub, or in an execution."""
    plan = plan_of(tmp_path / "hub.db", STEPS[name], ["[]"] * STEPS[name].count("?"))
    rows = [step for step in plan if re.match(r"(SCAN|SEARCH) (?!json_each|CONSTANT)", step)]
    by_keys = (
        r"(node|partition|inbox|arrival) USING (INTEGER )?PRIMARY KEY \(\w+=\?\)"
        r"|history USING .*\(partition=\? AND execution_id=\?\)"
        r"|instance USING .*\(partition=\? AND instance_id=\?\)"
        r"|(activity|timer|child) USING .*\(partition=\? AND execution_id=\? AND sequence=\?\)"
        r"|operation_key USING .*\(partition=\? AND instance_id=\? AND operation_key=\?\)"
    )
    assert [step for step in rows if not re.fullmatch(f"SEARCH ({by_keys})", step)] == []


@pytest.mark.parametrize("name", ["entities", "entities_locked"])
def test_entities_are_a_range_of_the_index_read_in_its_order(tmp_path: Path, name: str) -> None:
    sql = QUERIES[name]
    parameters = dict.fromkeys(re.findall(r":(\w+)", sql), "@c@") or ["@c@", 9]
    with closing(open_writer(tmp_path / "hub.db")) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    assert plan == [
        "SEARCH instance USING INDEX instance_by_id (partition=? AND instance_id>? AND instance_id<?)",
        "CORRELATED SCALAR SUBQUERY 1",
        "SEARCH inbox USING COVERING INDEX inbox_by_instance (instance_id=?)",
        "CORRELATED SCALAR SUBQUERY 2",
        "SEARCH timer USING PRIMARY KEY (partition=? AND execution_id=?)",
    ]


def test_what_has_ended_is_a_range_of_its_own_index_read_in_its_order(tmp_path: Path) -> None:
    sql = QUERIES["ended_instances"]
    parameters = dict.fromkeys(re.findall(r":(\w+)", sql))
    with closing(open_writer(tmp_path / "hub.db")) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    assert plan[0] == "SEARCH instance USING INDEX instance_by_end ((updated_at,instance_id)>(?,?) AND updated_at<?)"
    assert not [step for step in plan if "TEMP" in step]


@in_loop
async def test_operation_keys_are_looked_for_only_when_an_entity_is_loaded(sqlite_hub: Hub) -> None:
    owner = await own(sqlite_hub)
    await owner.commit(instances_inserted=[instance(), instance("@c@i")], operation_keys_inserted=[operation_key()])
    await owner.load_one()
    reader: sqlite3.Connection = owner.store._idle_readers[0]  # pyright: ignore
    statements: list[str] = []
    reader.set_trace_callback(statements.append)
    await owner.store.load(["i", "@c@absent"])
    assert not [each for each in statements if "operation_key" in each]
    await owner.store.load(["i", "@c@i"])
    assert len([each for each in statements if "operation_key" in each]) == 1


def test_every_statement_has_a_purpose_and_a_user() -> None:
    folder = Path(network.__file__).parent
    sources = "".join(file.read_text("utf-8") for file in folder.glob("*.py"))
    for name, sql in QUERIES.items():
        assert sql.startswith("-- "), name
        assert f'"{name}"' in sources, name


# Network file systems


MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /mnt/share rw - nfs4 server:/export rw,vers=4.2
31 30 254:1 / /mnt/share/local rw - xfs /dev/vdb rw
32 22 0:27 / /mnt/with\\040blank rw master:5 - cifs //server/share rw
33 22 0:28 / /mnt/covered rw - ext4 /dev/vdc rw
34 33 0:29 / /mnt/covered rw - 9p host rw
35 22 0:30 / /mnt/smb rw - smb3 //server/share rw
36 22 0:31 / /mnt/ssh rw - fuse.sshfs user@host: rw
a line that means nothing
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me/hub.db", None),
        ("/mnt/share/hub.db", "nfs4"),
        ("/mnt/shared/hub.db", None),
        ("/mnt/share/local/hub.db", None),
        ("/mnt/with blank/hub.db", "cifs"),
        ("/mnt/covered/hub.db", "9p"),
        ("/mnt/smb/hub.db", "smb3"),
        ("/mnt/ssh/deep/down/hub.db", "fuse.sshfs"),
    ],
)
def test_network_file_systems_are_known_by_mountinfo(path: str, kind: str | None) -> None:
    assert network.network_file_system(PurePosixPath(path), MOUNTINFO) == kind


def test_without_mounts_nothing_is_said() -> None:
    assert network.network_file_system(PurePosixPath("/x"), "") is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tell")
@in_loop
async def test_a_file_on_a_network_file_system_is_warned_of(sqlite_hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "network_file_system", lambda *_: "nfs4")
    with pytest.warns(StorageWarning, match="nfs4"):
        await own(sqlite_hub)
