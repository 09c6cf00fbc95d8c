"""What the next execution inherits from one that continues as new."""

from __future__ import annotations

from datetime import timedelta

from test_execution import START, Player

from holdfast import App, OrchestrationContext
from holdfast.model.history import EventRaised

app = App()


@app.orchestrator
async def loop(ctx: OrchestrationContext, left: int) -> None:
    await ctx.wait_for_external_event("go")
    ctx.continue_as_new(left - 1)


def raised(name: str, input: str, later_s: int = 0) -> EventRaised:
    return EventRaised(timestamp=START + timedelta(seconds=later_s), name=name, input=input)


def test_events_after_the_one_that_ended_the_execution_are_carried_over() -> None:
    """Those that came in the same episode, behind the event that led to continue_as_new, were lost."""
    player = Player(loop, "2")
    player.episode(raised("go", "1"), raised("go", "2"), raised("other", "3"))
    assert [event.input for event in player.outcome.carryover_events] == ["2", "3"]


def test_events_are_carried_over_in_the_order_in_which_they_came() -> None:
    """They were sorted by the clock of their senders, so a clock that was set back swapped two events."""
    player = Player(loop, "2")
    player.episode(raised("e", "1", later_s=9), raised("e", "2"), raised("go", "null"))
    assert [event.input for event in player.outcome.carryover_events] == ["1", "2"]
