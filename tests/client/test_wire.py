"""What travels between a client and a host: every method of the port, every error, and nothing that is made up."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
from client_kit import KEY, Served, serving
from hypothesis import given
from hypothesis import strategies as st

from holdfast import FailureDetails, HoldfastError, IdPolicy, Limits, OrchestrationStatus, errors
from holdfast.client.arguments import Arguments
from holdfast.client.port import TaskHub
from holdfast.client.protocol import HUB_PATH, METHODS, WAIT_S_MAX, Refusal, bounded_wait
from holdfast.client.remote import RemoteTaskHub
from holdfast.client.wire_errors import TRAVELLERS, from_wire, to_wire
from holdfast.client.wire_requests import WireOperation, WireStart
from holdfast.http.payload import BASE_PATH
from holdfast.model.requests import OperationRequest, StartRequest

# The table


def port_methods(cls: type) -> set[str]:
    return {name for name, member in vars(cls).items() if inspect.iscoroutinefunction(member) and name[0] != "_"}


def test_the_table_has_every_method_of_the_port_with_its_arguments() -> None:
    assert set(METHODS) == port_methods(TaskHub) == port_methods(RemoteTaskHub)
    for name, method in METHODS.items():
        declared = list(inspect.signature(getattr(TaskHub, name)).parameters)[1:]
        sent = [field.name for field in msgspec.structs.fields(method.arguments)]
        assert sorted(sent) == sorted(declared), name
        assert list(inspect.signature(getattr(RemoteTaskHub, name)).parameters)[1:] == declared


def test_what_waits_has_a_timeout_and_is_bounded() -> None:
    waiting = {name for name, method in METHODS.items() if method.waits}
    assert waiting == {"update", "call_entity", "wait_until_stopped"}
    for timeout, bounded in ((None, WAIT_S_MAX), (timedelta(days=1), WAIT_S_MAX), (timedelta(-1), 0.0)):
        assert bounded_wait(timeout) == timedelta(seconds=bounded)
    assert bounded_wait(timedelta(seconds=1)) == timedelta(seconds=1)


def test_the_path_is_below_that_of_the_management_api() -> None:
    assert f"{BASE_PATH}/hub" == HUB_PATH


# Requests

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
tag_texts = texts.filter(lambda text: "\0" not in text)
instants = st.datetimes(timezones=st.just(UTC))
delays = st.timedeltas()


@given(
    st.builds(
        StartRequest,
        name=st.just("x"),
        instance_id=texts,
        input=st.none() | st.just('{"a":1}'),
        version=st.none() | st.just("1.0"),
        tags=st.dictionaries(tag_texts.filter(bool), tag_texts, max_size=3),
        start_at=st.none() | instants,
        run_timeout=st.none() | delays.filter(lambda delay: delay > timedelta(0)),
        id_policy=st.builds(
            IdPolicy,
            replace=st.sets(st.sampled_from(OrchestrationStatus)),
            otherwise=st.sampled_from(["reject", "return"]),
        ),
        request_key=st.none() | st.just("key"),
        is_restart=st.booleans(),
    )
)
def test_starts_arrive_as_they_were_sent(request: StartRequest) -> None:
    sent = msgspec.json.encode(WireStart.of(request))
    assert msgspec.json.decode(sent, type=WireStart).checked(Limits()) == request


@given(st.none() | instants | delays.filter(lambda delay: abs(delay) < timedelta(days=300_000)))
def test_operations_arrive_as_they_were_sent(due: timedelta | datetime | None) -> None:
    request = OperationRequest(instance_id="@counter@a", operation="add", input="1", key="k", due=due)
    sent = msgspec.json.encode(WireOperation.of(request))
    assert msgspec.json.decode(sent, type=WireOperation).checked(Limits()) == request


def test_a_claim_that_an_id_is_new_does_not_travel() -> None:
    request = StartRequest(name="x", instance_id="one", is_new_id=True)
    assert not WireStart.of(request).checked(Limits()).is_new_id


# Errors

details = FailureDetails("builtins.ValueError", "no", "stack", FailureDetails("m.E", "why"), True, {"code": 7})

SPECIMENS: dict[type[HoldfastError], tuple[Any, ...]] = {
    errors.InstanceError: ("one", "text"),
    errors.InstanceElsewhereError: ("one",),
    errors.InstanceNotFoundError: ("one",),
    errors.InstanceAlreadyExistsError: ("one", "Running"),
    errors.InstanceNotRunningError: ("one", "Completed", "rewind"),
    errors.InstanceNotEndedError: ("one", "Running"),
    errors.RewindRefusedError: ("one", "text"),
    errors.UpdateRejectedError: ("one", "text"),
    errors.QueryFailedError: ("one", "text"),
    errors.InstanceParkedError: ("@counter@a", details),
    errors.OrchestrationFailedError: ("one", "Failed", details),
    errors.TaskFailedError: (details,),
}
"""What makes one of those that take more than a text."""


def tree(cls: type[HoldfastError] = HoldfastError) -> Iterator[type[HoldfastError]]:
    yield cls
    for each in cls.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from tree(each)


def arrived(error: HoldfastError) -> HoldfastError:
    return from_wire(msgspec.json.decode(msgspec.json.encode(Refusal(to_wire(error))), type=Refusal).error)


def test_no_public_error_is_forgotten() -> None:
    assert set(tree()) - set(TRAVELLERS.values()) == {errors.CompensationFailedError}  # raised in orchestrators only
    assert set(SPECIMENS) <= set(TRAVELLERS.values())


@pytest.mark.parametrize("cls", TRAVELLERS.values(), ids=lambda cls: cls.__name__)
def test_every_error_arrives_as_it_was_raised(cls: type[HoldfastError]) -> None:
    for error in (
        cls(*SPECIMENS.get(cls, ("What happened, and what to do.",))),
        *([errors.OrchestrationFailedError("one", "Canceled", None)] if cls is errors.OrchestrationFailedError else []),
        *([errors.CommitFailedError("text", outcome_unknown=True)] if cls is errors.CommitFailedError else []),
    ):
        again = arrived(error)
        assert type(again) is cls
        assert str(again) == str(error)
        assert again.args == error.args
        assert vars(again) == vars(error)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_of_an_error_arrives(text: str) -> None:
    for cls in set(TRAVELLERS.values()) - set(SPECIMENS):
        assert str(arrived(cls(text))) == text


def test_an_error_of_nobodys_knowledge_arrives_as_the_nearest_one() -> None:
    class OwnError(errors.PayloadError): ...

    assert type(arrived(OwnError("text"))) is errors.PayloadError
    assert type(arrived(errors.CompensationFailedError((ValueError("x"),)))) is HoldfastError
    assert type(from_wire(msgspec.convert({"type": "OfTomorrow", "message": "x"}, type(to_wire(OwnError()))))) is (
        HoldfastError
    )


# What a host refuses

START = {"name": "approve", "instance_id": "one"}
NOW = "2026-01-01T00:00:00Z"

HOSTILE: list[tuple[str, object, str]] = [
    ("start_orchestration", {"request": START | {"input": "{"}}, "no JSON"),
    ("start_orchestration", {"request": START | {"input": "[" * 100_000}}, "no JSON"),
    ("start_orchestration", {"request": START | {"tags": {"": "x"}}}, "tag"),
    ("start_orchestration", {"request": START | {"run_timeout": "-PT1S"}}, "run_timeout"),
    ("start_orchestration", {"request": START | {"start_at": "2026-01-01T00:00:00"}}, "start_at"),
    ("start_orchestration", {"request": START | {"request_key": "\n"}}, "request_key"),
    ("start_orchestration", {"request": START | {"is_new_id": True}}, "is_new_id"),
    ("start_orchestration", {"request": START, "more": 1}, "more"),
    ("send", {"instance_id": "one", "event": {"type": "TaskCompleted", "timestamp": NOW}}, "type"),
    ("send", {"instance_id": "one", "event": {"type": "ExecutionRewound", "timestamp": NOW}}, "type"),
    ("send", {"instance_id": "one", "event": {"type": "EventRaised", "timestamp": NOW, "name": ""}}, "name"),
    ("send", {"instance_id": "one", "event": {"type": "ExecutionTerminated", "timestamp": NOW, "reason": "x"}}, "JSON"),
    ("query", {"instance_id": "one", "name": "", "input": None}, "name"),
    ("signal_entities", {"requests": []}, "signals"),
    ("signal_entities", {"requests": [{"instance_id": "one", "operation": "add"}]}, "entity id"),
    (
        "signal_entities",
        {"requests": [{"instance_id": "@counter@a", "operation": "get", "due_at": NOW, "due_in": "PT1S"}]},
        "due",
    ),
    ("call_entity", {"request": {"instance_id": "@counter@a", "operation": "get"}}, "needs a key"),
    ("get_entity", {"instance_id": "one"}, "entity id"),
    ("break_lock", {"instance_id": "one"}, "entity id"),
    ("list_entities", {"wanted": {"prefix": ""}, "after": "", "limit": 10}, "prefix"),
    ("list_entities", {"wanted": {"prefix": "@"}, "after": "", "limit": 1_000_000}, "limit"),
    ("list_instances", {"wanted": {}, "after": "", "limit": 0}, "limit"),
    ("list_instances", {"wanted": {"prefix": "@"}, "after": "", "limit": 1}, "prefix"),
    ("purge", {"instance_id": "a/b"}, "instance id"),
    ("purge_instances", {"wanted": {"statuses": ["Dead"]}, "after": "", "limit": 1}, "Dead"),
    ("clean_entities", {"idle_for": "-PT1S", "remove_empty": True, "release_orphaned": True}, "idle_for"),
    ("get_state", [], "arguments"),
    ("get_state", {"instance_id": 7}, "arguments"),
    ("export_history", {"instance_id": "x", "first": -1}, "first=-1"),
    ("export_history", {"instance_id": "x", "first": 2**63}, "first="),
    ("export_history", {"instance_id": "x", "limit": 0}, "limit=0"),
    ("export_history", {"instance_id": "x", "limit": 2**63}, "limit="),
]


def test_a_host_does_not_believe_what_no_client_sends() -> None:
    async def main() -> None:
        async with serving("memory://") as served, http_client(served) as http:
            await served.host.client.start_new("approve", instance_id="one")
            for method, arguments, complaint in HOSTILE:
                answer = await http.post(f"{HUB_PATH}/{method}", json=arguments)
                assert answer.status_code == 400, (method, arguments, answer.text)
                error = from_wire(msgspec.json.decode(answer.content, type=Refusal).error)
                assert isinstance(error, errors.InvalidInputError)
                assert complaint in str(error), (method, arguments, str(error))
            assert len(await served.host.client.get_history("one")) <= 2

    asyncio.run(main())


def test_a_message_is_stamped_by_the_host_and_comes_from_no_parent() -> None:
    async def main() -> None:
        async with serving("memory://") as served, http_client(served) as http:
            await served.host.client.start_new("approve", instance_id="one")
            event = {
                "type": "ExecutionTerminated",
                "timestamp": "1999-01-01T00:00:00Z",
                "sent_by": {"instance_id": "x", "execution_id": "y", "task_scheduled_id": 0},
            }
            answer = await http.post(f"{HUB_PATH}/send", json={"instance_id": "one", "event": event})
            assert (answer.status_code, answer.content) == (200, b"null")
            stopped = await served.host.client.wait_until_stopped("one")
            assert stopped.runtime_status is OrchestrationStatus.TERMINATED
            assert all(event.timestamp.year > 1999 for event in await served.host.client.get_history("one"))

    asyncio.run(main())


def test_a_wait_says_not_yet_and_what_is_not_there_is_not_found() -> None:
    async def main() -> None:
        async with serving("memory://") as served, http_client(served) as http:
            await served.host.client.start_new("approve", instance_id="one")
            waiting = {"instance_id": "one", "timeout": "PT0.001S"}
            answer = await http.post(f"{HUB_PATH}/wait_until_stopped", json=waiting)
            assert (answer.status_code, answer.content) == (202, b"")
            for path in ("nothing", "get_state/more", ""):
                assert (await http.post(f"{HUB_PATH}/{path}", json={})).status_code == 404
            form = await http.post(f"{HUB_PATH}/get_state", data={"instance_id": "one"})
            assert (form.status_code, "application/json" in form.text) == (400, True)
            assert (await http.get(f"{HUB_PATH}/get_state")).status_code in (404, 405)
            http.headers.pop("x-functions-key")
            assert (await http.post(f"{HUB_PATH}/get_state", json={"instance_id": "one"})).status_code == 401

    asyncio.run(main())


def http_client(served: Served) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(served.host.http_app(KEY))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers={"x-functions-key": KEY})


def test_every_struct_of_arguments_refuses_what_it_does_not_know() -> None:
    for method in METHODS.values():
        assert issubclass(method.arguments, Arguments)
        assert method.arguments.__struct_config__.forbid_unknown_fields
