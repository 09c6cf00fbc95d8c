"""The pytest plugin: async tests that take `sim` run in a simulation, under many seeds and crashes if they say so.

It is loaded wherever Holdfast is installed, so that it imports the simulator only for tests that use it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from holdfast.app import App
    from holdfast.testing.histories import HistorySnapshot
    from holdfast.testing.simulation import Simulation

_MARKER = (
    "holdfast(seeds=50, hosts=2, faults=Faults.often, crash='everywhere', activities_twice=True, config=HostConfig(), "
    "begins_at=..., limit=...): how the simulation of a test that takes `sim` is run."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("holdfast", "Holdfast simulations")
    group.addoption("--holdfast-seed", type=int, metavar="N", help="run simulations with this seed, and no other")
    group.addoption(
        "--holdfast-crash", metavar="POINT", help="of crash='everywhere', run this one: 'before 3' or 'after 3'"
    )
    group.addoption(
        "--holdfast-update-histories", action="store_true", help="keep new histories instead of checking old ones"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem() -> Generator[None, object, object]:
    """Make `async def` tests that use `sim` plain functions, before a plugin for asyncio takes them for its own."""
    made: object = yield
    items: list[object] = cast("list[object]", made) if isinstance(made, list) else [made]
    for item in items:
        if isinstance(item, pytest.Function) and "sim" in item.fixturenames:
            function: Callable[..., Any] = item.obj
            if inspect.iscoroutinefunction(function):
                item.obj = _in_simulation(item, function)
    return cast("object", made)


def _in_simulation(item: pytest.Function, function: Callable[..., Any]) -> Callable[..., None]:
    @functools.wraps(function)
    def run(**arguments: object) -> None:
        __tracebackhide__ = True
        from holdfast.testing.marked import run_test

        run_test(item, function, arguments)

    return run


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "holdfast_seed" in metafunc.fixturenames and metafunc.definition.get_closest_marker("holdfast"):
        from holdfast.testing.marked import seeds_of

        seeds = seeds_of(metafunc.definition)
        if seeds:
            metafunc.parametrize("holdfast_seed", seeds, ids=[f"seed={seed}" for seed in seeds])


@pytest.fixture
def holdfast_app() -> App:
    """The app under test. Override it: in a conftest.py or a test module, return your app."""
    pytest.fail(
        "Which app is to be tested? Write a fixture `holdfast_app` that returns it, in conftest.py or in this module.",
        pytrace=False,
    )


@pytest.fixture
def holdfast_seed(request: pytest.FixtureRequest) -> int:
    """The seed of the simulation: 0, or that of the option `--holdfast-seed`, or each of `holdfast(seeds=...)`."""
    return cast("int | None", request.config.getoption("--holdfast-seed")) or 0


@pytest.fixture
def sim(request: pytest.FixtureRequest, holdfast_app: App, holdfast_seed: int) -> Iterator[Simulation]:
    """A simulation of the app, in which an `async def` test runs. A plain `def` test calls `sim.run(scenario)`."""
    from holdfast.testing.marked import simulation_for

    with simulation_for(cast(pytest.Function, request.node), holdfast_app, holdfast_seed) as simulation:
        yield simulation


@pytest.fixture
def history_snapshot(request: pytest.FixtureRequest, holdfast_app: App) -> HistorySnapshot:
    """`await history_snapshot(run)` holds that the history kept for this test in `__histories__` still replays."""
    from holdfast.testing.marked import snapshot_for

    return snapshot_for(cast(pytest.Function, request.node), holdfast_app)
