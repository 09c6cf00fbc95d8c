"""The replay machine, driven by hand: events in, actions out, no loop, no store."""

from __future__ import annotations

import gc
import itertools
import random
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast import App, DurableTask, Limits, OrchestrationContext, TaskFailedError, when_all, when_any
from holdfast.codec.converter import JsonConverter
from holdfast.errors import InvalidInputError, LockingRulesError, NonDeterminismError, OrchestratorMisuseError
from holdfast.model.actions import (
    CancelTimer,
    CompleteOrchestration,
    CreateTimer,
    ScheduleTask,
    SchedulingAction,
    scheduled_event,
)
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    EventRaised,
    ExecutionStarted,
    HistoryEvent,
    OrchestratorStarted,
    TaskCompleted,
    TaskFailed,
    TimerFired,
)
from holdfast.model.ids import EntityId
from holdfast.model.refs import Orchestrator
from holdfast.model.status import OrchestrationStatus
from holdfast.replay.context import OrchestrationContext as Context
from holdfast.replay.orchestration import Execution

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Player:
    """Plays the hub's part: it keeps the history and feeds an execution episode by episode."""

    def __init__(
        self, orchestrator: Orchestrator[Any, Any], input: str | None = None, limits: Limits | None = None
    ) -> None:
        self.orchestrator = orchestrator
        self.limits = limits or Limits()
        self.history: list[tuple[HistoryEvent, ...]] = []
        self.ends: list[CompleteOrchestration] = []
        self.live = self.fresh()
        self.actions = self.episode(
            ExecutionStarted(timestamp=START, name=orchestrator.name, instance_id="i", execution_id="x", input=input)
        )

    def fresh(self) -> Execution:
        return Execution(self.orchestrator, "i", "x", JsonConverter(payload_bytes_max=10**6), self.limits, Context)

    def episode(self, *events: HistoryEvent) -> list[Any]:
        now = START + timedelta(seconds=len(self.history))
        started = (OrchestratorStarted(timestamp=now), *events)
        episode = self.live.run(started)
        asked = [scheduled_event(each, now) for each in episode.actions if isinstance(each, SchedulingAction)]
        self.history.append((*started, *asked))
        self.actions = list(episode.actions)
        self.ends += [each for each in episode.actions if isinstance(each, CompleteOrchestration)]
        return self.actions

    def unload(self) -> None:
        """Forget the coroutine and replay it from history, unless it has ended."""
        if self.ends:
            return
        self.live.unload()
        self.live = self.fresh()
        self.live.replay(self.history)

    @property
    def outcome(self) -> CompleteOrchestration:
        [end] = self.ends
        return end


def completed(number: int, result: str) -> TaskCompleted:
    return TaskCompleted(timestamp=START, task_scheduled_id=number, result=result)


app = App()


@app.orchestrator
async def race_and_gather(ctx: OrchestrationContext) -> list[Any]:
    """Two nested composites, a timer and an event, in whatever order they come."""
    a, b, c = (ctx.call_activity(name) for name in "abc")
    timer = ctx.create_timer(timedelta(seconds=5))
    event = ctx.wait_for_external_event("e")
    first = await when_any([when_all([a, b]), c, event])
    rest = await when_all([a, when_any([timer, b]), event])
    return [first.result, rest[0], rest[2], ctx.new_uuid(), ctx.random.random(), ctx.current_utc_datetime]


ARRIVALS: Sequence[HistoryEvent] = (
    completed(0, '"a"'),
    completed(1, '"b"'),
    completed(2, '"c"'),
    TimerFired(timestamp=START, timer_id=3, fire_at=START),
    EventRaised(timestamp=START, name="E", input="null"),
)


@pytest.mark.parametrize("seed", range(24))
def test_any_order_replays_the_same_whatever_was_unloaded(seed: int) -> None:
    """Arrivals in random order and random batches; unloading at random places changes nothing."""
    dice = random.Random(seed)
    arrivals = dice.sample(ARRIVALS, len(ARRIVALS))
    batches: list[list[HistoryEvent]] = [[]]
    for event in arrivals:
        if dice.random() < 0.5:
            batches.append([])
        batches[-1].append(event)
    outcomes: list[tuple[Any, ...]] = []
    for unloads in (False, True):
        player = Player(race_and_gather)
        for batch in filter(None, batches):
            if unloads:
                player.unload()
            player.episode(*batch)
        outcomes.append((player.outcome, player.history))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0].status is OrchestrationStatus.COMPLETED


def test_every_prefix_of_a_history_replays_and_goes_on() -> None:
    player = Player(race_and_gather)
    for event in ARRIVALS:
        player.episode(event)
    for cut in range(1, len(player.history)):
        again = Player(race_and_gather)
        for episode in player.history[1:cut]:
            again.episode(*(event for event in episode[1:] if event in ARRIVALS))
        again.unload()
        for episode in player.history[cut:]:
            again.episode(*(event for event in episode[1:] if event in ARRIVALS))
        assert again.history == player.history
        assert again.outcome == player.outcome


def test_a_cancelled_timer_is_forgotten() -> None:
    @App().orchestrator
    async def cancels(ctx: OrchestrationContext) -> str:
        same_episode = ctx.create_timer(timedelta(1))
        assert same_episode.cancel()
        assert not same_episode.cancel()
        later = ctx.create_timer(timedelta(2))
        await ctx.call_activity("a")
        assert later.cancel()
        await ctx.call_activity("b")
        return "done"

    player = Player(cancels)
    assert [type(action) for action in player.actions] == [CreateTimer, ScheduleTask]
    assert [type(action) for action in player.episode(completed(2, "null"))] == [CancelTimer, ScheduleTask]
    fired_all_the_same = TimerFired(timestamp=START, timer_id=1, fire_at=START)
    player.unload()
    player.episode(fired_all_the_same, completed(3, "null"))
    assert player.outcome.result == '"done"'


def test_failures_are_new_exceptions_each_time() -> None:
    @App().orchestrator
    async def awaits_twice(ctx: OrchestrationContext) -> list[bool]:
        task: DurableTask[Any] = ctx.call_activity("a")
        caught: list[BaseException] = []
        for _ in range(2):
            try:
                await task
            except ValueError as error:
                caught.append(error)
        return [isinstance(each, TaskFailedError) for each in caught] + [caught[0] is not caught[1]]

    player = Player(awaits_twice)
    failure = FailureDetails("builtins.ValueError", "no")
    player.episode(TaskFailed(timestamp=START, task_scheduled_id=0, failure=failure))
    assert player.outcome.result == "[true,true,true]"


def test_when_all_waits_for_all_then_raises_what_failed_first() -> None:
    @App().orchestrator
    async def gathers(ctx: OrchestrationContext) -> str:
        try:
            await when_all([ctx.call_activity(name) for name in "abc"])
        except TaskFailedError as error:
            return error.details.error_message
        return "no failure"

    player = Player(gathers)
    for number, text in ((2, "third"), (0, "first")):
        failure = FailureDetails("x.Unknown", text)
        assert player.episode(TaskFailed(timestamp=START, task_scheduled_id=number, failure=failure)) == []
    player.episode(completed(1, "1"))
    assert player.outcome.result == '"third"'


def test_misuse_is_an_error_at_the_call() -> None:
    leaked: list[DurableTask[Any]] = []

    @App().orchestrator
    async def misuses(ctx: OrchestrationContext) -> list[str]:
        task = ctx.call_activity("a")
        leaked.append(task)
        refused: list[str] = []
        attempts: list[Any] = [
            lambda: task.result,
            lambda: when_any([]),
            lambda: when_all(task),
            lambda: when_all([1]),  # type: ignore[list-item]  # that is the point
            lambda: ctx.create_timer(datetime(2026, 1, 1)),  # noqa: DTZ001 - that is the point
            lambda: ctx.create_timer(timedelta.max),
            lambda: ctx.call_activity("a", timeout=timedelta(0)),
            lambda: ctx.call_sub_orchestrator("o", instance_id="i"),
            lambda: ctx.wait_for_external_event(""),
            lambda: ctx.set_custom_status("x" * 20_000),
            lambda: ctx.lock(),
            lambda: ctx.call_entity(EntityId("e", "k"), "_private"),
        ]
        for attempt in attempts:
            try:
                attempt()
            except (InvalidInputError, OrchestratorMisuseError) as error:
                refused.append(str(error))
        return refused

    player = Player(misuses)
    refused = JsonConverter(payload_bytes_max=10**6).decode(player.outcome.result or "", list[str])
    assert len(refused) == 12

    @App().orchestrator
    async def steals(ctx: OrchestrationContext) -> None:
        await leaked[0]

    thief = Player(steals)
    assert thief.outcome.failure is not None
    assert "another instance" in thief.outcome.failure.error_message


def test_locking_rules() -> None:
    a, b = EntityId("e", "a"), EntityId("e", "b")

    @App().orchestrator
    async def breaks_rules(ctx: OrchestrationContext) -> int:
        section = ctx.lock(b, a, b)
        assert section.lock_set == ("@e@a", "@e@b")
        section.acquire()
        broken = 0
        forbidden: list[Any] = [
            lambda: ctx.lock(a).acquire(),
            lambda: ctx.call_entity(EntityId("e", "c"), "op"),
            lambda: ctx.signal_entity(a, "op"),
            lambda: ctx.call_sub_orchestrator("o"),
            lambda: (ctx.call_entity(a, "op"), ctx.call_entity(a, "op")),
        ]
        for attempt in forbidden:
            try:
                attempt()
            except LockingRulesError:
                broken += 1
        section.release()
        section.release()
        ctx.signal_entity(a, "op")
        return broken

    assert Player(breaks_rules).outcome.result == "5"


def test_a_replay_that_differs_is_told_apart() -> None:
    names = ["a", "b"]

    @App().orchestrator
    async def shifty(ctx: OrchestrationContext) -> None:
        for name in names:
            await ctx.call_activity(name)
        await ctx.wait_for_external_event("never")

    def replay_with(*now: str) -> str:
        names[:] = ["a", "b"]
        player = Player(shifty)
        player.episode(completed(0, "null"))
        player.episode(completed(1, "null"))
        names[:] = now
        with pytest.raises(NonDeterminismError) as error:
            player.unload()
        return str(error.value)

    assert "found (code):       TaskScheduled(event_id=1, name='c')" in replay_with("a", "c")
    assert "found (code):       nothing more" in replay_with("a")
    assert "expected (history): nothing more" in replay_with("a", "b", "c")

    @App().orchestrator
    async def ends(ctx: OrchestrationContext) -> None:
        for name in names:
            await ctx.call_activity(name)

    names[:] = ["a", "b"]
    player = Player(ends)
    player.episode(completed(0, "null"))
    names[:] = ["a"]
    with pytest.raises(NonDeterminismError, match="it returned"):
        player.unload()


def test_logging_is_silent_during_replay() -> None:
    class Logger:
        lines: list[str] = []  # noqa: RUF012 - one test, one class

        def log(self, level: int, message: str, *args: object, **kwargs: object) -> None:
            self.lines.append(message % args)

    @App().orchestrator
    async def talks(ctx: OrchestrationContext) -> None:
        logger = ctx.create_replay_safe_logger(Logger())  # type: ignore[arg-type]  # enough of a logger
        for number in range(3):
            logger.info("at %d", number)
            await ctx.call_activity("a")

    player = Player(talks)
    for number in range(2):
        player.unload()
        player.episode(completed(number, "null"))
    assert Logger.lines == ["at 0", "at 1", "at 2"]


def test_memory_is_flat_and_foreign_collectors_do_no_harm() -> None:
    """Ten thousand waits with unloading now and then, while other threads run the garbage collector."""
    stop = threading.Event()
    collector = threading.Thread(target=lambda: [gc.collect() for _ in iter(stop.is_set, True)])
    collector.start()

    @App().orchestrator
    async def long(ctx: OrchestrationContext) -> None:
        for _ in itertools.count():
            await ctx.wait_for_external_event("e")

    try:
        player = Player(long)
        event = EventRaised(timestamp=START, name="e", input="1")
        player.episode(event)
        size = player.live.size_bytes
        for number in range(300):
            player.episode(*[event] * 33)
            if number % 100 == 0:
                player.unload()
        assert player.live.size_bytes <= size + 3 * 33 * 301 * 3
    finally:
        stop.set()
        collector.join()


def test_generator_edges() -> None:
    registered = App()

    @registered.orchestrator
    def returns_at_once(ctx: OrchestrationContext) -> Any:
        return [1]

    @registered.orchestrator
    def never_yields(ctx: OrchestrationContext) -> Any:
        if ctx.name == "nobody":
            yield ctx.call_activity("a")
        return 2

    @registered.orchestrator
    async def never_awaits(ctx: OrchestrationContext) -> int:
        return 3

    @registered.orchestrator
    def raises_stop(ctx: OrchestrationContext) -> Any:
        raise StopIteration(4)

    @registered.orchestrator
    def yields_nonsense(ctx: OrchestrationContext) -> Any:
        yield 5

    assert Player(returns_at_once).outcome.result == "[1]"
    assert Player(never_yields).outcome.result == "2"
    assert Player(never_awaits).outcome.result == "3"
    for broken in (raises_stop, yields_nonsense):
        assert Player(broken).outcome.status is OrchestrationStatus.FAILED
