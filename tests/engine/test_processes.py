"""Worker processes: what crosses the boundary, and that each can be killed without the others."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import process_activities as does
import pytest
from engine_kit import until

from holdfast import Activity, HoldfastError, HostStoppedError
from holdfast.codec.history import decode_record, encode_record
from holdfast.engine.activity_context import AttemptInfo
from holdfast.engine.process_messages import ProcessCall, ProcessResult
from holdfast.engine.processes import ProcessWorkers, WorkerProcessDiedError
from holdfast.model.failure import FailureDetails

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither signals nor forks")

PAYLOAD_BYTES_MAX = 4 * 1024 * 1024
INFO = AttemptInfo("instance", "execution", 3, "some activity", 2, {"team": "blue"})


def on(scenario: Callable[[ProcessWorkers], Awaitable[None]], processes_max: int = 1, grace_s: float = 0.0) -> None:
    """Run a scenario on workers, and check that it leaves nothing behind."""

    async def main() -> None:
        workers = ProcessWorkers(processes_max, grace_s)
        try:
            await scenario(workers)
        finally:
            await workers.close(does.PATIENCE_S)
        assert multiprocessing.active_children() == []

    asyncio.run(main())


def call_of(activity: Activity[Any, Any], input: object = None, info: AttemptInfo = INFO) -> ProcessCall:
    function = activity.function
    text = json.dumps(input) if activity.has_input else None
    return ProcessCall(function.__module__, function.__qualname__, text, encode_record(info), PAYLOAD_BYTES_MAX)


def run(
    workers: ProcessWorkers,
    activity: Activity[Any, Any],
    input: object = None,
    *,
    info: AttemptInfo = INFO,
    on_heartbeat: Callable[[str], None] = lambda _: None,
) -> Coroutine[Any, Any, ProcessResult]:
    return workers.run(call_of(activity, input, info), on_heartbeat)


async def value(workers: ProcessWorkers, activity: Activity[Any, Any], input: object = None) -> Any:
    result = await run(workers, activity, input)
    assert result.succeeded, result.text
    return json.loads(result.text)


async def failure(workers: ProcessWorkers, activity: Activity[Any, Any], input: object = None) -> FailureDetails:
    result = await run(workers, activity, input)
    assert not result.succeeded
    return decode_record(result.text, FailureDetails)


async def text_of(path: Path) -> str:
    """What another process writes into a file, once it is there."""
    return await asyncio.to_thread(does.wait_for_text, str(path))


def is_gone(pid: int) -> bool:
    """Whether a process has ended; nobody need have asked for its exit code yet."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except ProcessLookupError:  # also between opening the file and reading it
        return True
    except FileNotFoundError:
        return False  # no /proc here, or the process ended just now: the next look tells


# What crosses the boundary


def test_results_and_failures_cross_the_boundary_and_the_process_is_used_again() -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        assert await value(workers, does.double, 21) == 42
        first = await value(workers, does.pid)
        assert first != os.getpid()
        details = await failure(workers, does.fails, "not there")
        assert details.error_type == "builtins.LookupError"
        assert "not there" in details.error_message
        assert "def fails" in str(details.stack_trace) or "in fails" in str(details.stack_trace)
        assert (await failure(workers, does.leaves_python)).error_type == "builtins.SystemExit"
        assert "int" in (await failure(workers, does.double, "no number")).error_message
        assert await value(workers, does.identity) == ["instance", "execution:3", "some activity", 2, {"team": "blue"}]
        assert await value(workers, does.runs_a_program) == "from below"
        assert await value(workers, does.pid) == first

    on(scenario)


def test_inputs_may_be_as_large_as_payloads() -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        size = PAYLOAD_BYTES_MAX - 100
        assert await asyncio.gather(*(value(workers, does.length, "x" * size) for _ in range(3))) == [size] * 3

    on(scenario, processes_max=2)


@posix_only
@pytest.mark.parametrize("grace_s", [0.0, 0.01])
def test_a_process_that_does_not_read_does_not_hold_up_the_loop(grace_s: float) -> None:
    """If the loop sent the input, or the word that the call is cancelled, it would wait here for ever."""

    async def scenario(workers: ProcessWorkers) -> None:
        stopped = await value(workers, does.pid)
        os.kill(stopped, signal.SIGSTOP)
        large = asyncio.create_task(value(workers, does.length, "x" * 1_000_000))
        await asyncio.sleep(0)  # now the process that is stopped is taken
        assert await value(workers, does.double, 2) == 4
        os.kill(stopped, signal.SIGCONT)
        assert await large == 1_000_000
        os.kill(stopped, signal.SIGSTOP)
        async with asyncio.timeout(does.PATIENCE_S):
            while not is_gone(stopped):  # a call that is cancelled before it began kills nobody
                large = asyncio.create_task(value(workers, does.length, "x" * 1_000_000))
                await asyncio.sleep(0.01)
                large.cancel()
                await asyncio.wait([large])
        assert await value(workers, does.double, 2) == 4

    on(scenario, processes_max=2, grace_s=grace_s)


def test_a_call_does_not_see_what_an_earlier_one_set() -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        assert await value(workers, does.sees_what_was_set) is None
        assert await value(workers, does.sees_what_was_set) is None

    on(scenario)


# Heartbeats


def test_heartbeats_arrive_in_order_and_before_the_result() -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        heard: list[str] = []
        assert (await run(workers, does.beats, 500, on_heartbeat=heard.append)).succeeded
        assert heard == [str(number) for number in range(500)]

    on(scenario)


def test_a_heartbeat_that_cannot_be_sent_is_refused_where_it_is_made() -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        details = await failure(workers, does.beats_too_much, PAYLOAD_BYTES_MAX)
        assert details.error_type == "holdfast.errors.PayloadTooLargeError"
        assert f"{PAYLOAD_BYTES_MAX:,}" in details.error_message
        assert (await failure(workers, does.beats_nonsense)).error_type == "holdfast.errors.PayloadError"

    on(scenario)


def test_the_next_attempt_sees_the_progress_of_the_one_before() -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        heard: list[str] = []
        info = AttemptInfo("i", "e", 0, "n", 1)
        assert not (await run(workers, does.goes_on_where_it_was, info=info, on_heartbeat=heard.append)).succeeded
        info = AttemptInfo("i", "e", 0, "n", 2, progress=heard[-1])
        result = await run(workers, does.goes_on_where_it_was, info=info)
        assert json.loads(result.text) == [3, 6]

    on(scenario)


def test_what_a_thread_of_an_earlier_call_reports_is_not_taken_for_the_next(tmp_path: Path) -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        haunting, enough = tmp_path / "haunting", tmp_path / "enough"
        first = await value(workers, does.leaves_a_thread_behind, [str(haunting), str(enough)])
        heard: list[str] = []
        call = asyncio.create_task(
            run(workers, does.waits, [str(tmp_path / "began"), str(haunting)], on_heartbeat=heard.append)
        )
        assert json.loads((await call).text) == first
        assert (await run(workers, does.beats, 100, on_heartbeat=heard.append)).succeeded
        enough.touch()
        assert heard == [str(number) for number in range(100)]

    on(scenario)


# Killing


@posix_only
def test_a_call_that_is_cancelled_is_killed_and_the_others_go_on(tmp_path: Path) -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        go = tmp_path / "go"
        other = asyncio.create_task(value(workers, does.waits, [str(tmp_path / "other"), str(go)]))
        stuck = asyncio.create_task(value(workers, does.never_ends, str(tmp_path / "stuck")))
        killed = int(await text_of(tmp_path / "stuck"))
        undisturbed = int(await text_of(tmp_path / "other"))
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        await until(lambda: is_gone(killed))
        assert await value(workers, does.pid) not in (killed, undisturbed)
        go.touch()
        assert await other == undisturbed

    on(scenario, processes_max=2)


@posix_only
def test_a_call_that_takes_too_long_is_killed_and_the_next_has_a_new_process(tmp_path: Path) -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        for attempt in range(3):
            pid_file = tmp_path / str(attempt)
            stuck = asyncio.create_task(run(workers, does.never_ends, str(pid_file)))
            killed = int(await text_of(pid_file))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(stuck, 0)
            await until(lambda killed=killed: is_gone(killed))
            assert await value(workers, does.double, attempt) == 2 * attempt

    on(scenario)


def test_calls_that_are_cancelled_at_any_time_leave_the_places_free() -> None:
    """While they wait for a place, while the process starts, while it runs, when it has just ended."""

    async def scenario(workers: ProcessWorkers) -> None:
        for turn in range(60):
            calls = [asyncio.create_task(value(workers, does.double, number)) for number in range(4)]
            if turn % 2:
                await asyncio.sleep(turn * 0.0003)
            else:
                await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
            for call in calls[turn % 4 :]:
                call.cancel()
            done = await asyncio.gather(*calls, return_exceptions=True)
            for number, outcome in enumerate(done):
                assert outcome == 2 * number or isinstance(outcome, asyncio.CancelledError), outcome
        assert await asyncio.gather(*(value(workers, does.double, n) for n in range(6))) == [0, 2, 4, 6, 8, 10]

    on(scenario, processes_max=2)


def test_with_grace_a_cancelled_call_is_told_and_its_process_kept(tmp_path: Path) -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        began, told = tmp_path / "began", tmp_path / "told"
        call = asyncio.create_task(run(workers, does.waits_to_be_cancelled, [str(began), str(told)]))
        process = await text_of(began)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await text_of(told) == process
        assert await value(workers, does.pid) == int(process)

    on(scenario, grace_s=does.PATIENCE_S)


@posix_only
def test_after_the_grace_the_process_is_killed(tmp_path: Path) -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        call = asyncio.create_task(run(workers, does.never_ends, str(tmp_path / "stuck")))
        killed = int(await text_of(tmp_path / "stuck"))
        call.cancel()
        await until(lambda: is_gone(killed))
        assert await value(workers, does.pid) != killed

    on(scenario, grace_s=0.05)


# Places


def test_as_many_run_as_there_are_places_and_the_rest_in_order(tmp_path: Path) -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        began = [tmp_path / f"began {number}" for number in range(6)]
        go = [tmp_path / f"go {number}" for number in range(6)]
        calls = [
            asyncio.create_task(value(workers, does.waits, [str(began[number]), str(go[number])]))
            for number in range(6)
        ]
        for number in range(6):
            running = min(number + 2, 6)
            await until(lambda running=running: all(path.exists() for path in began[:running]))
            assert [path.exists() for path in began] == [each < running for each in range(6)]
            go[number].touch()
            await calls[number]
        assert len({call.result() for call in calls}) == 2

    on(scenario, processes_max=2)


# Deaths


@posix_only
@pytest.mark.parametrize(
    ("activity", "input", "how"),
    [
        (does.exits, 3, "exit code 3"),
        (does.exits, 0, "exit code 0"),
        (does.gets_signal, int(signal.SIGKILL), "SIGKILL"),
        (does.gets_signal, int(signal.SIGSEGV), "SIGSEGV"),
    ],
)
def test_a_process_that_dies_by_itself_is_reported_and_replaced(
    activity: Activity[Any, Any], input: int, how: str
) -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        first = await value(workers, does.pid)
        with pytest.raises(WorkerProcessDiedError, match=how) as died:
            await run(workers, activity, input)
        assert isinstance(died.value, HoldfastError)
        assert activity.function.__qualname__ in str(died.value)
        assert await value(workers, does.pid) != first

    on(scenario)


@posix_only
def test_a_process_whose_own_child_lives_on_is_seen_to_die(tmp_path: Path) -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        with pytest.raises(WorkerProcessDiedError, match="exit code 7"):
            await run(workers, does.dies_with_a_child_of_its_own, str(tmp_path / "child"))
        os.kill(int(await text_of(tmp_path / "child")), signal.SIGKILL)

    on(scenario)


@posix_only
def test_a_process_that_dies_while_it_has_nothing_to_do_is_replaced_silently() -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        processes = [await value(workers, does.pid)]
        for _ in range(20):
            os.kill(processes[-1], signal.SIGKILL)  # which takes some time: the next call may come before, or after it
            processes.append(await value(workers, does.pid))
            assert processes[-1] != processes[-2]

    on(scenario)


HOST = """
import asyncio, sys
import process_activities as does
from test_processes import run, value
from holdfast.engine.processes import ProcessWorkers

kept = []

async def main():
    workers = ProcessWorkers(2)
    kept.append(workers)
    busy = asyncio.create_task(run(workers, does.never_ends, sys.argv[1]))
    print(await value(workers, does.pid), flush=True)
    {then}

if __name__ == "__main__":
    {how}
"""


def start_host(tmp_path: Path, then: str, how: str = "asyncio.run(main())") -> subprocess.Popen[str]:
    """A process with a busy worker process, whose pid it writes into a file, and an idle one, whose pid it prints."""
    script = tmp_path / "host.py"
    script.write_text(HOST.format(then=then, how=how))
    return subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "busy")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )


@posix_only
def test_worker_processes_die_with_a_host_that_is_killed(tmp_path: Path) -> None:
    with start_host(tmp_path, "await busy") as host:
        assert host.stdout is not None
        idle = int(host.stdout.readline())
        busy = int(does.wait_for_text(str(tmp_path / "busy")))
        host.kill()
    wait_until_gone(idle, busy)


@posix_only
@pytest.mark.parametrize("how", ["asyncio.run(main())", "asyncio.new_event_loop().run_until_complete(main())"])
def test_worker_processes_die_with_a_host_that_forgets_to_close_them(tmp_path: Path, how: str) -> None:
    """Also where the loop just stops, so that nothing is cancelled, and something still refers to the workers."""
    with start_host(tmp_path, "await asyncio.to_thread(does.wait_for, sys.argv[1])", how) as host:
        assert host.stdout is not None
        idle = int(host.stdout.readline())
        assert host.wait(does.PATIENCE_S) == 0
    wait_until_gone(idle, int((tmp_path / "busy").read_text()))


def wait_until_gone(*pids: int) -> None:
    give_up_at = time.monotonic() + does.PATIENCE_S
    while not all(map(is_gone, pids)):
        assert time.monotonic() < give_up_at
        time.sleep(does.LOOK_AGAIN_S)


# The end


@posix_only
def test_closing_kills_what_runs_and_refuses_what_waits(tmp_path: Path) -> None:
    async def main() -> None:
        workers = ProcessWorkers(2)
        idle = await value(workers, does.pid)
        stuck = [asyncio.create_task(run(workers, does.never_ends, str(tmp_path / str(n)))) for n in range(2)]
        busy = [int(await text_of(tmp_path / str(n))) for n in range(2)]
        waiting = asyncio.create_task(run(workers, does.pid))
        await asyncio.sleep(0)
        await workers.close(does.PATIENCE_S)
        assert multiprocessing.active_children() == []
        assert all(map(is_gone, [idle, *busy]))
        for call in stuck:
            with pytest.raises(WorkerProcessDiedError):
                await call
        for call in (waiting, run(workers, does.pid)):
            with pytest.raises(HostStoppedError):
                await call
        await workers.close(does.PATIENCE_S)

    asyncio.run(main())


@posix_only
def test_all_can_be_killed_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        workers = ProcessWorkers(2)
        stuck = asyncio.create_task(run(workers, does.never_ends, str(tmp_path / "stuck")))
        busy = int(await text_of(tmp_path / "stuck"))
        idle = await value(workers, does.pid)
        workers.kill_all()
        await until(lambda: is_gone(busy) and is_gone(idle))
        with pytest.raises(WorkerProcessDiedError):
            await stuck
        await until(lambda: multiprocessing.active_children() == [])

    asyncio.run(main())


def test_workers_that_were_never_used_have_nothing_to_close() -> None:
    async def scenario(workers: ProcessWorkers) -> None:
        assert multiprocessing.active_children() == []

    on(scenario)
