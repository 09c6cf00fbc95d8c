"""What the marker `holdfast` asks for, and how a test is run by it."""

from __future__ import annotations

import functools
import inspect
import os
import re
import shlex
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final, cast

import msgspec
import pytest

from holdfast.app import App
from holdfast.engine.config import HostConfig
from holdfast.errors import ConfigurationError
from holdfast.testing.crashes import CrashPoint
from holdfast.testing.everywhere import crash_everywhere, plan_crash
from holdfast.testing.faults import Faults
from holdfast.testing.histories import HistorySnapshot
from holdfast.testing.simulation import BEGINS_AT, Simulation, SimulationFailedError

_EVERYWHERE: Final = "everywhere"
_IDLE_S: Final = 60.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of the marker."""

    seeds: int = 0
    hosts: int | None = None
    faults: Faults | Callable[[int], Faults] | None = None
    crash: str | None = None
    activities_twice: bool = False
    config: HostConfig | None = None
    begins_at: datetime = BEGINS_AT
    limit: timedelta = timedelta(days=366)

    def simulation(self, app: App, seed: int) -> Simulation:
        """Return a new world, in which nothing runs yet."""
        faults = self.faults or (Faults.often if self.seeds else Faults())
        faults = faults if isinstance(faults, Faults) else faults(seed)
        config = self.config or HostConfig(drain_s=0.2)
        # Work that the process dies of again and again is parked; here it is not the work that kills.
        limits = msgspec.structs.replace(config.limits, deliveries_max=config.limits.deliveries_max + faults.total)
        return Simulation(
            app,
            seed=seed,
            hosts=self.hosts or (2 if faults.total else 1),
            faults=faults,
            config=msgspec.structs.replace(config, limits=limits),
            activities_twice=self.activities_twice,
            patient=True,
            idle_s=_IDLE_S,
            begins_at=self.begins_at,
            limit=self.limit,
        )


def settings_of(node: pytest.Item) -> Settings:
    """Return what all markers of a test say together, those of the test itself before those of its class and module.

    It fails for an argument that there is not.
    """
    given: dict[str, Any] = {}
    for mark in reversed(list(node.iter_markers("holdfast"))):
        given |= mark.kwargs
        if mark.args:
            pytest.fail("The marker holdfast takes its arguments by name.", pytrace=False)
    known = Settings.__struct_fields__
    unknown = [name for name in given if name not in known]
    if unknown:
        pytest.fail(f"The marker holdfast has no argument {unknown[0]!r}; it has {', '.join(known)}.", pytrace=False)
    settings = Settings(**given)
    if settings.crash not in (None, _EVERYWHERE):
        _crash_point(settings.crash)
    return settings


def seeds_of(definition: pytest.Item) -> list[int]:
    """Return the seeds that a test is to run with, none if it does not say."""
    count = settings_of(definition).seeds
    chosen = cast("int | None", definition.config.getoption("--holdfast-seed"))
    return list(range(count)) if chosen is None or not count else [chosen]


def simulation_for(item: pytest.Function, app: App, seed: int) -> Simulation:
    """Return the first simulation of a test.

    It fails if the test is not one that can be run in a simulation of its own, but asks for crashes.
    """
    test = inspect.unwrap(cast("Callable[..., object]", item.obj))  # an async test is wrapped by now
    if settings_of(item).crash is not None and not inspect.iscoroutinefunction(test):
        pytest.fail("With crash=, the test must be an `async def`: it is run again for each crash.", pytrace=False)
    item.stash[_NEW] = functools.partial(settings_of(item).simulation, app, seed)
    return item.stash[_NEW]()


_NEW: Final = pytest.StashKey[Callable[[], Simulation]]()


def run_test(
    item: pytest.Function, function: Callable[..., Awaitable[object]], arguments: Mapping[str, object]
) -> None:
    """Run an async test in its simulation, or in as many as it asks for."""
    __tracebackhide__ = True
    first = cast(Simulation, item.funcargs["sim"])
    crash, only = settings_of(item).crash, cast("str | None", item.config.getoption("--holdfast-crash"))
    if crash is not None and "sim" not in arguments:
        pytest.fail("With crash=, the test itself must take `sim`, which is another one each time.", pytrace=False)
    point = None if crash is None or (crash, only) == (_EVERYWHERE, None) else _crash_point(only or crash)
    world = _World(item, first, point)

    def scenario(simulation: Simulation) -> Awaitable[object]:
        return function(**{name: simulation if each is first else each for name, each in arguments.items()})

    try:
        if crash is not None and point is None:
            crash_everywhere(world.another, scenario)
            return
        if point is not None:
            plan_crash(first, point)
        first.run(scenario)
    except SimulationFailedError as error:
        failure = f"{error}\n  {world.how_to_see_it()}"
    except BaseException as error:  # also those of pytest
        error.add_note(world.how_to_see_it())
        raise
    else:
        return
    pytest.fail(failure, pytrace=False)  # here, so that what led to it is not shown: the message says all of it


class _World:
    """The simulation that a test is in now."""

    def __init__(self, item: pytest.Function, first: Simulation, point: CrashPoint | None) -> None:
        self._item = item
        self._first: Simulation | None = first
        self._simulation = first
        self._point = point

    def another(self, point: CrashPoint | None) -> Simulation:
        self._point = point
        self._simulation, self._first = self._first or self._item.stash[_NEW](), None
        return self._simulation

    def how_to_see_it(self) -> str:
        command = ["pytest", self._item.nodeid, "--holdfast-seed", str(self._simulation.seed)]
        if self._point is not None:
            command += ["--holdfast-crash", str(self._point)]
        return f"To see it again: {shlex.join(command)}"


def _crash_point(text: str | None) -> CrashPoint:
    try:
        return CrashPoint.parse(text or "")
    except ConfigurationError as error:
        pytest.fail(f"{error} Or crash='{_EVERYWHERE}'.", pytrace=False)


def snapshot_for(item: pytest.Function, app: App) -> HistorySnapshot:
    """Return what keeps the histories of a test, in a folder beside its file."""
    name = re.sub(r"[^\w.=-]+", "_", item.nodeid.partition("::")[2].replace("::", ".")).rstrip("_")
    return HistorySnapshot(
        app,
        item.path.parent / "__histories__" / item.path.stem,
        name,
        update=bool(item.config.getoption("--holdfast-update-histories")),
        must_exist=os.environ.get("CI", "").lower() not in ("", "0", "false"),
    )
