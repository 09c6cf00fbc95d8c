"""Scopes: task groups, whose branches end together, and sagas, whose steps are undone."""

from __future__ import annotations

from typing import Any

from composition_kit import CANCEL, SECOND, Story, done, failed, fired, raised

from holdfast import App, Limits, OrchestrationContext, race, when_all
from holdfast.errors import CancelledError, CompensationFailedError, InvalidInputError, OrchestratorMisuseError

app = App()


@app.activity
async def undo(what: str) -> None: ...


async def step(ctx: OrchestrationContext, name: str, cleans: bool = False) -> Any:
    """A branch: one activity, and another one to clean up if need be."""
    try:
        return await ctx.call_activity(name)
    finally:
        if cleans:
            await ctx.call_activity(f"clean {name}")


# Task groups


def test_a_group_waits_for_all_and_its_tasks_have_results() -> None:
    async def groups(ctx: OrchestrationContext) -> list[Any]:
        async with ctx.task_group() as group:
            a = group.create_task(step(ctx, "a"))
            b = group.create_task(ctx.call_activity("b"))
            early = await ctx.call_activity("c")
        return [a.result, await b, early]

    story = Story(groups)
    assert story.told == ["b", "c", "a"]
    assert story.then(done(1, "1"), done(0, "0")) == []
    assert story.then(done(2, "2")) == ["Completed [2,0,1]"]


def test_branches_run_side_by_side_and_may_start_others() -> None:
    async def groups(ctx: OrchestrationContext) -> None:
        async def pair(name: str) -> None:
            await ctx.call_activity(f"{name}1")
            group.create_task(step(ctx, f"{name}2"))

        async with ctx.task_group() as group:
            for name in "ab":
                group.create_task(pair(name))

    story = Story(groups)
    assert story.told == ["a1", "b1"]
    assert story.then(done(1)) == ["b2"]
    assert story.then(done(2), done(0)) == ["a2"]
    assert story.then(done(3)) == ["Completed null"]


def test_a_failure_cancels_the_others_and_the_body_and_waits_for_their_cleanup() -> None:
    async def groups(ctx: OrchestrationContext) -> list[str]:
        heard: list[str] = []
        try:
            async with ctx.task_group() as group:
                group.create_task(step(ctx, "bad"))
                group.create_task(step(ctx, "slow", cleans=True))
                group.create_task(ctx.call_activity("plain"))
                try:
                    await ctx.call_activity("body")
                except CancelledError as error:
                    heard.append(str(error))
                    raise
        except* ValueError as errors:
            heard += [str(error) for error in errors.exceptions]
        return heard

    story = Story(groups)
    assert story.told == ["plain", "body", "bad", "slow"]
    assert story.then(failed(2)) == ["stop 3", "stop 0", "stop 1", "clean slow"]
    assert story.then(done(4)) == ['Completed ["A task of the group failed.","builtins.ValueError: no"]']


def test_a_failure_at_the_exit_spares_the_cleanup_of_the_others() -> None:
    """They were cancelled a second time, which cancelled what they did to clean up."""

    async def groups(ctx: OrchestrationContext) -> None:
        async with ctx.task_group() as group:
            group.create_task(step(ctx, "bad"))
            group.create_task(step(ctx, "slow", cleans=True))

    story = Story(groups)
    assert story.then(failed(0)) == ["stop 1", "clean slow"]
    assert story.then(done(2)) == ["Failed ExceptionGroup: unhandled errors in a task group (1 sub-exception)"]


def test_all_failures_are_in_the_group_the_body_first() -> None:
    async def groups(ctx: OrchestrationContext) -> list[str]:
        async def fails_twice() -> None:
            try:
                await ctx.call_activity("a")
            finally:
                raise KeyError("k")

        try:
            async with ctx.task_group() as group:
                group.create_task(fails_twice())
                await ctx.call_activity("b")
                raise ZeroDivisionError
        except ExceptionGroup as errors:
            return [type(error).__name__ for error in errors.exceptions]
        return []

    story = Story(groups)
    assert story.then(done(0)) == ["stop 1", 'Completed ["ZeroDivisionError","KeyError"]']


def test_an_error_of_the_body_cancels_what_runs() -> None:
    async def groups(ctx: OrchestrationContext) -> None:
        async with ctx.task_group() as group:
            group.create_task(step(ctx, "a", cleans=True))
            await ctx.call_activity("b")
            raise ZeroDivisionError("body")

    story = Story(groups)
    assert story.then(done(0)) == ["stop 1", "clean a"]
    assert story.then(done(2))[0].startswith("Failed ExceptionGroup")


def test_a_cancellation_from_outside_passes_through() -> None:
    async def groups(ctx: OrchestrationContext) -> None:
        async with ctx.task_group() as group:
            group.create_task(step(ctx, "a", cleans=True))
            await ctx.call_activity("b")

    story = Story(groups)
    assert story.then(CANCEL) == ["stop 0", "stop 1", "clean a"]
    assert story.then(done(2)) == ['Canceled "enough"']


def test_a_cancellation_while_waiting_at_the_exit() -> None:
    async def groups(ctx: OrchestrationContext) -> None:
        async with ctx.task_group() as group:
            group.create_task(step(ctx, "a", cleans=True))
            group.create_task(step(ctx, "b"))

    story = Story(groups)
    assert story.then(CANCEL) == ["stop 0", "stop 1", "clean a"]
    assert story.then(CANCEL) == []
    assert story.then(done(2)) == ['Canceled "enough"']


def test_a_cancellation_while_a_failed_group_cleans_up_is_not_lost() -> None:
    async def groups(ctx: OrchestrationContext) -> None:
        async with ctx.task_group() as group:
            group.create_task(step(ctx, "a", cleans=True))
            await ctx.call_activity("b")
            raise CancelledError("mine")

    story = Story(groups)
    assert story.then(done(0)) == ["stop 1", "clean a"]
    assert story.then(CANCEL) == []
    assert story.then(done(2)) == ['Canceled "enough"']


def test_a_cancellation_is_not_hidden_by_the_failures_of_a_group() -> None:
    """Who caught them went on as if nobody had asked for a cancellation."""

    async def groups(ctx: OrchestrationContext) -> None:
        try:
            async with ctx.task_group() as group:
                group.create_task(step(ctx, "bad"))
                group.create_task(step(ctx, "a", cleans=True))
        except* ValueError:
            pass
        await ctx.call_activity("b")

    story = Story(groups)
    assert story.then(failed(0)) == ["stop 1", "clean a"]
    assert story.then(CANCEL) == []
    assert story.then(done(2)) == ["b", "stop 3", 'Canceled "enough"']


def test_a_branch_that_swallows_its_cancellation_is_waited_for() -> None:
    async def groups(ctx: OrchestrationContext) -> list[Any]:
        async def stubborn() -> str:
            try:
                await ctx.call_activity("a")
            except CancelledError:
                await ctx.call_activity("b")
            return "went on"

        try:
            async with ctx.task_group() as group:
                task = group.create_task(stubborn())
                await ctx.call_activity("c")
                raise ZeroDivisionError
        except* ZeroDivisionError:
            pass
        return [task.result, task.is_cancelled]

    story = Story(groups)
    assert story.then(done(0)) == ["stop 1", "b"]
    assert story.then(done(2)) == ['Completed ["went on",false]']


def test_one_branch_can_be_cancelled_alone() -> None:
    """Before it began, none of its code runs; cancelled, it fails nobody but who awaits it."""

    async def groups(ctx: OrchestrationContext) -> list[Any]:
        async with ctx.task_group() as group:
            unborn = group.create_task(step(ctx, "unborn", cleans=True))
            assert unborn.cancel()
            waiting = group.create_task(step(ctx, "a", cleans=True))
            await ctx.call_activity("b")
            assert waiting.cancel()
            assert not waiting.is_completed
            try:
                await waiting
            except CancelledError:
                return [unborn.is_cancelled, waiting.is_cancelled, waiting.cancel()]

    story = Story(groups)
    assert story.told == ["b", "a"]
    assert story.then(done(0)) == ["stop 1", "clean a"]
    assert story.then(done(2)) == ["Completed [true,true,false]"]


def test_a_branch_that_cancels_itself_is_interrupted_at_its_next_wait() -> None:
    async def groups(ctx: OrchestrationContext) -> bool:
        async def suicidal() -> None:
            me.cancel()
            await ctx.call_activity("a")

        async with ctx.task_group() as group:
            me = group.create_task(suicidal())
        return me.is_cancelled

    assert Story(groups).told == ["a", "stop 0", "Completed true"]


def test_nested_groups_end_from_the_inside() -> None:
    async def groups(ctx: OrchestrationContext) -> list[str]:
        async def inner() -> None:
            async with ctx.task_group() as group:
                group.create_task(step(ctx, "deep", cleans=True))
                await ctx.call_activity("body")

        try:
            async with ctx.task_group() as group:
                group.create_task(inner())
                group.create_task(step(ctx, "bad"))
        except ExceptionGroup as errors:
            return [str(errors.exceptions[0])]
        return []

    story = Story(groups)
    assert story.told == ["body", "bad", "deep"]
    assert story.then(failed(1)) == ["stop 0", "stop 2", "clean deep"]
    assert story.then(done(3)) == ['Completed ["builtins.ValueError: no"]']


def test_an_outer_group_interrupts_the_body_within_an_inner_one() -> None:
    async def groups(ctx: OrchestrationContext) -> str:
        try:
            async with ctx.task_group() as outer:
                outer.create_task(step(ctx, "bad"))
                async with ctx.task_group() as inner:
                    inner.create_task(step(ctx, "slow", cleans=True))
        except* ValueError:
            await ctx.call_activity("after")
        return "done"

    story = Story(groups)
    assert story.then(failed(0)) == ["stop 1", "clean slow"]
    assert story.then(done(2)) == ["after"]
    assert story.then(done(3)) == ['Completed "done"']


def test_what_failed_before_it_was_added_fails_the_group_and_nothing_else() -> None:
    """The interruption of the body came at a wait behind the block, if the block itself had none left."""

    async def groups(ctx: OrchestrationContext) -> str:
        bad = ctx.call_activity("bad")
        await ctx.call_activity("a")
        try:
            async with ctx.task_group() as group:
                group.create_task(bad)
        except* ValueError:
            await ctx.call_activity("after")
        return "done"

    story = Story(groups)
    assert story.then(failed(0), done(1)) == ["after"]
    assert story.then(done(2)) == ['Completed "done"']


def test_a_combination_of_what_the_group_cancelled_is_no_failure() -> None:
    """It counted as one, so that the group raised the cancellation of its own."""

    async def groups(ctx: OrchestrationContext) -> list[str]:
        try:
            async with ctx.task_group() as group:
                a = group.create_task(ctx.call_activity("a"))
                group.create_task(race(a, ctx.call_activity("b")))
                group.create_task(when_all(a, ctx.call_activity("c"), fail_fast=True))
                await ctx.call_activity("d")
                raise ZeroDivisionError
        except BaseExceptionGroup as errors:
            return [type(error).__name__ for error in errors.exceptions]
        return []

    assert Story(groups).then(done(3))[-1] == 'Completed ["ZeroDivisionError"]'


def test_a_group_takes_tasks_in_its_block_only() -> None:
    """A coroutine that is refused is closed, so that Python does not complain that nobody awaited it."""

    async def groups(ctx: OrchestrationContext) -> list[str]:
        refused: list[str] = []

        def try_to_add(work: Any) -> None:
            try:
                group.create_task(work)
            except (OrchestratorMisuseError, InvalidInputError) as error:
                refused.append(str(error))

        group = ctx.task_group()
        try_to_add(step(ctx, "a"))
        try:
            async with group:
                try_to_add(1)
                group.create_task(step(ctx, "b"))
                try:
                    await ctx.call_activity("c")
                finally:
                    try_to_add(step(ctx, "d"))
        except* ValueError:
            try_to_add(step(ctx, "e"))
        try:
            async with group:
                pass
        except OrchestratorMisuseError as error:
            refused.append(str(error))
        return [text.partition("; it got")[0] for text in refused]

    assert Story(groups).then(failed(1))[-1] == (
        'Completed ["A task group takes tasks inside of its block only: `async with ctx.task_group()`.",'
        '"A task group takes coroutines and durable tasks",'
        '"The task group is ending; it takes no more tasks.",'
        '"The task group is ending; it takes no more tasks.",'
        '"A task group cannot be entered twice; use another one."]'
    )


def test_a_race_of_branches_cancels_the_loser_which_still_cleans_up() -> None:
    async def races(ctx: OrchestrationContext) -> Any:
        async with ctx.task_group() as group:
            tasks = [group.create_task(step(ctx, name, cleans=True)) for name in "ab"]
            winner = await race(tasks)
        return winner

    story = Story(races)
    assert story.then(done(1, "1")) == ["clean b"]
    assert story.then(done(2)) == ["stop 0", "clean a"]
    assert story.then(done(3)) == ["Completed 1"]


def test_a_group_ends_with_the_timeout_that_limits_it() -> None:
    async def limited(ctx: OrchestrationContext) -> str:
        async def work() -> None:
            async with ctx.task_group() as group:
                for name in "ab":
                    group.create_task(step(ctx, name))

        async with ctx.task_group() as group:
            task = group.create_task(work())
            await race(task, ctx.create_timer(SECOND))
        return "late" if task.is_cancelled else "in time"

    story = Story(limited)
    assert story.told == ["timer 1", "a", "b"]
    assert story.then(fired(0)) == ["stop 1", "stop 2", 'Completed "late"']


# Sagas


async def books(ctx: OrchestrationContext) -> str:
    async with ctx.saga() as saga:
        await ctx.call_activity("hotel")
        saga.add_compensation(undo, "hotel")
        await ctx.call_activity("flight")
        saga.add_compensation("undo", "flight")
        await ctx.call_activity("car")
    return "booked"


def booked() -> Story:
    story = Story(books)
    story.then(done(0))
    assert story.then(done(1)) == ["car"]
    return story


def test_a_saga_that_succeeds_undoes_nothing() -> None:
    assert booked().then(done(2)) == ['Completed "booked"']


def test_a_saga_is_undone_in_reverse_one_after_the_other() -> None:
    story = booked()
    assert story.then(failed(2)) == ['undo "flight"']
    assert story.then(done(3)) == ['undo "hotel"']
    assert story.then(done(4)) == ["Failed ValueError: no"]


def test_a_saga_is_undone_when_it_is_cancelled() -> None:
    story = booked()
    assert story.then(CANCEL) == ["stop 2", 'undo "flight"']
    assert story.then(done(3)) == ['undo "hotel"']
    assert story.then(done(4)) == ['Canceled "enough"']


def test_a_cancellation_cannot_stop_the_compensations() -> None:
    """It stopped the one that ran, and none of the others were made."""
    story = booked()
    assert story.then(failed(2)) == ['undo "flight"']
    assert story.then(CANCEL) == []
    assert story.then(done(3)) == ['undo "hotel"']
    assert story.then(CANCEL) == []
    assert story.then(done(4)) == ['Canceled "enough"']


def test_a_compensation_that_fails_keeps_none_from_being_made() -> None:
    story = booked()
    story.then(failed(2))
    assert story.then(failed(3, "gone")) == ['undo "hotel"']
    assert story.then(done(4)) == [
        "Failed CompensationFailedError: 1 compensation(s) failed, and must be made by hand: builtins.ValueError: gone"
    ]


def test_what_undid_the_saga_is_the_cause_of_the_failed_compensation() -> None:
    async def books(ctx: OrchestrationContext) -> list[str]:
        try:
            async with ctx.saga() as saga:
                saga.add_compensation(undo, "x")
                await ctx.wait_for_external_event("e")
        except CompensationFailedError as error:
            return [type(error.__cause__).__name__, *(str(each) for each in error.failures)]
        return []

    story = Story(books)
    assert story.then(CANCEL) == ['undo "x"']
    assert story.then(failed(0)) == ['Completed ["CancelledError","builtins.ValueError: no"]']


def test_a_compensation_is_checked_when_it_is_added() -> None:
    async def books(ctx: OrchestrationContext) -> None:
        async with ctx.saga() as saga:
            saga.add_compensation(undo, object())  # type: ignore[arg-type]  # that is the point

    assert Story(books).told[0].startswith("Failed PayloadError")


def test_a_compensation_that_cannot_be_asked_for_counts_as_failed() -> None:
    async def books(ctx: OrchestrationContext) -> None:
        async with ctx.saga() as saga:
            saga.add_compensation(undo, "x")
            ctx.call_activity("a")
            raise ZeroDivisionError

    assert "asked for more than 1 things" in Story(books, limits=Limits(actions_max=1)).told[-1]


def test_sagas_nest_and_work_in_branches() -> None:
    async def books(ctx: OrchestrationContext) -> None:
        async def part(name: str) -> None:
            async with ctx.saga() as saga:
                saga.add_compensation(undo, name)
                await ctx.wait_for_external_event(name)
                await ctx.wait_for_external_event("never")

        async with ctx.saga() as saga:
            saga.add_compensation(undo, "all")
            async with ctx.task_group() as group:
                for name in "ab":
                    group.create_task(part(name))
                await ctx.call_activity("check")

    story = Story(books)
    assert story.then(raised("a"), failed(0)) == ['undo "a"', 'undo "b"']
    assert story.then(done(2)) == []
    assert story.then(CANCEL) == []
    assert story.then(done(1)) == ['undo "all"']
    assert story.then(done(3)) == ['Canceled "enough"']
