"""Runs a scenario again and again, with a crash at another point each time, until there is none left."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from holdfast.app import App
from holdfast.engine.config import HostConfig
from holdfast.testing.crashes import CrashPoint, all_crash_points
from holdfast.testing.simulation import CrashNotReachedError, Simulation


def for_each_crash(
    app: App,
    scenario: Callable[[Simulation], Awaitable[object]],
    *,
    seed: int = 0,
    activities_twice: bool = False,
    config: HostConfig | None = None,
) -> int:
    """Run a scenario once without a crash, then with one before and after each of its commits; return how many runs.

    Each run is a new world, in which the scenario must come to its end, and all rules of the simulation must hold.

    Raises:
        SimulationFailedError: if a rule was broken; what the scenario raises is raised as it is. Either names the
            crash.
    """

    def simulation(_: CrashPoint | None) -> Simulation:
        return Simulation(app, seed=seed, activities_twice=activities_twice, config=config, patient=True)

    return crash_everywhere(simulation, scenario)


def crash_everywhere(
    simulation: Callable[[CrashPoint | None], Simulation], scenario: Callable[[Simulation], Awaitable[object]]
) -> int:
    """The same with simulations that are made by the caller, all alike, each for one crash."""
    simulation(None).run(scenario)
    runs = 1
    for point in all_crash_points():
        world = simulation(point)
        plan_crash(world, point)
        try:
            world.run(scenario)
        except CrashNotReachedError:
            break
        runs += 1
    return runs


def plan_crash(simulation: Simulation, point: CrashPoint) -> None:
    """Let a simulation that has not begun crash at one point."""
    crash = simulation.crash_before if point.side == "before" else simulation.crash_after
    crash(point.commit)
