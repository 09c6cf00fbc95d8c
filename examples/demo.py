"""All six patterns over HTTP, on a host that is killed twice on the way: `python -m examples.demo`.

The host is a process of its own on a SQLite file. It dies once in the middle of a chain and once in the middle of a
fan-out over 200 files of Python's own library. Everything must finish all the same, with the right results, and no
activity whose result was recorded may run again. That is checked against a log which the activities write themselves.
"""

import contextlib
import http.client
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
FILES = 200
THREADS = 16  # so that the fan-out takes a few seconds on every machine
EVENTS = 60  # for each host
PATIENCE_S = 30.0


class DemoError(Exception):
    """Something did not happen, or not as promised."""


def check(holds: bool, promise: str) -> None:
    if not holds:
        raise DemoError(f"This does not hold: {promise}")


def wait_for(look: Callable[[], T | None], what: str) -> T:
    """Look again and again until there is something to see."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = look()
        if found is not None:
            return found
        time.sleep(0.02)
    raise DemoError(f"Waited {PATIENCE_S:.0f} s in vain for {what}.")


class HostProcess:
    """`holdfast run examples/patterns.py`, with everything that it prints."""

    def __init__(self, folder: Path) -> None:
        self.output: list[str] = []
        self._port: int | None = None
        store = f"sqlite:///{(folder / 'demo.db').as_posix()}"
        command = [sys.executable, "-m", "holdfast", "run", "examples/patterns.py", "--store", store, "--port", "0"]
        self._process = subprocess.Popen(
            [*command, "--set", f"threads_max={THREADS}"],
            cwd=ROOT,
            env=os.environ
            | {"HOLDFAST_DEMO_LOG": str(folder / "activities.log"), "NO_PROXY": "127.0.0.1", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_ready(self) -> None:
        wait_for(lambda: self._port or self._exit_code(), "the host to say where it listens")
        if self._port is None:
            raise DemoError(f"The host has ended with exit code {self._exit_code()}.")
        wait_for(self._answers, "the host to answer")

    def request(self, method: str, url: str, body: Any = None) -> tuple[int, http.client.HTTPMessage, Any]:
        """Send JSON; return the status code, the headers, and the answer's JSON."""
        parts = urlsplit(url)
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        try:
            content = None if body is None else json.dumps(body)
            target = f"{parts.path}?{parts.query}" if parts.query else parts.path
            connection.request(method, target, content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        return response.status, response.headers, json.loads(text) if text else None

    def start(self, orchestrator: str, instance_id: str, input: Any) -> None:
        code, _, answer = self.request("POST", f"/api/orchestrators/{orchestrator}/{instance_id}", input)
        check(code == 202, f"a start is accepted (it was answered with {code} {answer})")

    def status(self, instance_id: str) -> Any:
        code, _, status = self.request(
            "GET", f"/runtime/webhooks/durabletask/instances/{instance_id}?showHistory=true&showHistoryOutput=true"
        )
        check(code in (200, 202), f"an instance that was started is there (its status was answered with {code})")
        return status

    def finished(self, instance_id: str) -> Any:
        """Wait for the result of an instance."""

        def look() -> Any:
            status = self.status(instance_id)
            return None if status["runtimeStatus"] in ("Pending", "Running") else status

        status = wait_for(look, f"{instance_id} to end")
        check(status["runtimeStatus"] == "Completed", f"{instance_id} completes (it is {json.dumps(status)[:800]})")
        return status["output"]

    def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        self._process.terminate()
        self._end()
        code = self._process.returncode
        check(code == 0 or os.name == "nt", f"a host that is asked to stop ends with code 0, not {code}")

    def kill(self) -> None:
        """SIGKILL, or what comes next to it: no handler, no flush, no goodbye."""
        self._process.kill()
        self._end()

    def _end(self) -> None:
        self._process.wait(timeout=PATIENCE_S)
        self._reader.join(timeout=5)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(ValueError):  # closed by `kill`
            for line in self._process.stdout:
                self.output.append(line)
                found = re.search(r"http://[^\s/]+?:(\d+)", line)
                if found is not None and self._port is None:
                    self._port = int(found.group(1))

    def _exit_code(self) -> int | None:
        return self._process.poll()

    def _answers(self) -> bool | None:
        try:
            code, _, _ = self.request("GET", "/runtime/webhooks/durabletask/instances/nobody")
        except OSError:
            return None
        return True if code == 404 else None


class JobServer:
    """A system elsewhere whose job the monitor watches. It has nothing to do with Holdfast."""

    def __init__(self) -> None:
        self.status = "Running"
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps({"runtimeStatus": owner.status}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/jobs/1"

    def __enter__(self) -> "JobServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class ActivityLog:
    """What the activities have written, told apart by the host that ran them: (activity, subject) for each attempt."""

    path: Path
    hosts: list[list[tuple[str, str]]] = field(default_factory=list[list[tuple[str, str]]])

    def end_of_host(self) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines()[len(self.attempts()) :]
        self.hosts.append([(line.split("\t")[0], line.split("\t")[1]) for line in lines])

    def attempts(self) -> list[tuple[str, str]]:
        return [attempt for host in self.hosts for attempt in host]

    def per_host(self, pattern: str) -> str:
        return " + ".join(str(sum(pattern_of(*attempt) == pattern for attempt in host)) for host in self.hosts)


def pattern_of(activity: str, subject: str) -> str:
    match activity:
        case "reserve" | "charge" | "ship" | "release":
            return "chaining"
        case "list_files" | "count_lines":
            return "fan-out/fan-in"
        case "do_step":
            return "async HTTP API"
        case "notify" if subject.startswith("http"):
            return "monitor"
        case "get_job_status":
            return "monitor"
        case _:
            return "human interaction"


def completed(status: Any, activity: str) -> list[Any]:
    """The results of an activity that are recorded in the history of an instance."""
    events: list[Any] = status.get("historyEvents") or []
    return [
        event.get("Result")
        for event in events
        if event["EventType"] == "TaskCompleted" and event["FunctionName"] == activity
    ]


class Demo:
    def __init__(self, folder: Path, job_server: JobServer) -> None:
        self._folder = folder
        self._job_server = job_server
        self._log = ActivityLog(folder / "activities.log")
        library = Path(json.__file__).parent.parent
        paths = sorted(path for path in library.rglob("*.py"))
        self._library, self._paths = library, paths[:FILES]
        self._expected = {str(path): path.read_bytes().count(b"\n") for path in self._paths}
        self._acknowledged: Counter[str] = Counter()
        self._results: dict[str, str] = {}
        self.hosts: list[HostProcess] = []

    def run(self) -> None:
        started = time.monotonic()
        self._first_host()
        self._second_host()
        self._third_host()
        self._print_table(time.monotonic() - started)

    def kill_all(self) -> None:
        for host in self.hosts:
            host.kill()

    def _new_host(self) -> HostProcess:
        host = HostProcess(self._folder)
        self.hosts.append(host)
        host.wait_ready()
        return host

    def _kill(self, host: HostProcess, reason: str) -> None:
        host.kill()
        self._log.end_of_host()
        print(f"killed the host {reason}", flush=True)

    def _first_host(self) -> None:
        """Start one of each but the fan-out; die in the middle of the chain."""
        host = self._new_host()
        job = {"status_url": self._job_server.url, "polling_interval": "PT0.3S"}
        host.start("monitor_job", "monitor", job)
        host.start("approve_expense", "approved", {"employee": "Ann", "amount": 120})
        host.start("approve_expense", "unanswered", {"employee": "Bob", "amount": 80, "approve_within": "PT2S"})
        code, headers, answer = host.request("POST", "/api/work?seconds=2.5")
        check(code == 202 and "Location" in headers, "work is accepted with 202 and the address of its status")
        self._work_id, self._work_url = answer["id"], headers["Location"]
        host.start("process_order", "declined", {"id": "A2", "price": 500})
        host.start("process_order", "chain", {"id": "A1", "price": 10, "step_takes": "PT0.8S"})

        def is_in_the_middle() -> bool | None:
            status = host.status("chain")
            check(status["runtimeStatus"] in ("Pending", "Running"), "the chain has not ended when it is looked at")
            return True if completed(status, "reserve") else None

        self._feed(host)
        wait_for(is_in_the_middle, "the chain to be in its middle")
        self._kill(host, "in the middle of the chain: `reserve` is recorded, `ship` is not")

    def _second_host(self) -> None:
        """Let the chain finish; die in the middle of the fan-out, right after the last event was acknowledged."""
        host = self._new_host()
        order = host.finished("chain")
        check(order["steps"] == ["reserve", "charge", "ship"], f"each step has its effect once (there is {order})")
        self._results["chaining"] = " > ".join(order["steps"])
        declined = host.finished("declined")
        check(declined["steps"] == ["reserve", "release"], f"a declined order is released (there is {declined})")

        folder = {"path": str(self._library), "files_max": FILES, "file_takes": "PT0.3S"}
        host.start("count_all_lines", "fan-out", folder)

        def part() -> int | None:
            done = len(completed(host.status("fan-out"), "count_lines"))
            return done if done >= FILES // 10 else None

        wait_for(part, "a part of the fan-out to be done")
        self._feed(host)
        self._recorded = len(completed(host.status("fan-out"), "count_lines"))
        check(0 < self._recorded < FILES, f"the fan-out is in its middle ({self._recorded} of {FILES} are done)")
        self._kill(host, f"in the middle of the fan-out: {self._recorded} of {FILES} results are recorded")

    def _third_host(self) -> None:
        """Let everything finish, and compare it with what it must be."""
        host = self._new_host()
        self._feed(host)
        self._job_server.status = "Completed"
        code, _, _ = host.request("POST", "/api/approve/approved")
        check(code == 202, "an approval is accepted")

        total = host.finished("fan-out")
        check(
            total == sum(self._expected.values()),
            f"{FILES} files have {sum(self._expected.values())} lines, not {total}",
        )
        self._results["fan-out/fan-in"] = f"{total} lines in {FILES} files"
        work = wait_for(lambda: self._poll_work(host), "the work to be done")
        check(work["output"] == "done", f"the work is done (its status is {work})")
        self._results["async HTTP API"] = "202, then 200 and 'done'"
        check(host.finished("monitor") == "Completed", "the monitor sees the job completed")
        self._results["monitor"] = "saw the job completed"
        check(host.finished("approved") == "120 paid to Ann", "an approved expense is paid")
        check(host.finished("unanswered") == "escalated", "an expense without an answer is escalated")
        self._results["human interaction"] = "one approved, one escalated"
        wait_for(lambda: self._counters(host) == self._acknowledged or None, "all counters to have all events")
        self._results["aggregator"] = f"{3 * EVENTS} events in {len(self._acknowledged)} counters"
        host.stop()
        self._log.end_of_host()
        self._check_attempts()

    def _poll_work(self, host: HostProcess) -> Any:
        """Poll as a caller does, who knows only the address that he was given; the port is another one now."""
        code, _, status = host.request("GET", self._work_url)
        check(code in (200, 202), f"a status is answered with 202 and then 200 (it was {code})")
        return status if code == 200 else None

    def _feed(self, host: HostProcess) -> None:
        """Send events, each with the size of a file; a counter for each folder adds them up."""
        for path in self._paths[-EVENTS:]:
            metric, delta = path.parent.name, path.stat().st_size
            code, _, _ = host.request("POST", "/api/events", {"metric": metric, "delta": delta})
            check(code == 202, f"an event is accepted (it was answered with {code})")
            self._acknowledged[metric] += delta

    def _counters(self, host: HostProcess) -> dict[str, int]:
        found: dict[str, int] = {}
        for metric in self._acknowledged:
            code, _, state = host.request("GET", f"/runtime/webhooks/durabletask/entities/Counter/{quote(metric)}")
            check(code == 200, f"the counter {metric} is there (it was answered with {code})")
            check(state["value"] <= self._acknowledged[metric], f"counter {metric} counts nothing twice")
            found[metric] = state["value"]
        return found

    def _check_attempts(self) -> None:
        runs = Counter(self._log.attempts())
        check(runs["reserve", "A1"] == 1, "the recorded step of the chain runs once")
        check({runs["charge", "A1"], runs["ship", "A1"]} <= {1, 2}, "the other steps run once, or twice if cut short")
        check(runs["list_files", str(self._library)] == 1, "the files are listed once")
        check({path for name, path in runs if name == "count_lines"} == self._expected.keys(), "each file is counted")
        again = sum(name == "count_lines" for name, _ in self._log.hosts[2])
        check(again <= FILES - self._recorded, f"no recorded result is computed again ({again} ran after the kill)")

    def _print_table(self, seconds: float) -> None:
        instances = {
            "chaining": ("chain", "declined"),
            "fan-out/fan-in": ("fan-out",),
            "async HTTP API": (self._work_id,),
            "monitor": ("monitor",),
            "human interaction": ("approved", "unanswered"),
        }
        rows = [("pattern", "result", "episodes", "attempts by host", "time")]
        uri = f"{(self._folder / 'demo.db').as_uri()}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as store:
            for pattern, instance_ids in instances.items():
                episodes, microseconds = store.execute(
                    "SELECT sum(episodes), max(updated_at - created_at) FROM instance "
                    "WHERE instance_id IN (SELECT value FROM json_each(?))",
                    (json.dumps(instance_ids),),
                ).fetchone()
                attempts = self._log.per_host(pattern)
                rows.append((pattern, self._results[pattern], str(episodes), attempts, f"{microseconds / 1e6:.1f} s"))
        rows.append(("aggregator", self._results["aggregator"], "-", "-", "-"))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        rows.insert(1, ("-" * widths[0], "-" * widths[1], "-" * widths[2], "-" * widths[3], "-" * widths[4]))
        print()
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        print(f"\nEverything finished with the right results, over 2 crashes, in {seconds:.1f} s.")


def main() -> int:
    """Run the demo; return the exit code."""
    folder = Path(tempfile.mkdtemp(prefix="holdfast-demo-")).resolve()
    demo: Demo | None = None
    try:
        with JobServer() as job_server:
            demo = Demo(folder, job_server)
            demo.run()
    except Exception:
        traceback.print_exc()
        for number, host in enumerate(demo.hosts if demo else [], start=1):
            print(f"\nWhat host {number} said:\n{''.join(host.output)}", file=sys.stderr)
        return 1
    finally:
        if demo is not None:
            demo.kill_all()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
