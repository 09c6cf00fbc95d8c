"""The pytest plugin, as its users meet it: test files in, reports out."""

from __future__ import annotations

import json

import pytest

pytest_plugins = ["pytester"]
OPTIONS = ("-p", "no:cacheprovider", "-W", "error", "--strict-markers")

SHOP = """
import random
from datetime import timedelta

import pytest

from holdfast import App, ExternalEvent, OrchestrationContext

app = App()
PAID = ExternalEvent("Paid", bool)


@app.activity
def charge(amount: int) -> int:
    raise AssertionError("the outside world is out of reach")


@app.orchestrator
async def purchase(ctx: OrchestrationContext, amount: int) -> str:
    await ctx.call_activity(charge, amount)
    try:
        await ctx.wait_for_external_event(PAID, timeout=timedelta(days=3))
    except TimeoutError:
        return "escalated"
    return "paid"


@app.orchestrator
async def dicey(ctx: OrchestrationContext) -> None:
    await ctx.create_timer(timedelta(seconds=random.random()))


@pytest.fixture
def holdfast_app() -> App:
    return app
"""


def shop(pytester: pytest.Pytester, tests: str) -> None:
    pytester.makeconftest(SHOP)
    pytester.makepyfile(f"import asyncio\nimport pytest\nfrom conftest import *\n\n{tests}")


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # most of the time of a small run goes into other plugins
        return pytester.runpytest_inprocess("-p", "holdfast.testing.plugin", *OPTIONS, *arguments)


def test_an_async_test_runs_in_a_simulation(pytester: pytest.Pytester) -> None:
    """By itself, in a class, with other fixtures, through a fixture of its own; and a plain one runs a scenario."""
    shop(
        pytester,
        """
async def test_escalates(sim, tmp_path):
    charged = []
    sim.replace(charge, lambda amount: charged.append(amount) or amount)
    run = await sim.client.start_new(purchase, 5)
    await sim.advance(days=3)
    assert await run.wait_for_completion() == "escalated"
    assert charged == sim.calls(charge) == [5]
    assert tmp_path.exists()

class TestClass:
    async def test_method(self, sim):
        await test_escalates(sim, tmp_path=__import__("pathlib").Path())

@pytest.fixture
def begun(sim):
    sim.replace(charge, lambda amount: amount)
    return sim

@pytest.mark.parametrize("paid", [True, False])
async def test_through_a_fixture(begun, paid):
    run = await begun.client.start_new(purchase, 5)
    await run.raise_event(PAID, paid)
    assert await run.wait_for_completion() == "paid"

def test_plain(sim, tmp_path):
    sim.run(lambda sim: test_escalates(sim, tmp_path))
""",
    )
    run(pytester).assert_outcomes(passed=5)


def test_plugins_for_asyncio_are_left_alone_and_do_not_interfere(pytester: pytest.Pytester) -> None:
    """They take every coroutine function for their own, as this one does; those that use `sim` are none by then."""
    taker = """
import asyncio, functools, inspect

@pytest.hookimpl(hookwrapper=True)
def pytest_pycollect_makeitem():
    made = yield
    for item in made.get_result() or ():
        if inspect.iscoroutinefunction(item.obj):
            function = item.obj
            item.obj = functools.wraps(function)(lambda **given: asyncio.run(function(**given)))
"""
    shop(
        pytester,
        """
async def test_real():
    assert "Simulated" not in type(asyncio.get_running_loop()).__name__

async def test_simulated(sim):
    assert "Simulated" in type(asyncio.get_running_loop()).__name__
""",
    )
    pytester.makeconftest(SHOP + taker)
    run(pytester).assert_outcomes(passed=2)


def test_a_failure_names_the_seed_and_how_to_see_it_again(pytester: pytest.Pytester) -> None:
    shop(
        pytester,
        """
@pytest.mark.holdfast(seeds=60)
async def test_charged_once(sim):
    charged = []
    sim.replace(charge, lambda amount: charged.append(amount) or amount)
    run = await sim.client.start_new(purchase, 5)
    await run.raise_event(PAID, True)
    await run.wait_for_completion()
    assert charged == [5]
""",
    )
    found = run(pytester)
    counts = found.parseoutcomes()
    assert counts["passed"] + counts["failed"] == 60
    assert counts["failed"] >= 1, "a body that is repeated after a crash charges twice"
    [command, *_] = [line.split("To see it again: pytest ")[1] for line in found.outlines if "see it again" in line]
    test, _, seed = command.replace("'", "").partition(" --holdfast-seed ")
    run(pytester, test, "--holdfast-seed", seed).assert_outcomes(failed=1)
    run(pytester, "--holdfast-seed", seed).assert_outcomes(failed=1)


def test_crash_everywhere_names_the_crash(pytester: pytest.Pytester) -> None:
    shop(
        pytester,
        """
@pytest.mark.holdfast(crash="everywhere")
async def test_charged_once(sim):
    charged = []
    sim.replace(charge, lambda amount: charged.append(amount) or amount)
    run = await sim.client.start_new(purchase, 5)
    await run.raise_event(PAID, True)
    assert await run.wait_for_completion() == "paid"
    assert charged == [5]

@pytest.mark.holdfast(crash="everywhere")
async def test_charged(sim):
    sim.replace(charge, lambda amount: amount)
    run = await sim.client.start_new(purchase, 5)
    await sim.advance(days=3)
    assert await run.wait_for_completion() == "escalated"
    assert sim.calls(charge) == [5]
""",
    )
    found = run(pytester)
    found.assert_outcomes(passed=1, failed=1)
    found.stdout.fnmatch_lines(["*after: crash before commit 2*", "*To see it again: *--holdfast-crash 'before 2'*"])
    run(pytester, "--holdfast-crash", "before 2").assert_outcomes(passed=1, failed=1)
    run(pytester, "--holdfast-crash", "after 1").assert_outcomes(passed=2)


def test_activities_twice_exposes_what_cannot_be_repeated(pytester: pytest.Pytester) -> None:
    shop(
        pytester,
        """
pytestmark = pytest.mark.holdfast(activities_twice=True)

async def test_charged_once(sim):
    charged = []
    sim.replace(charge, lambda amount: charged.append(amount) or amount)
    await (await sim.client.start_new(purchase, 5)).wait_for_completion()
    assert sim.calls(charge) == [5]
    assert charged == [5]

@pytest.mark.holdfast(seeds=2, faults=None, activities_twice=False)
async def test_may_be_taken_back(sim):
    sim.replace(charge, lambda amount: amount)
    await (await sim.client.start_new(purchase, 5)).wait_for_completion()
""",
    )
    found = run(pytester)
    found.assert_outcomes(passed=2, failed=1)
    found.stdout.fnmatch_lines(["*[[]5, 5] == [[]5]*"])


def test_the_end_checks_find_an_orchestrator_that_is_not_deterministic(pytester: pytest.Pytester) -> None:
    shop(pytester, "async def test_dicey(sim):\n    await (await sim.client.start_new(dicey)).wait_for_completion()\n")
    found = run(pytester)
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(
        ["replays agree: *", "*orchestrator 'dicey' does not replay*", "*found (code): *conftest.py:* in dicey"]
    )
    found.stdout.no_fnmatch_line("*During handling*")


def test_who_waits_for_ever_is_told(pytester: pytest.Pytester) -> None:
    shop(
        pytester,
        """
@pytest.mark.holdfast(limit=timedelta(days=2))
async def test_waits(sim):
    sim.replace(charge, lambda amount: amount)
    await (await sim.client.start_new(purchase, 5)).wait_for_completion()
""",
    )
    found = run(pytester)
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines(["*has not ended within 2 days, 0:00:00; 'id*' of 'purchase' is Running"])


def test_a_wrong_marker_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(SHOP)
    test = "import pytest\n@pytest.mark.holdfast({})\nasync def test_it(sim): ...\n"
    marks = {"test_a": "seed=3", "test_b": "crash='sometimes'", "test_c": "3"}
    pytester.makepyfile(**{name: test.format(mark) for name, mark in marks.items()})
    found = run(pytester)
    found.assert_outcomes(errors=3)
    found.stdout.fnmatch_lines(
        [
            "*no argument 'seed'; it has seeds, *",
            "*'sometimes' is no point to crash at*everywhere*",
            "*takes its arguments by name*",
        ]
    )


def test_a_plain_test_cannot_crash_everywhere(pytester: pytest.Pytester) -> None:
    shop(pytester, "@pytest.mark.holdfast(crash='everywhere')\ndef test_it(sim): ...")
    found = run(pytester)
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines(["*the test must be an `async def`*"])


def test_without_an_app_the_error_says_what_to_write(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("async def test_it(sim): ...")
    found = run(pytester)
    found.assert_outcomes(errors=1)
    found.stdout.fnmatch_lines(["Which app is to be tested? Write a fixture `holdfast_app`*"])


def test_a_history_is_kept_and_refuses_code_that_breaks_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    test = """
async def test_kept(sim, history_snapshot):
    sim.replace(charge, lambda amount: amount)
    run = await sim.client.start_new(purchase, 5)
    await run.raise_event(PAID, True)
    await run.wait_for_completion()
    await history_snapshot(run)
"""
    shop(pytester, test)
    monkeypatch.setenv("CI", "true")
    refused = run(pytester)
    refused.assert_outcomes(failed=1)
    refused.stdout.fnmatch_lines(["*There is no history in *"])
    monkeypatch.delenv("CI")
    run(pytester).assert_outcomes(passed=1)
    [kept] = pytester.path.rglob("__histories__/*/test_kept.json")
    assert json.loads(kept.read_text(encoding="utf-8"))["name"] == "purchase"
    before = kept.read_text(encoding="utf-8")
    run(pytester).assert_outcomes(passed=1)
    assert kept.read_text(encoding="utf-8") == before

    pytester.makeconftest(
        SHOP.replace("await ctx.call_activity(charge, amount)", "await ctx.create_timer(timedelta(1))")
    )
    broken = run(pytester)
    broken.assert_outcomes(failed=1)
    broken.stdout.fnmatch_lines(["*does not replay the history in *test_kept.json*", "*expected (history): TaskSched*"])
    run(pytester, "--holdfast-update-histories").assert_outcomes(passed=1)
    assert kept.read_text(encoding="utf-8") != before


def test_the_simulator_is_not_imported_where_nobody_uses_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        "import sys\ndef test_it():\n    assert not [name for name in sys.modules if 'holdfast.testing.sim' in name]\n"
    )
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
