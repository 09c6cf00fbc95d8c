"""A whole world for one app: hosts, their store, the network and the clock, all of it decided by one seed.

What runs is the app and Holdfast itself, nothing is replaced but what waits: time, threads, the connection to the
store, the way from a client to a host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, TypeAlias, TypeVar

import msgspec

from holdfast.app import App
from holdfast.client.client import Client
from holdfast.codec.converter import JsonConverter
from holdfast.engine.config import HostConfig
from holdfast.errors import ConfigurationError
from holdfast.model.status import OrchestrationStatus
from holdfast.testing.bodies import ActivityBodies
from holdfast.testing.controls import Controls
from holdfast.testing.faults import Faults, Trouble
from holdfast.testing.finish import check_finished, going_on
from holdfast.testing.hosts import SimulatedClock, SimulatedHost
from holdfast.testing.ledger import Ledger
from holdfast.testing.loop import InvariantViolation, NothingHappensError, Process, SimulatedLoop
from holdfast.testing.network import SimulatedTaskHub
from holdfast.testing.patient import PatientTaskHub
from holdfast.testing.store import Database

T = TypeVar("T")

BEGINS_AT: Final = datetime(2030, 1, 1, tzinfo=UTC)
_CLOCK_US_MAX: Final = 60_000_000
_PAUSE_US: Final = (10_000, 40_000_000)
_LOOK_AGAIN_S: Final = 0.25
_NEVER_S: Final = 1e7
Interruption: TypeAlias = Literal["crash", "pause", "evict", "set the clock"]
_INTERRUPTIONS: Final[dict[Interruption, str]] = {
    "crash": "crash_steps",
    "pause": "pause_steps",
    "evict": "evict_steps",
    "set the clock": "clock_steps",
}
"""What happens between two steps, and the setting of `Faults` that says how often."""


class SimulationFailedError(AssertionError):
    """A rule was broken in a simulation. The message names it, and how to see it again."""


class CrashNotReachedError(AssertionError):
    """A crash was planned for a commit that was not made, so that the run shows nothing."""


class Simulation(Controls):
    """One run of a scenario: `Simulation(app, seed=7, faults=Faults.some(7)).run(scenario)`.

    The scenario is a coroutine function that gets the simulation; it talks to the hosts through `client`, as a program
    on another machine would, and `await sim.advance(days=3)` lets time pass. When it has returned, the faults end, and
    what is still in work is let finish.
    """

    def __init__(
        self,
        app: App,
        *,
        seed: int = 0,
        hosts: int = 1,
        faults: Faults | None = None,
        config: HostConfig | None = None,
        file: Path | None = None,
        begins_at: datetime = BEGINS_AT,
        limit: timedelta = timedelta(days=3650),
        activities_twice: bool = False,
        patient: bool = False,
        idle_s: float | None = None,
    ) -> None:
        """Prepare a world in which nothing runs yet.

        Args:
            hosts: how many there are; one of them has the store, the others wait for their turn.
            file: keep everything in this SQLite file, which must be new, instead of in memory.
            limit: how much simulated time the scenario may take.
            activities_twice: run the body of each activity twice, and forget what came of the first: so it is when a
                process dies before the outcome is stored.
            patient: let the client ask again when an answer is lost, by giving a key to what it asks for. Otherwise
                what has no key may raise `CommitFailedError` when a host crashes, as it may in the world.
            idle_s: how often hosts look whether they own the store, and what the clock says; by default every few
                seconds, if there is any use in it. In days of simulated time, each look takes real time.
        """
        self.seed = seed
        self.faults = faults or Faults()
        self.loop = SimulatedLoop(seed)
        super().__init__(
            Trouble(self.faults, seed), Ledger(lambda: self._latest_us()), ActivityBodies(twice=activities_twice)
        )
        self.hosts: list[SimulatedHost] = []
        self._app = app
        self._hosts_count = hosts
        self._begins_at = begins_at
        self._limit = limit
        self._idle_s = idle_s or 5.0
        self._ids = 0
        self._offset_us_max = 0
        self._next: list[tuple[int, Interruption]] = []
        self.config = msgspec.structs.replace(
            config or HostConfig(drain_s=0.2),
            clock_check_s=(idle_s or 1.0) if self.faults.clock_steps else _NEVER_S,
            renew_s=(idle_s or 5.0) if hosts > 1 else _NEVER_S,
            poll_s=_NEVER_S,
        )
        self._database = Database(self.loop, self.trouble, self.ledger, file)
        self._database.crashes = self._crash_at
        hub = SimulatedTaskHub(self.loop, lambda: self.hosts, self.trouble, self.ledger)
        if patient:
            hub = PatientTaskHub(self.loop, lambda: self.hosts, self.trouble, self.ledger, self.new_id)
        self.task_hub = hub
        converter = JsonConverter(payload_bytes_max=self.config.limits.payload_bytes_max)
        self.client = Client(hub, converter, self.config.limits, now=self.now, new_id=self.new_id)
        self.loop.interrupt = self._interrupt

    @property
    def fingerprint(self) -> int:
        """What the run has come to, in one number: the same for every run with the same seed and code."""
        return self.loop.fingerprint

    @property
    def moment(self) -> str:
        """Where the run is, and what went wrong so far: for a message that lets it be seen again."""
        return (
            f"seed {self.seed}, step {self.loop.steps}, {self.loop.now_us / 1e6:.6f} s, "
            f"after: {', '.join(self.trouble.happened) or 'no fault'}"
        )

    def now(self) -> datetime:
        """Return the time by the clock of the world outside."""
        return self._begins_at + timedelta(microseconds=self.loop.now_us)

    def new_id(self) -> str:
        """Return an id that no other has, the same in each run."""
        self._ids += 1
        return f"id{self._ids:06d}"

    async def advance(self, **duration: float) -> None:
        """Let simulated time pass: `await sim.advance(days=3)`; the arguments are those of `timedelta`."""
        await asyncio.sleep(timedelta(**duration).total_seconds())

    def run(self, scenario: Callable[[Simulation], Awaitable[T]]) -> T:
        """Run a scenario, and return what it does.

        Raises:
            SimulationFailedError: if a rule was broken, by the seed and the step at which it can be seen again.
            CrashNotReachedError: if a planned crash was never reached.
            ConfigurationError: if it has run before.
        """
        if self.hosts or self.loop.is_closed():
            raise ConfigurationError("A simulation runs once; make a new one.")
        try:
            return self.loop.run_until_complete(self._live(scenario))
        except (InvariantViolation, NothingHappensError) as error:
            what = ": ".join(str(each) for each in error.args)
            if isinstance(error, NothingHappensError):
                what = f"The scenario waits for what can never happen; {self._unfinished()}"
            raise SimulationFailedError(f"{what}\n  {self.moment}") from error
        except BaseException as error:  # also those of pytest
            error.add_note(f"In a simulation: {self.moment}")
            raise
        finally:
            self.loop.close()

    async def _live(self, scenario: Callable[[Simulation], Awaitable[T]]) -> T:
        self.loop.call_outside_later(
            self._limit // timedelta(microseconds=1),
            self._give_up,
            f"the scenario has not ended within {self._limit}",
        )
        for number in range(self._hosts_count):
            await self._add_host(f"host-{number}")
        self._plan()
        result = await scenario(self)
        await self.settle()
        self._crashes.is_armed = False
        await check_finished(self.ledger, self._database, self._app.registry, self.config)
        for host in self.hosts:
            await host.end()
        if self.crashes_to_come:
            raise CrashNotReachedError(
                f"{self.crashes_to_come} of the planned crashes never came: there were {self.ledger.commits} commits."
            )
        return result

    async def settle(self) -> None:
        """End all faults, and wait until nothing is going on that ends by itself."""
        self.trouble.left = 0
        self.loop.interrupt_at = 0
        for host in self.hosts:
            if host.process is not None:
                host.process.go_on()
        waited_until = self.loop.now_us + 600_000_000
        while not self._is_settled():
            if self.loop.now_us > waited_until:
                raise InvariantViolation("everything ends", f"after ten minutes there is still {self._what_goes_on()}")
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _is_settled(self) -> bool:
        return any(host.is_idle for host in self.hosts) and not self._what_goes_on()

    def _what_goes_on(self) -> list[str]:
        return going_on(self.ledger, self._latest_us())

    async def _add_host(self, name: str) -> None:
        clock = SimulatedClock(self.loop, self._begins_at)
        self.hosts.append(
            SimulatedHost(
                name,
                self.loop,
                self._database,
                self.trouble,
                clock,
                self.new_id,
                self.config,
                lambda: self._app.registry,
                self._bodies,
                self._idle_s,
            )
        )

    async def deploy(self, app: App) -> None:
        """Give all hosts another app, one after the other; each stops in good order and is started again."""
        self._app = app
        for host in self.hosts:
            await host.stop()

    def crash(self) -> None:
        """Kill every host where it stands; they are started again."""
        for host in self.hosts:
            if host.process is not None:
                host.process.kill()

    def _latest_us(self) -> int:
        begins = self._begins_at - datetime(1970, 1, 1, tzinfo=UTC)
        return begins // timedelta(microseconds=1) + self.loop.now_us + self._offset_us_max

    def _give_up(self, why: str) -> None:
        raise InvariantViolation("everything ends", f"{why}; {self._unfinished()}")

    def _unfinished(self) -> str:
        found = [
            f"{row.instance_id!r} of {row.name!r} is {row.status}"
            for row in self.ledger.instances.values()
            if not row.instance_id.startswith("@") and not OrchestrationStatus(row.status).is_terminal
        ]
        return ", ".join(found[:5]) or "no orchestration is unfinished"

    # What happens between two steps

    def _plan(self) -> None:
        """Decide when something happens next, for each kind of it."""
        for kind in _INTERRUPTIONS:
            self._plan_next(kind)
        self._arm()

    def _plan_next(self, kind: Interruption) -> None:
        mean_steps: int = getattr(self.faults, _INTERRUPTIONS[kind])
        if mean_steps:
            self._next.append((self.loop.steps + self.trouble.steps_until(mean_steps), kind))

    def _arm(self) -> None:
        self._next.sort()
        self.loop.interrupt_at = max(self._next[0][0], self.loop.steps + 1) if self._next else 0

    def _interrupt(self, process: Process) -> None:
        _, kind = self._next.pop(0)
        host = next((each for each in self.hosts if each.process is process), None)
        host = host or self.hosts[self.trouble.between(0, len(self.hosts) - 1)]
        if self.trouble.left > 0:
            self._happen(kind, host)
            self._plan_next(kind)
        self._arm()

    def _happen(self, kind: Interruption, host: SimulatedHost) -> None:
        process = host.process
        if process is None or not process.is_alive or process.is_paused:
            return
        match kind:
            case "crash":
                self.trouble.strike(kind)
                process.kill()
            case "pause":
                self.trouble.strike(kind)
                process.pause()
                self.loop.call_outside_later(self.trouble.between(*_PAUSE_US), process.go_on)
            case "evict":
                _evict(host)
            case "set the clock":
                self.trouble.strike(kind)
                host.clock.offset_us = self.trouble.between(-_CLOCK_US_MAX, _CLOCK_US_MAX)
                self._offset_us_max = max(self._offset_us_max, host.clock.offset_us)

    def __enter__(self) -> Simulation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loop.close()


def _evict(host: SimulatedHost) -> None:
    node = host.node
    if node is None:
        return
    for resident in list(node.residents):
        if resident.is_idle(node.journal.durable_lsn):
            node.residents.remove(resident)
