"""Orchestrators driven by hand and by script."""

from __future__ import annotations

from datetime import timedelta

import pytest
from kit_app import ANSWER, Claim, Till, dicey, fee, fetch, parent, patient, refund

from holdfast import (
    DurableHttpResponse,
    EntityId,
    NonDeterminismError,
    OrchestrationFailedError,
    TaskFailedError,
    UpdateRejectedError,
)
from holdfast.testing import OrchestratorTest, SentEvent, SentSignal, run_orchestrator

TILL = EntityId(Till, "main")


def test_step_by_step() -> None:
    test = OrchestratorTest(refund, Claim(200), instance_id="r")
    assert test.waits_for(ANSWER)
    assert test.timers == [test.now + timedelta(days=3)]
    test.raise_event(ANSWER, True)
    assert test.timers == []
    taken = test.operation(TILL, Till.take)
    assert (taken.entity, taken.input) == (TILL, 200)
    taken.complete(800)
    assert test.sent == [SentSignal(EntityId(Till, "log"), "put", 1), SentEvent("audit", "refunded", 200)]
    call = test.call(fee)
    assert call.input == 200
    call.complete(20)
    assert (test.status, test.result) == ("Completed", 180)
    with pytest.raises(AssertionError, match="was answered or cancelled before"):
        call.complete(20)
    with pytest.raises(AssertionError, match="has ended"):
        test.raise_event(ANSWER, True)


def test_time_fires_what_is_due_and_nothing_else() -> None:
    test = OrchestratorTest(refund, Claim(200))
    test.advance(days=2, hours=23)
    assert test.status == "Running"
    test.advance(hours=1)
    assert (test.result, test.custom_status) == (0, "forgotten")


def test_failures_come_out_as_a_caller_gets_them() -> None:
    test = OrchestratorTest(refund, Claim(200))
    test.raise_event(ANSWER, True)
    test.operation(TILL, "take").fail(ValueError("There is only 5."))
    with pytest.raises(ValueError, match="only 5") as caught:
        _ = test.result
    assert isinstance(caught.value, TaskFailedError)


def test_a_cancellation_lets_it_clean_up() -> None:
    test = OrchestratorTest(parent, [1, 2])
    child = test.call(refund)
    assert child.input == Claim(1)
    test.cancel("enough")
    assert not child.is_open
    test.call(fee).complete(0)
    with pytest.raises(OrchestrationFailedError, match="Canceled"):
        _ = test.result


def test_retries_queries_updates_and_the_next_execution() -> None:
    test = OrchestratorTest(patient, 1)
    test.call(fee).fail(RuntimeError("busy"))
    assert test.calls(fee) == []
    answer = test.update("set", 7)
    assert (answer(), test.query("done")) == (7, 7)
    with pytest.raises(UpdateRejectedError):
        test.update("get")()
    test.fire_timer()
    test.call(fee).complete(0)
    assert (test.status, test.next_input) == ("ContinuedAsNew", 0)


def test_http_requests_are_answered() -> None:
    test = OrchestratorTest(fetch, "a")
    request = test.http_call()
    assert (request.input.method, request.input.uri) == ("GET", "https://example.org/a")
    request.complete(DurableHttpResponse(status_code=200, content="found"))
    assert test.result == "found"


def test_what_is_not_there_is_told_with_what_is() -> None:
    test = OrchestratorTest(refund, Claim(200))
    waits = r"It waits for: timer at 2030-01-04.*; event 'answer'\."
    with pytest.raises(AssertionError, match=f"No call of 'fee' .* {waits}"):
        test.call(fee)
    with pytest.raises(AssertionError, match=f"No call of 'take' .* {waits}"):
        test.operation(TILL, Till.take)
    with pytest.raises(AssertionError, match=f"goes on. {waits}"):
        _ = test.result
    with pytest.raises(AssertionError, match="has not continued"):
        _ = test.next_input


def test_code_that_is_not_deterministic_is_found_at_once() -> None:
    with pytest.raises(NonDeterminismError, match=r"kit_app.py:\d+ in dicey"):
        OrchestratorTest(dicey)


def test_scripts() -> None:
    answers = {fee: lambda amount: amount // 10, Till.take: 0}
    assert run_orchestrator(refund, Claim(200), answers=answers, events=[(ANSWER, True)]) == 180
    assert run_orchestrator(refund, Claim(200)) == 0, "its timer fires"
    assert run_orchestrator(parent, [1, 2], answers={refund: lambda claim: claim.amount}) == 3
    with pytest.raises(KeyError):
        run_orchestrator(parent, [1], answers={"refund": KeyError("gone")})
    with pytest.raises(AssertionError, match="no answer for take of @till@main; it has some for: fee"):
        run_orchestrator(refund, Claim(200), answers={fee: 1}, events=[(ANSWER, True)])
