"""A real process under load is killed at random points, again and again: nothing acknowledged is lost or done twice.

The kills are SIGKILL, so nothing of the process gets a chance to tidy up. What the activities did is known from a file
that Holdfast knows nothing of.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path

import pytest
from doctor_rows import findings_in_file
from store_check import complaints, rows_in_file

APP = Path(__file__).with_name("crash_app.py")
EXPECTED = {"chain": 4, "fan": 21, "family": [0, 1, 2], "transfer": 1, "race": "now", "doomed": "Terminated"}


def host(store: Path, log: Path, *arguments: str, errors: Path | None = None) -> subprocess.Popen[str]:
    process = begin_host(f"sqlite:///{store}", log, *arguments, errors=errors)
    is_ready(process)
    return process


def begin_host(url: str, log: Path, *arguments: str, errors: Path | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, str(APP), url, str(log), *arguments]
    with nullcontext() if errors is None else errors.open("w") as stderr:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True)


def is_ready(process: subprocess.Popen[str]) -> None:
    """Wait until a host has its store."""
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        process.kill()
        rest_of(process)
        raise AssertionError("the host did not start")


def rest_of(process: subprocess.Popen[str]) -> str:
    """Read on where `host` stopped; `communicate` would lose what the stream has buffered by then."""
    assert process.stdout is not None
    assert process.stdin is not None
    with process.stdout, process.stdin:
        output = process.stdout.read()
    process.wait()
    return output


def load_until_killed(store: Path, log: Path, number: int, seconds: float) -> list[list[str]]:
    process = host(store, log, "load", str(number))
    time.sleep(seconds)
    process.kill()
    return said_by(process)


def said_by(process: subprocess.Popen[str]) -> list[list[str]]:
    """Return what a process that has ended said of its load: `try` or `ack`, and of what."""
    output = rest_of(process)
    lines = output.splitlines()
    if not output.endswith("\n"):
        lines = lines[:-1]  # cut in the middle of a line
    return [line.split() for line in lines]


def check_cold(store: Path) -> None:
    """Check what lies in the file now that nobody runs on it."""
    assert complaints(rows_in_file(store), ("race", "doomed")) == []
    assert findings_in_file(store) == []


def check(store: Path, log: Path, said: Iterable[list[str]]) -> None:
    check_said(f"sqlite:///{store}", log, said)
    check_cold(store)


def check_said(url: str, log: Path, said: Iterable[list[str]]) -> None:
    """Let a last host finish everything, and compare what it finds with what the others said."""
    tried, acknowledged = set[str](), set[str]()
    signals = {"try": 0, "ack": 0}
    for word, subject in said:
        if subject == "signal":
            signals[word] += 1
        else:
            (acknowledged if word == "ack" else tried).add(subject)
    assert len(acknowledged) > 20, "the load was too small to test anything"
    process = begin_host(url, log, "finish")
    is_ready(process)
    assert process.stdin is not None
    process.stdin.write(json.dumps([(each, each in acknowledged) for each in sorted(tried)]) + "\n")
    process.stdin.flush()
    output = rest_of(process)
    assert process.returncode == 0
    found = json.loads(output)
    results = found["results"]
    assert acknowledged <= results.keys(), "acknowledged starts were lost"
    paid = Counter[str]()
    for name in [key for key in results if key.startswith("payment")]:
        source, target, amount = results.pop(name)
        paid.update({source: -amount, target: amount})
    wrong = {key: value for key, value in results.items() if value != EXPECTED[key.partition("-")[0]]}
    assert wrong == {}
    assert signals["ack"] <= found["totals"]["signals"] <= signals["try"]
    transfers = sum(each.startswith("transfer") for each in results)
    assert (found["totals"]["source"], found["totals"]["target"]) == (-transfers, transfers)
    assert {key: found["totals"][key] - paid[key] for key in paid} == dict.fromkeys(paid, 0)
    assert found["locked"] == []
    started = {tuple(json.loads(line)) for line in log.read_text().splitlines()}
    scheduled = {tuple(each) for each in found["scheduled"]}
    assert started <= scheduled, "activities ran that nobody had durably asked for"


def kill_again_and_again(tmp_path: Path, kills: int, seed: int) -> None:
    dice = random.Random(seed)
    store, log = tmp_path / "hub.db", tmp_path / "activities.log"
    said: list[list[str]] = []
    for number in range(kills):
        said += load_until_killed(store, log, number, dice.uniform(0, 0.2))
        if number % 50 == 24:
            check_cold(store)
    check(store, log, said)


def test_killed_at_random_points(tmp_path: Path, survived: Callable[[str, int], None]) -> None:
    kill_again_and_again(tmp_path, kills=50, seed=20261122)
    survived("kills", 50)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_killed_many_more_times(tmp_path: Path, seed: int, survived: Callable[[str, int], None]) -> None:
    kill_again_and_again(tmp_path, kills=200, seed=seed)
    survived("kills", 200)
