"""Hosts on PostgreSQL are killed, paused, and left by their server under load: nothing acknowledged is lost or doubled.

What they are and what is looked at is that of test_kill.py.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from postgres_rows import check_cold_postgres, end_lease, rows_in_postgres
from test_kill import begin_host, check_said, is_ready, said_by

from postgres_kit import drop, new_schema, private_server

SOON_S = 60.0


@pytest.fixture
def url(postgres_server: str) -> Iterator[str]:
    url = f"{new_schema(postgres_server, partitions=4)}&lease_s=1"
    yield url
    drop(url)


def check(url: str, log: Path, said: list[list[str]]) -> None:
    check_said(url, log, said)
    check_cold_postgres(url)


def kill_again_and_again(url: str, log: Path, kills: int, seed: int) -> None:
    dice, said = random.Random(seed), list[list[str]]()
    for number in range(kills):
        process = begin_host(url, log, "load", str(number))
        is_ready(process)
        time.sleep(dice.uniform(0, 0.3))
        process.kill()
        said += said_by(process)
        if number % 5 == 4:
            check_cold_postgres(url)
        if number % 5:  # else it waits for the end of the lease, as anybody has to
            end_lease(url)
    check(url, log, said)


def test_killed_at_random_points(url: str, tmp_path: Path, survived: Callable[[str, int], None]) -> None:
    kill_again_and_again(url, tmp_path / "activities.log", kills=6, seed=20261123)
    survived("kills on PostgreSQL", 6)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3))
def test_killed_many_more_times(url: str, tmp_path: Path, seed: int, survived: Callable[[str, int], None]) -> None:
    kill_again_and_again(url, tmp_path / "activities.log", kills=100, seed=seed)
    survived("kills on PostgreSQL", 100)


def pause_and_take_over(url: str, log: Path, name: str, dice: random.Random) -> list[list[str]]:
    """Pause a host wherever it is until another has waited for its lease and works; return what both said."""
    errors = log.with_name("errors")
    with ExitStack() as at_the_end:
        paused = begin_host(url, log, "load", f"{name}.paused", errors=errors)
        at_the_end.callback(paused.kill)
        is_ready(paused)
        time.sleep(dice.uniform(0, 0.3))
        paused.send_signal(signal.SIGSTOP)
        successor = begin_host(url, log, "load", f"{name}.successor")
        at_the_end.callback(successor.kill)
        is_ready(successor)
        time.sleep(dice.uniform(0, 0.3))
        with ThreadPoolExecutor(2) as readers:  # who is not read from stands still
            said = [readers.submit(said_by, each) for each in (paused, successor)]
            paused.send_signal(signal.SIGCONT)
            try:
                wait_until_it_knows(errors)
            finally:  # it may have ended, or have got a share of the hub since
                paused.kill()
                successor.kill()
        return [line for each in said for line in each.result()]


def wait_until_it_knows(errors: Path) -> None:
    """Wait until a host says that it has forgotten what it had in memory, whatever it heard of first."""
    deadline = time.monotonic() + SOON_S
    while "goes on from what is stored" not in errors.read_text():
        assert time.monotonic() < deadline, f"it went on although another host owns its store: {errors.read_text()}"
        time.sleep(0.02)


def pause_again_and_again(url: str, log: Path, pauses: int, seed: int) -> None:
    dice, said = random.Random(seed), list[list[str]]()
    for number in range(pauses):
        said += pause_and_take_over(url, log, str(number), dice)
        check_cold_postgres(url)
        end_lease(url)
    check(url, log, said)


def test_paused_owners_are_fenced_when_they_wake_up(
    url: str, tmp_path: Path, survived: Callable[[str, int], None]
) -> None:
    pause_again_and_again(url, tmp_path / "activities.log", pauses=2, seed=20261123)
    survived("takeovers of a paused host on PostgreSQL", 2)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3))
def test_more_paused_owners_are_fenced(
    url: str, tmp_path: Path, seed: int, survived: Callable[[str, int], None]
) -> None:
    pause_again_and_again(url, tmp_path / "activities.log", pauses=30, seed=seed)
    survived("takeovers of a paused host on PostgreSQL", 30)


def crash_the_server(log: Path, crashes: int, seed: int) -> None:
    """The host stays: it has to find its way back by itself."""
    dice = random.Random(seed)
    with private_server() as server:
        url = f"{new_schema(server.url, partitions=4)}&lease_s=1"
        process = begin_host(url, log, "load", "steadfast")
        with ThreadPoolExecutor(1) as listening:  # for it would be stopped by a pipe that is full
            try:
                is_ready(process)
                saying = listening.submit(said_by, process)
                for _ in range(crashes):
                    time.sleep(dice.uniform(0.1, 0.5))
                    server.crash()
                    server.start()
                    lsn = durable(url)
                    while durable(url) == lsn:
                        assert process.poll() is None, "the host has given up"
                        time.sleep(0.05)
            finally:
                process.kill()
            said = saying.result()
        end_lease(url)
        check(url, log, said)


def durable(url: str) -> int:
    return rows_in_postgres(url).lsn


def test_a_host_goes_on_after_its_server_was_shut_down_at_once(
    tmp_path: Path, survived: Callable[[str, int], None]
) -> None:
    crash_the_server(tmp_path / "activities.log", crashes=1, seed=20261123)
    survived("immediate shutdowns of PostgreSQL", 1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(3))
def test_a_host_goes_on_after_many_shutdowns(tmp_path: Path, seed: int, survived: Callable[[str, int], None]) -> None:
    crash_the_server(tmp_path / "activities.log", crashes=20, seed=seed)
    survived("immediate shutdowns of PostgreSQL", 20)
