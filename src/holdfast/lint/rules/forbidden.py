"""The table of what orchestrator code must not use, by dotted name; `()` stands for a call or an object of a class."""

from __future__ import annotations

import re
from typing import Final

from holdfast.lint.findings import words


def _table(*rows: tuple[str, str, str]) -> dict[str, str]:
    """Read rows of a code, what the names begin with, and the names."""
    return {f"{before}{name}": code for code, before, names in rows for name in names.split()}


EXACT: Final = _table(
    ("HF101", "datetime.datetime.", "now today utcnow"),
    ("HF101", "datetime.date.", "today"),
    ("HF101", "time.", "clock_gettime clock_gettime_ns monotonic monotonic_ns perf_counter perf_counter_ns"),
    ("HF101", "time.", "process_time process_time_ns thread_time thread_time_ns time time_ns"),
    ("HF101", "django.utils.timezone.", "localdate localtime now"),
    ("HF101", "pendulum.", "now today tomorrow yesterday"),
    ("HF101", "arrow.", "now utcnow"),
    ("HF102", "os.", "getrandom urandom"),
    ("HF103", "uuid.", "getnode uuid1 uuid4 uuid6 uuid7"),
    ("HF104", "os.", "cpu_count getcwd getcwdb getegid getenv getenvb geteuid getgid getlogin getpid getppid getuid"),
    ("HF104", "os.", "environ environb process_cpu_count putenv uname unsetenv"),
    ("HF104", "os.path.", "abspath expanduser expandvars"),
    ("HF104", "pathlib.Path.", "cwd home"),
    ("HF104", "sys.", "argv"),
    ("HF104", "socket.", "getfqdn gethostname"),
    ("HF104", "locale.", "getdefaultlocale getencoding getlocale"),
    ("HF106", "", "id hash"),
    ("HF201", "time.", "sleep"),
    ("HF201", "asyncio.", "sleep"),
    ("HF201", "anyio.", "sleep sleep_forever sleep_until"),
    ("HF201", "trio.", "sleep sleep_forever sleep_until"),
    ("HF201", "gevent.", "sleep"),
    ("HF202", "", "input open"),
    ("HF202", "io.", "open open_code"),
    ("HF202", "codecs.", "open"),
    (
        "HF202",
        "os.",
        "access chdir chmod chown close copy_file_range fsync ftruncate link listdir lstat makedirs mkdir",
    ),
    ("HF202", "os.", "open pipe read readlink remove removedirs rename renames replace rmdir scandir sendfile stat"),
    ("HF202", "os.", "statvfs symlink sync truncate unlink utime walk write"),
    ("HF202", "os.path.", "exists getatime getctime getmtime getsize isdir isfile islink lexists realpath samefile"),
    ("HF202", "bz2.", "BZ2File open"),
    ("HF202", "gzip.", "GzipFile open"),
    ("HF202", "lzma.", "LZMAFile open"),
    ("HF202", "tarfile.", "TarFile open"),
    ("HF202", "zipfile.", "ZipFile"),
    ("HF202", "getpass.", "getpass"),
    ("HF202", "numpy.", "fromfile genfromtxt load loadtxt save savetxt savez"),
    ("HF202", "pandas.", "read_csv read_excel read_feather read_json read_parquet read_pickle read_sql read_table"),
    ("HF202", "sys.stdin.", "read readline readlines"),
    (
        "HF203",
        "os.",
        "execl execle execlp execv execve execvp fork forkpty kill killpg popen posix_spawn spawnl spawnv",
    ),
    ("HF203", "os.", "startfile system wait waitpid"),
    ("HF203", "http.client.", "HTTPConnection HTTPSConnection"),
    ("HF203", "sqlalchemy.", "create_engine"),
    ("HF203", "sqlalchemy.orm.", "Session sessionmaker"),
    ("HF203", "sqlalchemy.ext.asyncio.", "AsyncSession async_sessionmaker create_async_engine"),
    ("HF203", "webbrowser.", "open open_new open_new_tab"),
    ("HF208", "", "print"),
    ("HF208", "pprint.", "pp pprint"),
    ("HF208", "rich.", "print print_json"),
    ("HF208", "click.", "echo secho"),
    ("HF208", "typer.", "echo secho"),
    ("HF208", "sys.stdout.", "write writelines"),
    ("HF208", "sys.stderr.", "write writelines"),
    ("HF209", "holdfast.App().", "host"),
    ("HF209", "holdfast.", "Client Host activity_context entity_context"),
)
"""These themselves. What follows `()` behind them is another name."""

BELOW: Final = _table(
    ("HF102", "", "random secrets numpy.random"),
    ("HF103", "", "cuid cuid2 ksuid nanoid shortuuid ulid uuid_utils uuid6"),
    ("HF104", "", "os.environ os.environb platform getpass"),
    ("HF202", "", "fileinput glob shutil tempfile aiofiles"),
    ("HF203", "", "requests httpx aiohttp urllib3 urllib.request httplib2 pycurl treq"),
    ("HF203", "", "socket socketserver ftplib smtplib imaplib poplib telnetlib nntplib xmlrpc.client aiosmtplib"),
    ("HF203", "", "websocket websockets grpc paramiko asyncssh fabric"),
    ("HF203", "", "subprocess pexpect sh docker kubernetes"),
    ("HF203", "", "boto3 botocore aioboto3 aiobotocore azure.storage azure.cosmos azure.servicebus azure.eventhub"),
    ("HF203", "", "google.cloud minio s3fs gcsfs"),
    ("HF203", "", "sqlite3 aiosqlite psycopg psycopg2 psycopg_pool asyncpg pg8000 pymysql MySQLdb mysql aiomysql"),
    ("HF203", "", "asyncmy oracledb cx_Oracle pyodbc aioodbc pymssql duckdb clickhouse_connect snowflake.connector"),
    ("HF203", "", "redis aioredis pymongo motor cassandra elasticsearch opensearchpy neo4j influxdb_client"),
    ("HF203", "", "kafka aiokafka confluent_kafka pika aio_pika nats aiormq kombu celery dramatiq rq"),
    ("HF203", "", "openai anthropic stripe slack_sdk twilio sendgrid"),
    ("HF204", "", "threading _thread concurrent.futures multiprocessing joblib gevent eventlet queue"),
    ("HF205", "", "asyncio anyio trio curio uvloop"),
    ("HF209", "", "holdfast.Client() holdfast.Host() holdfast.App().host()"),
    ("HF209", "", "holdfast.OrchestrationHandle()"),
)
"""All that begins with these names and a dot."""

METHODS: Final = {
    "HF202": (
        ("pathlib.Path()",),
        words(
            """
            chmod exists expanduser glob is_dir is_file is_symlink iterdir lstat mkdir open read_bytes read_text
            readlink rename replace resolve rglob rmdir samefile stat symlink_to touch unlink walk write_bytes
            write_text
            """
        ),
    ),
    "HF207": (
        ("logging", "loguru.logger", "structlog"),
        words("critical debug error exception fatal info log warn warning"),
    ),
}
"""These methods of what begins with a name."""

UNLESS_GIVEN: Final = {
    "arrow.get": ("HF101", 0),
    "numpy.random.RandomState": ("HF102", 0),
    "numpy.random.default_rng": ("HF102", 0),
    "random.Random": ("HF102", 0),
    "time.asctime": ("HF101", 0),
    "time.ctime": ("HF101", 0),
    "time.gmtime": ("HF101", 0),
    "time.localtime": ("HF101", 0),
    "time.strftime": ("HF101", 1),
}
"""What is forbidden only with so many arguments, or fewer: given a seed or a time, it depends on that alone."""

PURE: Final = frozenset(
    {
        "asyncio.iscoroutine",
        "asyncio.iscoroutinefunction",
        "glob.escape",
        "glob.has_magic",
        "httpx.BasicAuth",
        "httpx.Cookies",
        "httpx.Headers",
        "httpx.QueryParams",
        "httpx.Request",
        "httpx.Response",
        "httpx.Timeout",
        "httpx.URL",
        "random.Random()",
        "requests.Request",
        "requests.Response",
        "shutil.get_terminal_size",
        "socket.htonl",
        "socket.htons",
        "socket.inet_aton",
        "socket.inet_ntoa",
        "socket.inet_ntop",
        "socket.inet_pton",
        "socket.ntohl",
        "socket.ntohs",
        "subprocess.list2cmdline",
        "urllib.request.Request",
    }
)
"""What is harmless in a module that is not; so are exceptions, and what belongs to these."""

_EXCEPTION: Final = re.compile(
    r"(?:Error|Exception|Expired|Warning|Timeout|Full|Empty|Cancelled|TimeoutExpired)(?:\(\))?$"
)


def forbidden(dotted: str) -> str | None:
    """Return the code of the rule that a name breaks when it is called."""
    exact = EXACT.get(dotted)
    if exact is not None:
        return exact
    parts = dotted.split(".")
    if _EXCEPTION.search(parts[-1]):
        return None
    heads = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    if any(head in PURE or head.removesuffix("()") in PURE for head in heads):
        return None
    below = next((BELOW[head] for head in heads[1:] if head in BELOW), None)
    return below or _method(dotted, parts)


def _method(dotted: str, parts: list[str]) -> str | None:
    for code, (heads, names) in METHODS.items():
        if parts[-1] in names and any(dotted.startswith((f"{each}.", f"{each}(")) for each in heads):
            return code
    return None
