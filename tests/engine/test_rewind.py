"""Rewind, restart and fork, end to end on each store: only what failed runs again, and everything comes out right."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from engine_kit import SOON, Run, eventually, running, until

from holdfast import (
    App,
    Entity,
    EntityId,
    HostConfig,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceNotRunningError,
    InvalidInputError,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationStatus,
    RetryPolicy,
    activity_context,
    when_all,
)
from holdfast.errors import RewindRefusedError
from holdfast.model.history import (
    EventRaised,
    ExecutionRewound,
    OrchestratorStarted,
    SubOrchestrationInstanceCreated,
    TaskCompleted,
    TimerFired,
)
from holdfast.storage.memory import MemoryStore
from holdfast.storage.port import Store

MakeStore = Callable[[], Store]
SCARCE = HostConfig(drain_s=0.2, cache_bytes_max=1)
"""Nothing stays in memory that need not, so that everything is replayed."""


@dataclass
class Outside:
    """What the activities have done, and which of them fail."""

    calls: Counter[str] = field(default_factory=Counter)
    broken: set[str] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)


def make_app(outside: Outside) -> App:
    app = App()

    @app.activity
    async def work(name: str) -> str:
        outside.calls[name] += 1
        if name in outside.broken:
            raise ConnectionError(f"{name} is broken")
        return name.upper()

    @app.activity
    async def same(name: str) -> str:
        outside.calls[name] += 1
        if name in outside.broken:
            raise ConnectionError("broken, like the others")
        return name.upper()

    @app.activity
    async def slow(name: str) -> str:
        outside.calls[name] += 1
        await outside.gate.wait()
        return name.upper()

    @app.entity
    @dataclass
    class Tally(Entity):
        total: int = 0

        def add(self, amount: int) -> int:
            if "tally" in outside.broken:
                raise ConnectionError("tally is broken")
            self.total += amount
            return self.total

    @app.orchestrator
    async def chain(ctx: OrchestrationContext, names: list[str]) -> list[str]:
        return [await ctx.call_activity(work, name) for name in names]

    @app.orchestrator
    async def fan(ctx: OrchestrationContext, names: list[str]) -> list[str]:
        return await when_all(ctx.call_activity(work, name) for name in names)

    @app.orchestrator
    async def mapped(ctx: OrchestrationContext, names: list[str]) -> list[str]:
        return await ctx.map(same, names, concurrency=2)

    @app.orchestrator
    async def caught(ctx: OrchestrationContext, names: list[str]) -> list[str]:
        done: list[str] = []
        for name in names[:-1]:
            try:
                done.append(await ctx.call_activity(work, name))
            except ConnectionError:
                done.append(await ctx.call_activity(work, f"instead of {name}"))
        return [*done, await ctx.call_activity(work, names[-1])]

    @app.orchestrator
    async def middle(ctx: OrchestrationContext, names: list[str]) -> list[str]:
        first = await ctx.call_activity(work, f"{ctx.instance_id.rpartition(':')[2]}-before")
        return [first, *await ctx.call_sub_orchestrator(fan, names)]

    @app.orchestrator
    async def top(ctx: OrchestrationContext, groups: list[list[str]]) -> list[list[str]]:
        return await when_all(ctx.call_sub_orchestrator(middle, names) for names in groups)

    @app.orchestrator
    async def mapped_children(ctx: OrchestrationContext, groups: list[list[str]]) -> list[list[str]]:
        return await ctx.map(chain, groups, concurrency=1)

    @app.orchestrator
    async def mixed(ctx: OrchestrationContext, wait_ms: int) -> list[Any]:
        """A bit of everything, one after the other."""
        done: list[Any] = [await ctx.call_activity(work, "a")]
        done.append(await ctx.wait_for_external_event("e"))
        await ctx.create_timer(timedelta(milliseconds=wait_ms))
        done.append(await ctx.call_entity(EntityId(Tally, "mixed"), Tally.add, 1))
        done.append(await ctx.call_sub_orchestrator(chain, ["c"]))
        done.append(await ctx.wait_for_external_event("e"))
        done.append(await ctx.call_activity(work, "z"))
        return done

    @app.orchestrator
    async def calls_entity(ctx: OrchestrationContext, name: str) -> list[Any]:
        first = await ctx.call_activity(work, name)
        return [first, await ctx.call_entity(EntityId(Tally, name), Tally.add, 5)]

    @app.orchestrator
    async def in_section(ctx: OrchestrationContext, name: str) -> str:
        await ctx.call_activity(work, f"{name} outside")
        async with ctx.lock(EntityId(Tally, "locked")):
            await ctx.call_entity(EntityId(Tally, "locked"), Tally.add, 1)
            return await ctx.call_activity(work, name)

    @app.orchestrator
    async def beside(ctx: OrchestrationContext, name: str) -> list[Any]:
        """Fails while an activity, a timer and a sub-orchestration are going on, and an event is awaited."""
        running = ctx.call_activity(slow, f"{name} slow")
        timer = ctx.create_timer(timedelta(milliseconds=50))
        child = ctx.call_sub_orchestrator(waits)
        event = ctx.wait_for_external_event("e")
        first = await ctx.call_activity(work, name)
        await timer
        return [first, await running, await child, await event]

    @app.orchestrator
    async def waits(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(slow, "child")

    _ = (mapped, caught, top, mapped_children, mixed, calls_entity, in_section, beside)
    return app


def on(
    store: Store, app: App, scenario: Callable[[Run], Coroutine[Any, Any, Any]], config: HostConfig | None = None
) -> Any:
    async def main() -> Any:
        async with running(app, store, config) as run:
            return await scenario(run)

    return asyncio.run(main())


async def fails(run: Run, name: str, input: Any, instance_id: str = "i") -> None:
    handle = await run.client.start_new(name, input, instance_id=instance_id)
    with pytest.raises(OrchestrationFailedError):
        await handle.wait_for_completion(timeout=SOON)


async def rewound(run: Run, instance_id: str = "i") -> Any:
    await run.client.rewind(instance_id, "mended")
    return await run.client.wait_for_completion(instance_id, timeout=SOON)


@pytest.mark.parametrize("config", [None, SCARCE], ids=["live", "replayed"])
def test_a_chain_goes_on_where_it_failed(make_store: MakeStore, config: HostConfig | None) -> None:
    outside = Outside(broken={"c"})

    async def scenario(run: Run) -> None:
        await fails(run, "chain", ["a", "b", "c", "d"])
        outside.broken.clear()
        assert await rewound(run) == ["A", "B", "C", "D"]
        assert outside.calls == {"a": 1, "b": 1, "c": 2, "d": 1}
        marks = [each for each in await run.client.get_history("i") if isinstance(each, ExecutionRewound)]
        assert [mark.reason for mark in marks] == ['"mended"']
        with pytest.raises(InstanceNotRunningError, match="Cannot rewind instance 'i': it is Completed"):
            await run.client.rewind("i")

    on(make_store(), make_app(outside), scenario, config)


def test_of_a_fan_out_only_the_failed_ones_run_again(make_store: MakeStore) -> None:
    names = [f"n{n}" for n in range(20)]
    outside = Outside(broken={"n3", "n7", "n19"})

    async def scenario(run: Run) -> None:
        await fails(run, "fan", names)
        outside.broken = {"n7"}
        with pytest.raises(OrchestrationFailedError, match="n7 is broken"):
            await rewound(run)
        outside.broken.clear()
        assert await rewound(run) == [name.upper() for name in names]
        assert outside.calls == {**dict.fromkeys(names, 1), "n3": 2, "n7": 3, "n19": 2}

    on(make_store(), make_app(outside), scenario)


@pytest.mark.parametrize("config", [None, SCARCE], ids=["live", "replayed"])
def test_of_a_bounded_map_only_the_failed_ones_run_again(make_store: MakeStore, config: HostConfig | None) -> None:
    """Most calls were made after the first failure, and because of it: the code asks for them again, and is told."""
    names = [f"n{n}" for n in range(12)]
    outside = Outside(broken={"n1", "n5", "n11"})

    async def scenario(run: Run) -> None:
        await fails(run, "mapped", names)
        outside.broken.clear()
        assert await rewound(run) == [name.upper() for name in names]
        assert outside.calls == {**dict.fromkeys(names, 1), "n1": 2, "n5": 2, "n11": 2}

    on(make_store(), make_app(outside), scenario, config)


def test_a_failure_that_was_dealt_with_stays(make_store: MakeStore) -> None:
    outside = Outside(broken={"a", "c"})

    async def scenario(run: Run) -> None:
        await fails(run, "caught", ["a", "b", "c"])
        outside.broken.clear()
        assert await rewound(run) == ["INSTEAD OF A", "B", "C"]
        assert outside.calls == {"a": 1, "instead of a": 1, "b": 1, "c": 2}

    on(make_store(), make_app(outside), scenario)


@pytest.mark.parametrize("config", [None, SCARCE], ids=["live", "replayed"])
def test_sub_orchestrations_are_rewound_in_their_turn(make_store: MakeStore, config: HostConfig | None) -> None:
    outside = Outside(broken={"b", "e"})

    async def scenario(run: Run) -> None:
        await fails(run, "top", [["a", "b"], ["c"], ["d", "e", "f"]])
        before = dict(outside.calls)
        outside.broken.clear()
        result = await rewound(run)
        assert result == [["0-BEFORE", "A", "B"], ["1-BEFORE", "C"], ["2-BEFORE", "D", "E", "F"]]
        assert outside.calls - Counter(before) == {"b": 1, "e": 1}

    on(make_store(), make_app(outside), scenario, config)


def test_of_a_map_over_sub_orchestrations_only_the_failed_parts_run_again(make_store: MakeStore) -> None:
    """The second child that failed was started after the first had: it is found again, and rewound."""
    outside = Outside(broken={"b", "f"})

    async def scenario(run: Run) -> None:
        await fails(run, "mapped_children", [["a", "b"], ["c", "d"], ["e", "f"], ["g"]])
        outside.broken = {"f"}
        with pytest.raises(OrchestrationFailedError, match="f is broken"):
            await rewound(run)
        outside.broken.clear()
        assert await rewound(run) == [["A", "B"], ["C", "D"], ["E", "F"], ["G"]]
        assert outside.calls == {"a": 1, "b": 2, "c": 1, "d": 1, "e": 1, "f": 3, "g": 1}

    on(make_store(), make_app(outside), scenario)


def test_what_was_going_on_goes_on(make_store: MakeStore) -> None:
    """An activity that was stopped runs again; a child that ran on without its parent is waited for again."""
    outside = Outside(broken={"a"})

    async def scenario(run: Run) -> None:
        await fails(run, "beside", "a")
        await until(lambda: outside.calls["child"] == 1)
        outside.broken.clear()
        await run.client.rewind("i")
        await until(lambda: outside.calls["a"] == 2)
        outside.gate.set()
        await run.client.raise_event("i", "e", 7)
        assert await run.client.wait_for_completion("i", timeout=SOON) == ["A", "A SLOW", "CHILD", 7]
        assert outside.calls == {"a": 2, "a slow": 2, "child": 1}

    on(make_store(), make_app(outside), scenario)


def test_a_child_that_ended_meanwhile_tells_its_result_again(make_store: MakeStore) -> None:
    outside = Outside(broken={"a"})

    async def scenario(run: Run) -> None:
        await fails(run, "beside", "a")
        outside.gate.set()
        history = await run.client.get_history("i")
        [child] = [each.instance_id for each in history if isinstance(each, SubOrchestrationInstanceCreated)]
        assert await run.client.wait_for_completion(child, timeout=SOON) == "CHILD"
        outside.broken.clear()
        await run.client.rewind("i")
        await run.client.raise_event("i", "e", 7)
        assert await run.client.wait_for_completion("i", timeout=SOON) == ["A", "A SLOW", "CHILD", 7]
        assert outside.calls["child"] == 1

    on(make_store(), make_app(outside), scenario)


def test_events_and_timers_are_kept(make_store: MakeStore) -> None:
    outside = Outside(broken={"z"})

    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("mixed", 1, instance_id="i")
        await handle.raise_event("e", 1)
        await handle.raise_event("e", 2)
        with pytest.raises(OrchestrationFailedError):
            await handle.wait_for_completion(timeout=SOON)
        outside.broken.clear()
        assert await rewound(run) == ["A", 1, 1, ["C"], 2, "Z"]
        assert outside.calls == {"a": 1, "c": 1, "z": 2}

    on(make_store(), make_app(outside), scenario)


def test_a_failed_entity_operation_is_sent_again(make_store: MakeStore) -> None:
    outside = Outside(broken={"tally"})

    async def scenario(run: Run) -> None:
        await fails(run, "calls_entity", "a")
        with pytest.raises(OrchestrationFailedError, match="tally is broken"):
            await rewound(run)
        outside.broken.clear()
        assert await rewound(run) == ["A", 5]
        assert outside.calls == {"a": 1}

    on(make_store(), make_app(outside), scenario)


def test_retries_and_timeouts_are_those_of_the_call(make_store: MakeStore) -> None:
    outside = Outside()
    app = App()

    @app.activity
    async def flaky() -> int:
        outside.calls["flaky"] += 1
        if outside.calls["flaky"] < 4:
            raise ConnectionError("not yet")
        return outside.calls["flaky"]

    @app.orchestrator
    async def tries(ctx: OrchestrationContext) -> int:
        policy = RetryPolicy(max_attempts=2, first_retry_interval=timedelta(milliseconds=1))
        return await ctx.call_activity(flaky, retry=policy, timeout=timedelta(seconds=30))

    async def scenario(run: Run) -> None:
        await fails(run, "tries", None)
        assert await rewound(run) == 4  # the third call failed, too, and was repeated

    _ = tries
    on(make_store(), app, scenario)


def test_a_call_keeps_its_idempotency_key(make_store: MakeStore) -> None:
    """Also one that was made after the first failure; a payment that was made but not reported is not made twice."""
    keys: dict[str, set[str]] = {}
    outside = Outside(broken={"b", "d"})
    app = App()

    @app.activity
    async def pay(name: str) -> str:
        keys.setdefault(name, set()).add(activity_context().idempotency_key)
        if name in outside.broken:
            raise ConnectionError(f"{name} is broken")
        return name

    @app.orchestrator
    async def pays(ctx: OrchestrationContext) -> list[str]:
        return await ctx.map(pay, ["a", "b", "c", "d"], concurrency=1)

    async def scenario(run: Run) -> None:
        await fails(run, "pays", None)
        with pytest.raises(OrchestrationFailedError):
            await rewound(run)
        outside.broken.clear()
        assert await rewound(run) == ["a", "b", "c", "d"]
        assert {name: len(found) for name, found in keys.items()} == dict.fromkeys("abcd", 1)
        assert len(set().union(*keys.values())) == 4

    _ = pays
    on(make_store(), app, scenario, SCARCE)


def test_code_that_was_mended_runs_its_last_step_again(make_store: MakeStore) -> None:
    calls: Counter[str] = Counter()

    def app_of(is_mended: bool) -> App:
        app = App()

        @app.activity
        async def step(name: str) -> str:
            calls[name] += 1
            if name == "b":
                raise ConnectionError("dealt with")
            return name

        @app.orchestrator
        async def code(ctx: OrchestrationContext) -> list[str]:
            done = [await ctx.call_activity(step, "a")]
            try:
                await ctx.call_activity(step, "b")
            except ConnectionError:
                done.append(await ctx.call_activity(step, "c"))
            if not is_mended:
                raise ValueError("a bug")
            return [*done, await ctx.call_activity(step, "d")]

        _ = code
        return app

    async def second(run: Run) -> None:
        assert await rewound(run) == ["a", "c", "d"]
        assert calls == {"a": 1, "b": 1, "c": 1, "d": 1}

    on(make_store(), app_of(is_mended=False), lambda run: fails(run, "code", None))
    on(make_store(), app_of(is_mended=True), second)


def test_code_that_failed_at_once_starts_again(make_store: MakeStore) -> None:
    def app_of(is_mended: bool) -> App:
        app = App()

        @app.orchestrator
        async def inner(ctx: OrchestrationContext, number: int) -> int:
            if not is_mended:
                raise ValueError("a bug")
            return number

        @app.orchestrator
        async def outer(ctx: OrchestrationContext, number: int) -> int:
            return await ctx.call_sub_orchestrator(inner, number)

        _ = outer
        return app

    async def second(run: Run) -> None:
        assert await rewound(run) == 3

    on(make_store(), app_of(is_mended=False), lambda run: fails(run, "outer", 3))
    on(make_store(), app_of(is_mended=True), second)


def test_a_rewind_survives_a_restart_of_the_host(make_store: MakeStore) -> None:
    """Everything that it had to do is in the store: also for a child that had only changed its parent."""
    outside = Outside(broken={"a"})
    app = make_app(outside)

    async def first(run: Run) -> None:
        await fails(run, "beside", "a")
        await run.client.rewind("i")
        with pytest.raises(OrchestrationFailedError):
            await run.client.wait_for_completion("i", timeout=SOON)
        outside.broken.clear()
        await run.client.rewind("i")

        async def stored() -> bool:
            return not await run.store.instances_with_messages("", 10)

        await eventually(stored)

    async def second(run: Run) -> None:
        outside.gate = asyncio.Event()
        outside.gate.set()
        await run.client.raise_event("i", "e", 7)
        assert await run.client.wait_for_completion("i", timeout=SOON) == ["A", "A SLOW", "CHILD", 7]

    on(make_store(), app, first)
    on(make_store(), app, second)


def test_an_instance_whose_time_was_over_goes_on_without_a_limit(make_store: MakeStore) -> None:
    outside = Outside()

    async def scenario(run: Run) -> None:
        await run.client.start_new("waits", instance_id="i", run_timeout=timedelta(milliseconds=30))
        with pytest.raises(OrchestrationFailedError, match="run_timeout"):
            await run.client.wait_for_completion("i", timeout=SOON)
        outside.gate.set()
        assert await rewound(run) == "CHILD"

    on(make_store(), make_app(outside), scenario)


# Refusals


def test_what_cannot_be_rewound_is_refused(make_store: MakeStore) -> None:
    outside = Outside(broken={"a"})

    async def scenario(run: Run) -> None:
        with pytest.raises(InstanceNotFoundError):
            await run.client.rewind("nobody")
        with pytest.raises(InvalidInputError):
            await run.client.rewind("@tally@x")
        await fails(run, "in_section", "a")
        with pytest.raises(RewindRefusedError, match="critical section over @tally@locked"):
            await run.client.rewind("i")
        status = await run.client.get_status("i")
        assert status is not None
        assert status.runtime_status is OrchestrationStatus.FAILED
        await run.client.start_new("waits", instance_id="w")
        with pytest.raises(InstanceNotRunningError, match=r"it is (Pending|Running)"):
            await run.client.rewind("w")

    on(make_store(), make_app(outside), scenario)


def test_a_child_that_is_gone_fails_its_parent_again(make_store: MakeStore) -> None:
    """It was replaced by somebody else's instance under its id."""
    outside = Outside(broken={"b"})
    app = make_app(outside)

    @app.orchestrator
    async def named(ctx: OrchestrationContext) -> list[str]:
        return await ctx.call_sub_orchestrator("chain", ["a", "b"], instance_id="child")

    async def scenario(run: Run) -> None:
        await fails(run, "named", None)
        outside.broken.clear()
        handle = await run.client.start_new("chain", ["x"], instance_id="child")
        assert await handle.wait_for_completion(timeout=SOON) == ["X"]
        with pytest.raises(OrchestrationFailedError, match="'child' belongs to somebody else by now"):
            await rewound(run)

    on(make_store(), app, scenario)


def test_a_child_that_cannot_be_rewound_fails_its_parent_again(make_store: MakeStore) -> None:
    outside = Outside(broken={"a"})
    app = make_app(outside)

    @app.orchestrator
    async def outer(ctx: OrchestrationContext) -> list[str]:
        return await ctx.call_sub_orchestrator("in_section", "a")

    async def scenario(run: Run) -> None:
        await fails(run, "outer", None)
        outside.broken.clear()
        with pytest.raises(OrchestrationFailedError, match="critical section"):
            await rewound(run)

    _ = outer
    on(make_store(), app, scenario)


def test_two_rewinds_at_once_are_one(make_store: MakeStore) -> None:
    outside = Outside(broken={"a"})

    async def scenario(run: Run) -> None:
        await fails(run, "chain", ["a"])
        outside.broken.clear()
        outcomes = await asyncio.gather(*(run.client.rewind("i") for _ in range(5)), return_exceptions=True)
        assert sorted(type(each).__name__ for each in outcomes) == ["InstanceNotRunningError"] * 4 + ["NoneType"]
        assert await run.client.wait_for_completion("i", timeout=SOON) == ["A"]
        assert outside.calls == {"a": 2}

    on(make_store(), make_app(outside), scenario)


# Restart


def test_restart_with_a_new_id(make_store: MakeStore) -> None:
    outside = Outside()

    async def scenario(run: Run) -> None:
        await run.client.start_new("chain", ["a", "b"], instance_id="i", tags={"k": "v"})
        await run.client.wait_for_completion("i", timeout=SOON)
        again = await run.client.restart("i")
        assert again.instance_id != "i"
        assert await again.wait_for_completion(timeout=SOON) == ["A", "B"]
        status = await again.get_status()
        assert status is not None
        assert (status.name, status.state.tags) == ("chain", {"k": "v"})
        assert outside.calls == {"a": 2, "b": 2}

    on(make_store(), make_app(outside), scenario)


def test_restart_with_the_same_id(make_store: MakeStore) -> None:
    outside = Outside()

    async def scenario(run: Run) -> None:
        with pytest.raises(InstanceNotFoundError):
            await run.client.restart("i")
        await run.client.start_new("waits", instance_id="i")
        with pytest.raises(InstanceNotRunningError, match="Cannot restart instance 'i'"):
            await run.client.restart("i", with_new_id=False)
        outside.gate.set()
        assert await run.client.wait_for_completion("i", timeout=SOON) == "CHILD"
        again = await run.client.restart("i", with_new_id=False)
        assert again.instance_id == "i"
        assert await again.wait_for_completion(timeout=SOON) == "CHILD"
        assert outside.calls == {"child": 2}

    on(make_store(), make_app(outside), scenario)


# Fork


async def mixed_instance(run: Run) -> int:
    """Run the mixed orchestration to its end; return how many episodes it has."""
    handle = await run.client.start_new("mixed", 1, instance_id="i")
    for number in (1, 2):
        await asyncio.sleep(0.01)
        await handle.raise_event("e", number)
    await handle.wait_for_completion(timeout=SOON)
    return sum(isinstance(each, OrchestratorStarted) for each in await run.client.get_history("i"))


@pytest.mark.parametrize("config", [None, SCARCE], ids=["live", "replayed"])
def test_fork_from_each_episode(make_store: MakeStore, config: HostConfig | None) -> None:
    outside = Outside()

    async def scenario(run: Run) -> None:
        episodes = await mixed_instance(run)
        assert episodes >= 7
        original = await run.client.get_history("i")
        for episode in range(episodes):
            fork = await run.client.fork("i", new_instance_id=f"fork-{episode}", episode=episode)
            taken = sum(isinstance(each, EventRaised) for each in await _first(run, episode))
            for value in ("x", "y")[taken:]:
                await fork.raise_event("e", value)
            result = await fork.wait_for_completion(timeout=SOON)
            assert [result[1], result[4]] == [*(1, 2)[:taken], *("x", "y")[taken:]], episode
            assert (result[0], result[3], result[5]) == ("A", ["C"], "Z")
        assert await run.client.get_history("i") == original
        with pytest.raises(InvalidInputError, match=f"has {episodes - 1} episodes"):
            await run.client.fork("i", episode=episodes)
        for wrong in ("1", True, 1.0):
            with pytest.raises(InvalidInputError, match="must be a number"):
                await run.client.fork("i", episode=wrong)  # type: ignore[arg-type]
        with pytest.raises(InstanceAlreadyExistsError):
            await run.client.fork("i", new_instance_id="fork-0")
        with pytest.raises(InstanceNotFoundError):
            await run.client.fork("nobody")

    on(make_store(), make_app(outside), scenario, config)


async def _first(run: Run, episodes: int) -> list[Any]:
    found: list[Any] = []
    for event in await run.client.get_history("i"):
        episodes -= isinstance(event, OrchestratorStarted)
        if episodes < 0:
            break
        found.append(event)
    return found


def test_fork_of_what_runs(make_store: MakeStore) -> None:
    """Both finish, each with its own activity and its own sub-orchestration; a fork of the fork does, too."""
    outside = Outside()

    async def scenario(run: Run) -> None:
        await run.client.start_new("beside", "a", instance_id="i")
        await until(lambda: outside.calls["child"] == 1)

        async def is_waiting() -> bool:
            seen = {type(each) for each in await run.client.get_history("i")}
            return {TaskCompleted, TimerFired} <= seen

        await eventually(is_waiting)
        first = await run.client.fork("i")
        second = await run.client.fork(first.instance_id)
        await until(lambda: outside.calls["child"] == 3)
        assert outside.calls == {"a": 1, "a slow": 3, "child": 3}
        outside.gate.set()
        for instance_id in ("i", first.instance_id, second.instance_id):
            await run.client.raise_event(instance_id, "e", instance_id)
            result = await run.client.wait_for_completion(instance_id, timeout=SOON)
            assert result == ["A", "A SLOW", "CHILD", instance_id]

    on(make_store(), make_app(outside), scenario)


def test_a_fork_can_be_rewound(make_store: MakeStore) -> None:
    """Its sub-orchestration is its own: it, and not that of the original, is rewound."""
    outside = Outside(broken={"b"})

    async def scenario(run: Run) -> None:
        await fails(run, "middle", ["a", "b"])
        fork = await run.client.fork("i", new_instance_id="f", episode=2)
        with pytest.raises(OrchestrationFailedError, match="b is broken"):
            await fork.wait_for_completion(timeout=SOON)
        outside.broken.clear()
        assert await rewound(run, "f") == ["I-BEFORE", "A", "B"]
        assert outside.calls == {"i-before": 1, "a": 2, "b": 3}
        assert await rewound(run, "i") == ["I-BEFORE", "A", "B"]
        assert outside.calls == {"i-before": 1, "a": 2, "b": 4}

    on(make_store(), make_app(outside), scenario, SCARCE)


def test_a_fork_knows_who_it_is(make_store: MakeStore) -> None:
    """What the code asked for before it was the original's, and so are the ids in it; what follows is its own."""
    app = App()

    @app.activity
    async def echo(text: str) -> str:
        return text

    @app.orchestrator
    async def tells(ctx: OrchestrationContext) -> list[Any]:
        before = await ctx.call_activity(echo, f"{ctx.instance_id} of {ctx.parent_instance_id}")
        await ctx.wait_for_external_event("e")
        return [before, await ctx.call_activity(echo, f"{ctx.instance_id} of {ctx.parent_instance_id}")]

    @app.orchestrator
    async def calls(ctx: OrchestrationContext) -> list[Any]:
        return await ctx.call_sub_orchestrator(tells, instance_id="child")

    async def scenario(run: Run) -> None:
        await run.client.start_new(calls, instance_id="i")

        async def is_waiting() -> bool:
            status = await run.client.get_status("child")
            history = await run.client.get_history("child") if status else []
            return any(isinstance(each, TaskCompleted) for each in history)

        await eventually(is_waiting)
        fork = await run.client.fork("child", new_instance_id="fork")
        await fork.raise_event("e")
        assert await fork.wait_for_completion(timeout=SOON) == ["child of i", "fork of None"]
        await run.client.raise_event("child", "e")
        assert await run.client.wait_for_completion("i", timeout=SOON) == ["child of i", "child of i"]

    on(make_store(), app, scenario, SCARCE)


def test_a_fork_from_a_critical_section_is_refused() -> None:
    outside = Outside(broken={"a"})

    async def scenario(run: Run) -> None:
        await fails(run, "in_section", "a")
        with pytest.raises(RewindRefusedError, match="critical section over @tally@locked"):
            await run.client.fork("i")
        assert await run.client.get_status("f") is None
        outside.broken.clear()
        fork = await run.client.fork("i", episode=1)
        assert await fork.wait_for_completion(timeout=SOON) == "A"

    on(MemoryStore(), make_app(outside), scenario)
