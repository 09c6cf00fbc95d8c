"""`ctx.patched`: whatever is asked where, each prefix of a history replays, with the old code's and the new code's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_execution import Player, completed

from holdfast import App, OrchestrationContext
from holdfast.errors import InvalidInputError, NonDeterminismError
from holdfast.model.actions import MarkPatch, ScheduleTask
from holdfast.model.history import HistoryEvent
from holdfast.model.refs import Orchestrator

Step: TypeAlias = str | None
"""Whether to ask about a patch before the next call, and about which one."""
STEPS = st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=1, max_size=8)
FAST = settings(max_examples=80, deadline=None, derandomize=True)


def program(steps: Sequence[Step], *, is_new: bool) -> Orchestrator[Any, Any]:
    """Calls one activity after the other; the name of each tells the branch that was taken before it."""

    @App().orchestrator
    async def flow(ctx: OrchestrationContext) -> list[str]:
        seen: list[str] = []
        for number, patch in enumerate(steps):
            branch = "new" if is_new and patch is not None and ctx.patched(patch) else "old"
            seen.append(await ctx.call_activity(f"{branch} {number}"))
        return seen

    return flow


def answer(player: Player) -> None:
    """Complete the activity that was asked for last."""
    [asked] = [action for action in player.actions if isinstance(action, ScheduleTask)]
    player.episode(completed(asked.id, f'"{asked.name}"'))


def finish(player: Player, *, unloading: bool = False) -> None:
    while not player.ends:
        if unloading:
            player.unload()
        answer(player)


def resumed(history: list[tuple[HistoryEvent, ...]], orchestrator: Orchestrator[Any, Any]) -> Player:
    """Stand where a history ends, with code of one's own."""
    player = Player(orchestrator)
    player.live = player.fresh()
    player.live.replay(history)
    player.history = list(history)
    player.actions = [
        ScheduleTask(event.event_id, event.name, None)  # type: ignore[union-attr]  # the last one is a TaskScheduled
        for event in history[-1][-1:]
    ]
    return player


@FAST
@given(STEPS)
def test_every_prefix_replays_and_goes_on_in_the_same_way(steps: list[Step]) -> None:
    whole = Player(program(steps, is_new=True))
    finish(whole)
    assert whole.outcome.result is not None
    assert ("old" in whole.outcome.result) == (None in steps)
    for count in range(1, len(steps) + 1):
        player = resumed(whole.history[:count], program(steps, is_new=True))
        finish(player)
        assert player.history == whole.history
        assert player.outcome == whole.outcome


@FAST
@given(STEPS, st.integers(0, 7))
def test_the_new_code_takes_over_anywhere_and_replays_from_there(steps: list[Step], place: int) -> None:
    """A patch that the old code was past when the new one came is old for ever; the others are new."""
    before = Player(program(steps, is_new=False))
    for _ in range(min(place, len(steps) - 1)):
        answer(before)
    past = set(steps[: len(before.history)])
    outcomes: list[tuple[Any, ...]] = []
    for unloading in (False, True):
        player = resumed(before.history, program(steps, is_new=True))
        finish(player, unloading=unloading)
        outcomes.append((player.outcome, player.history))
    assert outcomes[0] == outcomes[1]
    expected = [f"{'old' if patch is None or patch in past else 'new'} {n}" for n, patch in enumerate(steps)]
    assert outcomes[0][0].result == str(expected).replace("'", '"').replace(", ", ",")


def test_the_mark_is_left_where_it_was_asked_first() -> None:
    player = Player(program(["a", None, "a", "b"], is_new=True))
    finish(player)
    marks = [[event.name for event in episode if type(event).__name__ == "PatchMarked"] for episode in player.history]
    assert marks == [["a"], [], [], ["b"], []]


def test_a_question_that_went_leaves_the_new_branch() -> None:
    @App().orchestrator
    async def flow(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity("new 0")

    asked = Player(program(["a"], is_new=True))
    resumed(asked.history, flow)
    with pytest.raises(NonDeterminismError, match=r"TaskScheduled\(event_id=0, name='new 0'\)"):
        resumed(asked.history, program([None], is_new=True))


def test_asked_twice_it_is_asked_for_once() -> None:
    @App().orchestrator
    async def flow(ctx: OrchestrationContext) -> list[bool]:
        return [ctx.patched("a"), ctx.patched("A"), ctx.patched("a")]

    player = Player(flow)
    assert [action for action in player.actions if isinstance(action, MarkPatch)] == [MarkPatch("a"), MarkPatch("A")]
    assert player.outcome.result == "[true,true,true]"


@pytest.mark.parametrize("name", ["", "a\n", None, 7, "x" * 300])
def test_what_names_no_patch_is_refused(name: Any) -> None:
    @App().orchestrator
    async def flow(ctx: OrchestrationContext) -> None:
        ctx.patched(name)

    failure = Player(flow).outcome.failure
    assert failure is not None
    assert failure.is_caused_by(InvalidInputError)
