"""Three hosts share a hub on PostgreSQL under load; they are killed, paused, cut off, restarted, and lose the server.

Nothing acknowledged is lost, nothing is doubled, and everything ends: what is looked at is that of test_kill.py, and
besides that nothing is left over. The clients are in the hosts, and ask for instances of all of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from doctor_rows import findings
from postgres_rows import mail_in_postgres, rows_in_postgres, what_is_left
from store_check import leftovers
from test_kill import EXPECTED

from postgres_kit import Server, execute, new_schema, private_server

APP = Path(__file__).with_name("fleet_app.py")
HOSTS = 3
SOON_S = 90.0
BUGS = re.compile(
    r"An internal error|is parked|rows of table|row of table|Traceback|never retrieved|is at \d+\.|deadlock"
)
"""What a host says of itself that it should not come to, whatever happens to it."""


class FleetHost:
    """One place of the fleet: a process, and another one when that is gone. What they say is kept in files."""

    def __init__(self, url: str, folder: Path, number: int) -> None:
        self._url = url
        self._folder = folder
        self._number = number
        self._starts = 0
        self.start()

    def start(self) -> None:
        if self._starts and self.process.stdin is not None:
            self.process.stdin.close()
        self._starts += 1
        self.name = f"{self._number}.{self._starts}"
        self._said = self._folder / f"said-{self.name}"
        command = [sys.executable, str(APP), self._url, str(self._folder / "activities.log"), self.name]
        with self._said.open("w") as said, (self._folder / f"errors-{self.name}").open("w") as errors:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=errors, text=True)

    def said(self) -> list[list[str]]:
        """Return what the process of now has said, in whole lines."""
        return [line.split(" ", 1) for line in self._said.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def wait_until_said(self, *words: str) -> str:
        """Return what the process said after the word that it comes to say."""
        deadline = time.monotonic() + SOON_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"host {self.name} has given up"
            for word, *rest in self.said():
                if word.strip() in words:
                    return f"{word.strip()} {''.join(rest)}"
            time.sleep(0.05)
        raise AssertionError(f"host {self.name} never said {words}")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def leave(self) -> None:
        """Stop in good order."""
        self.send(signal.SIGTERM)
        assert self.process.wait(SOON_S) == 0, f"host {self.name} did not stop in good order"
        assert self.said()[-1] == ["stopped\n"]


class Chaos:
    """What happens to the hosts of a fleet, and to its server, by the dice."""

    def __init__(self, hosts: Sequence[FleetHost], server: Server, url: str, lease_s: float, seed: int) -> None:
        self._hosts = hosts
        self._lease_s = lease_s
        self._server = server
        self._url = url
        self._dice = random.Random(seed)
        self.done = Counter[str]()
        self.log: list[tuple[str, str]] = []

    def happen(self, rounds: int) -> None:
        actions = [self._kill, self._pause, self._cut, self._roll, self._crash]
        order = actions * (rounds // len(actions)) + self._dice.sample(actions, rounds % len(actions))
        self._dice.shuffle(order)
        for action in order:
            time.sleep(self._dice.uniform(0.1, 1.0))
            self.log.append((time.strftime("%H:%M:%S"), action.__name__))
            action()
            for host in self._hosts:
                assert host.process.poll() is None, f"host {host.name} has given up"

    def _some(self) -> list[FleetHost]:
        return self._dice.sample(self._hosts, self._dice.choice((1, 1, 1, 2, HOSTS)))

    def _kill(self) -> None:
        """Its successor comes at once, or when the others have taken over already."""
        killed = self._some()
        for host in killed:
            host.kill()
        time.sleep(self._dice.choice((0.0, 0.3, 1.2 * self._lease_s)))
        for host in killed:
            host.start()
        self.done["kills"] += len(killed)

    def _pause(self) -> None:
        paused = self._dice.sample(self._hosts, self._dice.choice((1, 1, 2)))
        for host in paused:
            host.send(signal.SIGSTOP)
        time.sleep(self._dice.choice((0.5, 1.2, 2.0)) * self._lease_s)
        for host in paused:
            host.send(signal.SIGCONT)
        self.done["pauses"] += len(paused)

    def _cut(self) -> None:
        share = self._dice.choice((0.2, 0.5, 1.0))
        others = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        cut = asyncio.run(
            execute(self._url, f"SELECT pg_terminate_backend(pid) FROM ({others} AND random() < {share}) AS chosen")
        )
        self.done["connections cut"] += int(cut.rpartition(" ")[2])

    def _roll(self) -> None:
        """Restart all in good order, one after the other."""
        for host in self._dice.sample(self._hosts, HOSTS):
            host.wait_until_said("ready")
            host.leave()
            host.start()
            host.wait_until_said("ready")
        self.done["rolling restarts"] += 1

    def _crash(self) -> None:
        self._server.crash()
        time.sleep(self._dice.choice((0.0, 0.5)))
        self._server.start()
        self.done["immediate shutdowns of PostgreSQL"] += 1


@contextmanager
def fleet(url: str, folder: Path) -> Generator[list[FleetHost]]:
    hosts = [FleetHost(url, folder, number) for number in range(HOSTS)]
    try:
        for host in hosts:
            host.wait_until_said("ready")
        yield hosts
    finally:
        for host in hosts:
            host.send(signal.SIGCONT)
            host.kill()
            assert host.process.stdin is not None
            host.process.stdin.close()


def check_found(folder: Path, found: dict[str, Any]) -> int:
    """Compare what there is in the end with what all hosts ever said; return how much was acknowledged."""
    said = [
        line.split()
        for file in folder.glob("said-*")
        for line in file.read_text().splitlines(keepends=True)
        if line.endswith("\n") and line.split(" ")[0] in ("try", "ack", "end", "late", "wrong")
    ]
    counts = Counter((word, subject) for word, subject in said if subject in ("signal", "call"))
    by_word = {
        kind: {subject for word, subject in said if word == kind} - {"signal", "call"}
        for kind in ("try", "ack", "end", "late", "wrong")
    }
    assert (by_word["late"], by_word["wrong"]) == (set(), set())
    results: dict[str, Any] = dict(found["results"])
    totals: dict[str, int] = found["totals"]
    assert by_word["ack"] <= results.keys(), f"acknowledged starts were lost: {by_word['ack'] - results.keys()}"
    assert {each for each in results if "-" in each and ":" not in each} <= by_word["try"], (
        "what nobody has asked for is there"
    )
    paid = Counter[str]()
    for name in [key for key in results if key.startswith("payment")]:
        source, target, amount = results.pop(name)
        paid.update({source: -amount, target: amount})
    wrong = {
        key: value
        for key, value in results.items()
        if ":" not in key and value != EXPECTED.get(key.partition("-")[0], 4)
    }
    assert wrong == {}
    for kind, total in (("signal", totals["signals"]), ("call", totals["calls"])):
        assert counts["ack", kind] <= total <= counts["try", kind], kind
    transfers = sum(each.startswith("transfer") for each in results)
    assert (totals["source"], totals["target"]) == (-transfers, transfers)
    assert {key: totals[key] - paid[key] for key in paid} == dict.fromkeys(paid, 0)
    assert found["locked"] == []
    started = {tuple(json.loads(line)) for line in (folder / "activities.log").read_text().splitlines()}
    scheduled = {tuple(each) for each in found["scheduled"]}
    assert started <= scheduled, "activities ran that nobody had durably asked for"
    assert scheduled <= started, "activities were not run"
    return len(by_word["ack"]) + counts["ack", "signal"] + counts["ack", "call"]


def survive(folder: Path, rounds: int, lease_s: int, seed: int, survived: Callable[[str, int], None]) -> None:
    with private_server() as server:
        url = f"{new_schema(server.url, partitions=12)}&lease_s={lease_s}"
        with fleet(url, folder) as hosts:
            chaos = Chaos(hosts, server, url, lease_s, seed)
            chaos.happen(rounds)
            for host in hosts:
                host.wait_until_said("ready")
            print(chaos.log)  # for whoever looks for the cause of a failure
            for host in hosts:
                host.tell("quiet")
                host.wait_until_said("quiet")
            hosts[0].tell("finish")
            found = hosts[0].wait_until_said("found", "stuck")
            assert found.startswith("found"), f"{found}\n{what_is_left(url)}"
            for host in hosts:
                host.leave()
        acknowledged = check_found(folder, json.loads(found.removeprefix("found ")))
        rows = rows_in_postgres(url)
        assert leftovers(rows) == []
        assert findings(rows) == []
        assert mail_in_postgres(url) == ([], [])
    bugs = [
        (file.name, line)
        for file in folder.glob("errors-*")
        for line in file.read_text().splitlines()
        if BUGS.search(line)
    ]
    assert bugs == []
    for what, count in chaos.done.items():
        survived(f"{what} in a fleet", count)
    survived("acknowledged requests in a fleet", acknowledged)


def test_nothing_is_lost_or_doubled(tmp_path: Path, survived: Callable[[str, int], None]) -> None:
    survive(tmp_path, 5, 1, 20261123, survived)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(int(os.environ.get("HOLDFAST_FLEET_SEEDS", "5"))))
def test_nothing_is_lost_or_doubled_in_longer_runs(
    tmp_path: Path, seed: int, survived: Callable[[str, int], None]
) -> None:
    survive(tmp_path, 40, 2, seed, survived)
