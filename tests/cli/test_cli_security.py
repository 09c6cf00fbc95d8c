"""`holdfast run` with keys from a file, with TLS, with bounds: what no client in the same process can show."""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
from pathlib import Path

import httpx
import pytest
from cli_process import BASE, TINY, Running, holdfast

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


@posix_only
def test_headers_have_a_bound(folder: Path) -> None:
    with Running("tiny.py", "--store", "memory://", cwd=folder) as running:
        with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2]))) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"x" * 70_000)
            assert connection.recv(100).startswith(b"HTTP/1.1 400")
        assert running.http.get("/healthz", headers={"X-Long": "x" * 10_000}).status_code == 200
        assert running.stop() == 0


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
