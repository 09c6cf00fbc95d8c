"""`holdfast run` with keys from a file, with TLS, with bounds: what no client in the same process can show."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import sys
import time
from pathlib import Path

import httpx
import pytest
from cli_process import BASE, TINY, Running, holdfast

from holdfast.cli.config import HEAD_BYTES_MAX
from holdfast.cli.server import HttpServer, bind
from holdfast.http.errors import not_found_response

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")

TLS = Path(__file__).parent / "tls"
CERTIFICATE, PRIVATE_KEY = str(TLS / "localhost.crt"), str(TLS / "localhost.key")
OLD, NEW = "the-old-secret-of-one", "the-new-secret-of-one"


def keys(secret: str, scope: str) -> str:
    return f'[[keys]]\nname = "one"\nsecret = "{secret}"\nscope = "{scope}"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.py").write_text(TINY)
    (tmp_path / "keys.toml").write_text(keys(OLD, "read"))
    return tmp_path


@posix_only
def test_a_file_of_keys_opens_a_public_address_and_may_change(folder: Path) -> None:
    (folder / "holdfast.toml").write_text('host = "0.0.0.0"\nkeys = "keys.toml"\nstore = "memory://"\n')
    with Running("tiny.py", "--access-log", cwd=folder) as running:
        url = running.url.replace("0.0.0.0", "127.0.0.1")
        with httpx.Client(base_url=url, trust_env=False) as http:
            assert http.get(f"{BASE}/instances/x?code={OLD}").status_code == 404
            assert http.post(f"{BASE}/orchestrators/waiting/x?code={OLD}").status_code == 403
            assert http.get(f"{BASE}/instances/x").status_code == 401
            (folder / "new.toml").write_text(keys(NEW, "operate"))
            (folder / "new.toml").replace(folder / "keys.toml")
            os.utime(folder / "keys.toml", (1, 1))
            while http.post(f"{BASE}/orchestrators/waiting/x?code={NEW}").status_code == 401:
                pass
            assert http.get(f"{BASE}/instances/x?code={OLD}").status_code == 401
            assert http.get(f"{BASE}/instances/x?code={NEW}").status_code == 202
        assert running.stop() == 0
    assert "keys.toml were read again" in running.output
    assert "?code=*** HTTP/1.1" in running.output
    audited = [
        json.loads(line.partition(" holdfast.audit: ")[2])
        for line in running.output.splitlines()
        if "holdfast.audit" in line
    ]
    unknown = [each for each in audited if each["status"] == 401]
    assert unknown
    assert {each["key"] for each in unknown} == {None}
    assert [(each["key"], each["instance"], each["status"]) for each in audited if each["status"] != 401] == [
        ("one", "x", 403),
        ("one", "x", 202),
    ]
    assert OLD not in running.output
    assert NEW not in running.output


@posix_only
def test_it_serves_https(folder: Path) -> None:
    trusted = ssl.create_default_context(cafile=CERTIFICATE)
    tls = ("--ssl-certfile", CERTIFICATE, "--ssl-keyfile", PRIVATE_KEY)
    with Running("tiny.py", "--store", "memory://", *tls, cwd=folder, verify=trusted) as running:
        assert running.url.startswith("https://127.0.0.1:")
        assert running.result("x") == -42
        started = running.http.post(f"{BASE}/orchestrators/waiting/y")
        assert started.headers["location"].startswith(running.url)
        assert running.stop() == 0


def _answers(address: tuple[str, int], pieces: list[bytes], count: int) -> tuple[list[bytes], bool]:
    """Return the statuses of up to so many answers, and whether the connection was closed."""
    answered, received = b"", b"-"
    with socket.create_connection(address, timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for each in pieces:
                connection.sendall(each)
                time.sleep(0.001)
            while received and answered.count(b"HTTP/1.1 ") < count:
                received = connection.recv(65_536)
                answered += received
        except ConnectionError:
            received = b""
    return re.findall(rb"HTTP/1\.1 (\d+)", answered), not received


@posix_only
def test_headers_have_a_bound(folder: Path) -> None:
    with Running("tiny.py", "--store", "memory://", cwd=folder) as running:
        address = ("127.0.0.1", int(running.url.rpartition(":")[2]))
        begin = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
        long, piece = begin + b"X-Long: " + b"x" * 70_000, b"X-Piece: " + b"x" * 1_000 + b"\r\n"
        whole = begin + b"X-Long: " + b"x" * 10_000 + b"\r\n\r\n"
        post = b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000
        for pieces, answers in (
            ([long], [b"400"]),  # it never ends
            ([long + b"\r\n\r\n"], [b"400"]),
            ([begin, *[piece] * 70], [b"400"]),
            ([begin, *[piece] * 60, b"\r\n"], [b"200"]),
            ([whole * 7 + begin, b"\r\n"], [b"200"] * 8),  # each of them is short
            ([post, whole], [b"404", b"200"]),
            ([post + begin, *[piece] * 70], [b"404", b"400"]),
        ):
            found, was_closed = _answers(address, pieces, len(answers))
            # What is refused may be refused while it is still being sent; then the last answers are lost.
            assert found == answers[: len(found)]
            assert len(found) == len(answers) or (answers[-1] == b"400" and was_closed)
        assert running.stop() == 0


def test_without_the_fast_parser_the_other_one_has_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "holdfast.cli.head_limit", None)
    listener = bind("127.0.0.1", 0)
    uvicorn_config = HttpServer(not_found_response, listener).uvicorn_config
    listener.close()
    assert (uvicorn_config.http, uvicorn_config.h11_max_incomplete_event_size) == ("h11", HEAD_BYTES_MAX)


@posix_only
def test_pages_of_an_origin_that_is_named_are_answered(folder: Path) -> None:
    page = "https://ops.example.com"
    with Running("tiny.py", "--store", "memory://", "--cors-origin", page, cwd=folder) as running:
        answer = running.http.get(f"{BASE}/instances/x", headers={"Origin": page})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (404, page)
        assert running.http.get(f"{BASE}/instances/x", headers={"Origin": f"{page}.evil"}).status_code == 403
        assert running.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--host", "0.0.0.0"], ["a key is needed", "--keys"]),
        (["--keys", "nothing.toml", "--host", "0.0.0.0"], ["'nothing.toml' cannot be read"]),
        (["--keys", "empty.toml"], ["empty.toml", "There are no keys"]),
        (["--cors-origin", "*"], ["every web page"]),
        (["--cors-origin", "example.com"], ["'example.com' is no origin"]),
        (["--ssl-certfile", "nothing.crt"], ["nothing.crt", "No such file"]),
        (["--ssl-certfile", "tiny.py"], ["tiny.py", "PEM"]),
        (["--ssl-certfile", CERTIFICATE], ["No certificate and private key"]),
        (["--ssl-keyfile", PRIVATE_KEY], ["--ssl-certfile"]),
        (["--config", "nothing.toml"], ["'nothing.toml' cannot be read"]),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(folder: Path, arguments: list[str], parts: list[str]) -> None:
    (folder / "empty.toml").write_text("")
    ended = holdfast("run", "tiny.py", "--port", "0", *arguments, cwd=folder)
    assert ended.returncode == 2, ended.stderr
    for part in parts:
        assert part in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (folder / "holdfast.db").exists()


def test_a_short_link_secret_is_refused_and_not_shown(folder: Path) -> None:
    ended = holdfast("run", "tiny.py", "--port", "0", cwd=folder, HOLDFAST_LINK_SECRETS="swordfish")
    assert ended.returncode == 2
    assert "16" in ended.stderr
    assert "swordfish" not in ended.stderr
