"""The runner of activities: what an attempt sees of itself, what it reports, and how it is stopped."""

from __future__ import annotations

import asyncio
import contextvars
import multiprocessing
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import process_activities
import pytest
from engine_kit import SOON, until

from holdfast import ActivityContext, App, HoldfastError, HostConfig, Limits, PayloadError, activity_context
from holdfast.codec.converter import JsonConverter
from holdfast.engine.activity_context import AttemptInfo
from holdfast.engine.activity_heartbeats import Heartbeats
from holdfast.engine.activity_runner import ActivityRunner
from holdfast.engine.clock import SystemClock
from holdfast.model.task_policy import TaskPolicy
from holdfast.model.work_items import ActivityWorkItem, Failed, Outcome, Succeeded

AT_ONCE = timedelta(microseconds=1)


class Bench:
    """A runner, and what it says."""

    def __init__(self, app: App, **settings: Any) -> None:
        config = HostConfig(**settings)
        converter = JsonConverter(payload_bytes_max=config.limits.payload_bytes_max)
        self.outcomes: dict[int, Outcome] = {}
        self.heard: list[tuple[int, str]] = []
        self.threads: set[int] = set()
        self.runner = ActivityRunner(
            app.registry.activity, converter, config, SystemClock(), self._finished, self._progressed
        )

    def _finished(self, work_item: ActivityWorkItem, outcome: Outcome) -> None:
        assert work_item.sequence not in self.outcomes
        self.outcomes[work_item.sequence] = outcome

    def _progressed(self, work_item: ActivityWorkItem, progress: str) -> None:
        assert work_item.sequence not in self.outcomes
        self.heard.append((work_item.sequence, progress))
        self.threads.add(threading.get_ident())

    def submit(
        self, name: str, sequence: int = 0, input: str | None = None, timeout: timedelta | None = None
    ) -> tuple[str, int]:
        self.runner.submit(ActivityWorkItem("i", "e", sequence, name, input, policy=TaskPolicy(timeout=timeout)))
        return ("e", sequence)

    async def outcome(self, sequence: int = 0) -> Outcome:
        await until(lambda: sequence in self.outcomes)
        return self.outcomes[sequence]


def on(app: App, scenario: Callable[[Bench], Awaitable[None]], **settings: Any) -> None:
    async def main() -> None:
        bench = Bench(app, **settings)
        try:
            await scenario(bench)
        finally:
            await bench.runner.drain(0.01)
        assert multiprocessing.active_children() == []

    asyncio.run(main())


def timed_out(outcome: Outcome) -> bool:
    return isinstance(outcome, Failed) and outcome.details.error_type == "builtins.TimeoutError"


# The context


def context_of(info: AttemptInfo, report: Callable[[str], None] = lambda _: None) -> ActivityContext:
    return ActivityContext(info, JsonConverter(payload_bytes_max=100), report, threading.Event())


def test_a_context_tells_which_attempt_it_is() -> None:
    context = context_of(AttemptInfo("i", "e", 3, "n", 2, {"team": "blue"}))
    seen = (context.instance_id, context.execution_id, context.sequence, context.name, context.attempt)
    assert seen == ("i", "e", 3, "n", 2)
    assert context.idempotency_key == "e:3"
    assert context.tags == {"team": "blue"}
    assert "attempt 2" in repr(context)
    with pytest.raises(AttributeError):
        context.attempt = 3  # type: ignore[misc]  # that it is refused is what is tested
    with pytest.raises(TypeError):
        context.tags["team"] = "red"  # type: ignore[index]  # as above


def test_the_progress_of_an_earlier_attempt_is_decoded() -> None:
    assert context_of(AttemptInfo("i", "e", 0, "n", 1)).last_progress() is None
    assert context_of(AttemptInfo("i", "e", 0, "n", 1)).last_progress(int) is None
    context = context_of(AttemptInfo("i", "e", 0, "n", 2, progress='{"minutes":1}'))
    assert context.last_progress() == {"minutes": 1}
    assert context.last_progress(dict[str, float]) == {"minutes": 1.0}
    with pytest.raises(PayloadError):
        context.last_progress(int)


def test_a_heartbeat_is_encoded_or_refused_at_the_call() -> None:
    reported: list[str] = []
    context = context_of(AttemptInfo("i", "e", 0, "n", 1), reported.append)
    context.heartbeat()
    context.heartbeat((1, "a"))
    with pytest.raises(PayloadError):
        context.heartbeat("x" * 100)
    with pytest.raises(PayloadError):
        context.heartbeat(object())
    assert reported == ["null", '[1,"a"]']


def test_there_is_no_context_outside_an_activity() -> None:
    with pytest.raises(HoldfastError, match="only inside a running activity"):
        activity_context()


# Heartbeats


def test_heartbeats_that_come_too_fast_are_overtaken_by_the_newest() -> None:
    async def main() -> None:
        heard: list[str] = []
        heartbeats = Heartbeats(asyncio.get_running_loop(), threading.Lock(), heard.append)
        for number in range(5):
            heartbeats.report(str(number))
        assert heard == []
        await asyncio.sleep(0)
        assert heard == ["4"]
        heartbeats.report("5")
        heartbeats.end()
        heartbeats.report("6")
        await asyncio.sleep(0)
        assert heard == ["4", "5"]

    asyncio.run(main())


def test_a_thread_that_outlives_the_loop_may_go_on_reporting() -> None:
    async def main() -> Heartbeats:
        return Heartbeats(asyncio.get_running_loop(), threading.Lock(), lambda _: None)

    heartbeats = asyncio.run(main())
    heartbeats.report("1")
    heartbeats.report("2")


def reporting_app() -> App:
    app = App()

    @app.activity
    async def on_the_loop() -> str:
        activity_context().heartbeat(1)
        await asyncio.sleep(0)
        activity_context().heartbeat(2)
        return "done"

    @app.activity
    async def beside_the_loop() -> str:
        await asyncio.to_thread(activity_context().heartbeat, 2)
        return "done"

    @app.activity
    def in_a_thread() -> str:
        activity_context().heartbeat(1)
        activity_context().heartbeat(2)
        return "done"

    @app.activity
    def fails() -> None:
        activity_context().heartbeat(2)
        raise ValueError

    app.registry.add_activity(process_activities.beats)
    _ = (on_the_loop, beside_the_loop, in_a_thread, fails)
    return app


@pytest.mark.parametrize("name", ["on_the_loop", "beside_the_loop", "in_a_thread", "fails", "beats"])
def test_progress_is_heard_on_the_loop_and_the_last_before_the_outcome(name: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.submit(name, 7, "3" if name == "beats" else None)
        outcome = await bench.outcome(7)
        assert isinstance(outcome, Failed if name == "fails" else Succeeded)
        assert bench.heard[-1] == (7, "2")
        assert bench.heard == sorted(bench.heard)
        assert bench.threads == {threading.get_ident()}

    on(reporting_app(), scenario)


def test_the_progress_of_what_runs_is_known_until_it_ends() -> None:
    app = App()
    go = threading.Event()

    @app.activity
    def works() -> None:
        activity_context().heartbeat("half")
        assert go.wait(SOON.total_seconds())

    async def scenario(bench: Bench) -> None:
        key = bench.submit("works")
        assert bench.runner.progress(key) is None
        await until(lambda: bench.runner.progress(key) == '"half"')
        go.set()
        await bench.outcome()
        assert bench.runner.progress(key) is None

    on(app, scenario)


def test_a_heartbeat_that_is_too_large_fails_the_attempt_that_does_not_mind_it() -> None:
    app = App()

    @app.activity
    def boasts() -> None:
        activity_context().heartbeat("x" * 1000)

    async def scenario(bench: Bench) -> None:
        bench.submit("boasts")
        outcome = await bench.outcome()
        assert isinstance(outcome, Failed)
        assert outcome.details.error_type == "holdfast.errors.PayloadTooLargeError"

    on(app, scenario, limits=Limits(payload_bytes_max=100))


# Stopping


class Lingering:
    """An activity in a thread which looks whether it is cancelled, and what came of it."""

    def __init__(self) -> None:
        self.app = App()
        self.began = threading.Event()
        self.saw = threading.Event()
        self.app.activity(self.lingers)
        self.app.activity(self.waits)

    def lingers(self) -> None:
        context = activity_context()
        self.began.set()
        for _ in range(int(SOON.total_seconds() / 0.005)):
            if context.cancelled:
                context.heartbeat("too late")
                self.saw.set()
                return
            threading.Event().wait(0.005)

    async def waits(self) -> str:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            if activity_context().cancelled:
                self.saw.set()
        return "never"


@pytest.mark.parametrize("name", ["lingers", "waits"])
def test_an_attempt_that_is_cancelled_sees_it_and_is_not_reported(name: str) -> None:
    lingering = Lingering()

    async def scenario(bench: Bench) -> None:
        key = bench.submit(name, 1)
        await until(lingering.began.is_set)
        bench.submit(name, 2)
        lingering.began.clear()
        assert bench.runner.queued == 1
        bench.runner.cancel({key})
        assert not bench.runner.knows(key)
        await until(lambda: bench.runner.queued == 0)
        await until(lingering.saw.is_set)
        await until(lingering.began.is_set)
        assert bench.runner.known_keys() == {("e", 2)}
        bench.runner.cancel({("e", 2)})
        await asyncio.sleep(0.01)
        assert bench.outcomes == {}
        assert bench.heard == []

    on(lingering.app, scenario, activities_max=1)


def test_an_attempt_that_is_cancelled_frees_its_slot_even_if_it_resists() -> None:
    app = App()
    began, may_end = asyncio.Event(), asyncio.Event()

    @app.activity
    async def resists() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            await may_end.wait()

    @app.activity
    async def next_one() -> str:
        return "done"

    async def scenario(bench: Bench) -> None:
        key = bench.submit("resists", 1)
        await began.wait()
        bench.submit("next_one", 2)
        bench.runner.cancel({key})
        assert await bench.outcome(2) == Succeeded('"done"')
        may_end.set()
        await asyncio.sleep(0.01)
        assert bench.outcomes.keys() == {2}

    _ = (resists, next_one)
    on(app, scenario, activities_max=1)


@pytest.mark.parametrize("name", ["lingers", "waits"])
def test_an_attempt_that_takes_too_long_sees_it_and_fails(name: str) -> None:
    lingering = Lingering()

    async def scenario(bench: Bench) -> None:
        bench.submit(name, timeout=timedelta(milliseconds=20))
        outcome = await bench.outcome()
        assert timed_out(outcome)
        assert isinstance(outcome, Failed)
        assert outcome.details.error_message == f"Attempt 1 of activity {name!r} took longer than 0:00:00.020000."
        await until(lingering.saw.is_set)
        assert bench.heard == []

    on(lingering.app, scenario)


def test_what_runs_when_the_host_stops_sees_it_too() -> None:
    lingering = Lingering()

    async def scenario(bench: Bench) -> None:
        bench.submit("lingers")
        await until(lingering.began.is_set)
        await bench.runner.drain(0.01)
        await until(lingering.saw.is_set)
        assert bench.outcomes == {}

    on(lingering.app, scenario)


def test_what_user_code_raises_when_it_is_stopped_is_its_outcome() -> None:
    """As with `asyncio.timeout`: it may turn the cancellation into a result or an error of its own."""
    app = App()

    @app.activity
    async def turns_it_into(what: str) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if what == "a result":
                return "in time after all"
            raise (ValueError if what == "an error" else TimeoutError)("own") from None
        return "never"

    @app.activity
    async def cancels_itself() -> None:
        raise asyncio.CancelledError

    @app.activity
    async def times_out_itself() -> None:
        raise TimeoutError("of something else")

    async def scenario(bench: Bench) -> None:
        for sequence, what in enumerate(('"a result"', '"an error"', '"a timeout"')):
            bench.submit("turns_it_into", sequence, what, AT_ONCE)
        assert await bench.outcome(0) == Succeeded('"in time after all"')
        own = await bench.outcome(1)
        assert isinstance(own, Failed)
        assert own.details.error_type == "builtins.ValueError"
        assert timed_out(await bench.outcome(2))
        bench.submit("cancels_itself", 3)
        cancelled = await bench.outcome(3)
        assert isinstance(cancelled, Failed)
        assert cancelled.details.error_type == "asyncio.exceptions.CancelledError"
        bench.submit("times_out_itself", 4)
        other = await bench.outcome(4)
        assert isinstance(other, Failed)
        assert other.details.error_message == "of something else"

    _ = (turns_it_into, cancels_itself, times_out_itself)
    on(app, scenario)


@pytest.mark.parametrize("how", ["timeout", "cancel", "drain"])
def test_a_process_is_killed_when_its_attempt_is_stopped(tmp_path: Path, how: str) -> None:
    app = App()
    app.registry.add_activity(process_activities.never_ends)
    app.registry.add_activity(process_activities.double)
    pid_file = tmp_path / "pid"

    async def scenario(bench: Bench) -> None:
        timeout = timedelta(seconds=1) if how == "timeout" else None
        key = bench.submit("never_ends", 0, f'"{pid_file}"', timeout)
        if how == "timeout":
            assert timed_out(await bench.outcome())
        else:
            await asyncio.to_thread(process_activities.wait_for, str(pid_file))
        if how == "cancel":
            bench.runner.cancel({key})
        if how != "drain":
            bench.submit("double", 1, "21")
            assert await bench.outcome(1) == Succeeded("42")
            assert bench.outcomes.keys() == ({0, 1} if how == "timeout" else {1})

    # That no process is left is checked for all.
    on(app, scenario, processes_max=1)


def test_a_process_that_dies_fails_the_attempt() -> None:
    app = App()
    app.registry.add_activity(process_activities.exits)

    async def scenario(bench: Bench) -> None:
        bench.submit("exits", 0, "3")
        outcome = await bench.outcome()
        assert isinstance(outcome, Failed)
        assert outcome.details.error_type == "holdfast.errors.HoldfastError"
        assert outcome.details.error_message == "The process that ran activity 'exits' died."
        assert outcome.details.inner_failure is not None
        assert "exit code 3" in outcome.details.inner_failure.error_message

    on(app, scenario)


# Lanes


def test_attempts_that_share_a_lane_see_nothing_of_each_others_context_and_cancellations() -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    lanes: set[object] = set()
    app = App()

    @app.activity
    async def at_once(number: int) -> int:
        lanes.add(asyncio.current_task())
        before = variable.get()
        variable.set(number)
        return before

    @app.activity
    async def cancels_its_lane() -> None:
        job = asyncio.current_task()
        assert job is not None
        job.cancel()

    async def scenario(bench: Bench) -> None:
        for number in range(1, 4):
            bench.submit("at_once", number, str(number))
        bench.submit("cancels_its_lane", 4)
        bench.submit("at_once", 5, "5")
        assert [await bench.outcome(number) for number in (1, 2, 3, 5)] == [Succeeded("0")] * 4

    on(app, scenario)
    assert len(lanes) == 2  # what one does to its task ends with it


def test_an_attempt_that_waits_keeps_nobody_waiting() -> None:
    app = App()
    go_on = asyncio.Event()

    @app.activity
    async def waits() -> None:
        await go_on.wait()

    @app.activity
    async def lets_it_go_on() -> None:
        go_on.set()

    async def scenario(bench: Bench) -> None:
        bench.submit("waits", 1)
        bench.submit("lets_it_go_on", 2)
        assert await bench.outcome(1) == await bench.outcome(2) == Succeeded("null")

    on(app, scenario)


def test_a_failure_that_looks_like_the_end_of_a_coroutine_is_a_failure() -> None:
    app = App()

    @app.activity
    async def raises_generator_exit() -> None:
        raise GeneratorExit

    async def scenario(bench: Bench) -> None:
        bench.submit("raises_generator_exit")
        outcome = await bench.outcome()
        assert isinstance(outcome, Failed)
        assert "raised GeneratorExit" in outcome.details.error_message

    on(app, scenario)
