"""Versions of orchestrators, and patches: code that changes while instances are in flight."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from engine_kit import SOON, Run, eventually, running

from holdfast import (
    App,
    ConfigurationError,
    HostConfig,
    InvalidInputError,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationStatus,
    TaskFailedError,
)
from holdfast.codec.exported import decode_exported
from holdfast.engine.suspects import SUSPECT_DELIVERIES
from holdfast.errors import InstanceParkedError, VersionMismatchError
from holdfast.model.history import PatchMarked, TaskScheduled
from holdfast.model.versions import compare_versions, matches
from holdfast.storage.port import Store

MakeStore = Callable[[], Store]
Scenario = Callable[[Run], Coroutine[Any, Any, None]]


def on(store: Store, app: App, scenario: Scenario, **settings: Any) -> None:
    """Run a scenario on a host that is opened and left again."""

    async def main() -> None:
        async with running(app, store, HostConfig(drain_s=0.2, **settings)) as run:
            await scenario(run)

    asyncio.run(main())


async def result(run: Run, name: str, *input: Any, **options: Any) -> Any:
    handle = await run.client.start_new(name, *input, **options)
    return await handle.wait_for_completion(timeout=SOON)


async def history_of(run: Run, instance_id: str) -> list[Any]:
    return list(await run.client.get_history(instance_id))


async def waits_in_store(run: Run, instance_id: str, messages: int) -> None:
    """Wait until all of so many messages for an instance are stored, and none of them is being worked on."""

    async def stored() -> bool:
        [found] = await run.store.load([instance_id])
        return len(found.messages) == messages

    await eventually(stored)


# Comparing


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (None, "0"),
        ("", "0.0.1"),
        ("1", "2"),
        ("9", "10"),
        ("1.9", "1.10"),
        ("1.0.9", "1.1"),
        ("1", "1.0.1"),
        ("1.2.3", "1.2.3.4"),
        ("alpha", "beta"),
        ("ALPHA", "beta"),
        ("1.0-beta", "1.0-rc"),
        ("10", "9a"),  # no numbers, so as texts
        ("2026-01-31", "2026-02-01"),
    ],
)
def test_what_is_older(older: str | None, newer: str | None) -> None:
    assert compare_versions(older, newer) == -1
    assert compare_versions(newer, older) == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [(None, None), (None, ""), ("1", "1.0.0"), ("01", "1"), ("Beta", "bETA"), ("1.0", "1")],
)
def test_what_is_the_same(first: str | None, second: str | None) -> None:
    assert compare_versions(first, second) == compare_versions(second, first) == 0


@pytest.mark.parametrize(
    ("instance", "host", "strict", "current_or_older"),
    [
        (None, None, True, True),
        ("1", None, False, True),
        (None, "1", False, True),
        ("1", "1.0", True, True),
        ("1", "2", False, True),
        ("2", "1", False, False),
        ("1.10", "1.9", False, False),
    ],
)
def test_match_rules(instance: str | None, host: str | None, strict: bool, current_or_older: bool) -> None:
    assert matches(instance, host, "none")
    assert matches(instance, host, "strict") is strict
    assert matches(instance, host, "current_or_older") is current_or_older


# Which version an instance has, and which code it gets


def any_version_app() -> App:
    """One function for all versions, which tells the version that it finds."""
    app = App()

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> str | None:
        await ctx.wait_for_external_event("go")
        return ctx.version

    @app.orchestrator
    async def parent(ctx: OrchestrationContext, version: str | None) -> str:
        return await ctx.call_sub_orchestrator(child, version=version)

    @app.orchestrator
    async def child(ctx: OrchestrationContext) -> str:
        return f"child {ctx.version}"

    _ = (flow, parent)
    return app


def test_an_instance_has_the_version_it_was_started_with_or_else_that_of_the_host(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        assert await result(run, "child") == "child 2.0"
        assert await result(run, "child", version="1.5") == "child 1.5"
        assert await result(run, "parent", None) == "child 2.0"
        assert await result(run, "parent", "1.1") == "child 1.1"
        # What a parent was started with is its own affair.
        assert await result(run, "parent", None, version="1.0") == "child 2.0"
        state = await run.client.get_status((await run.client.start_new("flow")).instance_id)
        assert state is not None
        assert state.state.version == "2.0"

    on(make_store(), any_version_app(), scenario, default_version="2.0")


def side_by_side() -> App:
    app = App()

    @app.orchestrator(name="flow", version="1")
    async def first(ctx: OrchestrationContext) -> str:
        return f"first, {ctx.version}"

    @app.orchestrator(name="flow", version="2")
    async def second(ctx: OrchestrationContext) -> list[str]:
        return [f"second, {ctx.version}", await ctx.call_sub_orchestrator("flow", version="1")]

    @app.orchestrator(name="mixed")
    async def rest(ctx: OrchestrationContext) -> str:
        return f"rest, {ctx.version}"

    @app.orchestrator(name="mixed", version="2")
    async def exact(ctx: OrchestrationContext) -> str:
        return f"exact, {ctx.version}"

    @app.orchestrator(name="steps", version="1")
    async def step_one(ctx: OrchestrationContext, seen: str) -> str:
        ctx.continue_as_new(f"{seen}{ctx.version}", version="2")
        return ""

    @app.orchestrator(name="steps", version="2")
    async def step_two(ctx: OrchestrationContext, seen: str) -> str:
        if len(seen) < 3:
            ctx.continue_as_new(f"{seen}{ctx.version}")
        return f"{seen}{ctx.version}"

    _ = (first, second, rest, exact, step_one, step_two)
    return app


def test_functions_of_several_versions_run_side_by_side(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        assert await result(run, "flow", version="1") == "first, 1"
        assert await result(run, "flow") == ["second, 2", "first, 1"]
        assert await result(run, "mixed") == "exact, 2"
        assert await result(run, "mixed", version="1") == "rest, 1"
        with pytest.raises(VersionMismatchError, match=r"no version '3' of orchestrator 'flow'; it has '1', '2'"):
            await run.client.start_new("flow", version="3", instance_id="three")
        assert await run.client.get_status("three") is None

    on(make_store(), side_by_side(), scenario, default_version="2")


def test_continue_as_new_may_change_the_version_and_keeps_it_otherwise(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        run_of = await run.client.start_new("steps", "", version="1")
        assert await run_of.wait_for_completion(timeout=SOON) == "1222"
        status = await run_of.get_status()
        assert status is not None
        assert status.state.version == "2"

    on(make_store(), side_by_side(), scenario)


def test_versions_of_one_name_are_registered_once_each() -> None:
    app = App()

    async def flow(ctx: OrchestrationContext) -> None: ...

    app.orchestrator(name="flow", version="1")(flow)
    app.orchestrator(name="flow")(flow)
    for name, version in (("flow", "1"), ("flow", None), ("FLOW", "2")):
        with pytest.raises(ConfigurationError, match="already"):
            app.orchestrator(name=name, version=version)(flow)
    for version in ("", "x" * 101, "a\n", 2):
        with pytest.raises(ConfigurationError, match="version="):
            app.orchestrator(name="other", version=version)(flow)  # type: ignore[arg-type]  # the last one


def test_what_cannot_be_a_version_is_refused(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        for version in ("", "x" * 101, "a\n", 2):
            options: Any = {"version": version}
            with pytest.raises(InvalidInputError, match="version="):
                await run.client.start_new("child", **options)

    on(make_store(), any_version_app(), scenario)
    with pytest.raises(ConfigurationError, match="version_match"):
        HostConfig(version_match="newer")  # type: ignore[arg-type]  # that is the test


# Hosts that may not run an instance


async def start_two(run: Run) -> None:
    """One of version 2 that has begun, and one of version 1."""
    for version in ("2", "1"):
        await run.client.start_new("flow", instance_id=version, version=version)

    async def both_began() -> bool:
        return bool(await history_of(run, "1")) and bool(await history_of(run, "2"))

    await eventually(both_began)


def test_an_instance_of_another_version_waits_untouched_for_a_host_that_has_it(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    before: list[Any] = []

    async def old_host(run: Run) -> None:
        before.extend(await run.store.load(["2"]))
        for instance_id in ("1", "2"):
            await run.client.raise_event(instance_id, "go")
        done = await run.client.wait_for_completion("1", timeout=SOON)
        assert done == "1"
        await waits_in_store(run, "2", 1)
        status = await run.client.get_status("2")
        assert status is not None
        assert (status.runtime_status, status.parked) == (OrchestrationStatus.RUNNING, None)

    async def untouched(run: Run) -> None:
        [found] = await run.store.load(["2"])
        assert found.row == before[0].row
        assert [each.instance_id for each in found.messages] == ["2"]

    async def new_host(run: Run) -> None:
        assert await run.client.wait_for_completion("2", timeout=SOON) == "2"

    on(make_store(), any_version_app(), start_two, default_version="2")
    with caplog.at_level(logging.WARNING, "holdfast.engine"):
        on(make_store(), any_version_app(), old_host, default_version="1")
    [warning] = [record.getMessage() for record in caplog.records if "version" in record.getMessage()]
    assert "Instance '2' of orchestrator 'flow' has version '2'; this host is version '1'" in warning
    on(make_store(), any_version_app(), untouched, default_version="1")
    on(make_store(), any_version_app(), new_host, default_version="2")


def test_strict_hosts_leave_older_ones_alone_and_rule_none_runs_all(make_store: MakeStore) -> None:
    async def strict(run: Run) -> None:
        for instance_id in ("1", "2"):
            await run.client.raise_event(instance_id, "go")
        assert await run.client.wait_for_completion("2", timeout=SOON) == "2"
        await waits_in_store(run, "1", 1)

    async def lax(run: Run) -> None:
        assert await run.client.wait_for_completion("1", timeout=SOON) == "1"

    on(make_store(), any_version_app(), start_two, default_version="2")
    on(make_store(), any_version_app(), strict, default_version="2", version_match="strict")
    on(make_store(), any_version_app(), lax, default_version="0", version_match="none")


def test_one_that_waits_for_its_version_can_be_terminated_and_suspended(make_store: MakeStore) -> None:
    async def old_host(run: Run) -> None:
        await run.client.raise_event("2", "go")
        await waits_in_store(run, "2", 1)
        await run.client.suspend("2")
        await run.client.resume("2")
        await run.client.terminate("2", "no more")
        status = await run.client.wait_until_stopped("2", timeout=SOON)
        assert (status.runtime_status, status.output) == (OrchestrationStatus.TERMINATED, "no more")
        assert [each.messages for each in await run.store.load(["2"])] == [[]]

    on(make_store(), any_version_app(), start_two, default_version="2")
    on(make_store(), any_version_app(), old_host, default_version="1")


def test_one_whose_function_is_gone_waits_too(make_store: MakeStore) -> None:
    """The app has functions of other versions only."""
    app = side_by_side()

    @app.orchestrator(name="kept", version="1")
    async def kept(ctx: OrchestrationContext) -> str:
        return await ctx.wait_for_external_event("go")

    without = App()

    @without.orchestrator(name="kept", version="2")
    async def newer(ctx: OrchestrationContext) -> str:
        return "the newer one"

    async def begin(run: Run) -> None:
        await run.client.start_new("kept", version="1", instance_id="k")

    async def lacking(run: Run) -> None:
        await run.client.raise_event("k", "go", "went on")
        assert await result(run, "kept", version="2") == "the newer one"
        status = await run.client.get_status("k")
        assert status is not None
        assert not status.runtime_status.is_terminal
        assert status.parked is None

    async def finish(run: Run) -> None:
        assert await run.client.wait_for_completion("k", timeout=SOON) == "went on"

    _ = (kept, newer)
    for each, scenario in ((app, begin), (without, lacking), (app, finish)):
        on(make_store(), each, scenario)


def test_a_host_can_be_told_to_fail_what_is_of_another_version(make_store: MakeStore) -> None:
    async def fails(run: Run) -> None:
        await run.client.raise_event("2", "go")
        with pytest.raises(OrchestrationFailedError, match="has version '2'; this host is version '1'") as failed:
            await run.client.wait_for_completion("2", timeout=SOON)
        assert failed.value.details is not None
        assert failed.value.details.error_type == "holdfast.errors.VersionMismatchError"
        with pytest.raises(OrchestrationFailedError, match="VersionMismatchError"):
            await result(run, "parent", "3")
        # Its code did not run at the end, so any code replays that replays up to there.
        any_version_app().check_replay(await run.client.export_history("2"))

    on(make_store(), any_version_app(), start_two, default_version="2")
    on(make_store(), any_version_app(), fails, default_version="1", version_failure="fail")


def activity_then_wait() -> tuple[App, list[int]]:
    app, calls = App(), list[int]()

    @app.activity
    async def count() -> int:
        calls.append(1)
        return len(calls)

    @app.orchestrator
    async def flow(ctx: OrchestrationContext) -> int:
        await ctx.wait_for_external_event("go")
        return await ctx.call_activity(count)

    _ = flow
    return app, calls


def test_the_result_of_an_activity_is_stored_while_its_instance_waits_for_its_version(make_store: MakeStore) -> None:
    """Each stop would throw it away otherwise, and the activity would run again on each host that may not go on."""
    app, calls = activity_then_wait()
    store = make_store()

    async def begin(run: Run) -> None:
        handle = await run.client.start_new("flow", instance_id="f", version="2")
        # The host is left before it can go on with the result: it has no time to run the activity.
        await handle.raise_event("go")

        async def asked() -> bool:
            return any(isinstance(event, TaskScheduled) for event in await history_of(run, "f"))

        await eventually(asked)

    async def other_version(run: Run) -> None:
        await waits_in_store(run, "f", 1)
        assert await run.store.activities_visible(2**62, 10) == []

    async def finish(run: Run) -> None:
        assert await run.client.wait_for_completion("f", timeout=SOON) == 1

    async def slow() -> int:
        await asyncio.Event().wait()
        return 0

    begins = App()
    begins.activity(name="count")(slow)
    begins.orchestrator(app.registry.orchestrator("flow").function)
    on(store, begins, begin, default_version="2")
    for _ in range(2):
        on(make_store(), app, other_version, default_version="1")
        assert calls == [1]
    on(make_store(), app, finish, default_version="2")


def test_waiting_for_a_version_is_not_held_against_an_instance(make_store: MakeStore) -> None:
    """After crashes, work is counted that may have caused them; what does not even run here cannot have."""

    async def waiting(run: Run) -> None:
        await run.client.raise_event("2", "go")
        await waits_in_store(run, "2", 1)

    async def after_crashes(run: Run) -> None:
        async def forgiven() -> bool:
            row = await run.store.read_instance("2")
            return row is not None and row.deliveries == 0

        await eventually(forgiven)
        async with asyncio.timeout(10):  # a suspect has 30 seconds to itself, if it does not say that it is done
            assert await result(run, "child", version="1") == "child 1"

    async def finish(run: Run) -> None:
        assert await run.client.wait_for_completion("2", timeout=SOON) == "2"

    async def crash() -> None:
        store = make_store()
        for _ in range(SUSPECT_DELIVERIES):
            await store.acquire(2**40, after_crash=True)
        await store.close()

    on(make_store(), any_version_app(), start_two, default_version="2")
    on(make_store(), any_version_app(), waiting, default_version="1")
    asyncio.run(crash())
    on(make_store(), any_version_app(), after_crashes, default_version="1")
    on(make_store(), any_version_app(), finish, default_version="2")


# Patches


def app_with(flow: Callable[[OrchestrationContext], Coroutine[Any, Any, Any]]) -> App:
    app = App()

    @app.activity
    async def old(number: int) -> str:
        return f"old {number}"

    @app.activity
    async def new(number: int) -> str:
        return f"new {number}"

    _ = (old, new)
    app.orchestrator(name="flow")(flow)
    return app


async def before(ctx: OrchestrationContext) -> list[str]:
    seen: list[str] = []
    for number in range(3):
        await ctx.wait_for_external_event("go")
        seen.append(await ctx.call_activity("old", number))
    return seen


async def patched(ctx: OrchestrationContext) -> list[str]:
    seen: list[str] = []
    for number in range(3):
        await ctx.wait_for_external_event("go")
        seen.append(await ctx.call_activity("new" if ctx.patched("change") else "old", number))
    return seen


async def after(ctx: OrchestrationContext) -> list[str]:
    seen: list[str] = []
    for number in range(3):
        await ctx.wait_for_external_event("go")
        seen.append(await ctx.call_activity("new", number))
    return seen


OLD, NEW = [f"old {number}" for number in range(3)], [f"new {number}" for number in range(3)]


async def answers(run: Run, instance_id: str, count: int) -> None:
    """Wait until so many rounds of the loop are over."""

    async def came() -> bool:
        return sum(type(event).__name__ == "TaskCompleted" for event in await history_of(run, instance_id)) == count

    await eventually(came)


def begin(instance_id: str, rounds: int) -> Scenario:
    async def scenario(run: Run) -> None:
        handle = await run.client.start_new("flow", instance_id=instance_id)
        for _ in range(rounds):
            await handle.raise_event("go")
        await answers(run, instance_id, rounds)

    return scenario


def go_on(instance_id: str, rounds: int, expected: list[str]) -> Scenario:
    async def scenario(run: Run) -> None:
        for _ in range(rounds):
            await run.client.raise_event(instance_id, "go")
        assert await run.client.wait_for_completion(instance_id, timeout=SOON) == expected

    return scenario


def test_what_was_in_flight_takes_the_old_branch_and_what_starts_later_the_new_one(make_store: MakeStore) -> None:
    on(make_store(), app_with(before), begin("early", 1))
    on(make_store(), app_with(patched), begin("late", 1))
    on(make_store(), app_with(patched), go_on("early", 2, OLD))
    on(make_store(), app_with(patched), go_on("late", 2, NEW))


def test_one_that_had_not_come_to_the_change_takes_the_new_branch_for_good(make_store: MakeStore) -> None:
    """It replays up to a point before the question, so that this is asked for the first time."""
    on(make_store(), app_with(before), begin("early", 0))
    on(make_store(), app_with(patched), go_on("early", 3, NEW))


def test_the_question_is_recorded_once_and_may_go_once_nothing_old_is_left(make_store: MakeStore) -> None:
    async def ends(run: Run) -> None:
        await go_on("late", 2, NEW)(run)
        marks = [event.name for event in await history_of(run, "late") if isinstance(event, PatchMarked)]
        assert marks == ["change"]
        for app in (app_with(patched), app_with(after)):
            app.check_replay(await run.client.export_history("late"))

    on(make_store(), app_with(patched), begin("late", 1))
    on(make_store(), app_with(after), begin("newest", 1))
    on(make_store(), app_with(after), ends)


def test_without_the_question_the_change_parks_what_was_in_flight(make_store: MakeStore) -> None:
    async def parked(run: Run) -> None:
        await run.client.raise_event("early", "go")
        with pytest.raises(InstanceParkedError, match=r"ctx\.patched"):
            await run.client.wait_for_completion("early", timeout=SOON)

    async def resumed(run: Run) -> None:
        await run.client.resume("early")
        await go_on("early", 1, OLD)(run)

    on(make_store(), app_with(before), begin("early", 1))
    on(make_store(), app_with(after), parked)
    on(make_store(), app_with(patched), resumed)


# Exports by the client


def test_a_client_exports_what_the_app_replays(make_store: MakeStore) -> None:
    async def scenario(run: Run) -> None:
        await result(run, "child", instance_id="c", version="1")
        text = await run.client.export_history("c")
        exported = decode_exported(text)
        assert (exported.instance_id, exported.name, exported.version) == ("c", "child", "1")
        assert [event for episode in exported.episodes for event in episode] == await history_of(run, "c")
        any_version_app().check_replay(text)
        later = datetime(2999, 1, 1, tzinfo=UTC)
        await run.client.start_new("child", instance_id="later", start_at=later)
        pending = decode_exported(await run.client.export_history("later"))
        assert pending == msgspec.structs.replace(pending, episodes=())
        with pytest.raises(InvalidInputError, match="entities"):
            await run.client.export_history("@counter@clicks")

    on(make_store(), any_version_app(), scenario)


def test_several_versions_of_an_activity_run_side_by_side(make_store: MakeStore) -> None:
    app = App()

    @app.activity(version="1")
    async def tax(amount: int) -> str:
        return f"{amount} old"

    @app.activity(name="tax", version="2")
    async def new_tax(amount: int) -> str:
        return f"{amount} new"

    @app.orchestrator
    async def bill(ctx: OrchestrationContext) -> list[str]:
        try:
            await ctx.call_activity("tax", 3, version="3")
        except TaskFailedError as error:
            missing = error.details.error_message
        return [
            await ctx.call_activity(tax, 1),
            await ctx.call_activity(new_tax, 1),
            await ctx.call_activity(tax, 1, version="2"),
            missing,
        ]

    async def scenario(run: Run) -> None:
        old, new, chosen, missing = await result(run, "bill")
        assert (old, new, chosen) == ("1 old", "1 new", "1 new")
        assert missing == "The app has no version '3' of activity 'tax'; it has '1', '2'."

    _ = bill
    on(make_store(), app, scenario)
