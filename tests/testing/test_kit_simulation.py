"""What a simulation offers to the tests of an app."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from kit_app import ANSWER, Claim, Till, app, dicey, fee, fetch, reach_out, refund

from holdfast import (
    App,
    ConfigurationError,
    DurableHttpResponse,
    EntityId,
    OrchestrationContext,
    OrchestrationFailedError,
    TaskFailedError,
)
from holdfast.testing import Simulation, SimulationFailedError, assert_history_snapshot, for_each_crash
from holdfast.testing.marked import Settings
from holdfast.testing.simulation import CrashNotReachedError


async def scenario(sim: Simulation) -> list[int]:
    """A refund; returns with which amounts the body of the activity has run."""
    ran: list[int] = []

    def fake(amount: int) -> int:
        ran.append(amount)
        return 1

    sim.replace(fee, fake)
    await sim.client.signal_entity(EntityId(Till, "main"), Till.put, 300)
    run = await sim.client.start_new(refund, Claim(200))
    await sim.advance(days=2)
    await run.raise_event(ANSWER, True)
    assert await run.wait_for_completion() == 199
    assert sim.calls(fee) == [200]
    till = await sim.client.get_entity(EntityId(Till, "main"))
    assert till is not None
    assert till.state == Till(100)
    return ran


def test_activities_run_once_or_twice() -> None:
    assert Simulation(app).run(scenario) == [200]
    assert Simulation(app, activities_twice=True).run(scenario) == [200, 200]


def test_each_crash_is_survived_and_some_repeat_an_activity() -> None:
    bodies: list[list[int]] = []

    async def noted(sim: Simulation) -> None:
        bodies.append(await scenario(sim))

    runs = for_each_crash(app, noted)
    assert runs >= 10
    assert bodies[0] == bodies[-1] == [200]
    assert [200, 200] in bodies


def test_what_a_crash_breaks_is_named() -> None:
    async def charged_once(sim: Simulation) -> None:
        assert await scenario(sim) == [200]

    with pytest.raises(AssertionError) as caught:
        for_each_crash(app, charged_once)
    [note] = caught.value.__notes__
    assert "seed 0" in note
    assert "after: crash before commit" in note


@pytest.mark.parametrize("plan", [Simulation.crash_before, Simulation.crash_after])
def test_a_crash_is_planned_from_now(plan: Callable[[Simulation, int], None]) -> None:
    sim = Simulation(app, patient=True)

    async def crashed(sim: Simulation) -> None:
        await sim.client.start_new(refund, Claim(1), instance_id="first")
        commits = sim.ledger.commits
        plan(sim, 2)
        plan(sim, 1000)
        await scenario(sim)
        assert sim.trouble.happened[0].endswith(f"commit {commits + 2}")
        assert sim.crashes_to_come == 1

    with pytest.raises(CrashNotReachedError, match="1 of the planned crashes never came"):
        sim.run(crashed)
    with pytest.raises(ConfigurationError):
        sim.crash_before(0)


@pytest.mark.parametrize("seed", range(12))
def test_a_patient_client_needs_no_keys(seed: int) -> None:
    Settings(seeds=1).simulation(app, seed).run(scenario)


def test_an_orchestrator_that_is_not_deterministic_is_found_at_the_end() -> None:
    async def start(sim: Simulation) -> None:
        await (await sim.client.start_new(dicey)).wait_for_completion()

    with pytest.raises(SimulationFailedError, match=r"does not replay[^$]*kit_app.py:\d+ in dicey[^$]*seed 3"):
        Simulation(app, seed=3).run(start)


def test_what_never_happens_is_told() -> None:
    async def wait(sim: Simulation) -> None:
        await (await sim.client.start_new(refund, Claim(1))).wait_for_completion()

    with pytest.raises(SimulationFailedError, match="within 1 day, 0:00:00; 'id000001' of 'refund' is Running"):
        Simulation(app, limit=timedelta(days=1)).run(wait)


def test_fakes_must_take_the_same_input() -> None:
    sim = Simulation(app)
    sim.replace(fee, lambda amount: amount)
    for wrong in (lambda: 1, lambda a, b: 1):
        with pytest.raises(ConfigurationError, match="must take one input"):
            sim.replace(fee, wrong)  # type: ignore[arg-type]  # it is what is being tested

    def of_text(amount: str) -> int:
        return len(amount)

    with pytest.raises(ConfigurationError, match=r"takes <class 'str'>; .* is <class 'int'>"):
        sim.replace(fee, of_text)  # type: ignore[arg-type]  # as above
    sim.loop.close()


def test_what_reaches_the_outside_says_how_to_replace_it() -> None:
    other = App()
    other.registry.add_activity(reach_out)

    @other.orchestrator
    async def calls(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(reach_out, "example.org")

    async def start(sim: Simulation) -> None:
        with pytest.raises(Exception, match=r"sim\.replace\(activity, fake\)"):
            await (await sim.client.start_new(calls)).wait_for_completion()

        async def fake(host: str) -> None:
            raise TaskFailedError if host != "example.org" else KeyError("reached")

        sim.replace(reach_out, fake)
        with pytest.raises(Exception, match="reached"):
            await (await sim.client.start_new(calls)).wait_for_completion()

    Simulation(other).run(start)


def test_http_requests_are_answered_or_refused() -> None:
    async def start(sim: Simulation) -> None:
        with pytest.raises(OrchestrationFailedError, match=r"sim\.replace_http"):
            await (await sim.client.start_new(fetch, "a")).wait_for_completion()
        sim.replace_http(lambda request: DurableHttpResponse(status_code=200, content=request.uri[-1]))
        assert await (await sim.client.start_new(fetch, "b")).wait_for_completion() == "b"
        assert [request.uri for request in sim.http_requests] == ["https://example.org/a", "https://example.org/b"]

    Simulation(app).run(start)


def test_a_kept_history_refuses_other_code(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "refund.json"

    async def export(sim: Simulation) -> str:
        await sim.client.start_new(refund, Claim(200), instance_id="kept")
        await sim.client.raise_event("kept", ANSWER, False)
        await sim.client.wait_for_completion("kept")
        return await sim.client.export_history("kept")

    history = Simulation(app).run(export)
    with pytest.raises(AssertionError, match="There is no history in"):
        assert_history_snapshot(app, history, path, must_exist=True)
    assert_history_snapshot(app, history, path)
    assert_history_snapshot(app, "never looked at", path)
    changed = App()

    @changed.orchestrator(name="refund")
    async def at_once(ctx: OrchestrationContext, claim: Claim) -> int:
        return claim.amount

    with pytest.raises(AssertionError, match=r"would be parked[^$]*expected \(history\)[^$]*--holdfast-update"):
        assert_history_snapshot(changed, history, path)
    assert_history_snapshot(changed, "anything", path, update=True)
    assert path.read_text(encoding="utf-8") == "anything"
