"""Each of the six patterns, in this process, with delays too small to wait for."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import pytest

from examples import patterns
from holdfast import EntityId, Host

T = TypeVar("T")

SOON = timedelta(milliseconds=20)
MANAGEMENT = "/runtime/webhooks/durabletask"


def on_host(work: Callable[[Host, httpx.AsyncClient], Awaitable[T]]) -> T:
    """Run something on a host of the patterns that lives in memory, with a client of its HTTP API."""

    async def run() -> T:
        async with (
            patterns.app.host("memory://") as host,
            httpx.AsyncClient(transport=httpx.ASGITransport(host.asgi), base_url="http://localhost") as http,
            asyncio.timeout(30),
        ):
            return await work(host, http)

    return asyncio.run(run())


def run_to_end(orchestrator: Any, input: Any) -> Any:
    async def work(host: Host, _: httpx.AsyncClient) -> Any:
        run = await host.client.start_new(orchestrator, input)
        return await run.wait_for_completion()

    return on_host(work)


class Jobs:
    """A server elsewhere that tells the status of a job: one answer after another, the last one for ever."""

    def __init__(self, answers: list[tuple[int, str]]) -> None:
        self.answers = answers
        self.asked = 0

    def next_answer(self) -> tuple[int, str]:
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def job_server() -> Iterator[tuple[Jobs, str]]:
    jobs = Jobs([(200, "Running")])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, status = jobs.next_answer()
            body = json.dumps({"runtimeStatus": status}).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield jobs, f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


# Chaining


def test_chain_takes_every_step() -> None:
    order = run_to_end(patterns.process_order, patterns.Order("A1", price=10))
    assert order.steps == ("reserve", "charge", "ship")


def test_chain_undoes_what_was_done_when_a_step_fails() -> None:
    order = run_to_end(patterns.process_order, patterns.Order("A1", price=500))
    assert order.steps == ("reserve", "release")


# Fan-out/fan-in


def test_fan_out_adds_up_what_all_activities_found(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.py").write_bytes(b"\n" * number)
    (tmp_path / "notes.txt").write_bytes(b"\n" * 1_000)
    assert run_to_end(patterns.count_all_lines, patterns.Source(str(tmp_path))) == sum(range(30))


def test_fan_out_takes_no_more_files_than_it_may(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.py").write_bytes(b"\n")
    assert run_to_end(patterns.count_all_lines, patterns.Source(str(tmp_path), files_max=3)) == 3


def test_fan_out_over_nothing_is_zero(tmp_path: Path) -> None:
    assert run_to_end(patterns.count_all_lines, patterns.Source(str(tmp_path))) == 0


# Async HTTP API


async def poll(http: httpx.AsyncClient, location: str) -> Any:
    url = urlsplit(location)
    while True:
        answer = await http.get(f"{url.path}?{url.query}")
        if answer.status_code != 202:
            return answer.json()
        await asyncio.sleep(0.01)


def test_work_is_accepted_at_once_and_polled_until_it_is_done() -> None:
    async def work(_: Host, http: httpx.AsyncClient) -> None:
        accepted = await http.post("/api/work?seconds=0.02")
        assert accepted.status_code == 202
        assert accepted.json()["statusQueryGetUri"] == accepted.headers["Location"]
        status = await poll(http, accepted.headers["Location"])
        assert (status["name"], status["runtimeStatus"], status["output"]) == ("DoWork", "Completed", "done")

    on_host(work)


def test_work_needs_no_code_to_be_started_over_http() -> None:
    async def work(_: Host, http: httpx.AsyncClient) -> None:
        accepted = await http.post("/api/orchestrators/DoWork", headers={"Content-Length": "0"})
        assert accepted.status_code == 202
        assert (await poll(http, accepted.headers["Location"]))["runtimeStatus"] == "Completed"

    on_host(work)


# Monitor


def test_monitor_looks_until_the_job_is_completed(job_server: tuple[Jobs, str]) -> None:
    jobs, url = job_server
    jobs.answers = [(200, "Running"), (200, "Running"), (200, "Completed")]
    assert run_to_end(patterns.monitor_job, patterns.Job(url, polling_interval=SOON)) == "Completed"
    assert jobs.asked == 3


def test_monitor_gives_up_when_time_is_up(job_server: tuple[Jobs, str]) -> None:
    jobs, url = job_server
    job = patterns.Job(url, polling_interval=SOON, expires_after=SOON)
    assert run_to_end(patterns.monitor_job, job) == "Expired"
    assert jobs.asked >= 1


# Human interaction


def test_expense_is_paid_once_it_is_approved_over_http() -> None:
    async def work(host: Host, http: httpx.AsyncClient) -> None:
        run = await host.client.start_new(patterns.approve_expense, patterns.Expense("Ann", 120))
        assert (await http.post(f"/api/approve/{run.instance_id}")).status_code == 202
        assert await run.wait_for_completion() == "120 paid to Ann"

    on_host(work)


@pytest.mark.parametrize(("answer", "result"), [("true", "120 paid to Ann"), ("false", "rejected")])
def test_expense_takes_the_answer_from_the_management_api(answer: str, result: str) -> None:
    async def work(host: Host, http: httpx.AsyncClient) -> None:
        run = await host.client.start_new(patterns.approve_expense, patterns.Expense("Ann", 120))
        url = f"{MANAGEMENT}/instances/{run.instance_id}/raiseEvent/ApprovalEvent"
        sent = await http.post(url, content=answer, headers={"Content-Type": "application/json"})
        assert sent.status_code == 202
        assert await run.wait_for_completion() == result

    on_host(work)


def test_expense_is_escalated_when_nobody_answers() -> None:
    assert run_to_end(patterns.approve_expense, patterns.Expense("Ann", 120, approve_within=SOON)) == "escalated"


def test_expense_waits_three_days_unless_told_otherwise() -> None:
    assert patterns.Expense("Ann", 120).approve_within == timedelta(hours=72)


def test_approval_of_an_unknown_expense_is_refused() -> None:
    async def work(_: Host, http: httpx.AsyncClient) -> None:
        assert (await http.post("/api/approve/nobody")).status_code == 404

    on_host(work)


# Aggregator


async def counter(http: httpx.AsyncClient, metric: str, expected: int) -> None:
    """Wait until a counter has an expected value."""
    while True:
        answer = await http.get(f"{MANAGEMENT}/entities/Counter/{metric}")
        if answer.status_code == 200 and answer.json() == {"value": expected}:
            return
        await asyncio.sleep(0.01)


def test_events_of_each_metric_are_added_up() -> None:
    async def work(_: Host, http: httpx.AsyncClient) -> None:
        for metric, delta in [("clicks", 2), ("sales", 10), ("clicks", 3), ("clicks", -1)]:
            assert (await http.post("/api/events", json={"metric": metric, "delta": delta})).status_code == 202
        await counter(http, "clicks", 4)
        await counter(http, "sales", 10)
        await http.post(f"{MANAGEMENT}/entities/Counter/clicks?op=reset")
        await counter(http, "clicks", 0)

    on_host(work)


def test_counter_is_an_ordinary_class() -> None:
    total = patterns.Counter()
    assert (total.add(2), total.add(3), total.get()) == (2, 5, 5)
    assert EntityId(patterns.Counter, "clicks").instance_id == "@counter@clicks"


# The log for the demo


def test_activities_are_logged_only_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOLDFAST_DEMO_LOG", raising=False)
    patterns.note("reserve", "A1")
    log = tmp_path / "activities.log"
    monkeypatch.setenv("HOLDFAST_DEMO_LOG", str(log))
    run_to_end(patterns.process_order, patterns.Order("A1", price=10))
    assert log.read_text(encoding="utf-8").splitlines() == ["reserve\tA1", "charge\tA1", "ship\tA1"]
