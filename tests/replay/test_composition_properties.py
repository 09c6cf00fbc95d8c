"""Random trees of composites, random arrivals: whatever comes in whichever order, a replay makes the same of it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from composition_kit import CANCEL, START, child_done, child_failed, done, failed, fired, raised
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import App, DurableTask, Limits, OrchestrationContext, RetryContext, TaskGroup, race, when_all, when_any
from holdfast.codec.converter import JsonConverter
from holdfast.errors import CancelledError
from holdfast.model.actions import (
    CancelTask,
    CancelTimer,
    CompleteOrchestration,
    CreateSubOrchestration,
    CreateTimer,
    OrchestratorAction,
    ScheduleTask,
    SchedulingAction,
    scheduled_event,
)
from holdfast.model.history import ExecutionStarted, HistoryEvent, OrchestratorStarted
from holdfast.model.refs import Orchestrator
from holdfast.replay.context import OrchestrationContext as Context
from holdfast.replay.orchestration import Execution
from holdfast.replay.races import _Race  # pyright: ignore[reportPrivateUsage] - select takes two to four, a tree any

# The trees


class Node(msgspec.Struct, frozen=True):
    kind: str
    children: tuple[Node, ...] = ()
    size: int = 0
    flag: bool = False


TASKS = ("activity", "retried", "timer", "event", "child", "map")
COMBINATIONS = ("all", "any", "race", "select")
BLOCKS = ("group", "saga", "sequence", "finally", "catch", "swallow", "cancel")


def trees(depth: int) -> st.SearchStrategy[Node]:
    leaf = st.builds(Node, st.sampled_from(TASKS), st.just(()), st.integers(0, 5), st.booleans())
    if depth == 0:
        return leaf
    children = st.lists(trees(depth - 1), min_size=2, max_size=3).map(tuple)
    inner = st.builds(Node, st.sampled_from(COMBINATIONS + BLOCKS), children, st.integers(0, 5), st.booleans())
    return inner if depth == 4 else st.one_of(leaf, inner, inner)


def tries_twice(context: RetryContext) -> bool | timedelta:
    return context.attempts_made < 3 and timedelta(seconds=context.attempts_made - 1)


class Planter:
    """Makes an orchestrator of a tree. Each node has a path, which is in the name of whatever it calls."""

    def __init__(self, ctx: OrchestrationContext) -> None:
        self.ctx = ctx

    def start(self, group: TaskGroup, node: Node, path: str) -> DurableTask[Any]:
        ctx, seconds = self.ctx, timedelta(seconds=node.size)
        match node.kind:
            case "activity":
                return ctx.call_activity(f"a {path}")
            case "retried":
                return ctx.call_activity(f"a {path}", retry=tries_twice)
            case "timer":
                return ctx.create_timer(seconds)
            case "event":
                return ctx.wait_for_external_event("ef"[node.size % 2], timeout=seconds if node.flag else None)
            case "child":
                retry = tries_twice if node.size % 2 else None
                limit = timedelta(seconds=1 + node.size) if node.flag else None
                return ctx.call_sub_orchestrator("child", retry=retry, timeout=limit)
            case "map":
                name: Any = f"map {path}"
                return ctx.map(name, range(node.size), concurrency=2, fail_fast=node.flag)
            case kind if kind in COMBINATIONS:
                parts = [self.start(group, each, f"{path}.{i}") for i, each in enumerate(node.children)]
                return self.combine(node, parts)
            case _:
                return group.create_task(self.run(node, path))

    def combine(self, node: Node, parts: list[DurableTask[Any]]) -> DurableTask[Any]:
        match node.kind:
            case "all":
                return when_all(parts, fail_fast=node.flag)
            case "any":
                return when_any(parts)
            case "race":
                return race(parts)
            case _:
                return _Race(parts[0].owner, parts, with_index=True)

    async def run(self, node: Node, path: str) -> Any:
        if node.kind in BLOCKS:
            return await getattr(self, node.kind)(node, path)
        async with self.ctx.task_group() as group:
            return plain(await self.start(group, node, path))

    async def sequence(self, node: Node, path: str) -> Any:
        return [await self.run(each, f"{path}.{i}") for i, each in enumerate(node.children)]

    async def group(self, node: Node, path: str) -> Any:
        async with self.ctx.task_group() as group:
            for i, each in enumerate(node.children):
                task = self.start(group, each, f"{path}.{i}")
                if each.kind not in BLOCKS:
                    group.create_task(task)
            return plain(await self.ctx.call_activity(f"body {path}")) if node.flag else "no body"

    async def saga(self, node: Node, path: str) -> Any:
        async with self.ctx.saga() as saga:
            saga.add_compensation(f"undo {path}")
            saga.add_compensation(f"undo first {path}")
            self.ctx.call_activity(f"saga {path}")
            result = await self.sequence(node, path)
        self.ctx.call_activity(f"committed {path}")
        return result

    # "finally" is a keyword, so it cannot be the name of a method as it is.
    async def clean(self, node: Node, path: str) -> Any:
        try:
            self.ctx.call_activity(f"try {path}")
            return await self.sequence(node, path)
        finally:
            await self.ctx.call_activity(f"finally {path}")

    async def catch(self, node: Node, path: str) -> Any:
        try:
            return await self.sequence(node, path)
        except Exception as error:
            return type(error).__name__

    async def swallow(self, node: Node, path: str) -> Any:
        try:
            return await self.sequence(node, path)
        except CancelledError as error:
            return str(error)

    async def cancel(self, node: Node, path: str) -> Any:
        async with self.ctx.task_group() as group:
            task = self.start(group, node.children[0], f"{path}.0")
            if node.flag:
                await self.ctx.call_activity(f"before {path}")
            was_open = not task.is_completed
            assert task.cancel() == was_open
        return [task.is_completed, task.is_cancelled]


setattr(Planter, "finally", Planter.clean)


def plain(value: Any) -> Any:
    if isinstance(value, DurableTask):
        return [value.is_failed, value.is_cancelled]
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def orchestrator_of(tree: Node) -> Orchestrator[Any, Any]:
    @App().orchestrator
    async def grown(ctx: OrchestrationContext) -> Any:
        return await Planter(ctx).run(tree, "0")

    return grown


# The world


class World:
    """Plays the hub: it knows what is open, answers in any order, and keeps the history."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.failures = self.dice.choice((0, 0.1, 0.3))
        self.history: list[tuple[HistoryEvent, ...]] = []
        self.asked: Counter[str] = Counter()
        self.open: dict[int, OrchestratorAction] = {}
        self.answered_before: set[int] = set()
        self.answered_now: set[int] = set()
        self.end: CompleteOrchestration | None = None

    def next_events(self) -> list[HistoryEvent]:
        """What arrives in one episode: at first anything, in the end a cancellation and every answer."""
        self.answered_before |= self.answered_now
        self.answered_now = set()
        episode = len(self.history)
        if episode == 0:
            return [ExecutionStarted(timestamp=START, name="grown", instance_id="i", execution_id="x")]
        numbers = list(self.open)
        self.dice.shuffle(numbers)
        if episode < 12:
            numbers = numbers[: self.dice.randint(0, 3)]
        events: list[HistoryEvent] = [self.answer(number) for number in numbers]
        if episode >= 12 or not events or self.dice.random() < 0.2:
            events += [raised(name, "1") for name in "ef"]
        if episode == 12 or self.dice.random() < 0.15:
            events.append(CANCEL)
        if episode < 12:
            self.dice.shuffle(events)
        return events

    def answer(self, number: int) -> HistoryEvent:
        self.answered_now.add(number)
        fails = self.dice.random() < self.failures
        match self.open.pop(number):
            case CreateTimer():
                return fired(number)
            case CreateSubOrchestration():
                return child_failed(number) if fails else child_done(number, str(number))
            case _:
                return failed(number) if fails else done(number, str(number))

    def take(self, started: Sequence[HistoryEvent], actions: Sequence[OrchestratorAction]) -> None:
        for action in actions:
            match action:
                case ScheduleTask() | CreateSubOrchestration() | CreateTimer():
                    self.open[action.id] = action
                    self.asked[getattr(action, "name", "timer")] += 1
                case CancelTask() | CancelTimer():
                    assert action.id not in self.answered_before
                    was_open = self.open.pop(action.id, None)
                    assert not getattr(was_open, "name", "").startswith("undo")
                    assert was_open is not None or action.id in self.answered_now
                    self.answered_before.add(action.id)
                case CompleteOrchestration():
                    assert action is actions[-1]
                    self.end = action
                case _:
                    raise AssertionError(action)
        now = START + timedelta(seconds=len(self.history))
        asked = [scheduled_event(each, now) for each in actions if isinstance(each, SchedulingAction)]
        self.history.append((*started, *asked))
        maps = Counter(each.name for each in self.open.values() if isinstance(each, ScheduleTask))
        assert all(count <= 2 for name, count in maps.items() if name.startswith("map "))


def fresh(orchestrator: Orchestrator[Any, Any]) -> Execution:
    return Execution(orchestrator, "i", "x", JsonConverter(payload_bytes_max=10**6), Limits(), Context)


def seen(actions: Sequence[OrchestratorAction]) -> list[OrchestratorAction]:
    """Actions without the stack of a failure, which names lines that a replay reaches by another way."""
    return [
        msgspec.structs.replace(each, failure=(each.failure.error_type, each.failure.error_message))  # type: ignore[arg-type]  # only to be compared
        if isinstance(each, CompleteOrchestration) and each.failure
        else each
        for each in actions
    ]


@settings(max_examples=250, deadline=None, derandomize=True)
@given(trees(4), st.integers(0, 2**32))
def test_whatever_comes_a_replay_makes_the_same_of_it(tree: Node, seed: int) -> None:
    """Three executions see the same events: one that stays, one that is unloaded where it may be, one after a crash."""
    orchestrator, world = orchestrator_of(tree), World(seed)
    live, unloaded = fresh(orchestrator), fresh(orchestrator)
    while world.end is None:
        assert len(world.history) < 200, "cancelled and with every answer given, it does not end"
        crashed = fresh(orchestrator)
        crashed.replay(world.history)
        if unloaded.can_unload():
            unloaded.unload()
            unloaded = fresh(orchestrator)
            unloaded.replay(world.history)
        now = START + timedelta(seconds=len(world.history))
        events = [OrchestratorStarted(timestamp=now), *world.next_events()]
        actions = live.run(events).actions
        assert seen(unloaded.run(events).actions) == seen(actions)
        assert seen(crashed.run(events).actions) == seen(actions)
        crashed.unload()
        world.take(events, actions)
    live.unload()
    unloaded.unload()
    check_ends(world.asked)


def check_ends(asked: Counter[str]) -> None:
    """Every `finally` ran once; every saga was committed or undone, once."""
    for name in asked:
        kind, _, path = name.partition(" ")
        if kind == "try":
            assert (asked[name], asked[f"finally {path}"]) == (1, 1)
        if kind == "saga":
            assert (asked[name], asked[f"undo {path}"] + asked[f"committed {path}"]) == (1, 1)
            assert asked[f"undo {path}"] == asked[f"undo first {path}"]
