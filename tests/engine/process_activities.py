"""Activities for worker processes, which find them by importing this module."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path

from holdfast import ActivityContext, App, activity_context

app = App()

LOOK_AGAIN_S = 0.005
PATIENCE_S = 60

_SEEN: ContextVar[str] = ContextVar("seen")


def wait_for(path: str) -> None:
    """Wait until a file is there."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not Path(path).exists():
        assert time.monotonic() < give_up_at, path
        time.sleep(LOOK_AGAIN_S)


def wait_for_text(path: str) -> str:
    """Wait until a file is there, and return what is in it."""
    wait_for(path)
    return Path(path).read_text()


def write(path: str, text: str) -> None:
    """Write a file that is either not there or complete."""
    Path(f"{path}.part").write_text(text)
    Path(f"{path}.part").rename(path)


@app.activity(process=True)
def double(number: int) -> int:
    return 2 * number


@app.activity(process=True)
def length(text: str) -> int:
    return len(text)


@app.activity(process=True)
def pid() -> int:
    return os.getpid()


@app.activity(process=True)
def fails(text: str) -> None:
    raise LookupError(text)


@app.activity(process=True)
def leaves_python() -> None:
    raise SystemExit("enough")


@app.activity(process=True)
def never_ends(pid_file: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    write(pid_file, str(os.getpid()))
    while True:
        try:
            time.sleep(PATIENCE_S)
        except BaseException:
            continue


@app.activity(process=True)
def waits(files: list[str]) -> int:
    """Write the first file, wait for the second."""
    write(files[0], str(os.getpid()))
    wait_for(files[1])
    return os.getpid()


@app.activity(process=True)
def exits(code: int) -> None:
    os._exit(code)


@app.activity(process=True)
def gets_signal(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(PATIENCE_S)


@app.activity(process=True)
def dies_with_a_child_of_its_own(pid_file: str) -> None:
    """Fork a process which goes on, and die."""
    child = os.fork()
    if child == 0:
        time.sleep(PATIENCE_S)
        os._exit(0)
    write(pid_file, str(child))
    os._exit(7)


@app.activity(process=True)
def runs_a_program() -> str:
    done = subprocess.run([sys.executable, "-c", "print('from below')"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@app.activity(process=True)
def beats(count: int) -> int:
    for number in range(count):
        activity_context().heartbeat(number)
    return count


@app.activity(process=True)
def beats_too_much(size: int) -> None:
    activity_context().heartbeat("x" * size)


@app.activity(process=True)
def beats_nonsense() -> None:
    activity_context().heartbeat(object())


@app.activity(process=True)
def goes_on_where_it_was() -> list[int]:
    """Fail in the first attempt after a few steps; the next one takes up from there."""
    context = activity_context()
    begin = context.last_progress(int) or 0
    for step in range(begin, begin + 3):
        context.heartbeat(step + 1)
    if context.attempt == 1:
        raise ConnectionError("in the middle")
    return [begin, begin + 3]


@app.activity(process=True)
def waits_to_be_cancelled(files: list[str]) -> None:
    """Write the first file, wait for the flag, write the second."""
    write(files[0], str(os.getpid()))
    while not activity_context().cancelled:
        time.sleep(LOOK_AGAIN_S)
    write(files[1], str(os.getpid()))


@app.activity(process=True)
def leaves_a_thread_behind(files: list[str]) -> int:
    """Start a thread that still sends heartbeats after the end: it writes the first file, until the second is there."""

    def haunt(context: ActivityContext) -> None:
        for _ in range(100):
            context.heartbeat("late")
        write(files[0], "")
        while not Path(files[1]).exists():
            context.heartbeat("late")

    context = activity_context()
    timer = threading.Timer(0.05, haunt, [context])
    timer.daemon = True
    timer.start()
    return os.getpid()


@app.activity(process=True)
def sees_what_was_set() -> str | None:
    seen = _SEEN.get(None)
    _SEEN.set("set by an earlier call")
    return seen


@app.activity(process=True)
def identity() -> list[object]:
    context = activity_context()
    return [context.instance_id, context.idempotency_key, context.name, context.attempt, dict(context.tags)]
