"""`holdfast run` as a process: it serves, stops in good order, and goes on where it was."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import sqlite3
import sys
from pathlib import Path

import pytest
from cli_process import BASE, TINY, Running, holdfast

from holdfast import App
from holdfast.cli.describe import describe

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.py"
    path.write_text(TINY)
    return path


@posix_only
def test_it_runs_stops_in_good_order_and_remembers(tiny: Path, tmp_path: Path) -> None:
    with Running("tiny.py", cwd=tmp_path) as first:
        for part in ("sqlite:///", "holdfast.db", "flow, waiting", "double, negative", "GET /api/hello", "none"):
            assert part in first.output
        assert first.http.get("/healthz").status_code == 200
        assert first.http.get("/api/hello").json() == "hello"
        assert first.result("done") == -42
        assert first.http.post(f"{BASE}/orchestrators/waiting/open").status_code == 202
        assert first.stop() == 0
        assert "Traceback" not in first.output
        assert "Warning" not in first.output
    assert (tmp_path / "holdfast.db").exists()

    with Running(str(tiny), cwd=Path(tmp_path.anchor)) as second:
        assert second.status("done")["output"] == -42
        assert second.http.post(f"{BASE}/instances/open/raiseEvent/Go", json="now").status_code == 202
        assert second.stop() == 0


@posix_only
def test_a_file_in_a_directory_keeps_its_store_there_and_a_module_in_the_current_one(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "apps.py").write_text(TINY.replace("app = App()", "app = other = App()"))
    with Running("package/apps.py:other", cwd=tmp_path) as by_file:
        assert by_file.result("x") == -42
        assert by_file.stop() == 0
    assert (tmp_path / "package" / "holdfast.db").exists()
    with Running("package.apps", cwd=tmp_path) as by_module:
        assert by_module.result("x") == -42
        assert by_module.stop() == 0
    assert (tmp_path / "holdfast.db").exists()


@posix_only
def test_interrupt_stops_in_good_order_too_and_frees_who_waits(tiny: Path, tmp_path: Path) -> None:
    with Running("tiny.py", "--store", "memory://", cwd=tmp_path) as running:
        with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2]))) as waiting:
            url = f"{BASE}/orchestrators/waiting/x?timeout=3600&pollingInterval=1"
            request = f"POST {url} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            waiting.sendall(request.encode())
            while running.http.get(f"{BASE}/instances/x").status_code == 404:
                pass
            running.process.send_signal(signal.SIGINT)
            assert waiting.recv(100).startswith(b"HTTP/1.1 202")
        assert running.end() == 0


@posix_only
def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        TINY.replace("return 2 * number", "print('It began.', flush=True); time.sleep(3600)")
    )
    with Running("slow.py", "--set", "drain_s=3600", cwd=tmp_path) as running:
        assert running.http.post(f"{BASE}/orchestrators/flow/x", json=1).status_code == 202
        running.wait_for("It began.")
        running.process.send_signal(signal.SIGTERM)
        running.wait_for("Stopping.")
        assert running.process.poll() is None
        while running.http.get("/healthz").status_code != 503:  # it says so a moment before it does
            assert running.process.poll() is None
        assert running.http.post(f"{BASE}/orchestrators/waiting").status_code == 503
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == 128 + signal.SIGTERM
    (tmp_path / "slow.py").write_text(TINY)
    with Running("slow.py", cwd=tmp_path) as again:
        again.http.post(f"{BASE}/orchestrators/waiting/y")
        assert again.result("z") == -42
        assert again.status("x")["runtimeStatus"] in ("Running", "Completed")


@posix_only
def test_a_thread_that_never_ends_does_not_keep_the_process(tmp_path: Path) -> None:
    (tmp_path / "stuck.py").write_text(
        TINY.replace("return 2 * number", "print('It began.', flush=True); time.sleep(3600)")
    )
    with Running("stuck.py", "--set", "drain_s=0.1", cwd=tmp_path) as running:
        assert running.http.post(f"{BASE}/orchestrators/flow/x", json=1).status_code == 202
        running.wait_for("It began.")
        running.process.send_signal(signal.SIGTERM)
        assert running.end() == 0


@posix_only
def test_a_store_that_is_lost_ends_it_with_code_3(tmp_path: Path) -> None:
    (tmp_path / "robbed.py").write_text(TINY)
    with Running("robbed.py", cwd=tmp_path) as running:
        with contextlib.closing(sqlite3.connect(tmp_path / "holdfast.db")) as thief, thief:
            thief.execute("UPDATE node SET incarnation = incarnation + 1")
        assert running.http.post(f"{BASE}/orchestrators/waiting/x").status_code == 503
        assert running.end() == 3
        assert "lost its store" in running.output
        assert "Traceback" not in running.output


@posix_only
def test_a_store_that_is_in_use_ends_it_with_code_2(tiny: Path, tmp_path: Path) -> None:
    with Running("tiny.py", cwd=tmp_path) as running:
        second = holdfast("run", "tiny.py", "--port", "0", cwd=tmp_path)
        assert second.returncode == 2
        assert "is in use by process" in second.stderr
        assert "Traceback" not in second.stderr
        assert running.result("x") == -42


@posix_only
def test_a_port_that_is_in_use_ends_it_with_code_2(tiny: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = holdfast("run", "tiny.py", "--port", port, cwd=tmp_path)
    assert refused.returncode == 2
    assert f"port {port}" in refused.stderr
    assert "--port" in refused.stderr
    assert "Traceback" not in refused.stderr
    with Running("tiny.py", cwd=tmp_path) as running:
        assert running.http.get("/healthz").status_code == 200


@posix_only
def test_a_key_opens_a_public_address_and_stays_out_of_the_log(tiny: Path, tmp_path: Path) -> None:
    with Running("tiny.py", "--host", "0.0.0.0", cwd=tmp_path, HOLDFAST_KEY="sw0rdfish") as running:
        url = f"http://127.0.0.1:{running.url.rpartition(':')[2]}"
        assert running.http.get(f"{url}/api/hello").status_code == 401
        assert running.http.get(f"{url}/api/hello?code=sw0rdfish").status_code == 200
        assert running.http.post(f"{url}{BASE}/orchestrators/nobody?code=sw0rdfish").status_code == 400
        assert running.stop() == 0
        assert "sw0rdfish" not in running.output


@posix_only
def test_without_a_key_pages_of_other_hosts_are_refused(tiny: Path, tmp_path: Path) -> None:
    with Running("tiny.py", cwd=tmp_path) as running:
        assert running.http.get("/api/hello", headers={"Host": "evil.example"}).status_code == 403
        assert running.http.get("/api/hello", headers={"Origin": "http://evil.example"}).status_code == 403
        assert running.stop() == 0


def test_a_host_says_which_queues_it_serves_if_not_all() -> None:
    def described(*queues: str) -> str:
        return describe(App(), name="x.py", url="u", store="s", has_key=True, queues=queues or None)

    assert "queues" not in described()
    assert re.search(r"Of the queues +default, gpu\n", described("gpu", "default"))
