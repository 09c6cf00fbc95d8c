"""Activities and entities that are called directly."""

from __future__ import annotations

import pytest
from kit_app import Claim, Till, copy_pages, counter

from holdfast import (
    ConfigurationError,
    EntityId,
    HoldfastError,
    OrchestratorMisuseError,
    PayloadError,
    activity_context,
    entity_context,
)
from holdfast.testing import SentSignal, SentStart, fake_activity_context, fake_entity_context, run_operation


def test_an_activity_sees_its_attempt() -> None:
    with fake_activity_context(attempt=2, last_progress=3) as context:
        assert copy_pages(5) == "attempt 2"
        assert context.heartbeats == [4, 5]
        context.cancel()
        assert copy_pages(5) == "given up"
    with pytest.raises(HoldfastError):
        activity_context()


def test_an_operation_that_is_called_directly() -> None:
    with fake_entity_context(EntityId(Till, "main")) as context:
        till = Till(5)
        assert till.take(5) == 0
        till.close()
    assert context.sent == [
        SentSignal(EntityId(Till, "log"), "put", 5),
        SentStart("refill", "main", instance_id="refill"),
    ]
    assert context.is_deleted
    with pytest.raises(OrchestratorMisuseError):
        entity_context()


def test_an_entity_function_that_is_called_directly() -> None:
    with fake_entity_context(EntityId(counter, "a"), state=3) as context:
        assert counter(context, 4) == 7
    assert context.state == 7


def test_an_operation_that_is_run_as_by_a_host() -> None:
    taken = run_operation(Till, Till.take, 5, state=Till(8))
    assert (taken.result, taken.state, taken.sent) == (3, Till(3), [SentSignal(EntityId(Till, "log"), "put", 5)])
    assert run_operation(Till, Till.put, 5).state == Till(5)
    assert run_operation(Till, Till.close, state=Till(5)).state is None
    assert run_operation(Till, Till.ask).result == "request"
    assert run_operation(counter, "add", 4, state=3).state == 7
    with pytest.raises(ValueError, match="only 0"):
        run_operation(Till, Till.take, 5)
    with pytest.raises(PayloadError):
        run_operation(Till, "put", "much")
    with pytest.raises(ConfigurationError, match="no entity"):
        run_operation(Claim, "put", 1)  # type: ignore[call-overload]  # it is what is being tested
