"""History and inbox rows: every event comes back, old texts stay readable, damage is always a CorruptRecordError."""

from __future__ import annotations

import typing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.codec.history import (
    FORMAT_VERSION,
    decode_events,
    decode_message,
    decode_record,
    encode_events,
    encode_message,
    encode_record,
)
from holdfast.engine.config import HostConfig
from holdfast.errors import CorruptRecordError, PayloadError
from holdfast.model import history
from holdfast.model.failure import FailureDetails
from holdfast.model.history import CarriedTask, HistoryEvent, MessageEvent, ParentInstance
from holdfast.model.retry import RetryPolicy, RetryRule
from holdfast.model.status import OrchestrationStatus
from holdfast.model.task_policy import TaskPolicy

GOLDEN = Path(__file__).parent / "history_v1.json"
EVENT_CLASSES: tuple[Any, ...] = typing.get_args(HistoryEvent)
MESSAGE_CLASSES: tuple[Any, ...] = typing.get_args(MessageEvent)
FAST = settings(max_examples=40, deadline=None, derandomize=True)

FAILURES = st.recursive(
    st.builds(FailureDetails, st.text(), st.text()),
    lambda inner: st.builds(FailureDetails, st.text(), st.text(), st.none() | st.text(), inner, st.booleans()),
    max_leaves=4,
)
BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(),
    int: st.integers(min_value=-(2**70), max_value=2**70),
    datetime: st.datetimes(timezones=st.just(UTC)),
    FailureDetails: FAILURES,
    OrchestrationStatus: st.sampled_from(OrchestrationStatus),
    TaskPolicy: st.builds(
        TaskPolicy, timeout=st.none() | st.timedeltas(), speculative=st.booleans(), queue=st.none() | st.text()
    ),
    ParentInstance: st.builds(ParentInstance, st.text(), st.text(), st.integers()),
    tuple[str, ...]: st.lists(st.text()).map(tuple),
    tuple[CarriedTask, ...]: st.lists(st.builds(CarriedTask, st.text(), st.integers(-(2**60), -1))).map(tuple),
    dict[str, str]: st.dictionaries(st.text(), st.text()),
    bool: st.booleans(),
    timedelta: st.timedeltas(),
    type(None): st.none(),
    typing.Literal["once", "replace"]: st.sampled_from(["once", "replace"]),
}
BY_TYPE[history.TaskScheduled] = st.builds(
    history.TaskScheduled, timestamp=BY_TYPE[datetime], event_id=st.integers(0, 99), name=st.text()
)
BY_TYPE[history.SubOrchestrationInstanceCreated] = st.builds(
    history.SubOrchestrationInstanceCreated,
    timestamp=BY_TYPE[datetime],
    event_id=st.integers(0, 99),
    name=st.text(),
    instance_id=st.text(),
)


def _values(annotation: Any) -> st.SearchStrategy[Any]:
    if annotation in BY_TYPE:
        return BY_TYPE[annotation]
    return st.one_of([BY_TYPE[member] for member in typing.get_args(annotation)])


def _events(cls: Any) -> st.SearchStrategy[Any]:
    return st.builds(cls, **{field.name: _values(field.type) for field in msgspec.structs.fields(cls)})


ANY_EVENT = st.one_of([_events(cls) for cls in EVENT_CLASSES])
ANY_MESSAGE = st.one_of([_events(cls) for cls in MESSAGE_CLASSES])


def test_the_union_holds_every_event_class_of_the_model() -> None:
    defined = {
        cls
        for cls in vars(history).values()
        if isinstance(cls, type) and issubclass(cls, history._Event) and cls is not history._Event
    }
    assert defined == set(EVENT_CLASSES)


@pytest.mark.parametrize("cls", EVENT_CLASSES, ids=lambda cls: cls.__name__)
def test_every_event_comes_back(cls: Any) -> None:
    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(_events(cls))
    def check(event: Any) -> None:
        (again,) = decode_events(encode_events([event]))
        assert again == event
        assert type(again) is cls

    check()


@pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=lambda cls: cls.__name__)
def test_every_message_comes_back(cls: Any) -> None:
    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(_events(cls))
    def check(event: Any) -> None:
        again = decode_message(encode_message(event))
        assert again == event
        assert type(again) is cls

    check()


@FAST
@given(st.lists(ANY_EVENT, max_size=5))
def test_episodes_keep_their_order(events: list[HistoryEvent]) -> None:
    assert decode_events(encode_events(events)) == tuple(events)


def test_the_envelope_is_versioned() -> None:
    assert FORMAT_VERSION == 1
    assert encode_events([]) == '{"v":1,"events":[]}'
    assert encode_message(history.ExecutionResumed(timestamp=T)).startswith('{"v":1,"event":{"type":"ExecutionResumed"')


@pytest.mark.parametrize("payload", [None, "null", "0", '""', "[]", "{}", "false"])
def test_no_payload_differs_from_every_falsy_payload(payload: str | None) -> None:
    event = history.TaskCompleted(timestamp=T, task_scheduled_id=0, result=payload)
    again = decode_message(encode_message(event))
    assert isinstance(again, history.TaskCompleted)
    assert again.result == payload
    assert type(again.result) is type(payload)


T = datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC)
FAILURE = FailureDetails(
    "shop.OutOfStock", "no ☕ left", "Traceback ...", FailureDetails("builtins.KeyError", "'x'"), True
)
MOMENTS: tuple[HistoryEvent, ...] = (
    history.OrchestratorStarted(timestamp=T),
    history.ExecutionStarted(
        timestamp=T,
        name="order",
        instance_id="order-1",
        execution_id="e1",
        input='{"id":1}',
        parent=ParentInstance("batch-1", "e0", 7),
    ),
    history.ExecutionCompleted(timestamp=T, status=OrchestrationStatus.FAILED, result="null", failure=FAILURE),
    history.ExecutionTerminated(timestamp=T, reason="stop"),
    history.ExecutionSuspended(timestamp=T, reason="pause"),
    history.ExecutionResumed(timestamp=T),
    history.TaskScheduled(timestamp=T, event_id=0, name="charge", input='"a\\"b"'),
    history.TaskCompleted(timestamp=T, task_scheduled_id=0, result="0"),
    history.TaskFailed(timestamp=T, task_scheduled_id=0, failure=FAILURE),
    history.SubOrchestrationInstanceCreated(timestamp=T, event_id=1, name="ship", instance_id="order-1:1", input="[]"),
    history.SubOrchestrationInstanceCompleted(timestamp=T, task_scheduled_id=1, result='""'),
    history.SubOrchestrationInstanceFailed(timestamp=T, task_scheduled_id=1, failure=FAILURE),
    history.TimerCreated(timestamp=T, event_id=2, fire_at=T + timedelta(days=1)),
    history.TimerFired(timestamp=T, timer_id=2, fire_at=T + timedelta(days=1)),
    history.EventSent(timestamp=T, event_id=3, instance_id="other", name="approved", input="true"),
    history.EventRaised(timestamp=T, name="approved", input="true"),
    history.ContinueAsNew(timestamp=T, input="{}"),
    history.EntityOperationCalled(
        timestamp=T,
        event_id=4,
        request_id="r1",
        target_instance_id="@stock@a",
        operation="take",
        parent_instance_id="order-1",
        parent_execution_id="e1",
        input="1",
    ),
    history.EntityOperationSignaled(
        timestamp=T, request_id="r2", target_instance_id="@stock@a", operation="log", event_id=5, input='"x"'
    ),
    history.EntityOperationCompleted(timestamp=T, request_id="r1", output="9"),
    history.EntityOperationFailed(timestamp=T, request_id="r1", failure=FAILURE),
    history.EntityLockRequested(
        timestamp=T,
        event_id=6,
        critical_section_id="c1",
        lock_set=("@stock@a", "@stock@b"),
        parent_instance_id="order-1",
        parent_execution_id="e1",
        position=1,
    ),
    history.EntityLockGranted(timestamp=T, critical_section_id="c1", lock_set=("@stock@a", "@stock@b")),
    history.EntityUnlockSent(timestamp=T, critical_section_id="c1", target_instance_id="@stock@a", event_id=7),
    history.ExecutionStarted(
        timestamp=T,
        name="order",
        instance_id="order-2",
        execution_id="e2",
        version="1.2",
        tags={"tenant": "acme"},
        start_at=T + timedelta(hours=1),
        expires_at=T + timedelta(days=1),
        event_keys=("k1", "k2"),
    ),
    history.ExecutionTerminated(timestamp=T, recursive=True),
    history.ExecutionSuspended(timestamp=T, recursive=True),
    history.ExecutionResumed(timestamp=T, recursive=True),
    history.CancelRequested(timestamp=T, reason="changed my mind"),
    history.ExecutionRewound(timestamp=T, execution_id="e3", reason="again", parent=ParentInstance("p", "e0", 1)),
    history.TaskScheduled(timestamp=T, event_id=8, name="charge", tags={"queue": "slow"}),
    history.TaskCancelled(timestamp=T, task_scheduled_id=8),
    history.SubOrchestrationInstanceCreated(
        timestamp=T,
        event_id=9,
        name="ship",
        instance_id="order-1:9",
        version="2",
        tags={"tenant": "acme"},
        detached=True,
        start_at=T + timedelta(hours=1),
    ),
    history.EventRaised(timestamp=T, name="approved", input="true", key="mail-17"),
    history.UpdateRequested(timestamp=T, update_id="u1", name="add", input="1"),
    history.UpdateCompleted(timestamp=T, update_id="u1", result="2"),
    history.UpdateCompleted(timestamp=T, update_id="u2", failure=FAILURE),
    history.PatchMarked(timestamp=T, name="new-tax"),
    history.TaskScheduled(timestamp=T, event_id=10, name="charge", version="2"),
    history.ExecutionStarted(
        timestamp=T, name="order", instance_id="o", execution_id="e9", carried=(CarriedTask("upload", -10),)
    ),
    history.ExecutionRewound(
        timestamp=T, execution_id="e4", instance_id="order-3", parent=ParentInstance("p", "e1", 2), task_scheduled_id=1
    ),
    history.TaskScheduled(
        timestamp=T,
        event_id=10,
        name="charge",
        policy=TaskPolicy(
            retry=RetryPolicy(max_attempts=3).rule(),
            timeout=timedelta(seconds=5),
            speculative=True,
            start_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=30),
        ),
        call_id="e1:4",
    ),
    history.SubOrchestrationInstanceCreated(
        timestamp=T, event_id=11, name="ship", instance_id="e4:11", runs_as="order-1:9"
    ),
    history.WorkRemembered(
        timestamp=T,
        work=history.TaskScheduled(timestamp=T, event_id=12, name="reserve", input="1"),
        is_completed=True,
        result="2",
        call_id="e1:5",
    ),
    history.WorkRemembered(
        timestamp=T,
        work=history.SubOrchestrationInstanceCreated(timestamp=T, event_id=13, name="ship", instance_id="e4:13"),
        is_completed=False,
    ),
    history.EntityOperationCalled(
        timestamp=T,
        event_id=8,
        request_id="r3",
        target_instance_id="@stock@a",
        operation="take",
        parent_instance_id="order-1",
        parent_execution_id="e1",
        critical_section_id="c1",
    ),
    history.EntityOperationCalled(
        timestamp=T, request_id="k1", target_instance_id="@stock@a", operation="take", key="k1"
    ),
    history.EntityOperationSignaled(
        timestamp=T,
        request_id="k2",
        target_instance_id="@stock@a",
        operation="log",
        due_at=T + timedelta(days=1),
        key="k2",
    ),
    history.EntityLockRequested(
        timestamp=T,
        event_id=9,
        critical_section_id="c2",
        lock_set=("@stock@a",),
        parent_instance_id="order-1",
        parent_execution_id="e1",
        lease=timedelta(minutes=5),
    ),
)


def test_format_1_stays_readable_for_ever() -> None:
    """The file was written once. When this fails, the format has changed: raise FORMAT_VERSION, add an upcaster."""
    golden = GOLDEN.read_text(encoding="utf-8").strip()
    assert decode_events(golden) == MOMENTS
    assert {type(event) for event in MOMENTS} == set(EVENT_CLASSES)


def test_format_1_is_written_as_it_was() -> None:
    assert encode_events(MOMENTS) == GOLDEN.read_text(encoding="utf-8").strip()


def test_a_plugged_in_upcaster_reads_an_older_format() -> None:
    def from_zero(record: dict[str, Any]) -> dict[str, Any]:
        return {"events": [{**event, "timestamp": event["at"]} for event in record["log"]]}

    moment = datetime(2026, 1, 1, tzinfo=UTC)
    at = "2026-01-01T00:00:00Z"
    old = f'{{"v":0,"log":[{{"type":"TimerFired","at":"{at}","timer_id":1,"fire_at":"{at}"}}]}}'
    assert decode_events(old, {0: from_zero}) == (history.TimerFired(timestamp=moment, timer_id=1, fire_at=moment),)
    with pytest.raises(CorruptRecordError, match="format version is 0, which this release does not read"):
        decode_events(old)
    with pytest.raises(CorruptRecordError, match="bringing it up to 1 fails"):
        decode_events('{"v":0}', {0: from_zero})


def test_upcasters_run_in_a_chain() -> None:
    steps = {
        -1: lambda record: {**record, "reason": record["why"]},
        0: lambda record: {
            "event": {"type": "ExecutionTerminated", "timestamp": "2026-01-01T00:00:00Z", "reason": record["reason"]}
        },
    }
    again = decode_message('{"v":-1,"why":"old"}', steps)
    assert again == history.ExecutionTerminated(timestamp=datetime(2026, 1, 1, tzinfo=UTC), reason="old")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "of 0 characters cannot be read"),
        ("null", "Expected `object`"),
        ("[]", "Expected `object`"),
        ("{}", "missing required field `v`"),
        ('{"v":1}', "missing required field `events`"),
        ('{"v":"1","events":[]}', "Expected `int`"),
        ('{"v":2,"events":[]}', r"format version is 2; this release reads up to 1\. Upgrade"),
        ('{"v":99,"anything":{}}', "format version is 99"),
        ('{"v":0,"events":[]}', "format version is 0"),
        ('{"v":-1000000000,"events":[]}', "does not read"),
        ('{"v":1,"events":[{"type":"Unheard"}]}', "Unheard"),
        ('{"v":1,"events":[{"timestamp":"2026-01-01T00:00:00Z"}]}', "type"),
        ('{"v":1,"events":[{"type":"TimerFired","timestamp":"x"}]}', r"\$\.events\[0\]\.timestamp"),
        ('{"v":1,"events":[],"more":1}', "unknown field `more`"),
        ('{"v":1,"events":[]', "truncated"),
        ("\ud800", "surrogates"),
        ("[" * 100_000, "Expected `object`"),
        ('{"v":1,"events":[{"type":' + "[" * 100_000, "."),
    ],
)
def test_damage_is_named(text: str, found: str) -> None:
    with pytest.raises(CorruptRecordError, match=found):
        decode_events(text)
    with pytest.raises(CorruptRecordError):
        decode_message(text)


def test_a_failure_nested_without_end_is_damage() -> None:
    bottomless = '{"error_type":"","error_message":"","inner_failure":' * 50_000
    with pytest.raises(CorruptRecordError):
        decode_record(bottomless, FailureDetails)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_damaged_rows_are_corrupt_or_valid(data: st.DataObject) -> None:
    whole = encode_events(data.draw(st.lists(ANY_EVENT, min_size=1, max_size=3))).encode()
    start = data.draw(st.integers(0, len(whole) - 1))
    match data.draw(st.sampled_from(["cut", "flip", "drop", "double"])):
        case "cut":
            damaged = whole[:start]
        case "flip":
            damaged = whole[:start] + bytes([whole[start] ^ data.draw(st.integers(1, 255))]) + whole[start + 1 :]
        case "drop":
            damaged = whole[:start] + whole[data.draw(st.integers(start, len(whole))) :]
        case _:
            damaged = whole[:start] + whole
    for errors in ("replace", "surrogateescape"):
        text = damaged.decode("utf-8", errors)
        for decode in (decode_events, decode_message):
            try:
                decode(text)
            except CorruptRecordError:
                continue


@FAST
@given(FAILURES)
def test_records_come_back(failure: FailureDetails) -> None:
    assert decode_record(encode_record(failure), FailureDetails) == failure


def test_option_records_come_back() -> None:
    policy = RetryPolicy(
        max_attempts=7,
        retry_timeout=timedelta(microseconds=1),
        jitter=0.5,
        retry_on=(ConnectionError, "shop.Busy"),
        non_retriable=(ValueError,),
    )
    assert policy.rule().retry_on == ("builtins.ConnectionError", "shop.Busy")
    assert decode_record(encode_record(policy.rule()), RetryRule) == policy.rule()
    parent = ParentInstance("p", "e", 0)
    assert decode_record(encode_record(parent), ParentInstance) == parent


def test_records_that_fail_their_own_checks_are_corrupt() -> None:
    with pytest.raises(CorruptRecordError, match=r"HostConfig record of 15 characters.*drain_s is 0"):
        decode_record('{"drain_s":0.0}', HostConfig)
    with pytest.raises(CorruptRecordError, match="Expected `int`"):
        decode_record('{"instance_id":"","execution_id":"","task_scheduled_id":"0"}', ParentInstance)


def test_lone_surrogates_are_refused_before_they_are_stored() -> None:
    with pytest.raises(PayloadError, match="lone surrogate"):
        encode_message(history.ExecutionTerminated(timestamp=T, reason="bad \ud800"))
    with pytest.raises(PayloadError, match="lone surrogate"):
        encode_events([history.EventRaised(timestamp=T, name="\udfff")])
    with pytest.raises(PayloadError, match="lone surrogate"):
        encode_record(FailureDetails("\ud800", ""))
