"""Retries that orchestrator code decides about, and the retries and timeouts of sub-orchestrations."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from composition_kit import CANCEL, SECOND, START, Story, child_done, child_failed, done, failed, fired

from holdfast import FailureDetails, OrchestrationContext, RetryContext, RetryPolicy, when_all
from holdfast.errors import ConfigurationError
from holdfast.model.actions import CreateTimer
from holdfast.model.retry import RetryRule, next_delay

NO_DELAY = RetryPolicy(max_attempts=9, first_retry_interval=timedelta(0))


def calls(retry: Any, **options: Any) -> Story:
    async def calls(ctx: OrchestrationContext) -> Any:
        return await ctx.call_sub_orchestrator("child", retry=retry, **options)

    return Story(calls)


def calls_activity(retry: Any) -> Story:
    async def calls(ctx: OrchestrationContext) -> Any:
        return await ctx.call_activity("a", retry=retry)

    return Story(calls)


# Sub-orchestrations


def test_a_sub_orchestration_is_tried_again_after_durable_delays() -> None:
    """Each attempt is a new execution with an id of its own."""
    story = calls(RetryPolicy(max_attempts=3, first_retry_interval=10 * SECOND, backoff_coefficient=3))
    assert story.then(child_failed(0)) == ["timer 11"]
    assert story.then(fired(1)) == ["child()"]
    assert story.then(child_failed(2)) == ["timer 33"]
    assert story.then(fired(3)) == ["child()"]
    assert story.player.actions[0].instance_id == "x:4"
    assert story.then(child_failed(4, "last")) == ["Failed ValueError: last"]


def test_a_zero_delay_needs_no_timer() -> None:
    story = calls(NO_DELAY)
    assert story.then(child_failed(0)) == ["child()"]
    assert story.then(child_done(1, "7")) == ["Completed 7"]


def test_a_timeout_cancels_the_attempt_and_counts_as_its_failure() -> None:
    story = calls(RetryPolicy(max_attempts=2, first_retry_interval=timedelta(0)), timeout=10 * SECOND)
    assert story.told == ["child()", "timer 10"]
    assert story.then(fired(1)) == ["stop 0", "child()", "timer 11"]
    assert story.then(child_done(0, "1")) == []
    assert story.then(child_done(2, "2")) == ["stop 3", "Completed 2"]


def test_a_timeout_without_retries_is_a_timeout_error() -> None:
    async def calls(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_sub_orchestrator("child", timeout=SECOND)
        except TimeoutError as error:
            return str(error)
        return ""

    assert Story(calls).then(fired(1)) == [
        "stop 0",
        "Completed \"builtins.TimeoutError: Sub-orchestration 'child' took longer than 0:00:01.\"",
    ]


def test_a_timeout_beyond_the_calendar_starts_nothing() -> None:
    """The sub-orchestration had been asked for before the error was found."""
    assert calls(None, timeout=timedelta.max).told == [
        f"Failed InvalidInputError: A timer cannot be due after {timedelta.max}: the calendar ends before that."
    ]


@pytest.mark.parametrize("moment", ["attempt", "delay"])
def test_a_retry_is_cancelled_wherever_it_stands(moment: str) -> None:
    story = calls(RetryPolicy(), timeout=10 * SECOND)
    if moment == "attempt":
        assert sorted(story.then(CANCEL)) == ['Canceled "enough"', "stop 0", "stop 1"]
    else:
        story.then(child_failed(0))
        assert story.then(CANCEL) == ["stop 2", 'Canceled "enough"']


# Which failures


@pytest.mark.parametrize(
    ("policy", "attempts"),
    [
        (RetryPolicy(first_retry_interval=timedelta(0)), 3),
        (RetryPolicy(first_retry_interval=timedelta(0), retry_on=(ValueError,)), 3),
        (RetryPolicy(first_retry_interval=timedelta(0), retry_on=(Exception, "nobody")), 3),
        (RetryPolicy(first_retry_interval=timedelta(0), retry_on=("ValueError",)), 3),
        (RetryPolicy(first_retry_interval=timedelta(0), retry_on=(KeyError,)), 1),
        (RetryPolicy(first_retry_interval=timedelta(0), non_retriable=(ValueError,)), 1),
        (RetryPolicy(first_retry_interval=timedelta(0), non_retriable=("builtins.Exception",)), 1),
        (RetryPolicy(first_retry_interval=timedelta(0), retry_on=lambda failure: failure.error_message == "no"), 3),
        (RetryPolicy(first_retry_interval=timedelta(0), retry_on=lambda failure: False), 1),
        (RetryPolicy(first_retry_interval=timedelta(0), retry_on=lambda _: True, non_retriable=(ValueError,)), 1),
        (RetryPolicy(first_retry_interval=SECOND, retry_timeout=SECOND), 1),
    ],
)
def test_the_policy_says_which_failures_are_tried_again(policy: RetryPolicy, attempts: int) -> None:
    story = calls(policy)
    made = 0
    while story.told[-1] == "child()":
        story.then(child_failed(made))
        made += 1
    assert made == attempts


def test_what_its_author_says_is_final_is_not_tried_again() -> None:
    final = FailureDetails("builtins.ValueError", "no", is_non_retriable=True)
    assert next_delay(RetryPolicy().rule(), final, 1, timedelta(0), "") is None


def test_a_predicate_of_an_activity_is_asked_in_the_orchestrator() -> None:
    """A policy without one stays with the hub, which needs no episode for the next attempt."""
    story = calls_activity(RetryPolicy(first_retry_interval=timedelta(0), retry_on=lambda _: True))
    assert story.player.actions[0].policy.retry is None
    assert story.then(failed(0)) == ["a"]
    assert isinstance(calls_activity(RetryPolicy()).player.actions[0].policy.retry, RetryRule)


# Handlers


def test_a_handler_decides_from_what_is_the_same_on_each_replay() -> None:
    seen: list[RetryContext] = []

    def decide(context: RetryContext) -> bool | timedelta:
        seen.append(context)
        return (5 * SECOND, True, False)[context.attempts_made - 1]

    story = calls_activity(decide)
    assert story.then(failed(0, "first")) == ["timer 6"]
    assert story.then(fired(1)) == ["a"]
    assert story.then(failed(2, "second")) == ["a"]
    assert story.then(failed(3, "third")) == ["Failed ValueError: third"]
    asked = {(each.attempts_made, each.last_failure.error_message, each.elapsed) for each in seen}
    assert asked == {(1, "first", SECOND), (2, "second", 3 * SECOND), (3, "third", 4 * SECOND)}
    assert seen[0].current_utc_datetime == START + SECOND


@pytest.mark.parametrize(
    ("decision", "error"),
    [(-SECOND, "InvalidInputError: A retry handler returned -1 day"), (None, "must return a bool or a timedelta")],
)
def test_a_handler_that_returns_nonsense_fails_the_call(decision: Any, error: str) -> None:
    assert error in calls_activity(lambda _: decision).then(failed(0))[0]


def test_a_handler_that_raises_fails_the_call_with_that() -> None:
    async def catches(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity("a", retry=lambda _: 1 / 0)  # type: ignore[arg-type, return-value]  # it never returns
        except ZeroDivisionError:
            return "caught"
        return ""

    assert Story(catches).then(failed(0)) == ['Completed "caught"']


def test_a_handler_must_not_ask_for_anything() -> None:
    async def asks(ctx: OrchestrationContext) -> None:
        await ctx.call_activity("a", retry=lambda _: ctx.call_activity("b") is None)

    [end] = Story(asks).then(failed(0))
    assert end.startswith("Failed OrchestratorMisuseError")


# Delays


def test_jitter_takes_a_share_off_and_is_the_same_each_time() -> None:
    rule = RetryPolicy(first_retry_interval=100 * SECOND, backoff_coefficient=1, jitter=0.5).rule()
    failure = FailureDetails("x.Y", "no")
    delays = [next_delay(rule, failure, 1, timedelta(0), f"call {number}") for number in range(50)]
    assert all(delay is not None and 50 * SECOND <= delay <= 100 * SECOND for delay in delays)
    assert len(set(delays)) == 50
    assert delays[7] == next_delay(rule, failure, 1, timedelta(0), "call 7")
    assert delays[7] != next_delay(rule, failure, 2, timedelta(0), "call 7")


def test_calls_that_failed_together_do_not_come_back_together() -> None:
    """The delays of all calls of one name in an orchestration were the same."""

    async def calls(ctx: OrchestrationContext) -> None:
        await when_all([ctx.call_sub_orchestrator("child", retry=RetryPolicy(jitter=1)) for _ in range(9)])

    story = Story(calls)
    story.then(*(child_failed(number) for number in range(9)))
    assert len({action.fire_at for action in story.player.actions if isinstance(action, CreateTimer)}) == 9


def test_delays_have_a_maximum() -> None:
    rule = RetryPolicy(max_attempts=10**6, max_retry_interval=SECOND).rule()
    for attempt in (1, 50, 10**5):
        assert next_delay(rule, FailureDetails("x.Y", "no"), attempt, timedelta(0), "") == SECOND


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_attempts": 0},
        {"max_attempts": True},
        {"first_retry_interval": 5},
        {"first_retry_interval": -SECOND},
        {"backoff_coefficient": 0.5},
        {"retry_timeout": timedelta(0)},
        {"jitter": 1.5},
        {"retry_on": ValueError},
        {"retry_on": "ValueError"},
        {"retry_on": (5,)},
        {"non_retriable": (int,)},
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        RetryPolicy(**wrong)


def test_a_result_that_cannot_be_decoded_is_a_failure_like_any_other() -> None:
    async def calls(ctx: OrchestrationContext) -> Any:
        return await ctx.call_activity("a", retry=lambda context: context.attempts_made < 2)

    assert Story(calls).then(done(0, "{")) == ["a"]
