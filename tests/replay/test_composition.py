"""Combinations of durable tasks: when_all, when_any, race, select, map. Events in, actions out."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from composition_kit import CANCEL, SECOND, Story, child_done, child_failed, done, failed, fired, raised

from holdfast import App, DurableTask, Limits, OrchestrationContext, TaskFailedError, race, select, when_all, when_any
from holdfast.errors import CancelledError, InvalidInputError, OrchestratorMisuseError

app = App()


@app.activity
async def work(number: int) -> int:
    return number


# when_all and when_any


def test_when_all_fails_fast_on_demand_and_the_others_go_on() -> None:
    async def gathers(ctx: OrchestrationContext) -> Any:
        slow = ctx.call_activity("slow")
        try:
            await when_all(slow, ctx.call_activity("bad"), fail_fast=True)
        except ValueError:
            return await slow

    story = Story(gathers)
    assert story.then(failed(1)) == []
    assert story.then(done(0, "7")) == ["Completed 7"]


def test_when_any_leaves_the_others_alone() -> None:
    async def first(ctx: OrchestrationContext) -> list[Any]:
        tasks = [ctx.call_activity(name) for name in "ab"]
        winner = await when_any(tasks)
        return [tasks.index(winner), winner.is_failed, await tasks[0]]

    story = Story(first)
    assert story.then(failed(1)) == []
    assert story.then(done(0, "5")) == ["Completed [1,true,5]"]


def test_a_task_may_be_a_part_of_many_and_of_one_twice() -> None:
    async def shares(ctx: OrchestrationContext) -> Any:
        a, b = ctx.call_activity("a"), ctx.call_activity("b")
        both = when_all([a, a, b])
        return [await race(a, b), await when_all(a, a)] if (await when_any(both, a)) is a else None

    assert Story(shares).then(done(0, "1")) == ["stop 1", "Completed [1,[1,1]]"]


def test_cancelling_a_combination_cancels_its_parts() -> None:
    async def cancels(ctx: OrchestrationContext) -> Any:
        parts = [ctx.call_activity("a"), ctx.create_timer(SECOND), ctx.wait_for_external_event("e")]
        nested = when_all([when_any(parts), when_all([ctx.call_sub_orchestrator("child")])])
        await ctx.call_activity("b")
        assert nested.cancel()
        assert not nested.cancel()
        assert all(part.is_cancelled for part in parts)
        return await ctx.wait_for_external_event("e")

    story = Story(cancels)
    assert story.told == ["a", "timer 1", "child()", "b"]
    assert story.then(done(3)) == ["stop 0", "stop 1", "stop 2"]
    assert story.then(done(0), fired(1), child_done(2)) == []
    assert story.then(raised("e", "1")) == ["Completed 1"]


@pytest.mark.parametrize("combine", [when_all, race, lambda tasks: when_any(tasks)])
def test_a_combination_is_over_when_a_part_was_cancelled(combine: Any) -> None:
    async def cancels(ctx: OrchestrationContext) -> list[bool]:
        part, other = ctx.call_activity("a"), ctx.call_activity("b")
        whole = combine([part, other])
        part.cancel()
        winner = None
        try:
            winner = await whole
        except CancelledError:
            return [whole.is_cancelled, part.is_cancelled]
        return [winner is part, part.is_cancelled]

    story = Story(cancels)
    assert (story.told if combine is not when_all else story.then(done(1)))[-1] == "Completed [true,true]"


@pytest.mark.parametrize("combine", [when_all, when_any, race])
def test_a_chain_of_combinations_may_be_long(combine: Any) -> None:
    """Each level called the next one, so that a long chain broke the node that ran it with a RecursionError."""

    async def folds(ctx: OrchestrationContext, cancels: bool) -> str:
        whole = ctx.call_activity("a")
        for _ in range(3_000):
            whole = combine([whole])
        if cancels:
            whole.cancel()
        try:
            await whole
        except (ValueError, CancelledError) as error:
            return type(error).__name__
        return "done"

    assert Story(folds, "false").then(done(0)) == ['Completed "done"']
    assert Story(folds, "false").then(failed(0))[0] == (
        'Completed "done"' if combine is when_any else 'Completed "ValueError"'
    )
    assert Story(folds, "true").told[-2:] == ["stop 0", 'Completed "CancelledError"']


def test_nothing_and_nonsense() -> None:
    async def misuses(ctx: OrchestrationContext) -> list[Any]:
        refused = 0
        task = ctx.call_activity("a")
        attempts: list[Any] = [
            lambda: race([]),
            lambda: race([1]),  # type: ignore[list-item]  # that is the point
            lambda: select(task, 1),  # type: ignore[arg-type]  # as above
            lambda: ctx.map(work, [1], concurrency=0),
            lambda: ctx.map(work, [1], concurrency=True),
            lambda: ctx.map(work, [object()]),  # type: ignore[list-item]  # as above
            lambda: ctx.map(work, [1], retrys=1),  # type: ignore[call-overload]  # as above
        ]
        for attempt in attempts:
            try:
                attempt()
            except (InvalidInputError, TypeError):
                refused += 1
        nothing: list[DurableTask[int]] = []
        return [
            refused,
            await when_all(nothing),
            await ctx.map(work, []),
            (await when_any([when_all(nothing), task])).result,
        ]

    assert Story(misuses).told == ["a", "Completed [7,[],[],[]]"]


# race and select


def test_the_losers_of_a_race_are_cancelled() -> None:
    """An event that comes later goes to the next wait; whatever else the losers say is not heard."""

    async def races(ctx: OrchestrationContext) -> list[Any]:
        first = await race(
            [
                ctx.call_activity("a"),
                ctx.create_timer(SECOND),
                ctx.wait_for_external_event("e", timeout=SECOND),
                ctx.call_sub_orchestrator("child"),
                when_all([ctx.call_activity("b"), ctx.call_activity("c")]),
                ctx.call_activity("winner"),
            ]
        )
        return [first, await ctx.wait_for_external_event("e")]

    story = Story(races)
    assert story.told == ["a", "timer 1", "timer 1", "child()", "b", "c", "winner"]
    assert sorted(story.then(done(6, '"w"'), done(0))) == [f"stop {number}" for number in range(6)]
    assert story.then(raised("e", "1")) == ['Completed ["w",1]']


def test_a_race_is_lost_by_a_failure_that_is_first() -> None:
    async def races(ctx: OrchestrationContext) -> None:
        await race(ctx.call_activity("a"), ctx.call_activity("b"))

    assert Story(races).then(failed(1)) == ["stop 0", "Failed ValueError: no"]


def test_a_race_with_what_has_ended_already_is_decided_by_the_order() -> None:
    async def races(ctx: OrchestrationContext) -> Any:
        a, b = ctx.call_activity("a"), ctx.call_activity("b")
        await when_all(a, b)
        return [await race(b, a), await select(a, b), await race(a, a)]

    assert Story(races).then(done(1, "1"), done(0, "0")) == ["Completed [1,[0,0],0]"]


@pytest.mark.parametrize(
    ("event", "outcome"),
    [(done(0, "1"), "activity 1"), (raised("e", '"x"'), "event x"), (fired(1), "timer")],
)
def test_select_says_which(event: Any, outcome: str) -> None:
    async def selects(ctx: OrchestrationContext) -> str:
        a, timer = ctx.call_activity("a"), ctx.create_timer(SECOND)
        match await select(a, timer, ctx.wait_for_external_event("e")):
            case (0, value):
                return f"activity {value}"
            case (1, _):
                return "timer"
            case (2, value):
                return f"event {value}"

    assert Story(selects).then(event)[-1] == f'Completed "{outcome}"'


# map


async def maps(ctx: OrchestrationContext, fail_fast: bool) -> Any:
    return await ctx.map(work, range(5), concurrency=2, fail_fast=fail_fast)


def test_a_map_has_so_many_calls_open_and_keeps_the_order() -> None:
    story = Story(maps, "false")
    assert story.told == ["work 0", "work 1"]
    assert story.then(done(1, "11")) == ["work 2"]
    assert story.then(done(2, "12"), done(0, "10")) == ["work 3", "work 4"]
    assert story.then(done(4, "14")) == []
    assert story.then(done(3, "13")) == ["Completed [10,11,12,13,14]"]


@pytest.mark.parametrize("order", [(0, 0, 0), (2, 1, 0), (0, 2, 1), (1, 2, 2)])
def test_a_map_never_has_more_than_its_bound_open(order: tuple[int, ...]) -> None:
    """Whichever of the open calls ends next."""

    async def eight(ctx: OrchestrationContext) -> Any:
        return await ctx.map(work, range(8), concurrency=3)

    story = Story(eight)
    asked = [0, 1, 2]
    still_open, turns = [0, 1, 2], itertools.cycle(order)
    while still_open:
        number = still_open.pop(next(turns) % len(still_open))
        for action in story.then(done(number, str(number))):
            if action.startswith("work"):
                still_open.append(len(asked))
                asked.append(len(asked))
        assert len(still_open) == min(3, 8 - len(asked) + len(still_open))
    assert story.told == ["Completed [0,1,2,3,4,5,6,7]"]


def test_a_map_makes_all_calls_then_raises_what_failed_first() -> None:
    story = Story(maps, "false")
    assert story.then(failed(1, "first")) == ["work 2"]
    assert story.then(failed(0, "second"), done(2, "2"), done(3, "3")) == ["work 3", "work 4"]
    assert story.then(done(4, "4")) == ["Failed ValueError: first"]


def test_a_map_fails_fast_on_demand() -> None:
    story = Story(maps, "true")
    assert story.then(done(1, "1"), failed(2)) == ["work 2", "stop 0", "Failed ValueError: no"]


def test_a_map_starts_nothing_more_once_it_is_cancelled() -> None:
    async def limited(ctx: OrchestrationContext) -> Any:
        await race(ctx.map(work, range(9), concurrency=2), ctx.create_timer(SECOND))
        return await ctx.wait_for_external_event("e")

    story = Story(limited)
    assert story.then(done(0)) == ["work 2"]
    assert story.then(fired(2)) == ["stop 1", "stop 3"]
    assert story.then(done(1), done(3)) == []


def test_a_map_of_sub_orchestrations() -> None:
    @app.orchestrator
    async def child(ctx: OrchestrationContext, number: int) -> int:
        return number

    async def maps(ctx: OrchestrationContext) -> Any:
        return await ctx.map(child, [1, 2], concurrency=1)

    story = Story(maps)
    assert story.then(child_done(0, "5")) == ["child()"]
    assert story.then(child_failed(1)) == ["Failed ValueError: no"]


def test_a_map_that_may_not_ask_for_more_fails() -> None:
    """There is no caller to be told, at that moment, but the task."""

    async def maps(ctx: OrchestrationContext) -> Any:
        try:
            await ctx.map(work, range(99), concurrency=3)
        except InvalidInputError:
            return "too much"

    story = Story(maps, limits=Limits(actions_max=3))
    assert story.then(done(0)) == ["work 3"]
    assert story.then(done(1), done(2), done(3)) == ["work 4", "work 5", "work 6"]

    async def crowded(ctx: OrchestrationContext) -> Any:
        everything = ctx.map(work, range(9), concurrency=2)
        await ctx.wait_for_external_event("e")
        for name in "ab":
            ctx.call_activity(name)
        try:
            await everything
        except InvalidInputError:
            return "too much"

    story = Story(crowded, limits=Limits(actions_max=3))
    assert story.then(raised("e"), done(0), done(1)) == ["a", "b", "work 2", "stop 4", 'Completed "too much"']


# What comes too late


def test_nothing_is_asked_for_once_the_code_has_ended() -> None:
    """In the episode in which it returned, what came behind that started the next calls of a map, and retries."""

    async def returns(ctx: OrchestrationContext) -> str:
        ctx.map(work, range(9), concurrency=2)
        ctx.call_sub_orchestrator("child", retry=lambda _: True)
        await ctx.wait_for_external_event("e")
        return "done"

    assert Story(returns).then(raised("e"), done(0), child_failed(2)) == ['Completed "done"']


def test_a_task_is_cancelled_by_the_code_of_its_orchestrator_only() -> None:
    """From outside, the execution in memory would differ from what a replay makes of its history."""
    leaked: list[DurableTask[Any]] = []

    async def leaks(ctx: OrchestrationContext) -> Any:
        leaked[:] = [ctx.call_activity("a")]
        return await leaked[0]

    story = Story(leaks)
    story.player.unload()
    with pytest.raises(OrchestratorMisuseError, match="only by the code of its orchestrator"):
        leaked[0].cancel()
    assert story.then(done(0, "1")) == ["Completed 1"]
    assert not leaked[0].cancel()


def test_tasks_of_several_instances_do_not_mix() -> None:
    leaked: list[DurableTask[Any]] = []

    async def leaks(ctx: OrchestrationContext) -> Any:
        task = ctx.call_activity("a")
        leaked[:] = [task]
        await task

    async def steals(ctx: OrchestrationContext) -> list[str]:
        refused: list[str] = []
        for combine in (when_all, when_any, race):
            try:
                combine([ctx.call_activity("b"), leaked[0]])
            except OrchestratorMisuseError as error:
                refused.append(str(error).split()[0])
        async with ctx.task_group() as group:
            try:
                group.create_task(leaked[0])
            except OrchestratorMisuseError as error:
                refused.append(str(error).split()[0])
        return refused

    victim = Story(leaks)
    assert Story(steals).told[-1] == 'Completed ["when_all","when_any","race","The"]'
    assert victim.then(done(0)) == ["Completed null"]


def test_a_wait_that_was_refused_takes_no_event() -> None:
    async def crowded(ctx: OrchestrationContext) -> Any:
        ctx.call_activity("a")
        try:
            ctx.wait_for_external_event("e", timeout=SECOND)
        except InvalidInputError:
            return await ctx.wait_for_external_event("e")

    assert Story(crowded, limits=Limits(actions_max=1)).then(raised("e", "1")) == ["Completed 1"]


# Cancellation of the orchestration


def test_a_cancellation_is_raised_where_the_code_waits() -> None:
    async def waits(ctx: OrchestrationContext) -> None:
        await when_all(ctx.call_activity("a"), ctx.create_timer(SECOND))

    story = Story(waits)
    assert story.then(CANCEL) == ["stop 0", "stop 1", 'Canceled "enough"']


def test_a_generator_is_cancelled_too() -> None:
    def waits(ctx: OrchestrationContext) -> Any:
        try:
            yield ctx.call_activity("a")
        finally:
            yield ctx.call_activity("clean")

    story = Story(waits)
    assert story.then(CANCEL) == ["stop 0", "clean"]
    assert story.then(done(1)) == ['Canceled "enough"']


def test_finally_runs_once_and_only_the_first_cancellation_counts() -> None:
    async def cleans(ctx: OrchestrationContext) -> None:
        try:
            await ctx.call_activity("a")
        finally:
            await ctx.call_activity("clean")

    story = Story(cleans)
    assert story.then(CANCEL, CANCEL) == ["stop 0", "clean"]
    assert story.then(CANCEL, done(0)) == []
    assert story.then(done(1), CANCEL) == ['Canceled "enough"']


def test_a_cancellation_interrupts_a_cleanup_that_had_another_cause() -> None:
    async def cleans(ctx: OrchestrationContext) -> None:
        try:
            await ctx.call_activity("a")
        finally:
            try:
                await ctx.call_activity("clean")
            finally:
                await ctx.call_activity("note")

    story = Story(cleans)
    assert story.then(failed(0)) == ["clean"]
    assert story.then(CANCEL) == ["stop 1", "note"]
    assert story.then(done(2)) == ['Canceled "enough"']


def test_a_cancellation_that_is_swallowed_is_over() -> None:
    async def swallows(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity("a")
        except CancelledError:
            await ctx.call_activity("b")
        return "went on"

    story = Story(swallows)
    assert story.then(CANCEL) == ["stop 0", "b"]
    assert story.then(CANCEL, done(1)) == ['Completed "went on"']


def test_what_the_cleanup_raises_is_the_outcome() -> None:
    async def fails(ctx: OrchestrationContext) -> None:
        try:
            await ctx.call_activity("a")
        finally:
            raise KeyError("k")

    assert Story(fails).then(CANCEL) == ["stop 0", "Failed KeyError: 'k'"]


def test_a_cancellation_before_the_first_wait() -> None:
    async def begins(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("a")

    story = Story(begins)
    assert story.then(CANCEL, done(0)) == ["stop 0", 'Canceled "enough"']


@pytest.mark.parametrize("ending", ["return", "raise"])
def test_a_cancellation_behind_the_end_in_one_episode_changes_nothing(ending: str) -> None:
    """An orchestration that had done all its work was Canceled, and nothing of it was undone."""

    async def ends(ctx: OrchestrationContext, ending: str) -> str:
        await ctx.call_activity("a")
        if ending == "raise":
            raise ValueError("bad")
        return "done"

    expected = 'Completed "done"' if ending == "return" else "Failed ValueError: bad"
    assert Story(ends, f'"{ending}"').then(done(0), CANCEL) == [expected]


@pytest.mark.parametrize("open_tasks", ["drop", "wait"])
def test_what_continues_as_new_can_be_cancelled_to_the_last(open_tasks: Any) -> None:
    """Otherwise the next execution would not know of it."""

    async def loops(ctx: OrchestrationContext) -> None:
        ctx.call_activity("open")
        await ctx.call_activity("a")
        ctx.continue_as_new(open_tasks=open_tasks)

    assert Story(loops).then(done(1), CANCEL) == ['Canceled "enough"']


def test_awaiting_what_was_cancelled() -> None:
    async def awaits(ctx: OrchestrationContext) -> list[str]:
        heard: list[str] = []
        for task in (ctx.call_activity("a"), ctx.create_timer(SECOND), ctx.wait_for_external_event("e")):
            task.cancel()
            for _ in range(2):
                try:
                    await task
                except CancelledError as error:
                    heard.append(str(error))
        return heard

    text = '"This durable task was cancelled."'
    assert Story(awaits).told == ["a", "stop 0", f"Completed [{','.join([text] * 6)}]"]


def test_a_cancellation_of_ones_own_is_a_failure() -> None:
    """Only who asks the orchestration to cancel itself makes it Canceled."""

    async def awaits(ctx: OrchestrationContext) -> None:
        task = ctx.call_activity("a")
        task.cancel()
        await task

    assert Story(awaits).told[-1] == "Failed CancelledError: This durable task was cancelled."


def test_a_lock_that_is_waited_for_is_given_up() -> None:
    from holdfast import EntityId

    async def locks(ctx: OrchestrationContext) -> str:
        try:
            async with ctx.lock(EntityId("e", "k")):
                return "locked"
        except CancelledError:
            return f"free {not ctx.is_locked}"

    story = Story(locks)
    assert story.told == ["SendEntityMessage"]
    assert story.then(CANCEL) == ["SendEntityMessage", 'Completed "free True"']


def test_failures_of_calls_pass_through_combinations() -> None:
    async def nests(ctx: OrchestrationContext) -> bool:
        try:
            await when_all([race([when_all([ctx.call_activity("a")])])])
        except ValueError as error:
            return isinstance(error, TaskFailedError)
        return False

    assert Story(nests).then(failed(0)) == ["Completed true"]
