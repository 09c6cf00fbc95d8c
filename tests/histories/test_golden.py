"""Histories that this release and earlier ones recorded replay with the code of the day, for ever."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
from record import SCENARIOS, path_of

from holdfast import App, NotRegisteredError
from holdfast.codec.exported import decode_exported, encode_exported
from holdfast.errors import CorruptRecordError, NonDeterminismError, VersionMismatchError
from holdfast.model.history import ExecutionCompleted, HistoryEvent, MessageEvent, ScheduledEvent
from holdfast.model.status import OrchestrationStatus

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.glob("*.json"), key=lambda path: path.stem)
SOURCE = (FOLDER / "golden_app.py").read_text(encoding="utf-8")


def golden(name: str) -> str:
    return path_of(name).read_text(encoding="utf-8")


def app_of(source: str) -> App:
    """The app as it would be with another source; under its own name, since stored failures go by that."""
    module = ModuleType("golden_app")
    module.__file__ = str(FOLDER / "golden_app.py")
    sys.modules["golden_app"] = module
    exec(compile(source, "golden_app.py", "exec"), vars(module))
    return module.app


@pytest.fixture(autouse=True)
def golden_module() -> Iterator[None]:
    before = sys.modules["golden_app"]
    yield
    sys.modules["golden_app"] = before


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_replays(path: Path) -> None:
    import golden_app

    golden_app.app.check_replay(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_beginning_of_it_replays_as_one_in_flight_would(path: Path) -> None:
    import golden_app
    import msgspec

    history = decode_exported(path.read_text(encoding="utf-8"))
    for count in range(len(history.episodes)):
        begun = msgspec.structs.replace(history, episodes=history.episodes[:count])
        golden_app.app.check_replay(encode_exported(begun))


def test_every_scenario_is_recorded_and_every_record_has_its_scenario() -> None:
    """If one is missing, run `python tests/histories/record.py`, and commit what it adds."""
    assert {path.stem for path in FILES} == set(SCENARIOS)


def recorded_events() -> set[type[HistoryEvent]]:
    histories = [decode_exported(path.read_text(encoding="utf-8")) for path in FILES]
    return {type(event) for history in histories for episode in history.episodes for event in episode}


def test_every_kind_of_event_that_code_causes_occurs() -> None:
    assert set(get_args(ScheduledEvent)) - recorded_events() == set()


def test_every_kind_of_answer_occurs() -> None:
    not_for_code = {
        "ExecutionSuspended",
        "ExecutionResumed",
        "ExecutionRewound",
        # The hub keeps it beside the history of an instance that was rewound.
        "WorkRemembered",
        # These arrive at entities only.
        "EntityOperationCalled",
        "EntityOperationSignaled",
        "EntityLockRequested",
        "EntityUnlockSent",
    }
    missing = {each.__name__ for each in set(get_args(MessageEvent)) - recorded_events()}
    assert missing <= not_for_code


def test_every_end_occurs() -> None:
    ends = {
        event.status
        for path in FILES
        for event in decode_exported(path.read_text(encoding="utf-8")).episodes[-1]
        if isinstance(event, ExecutionCompleted)
    }
    assert ends == {status for status in OrchestrationStatus if status.is_terminal}


# Planted changes


CHANGES: list[tuple[str, str, str, list[str]]] = [
    ("chain", "ctx.call_activity(double, value)", 'ctx.call_activity("treble", value)', ["name='double'", "'treble'"]),
    ("chain", "    value = 1\n    for _ in range(length)", "    value = 2\n    for _ in range(length)", ["input=1"]),
    (
        "chain",
        "range(length)",
        "range(length + 1)",
        ["nothing more in this episode", "TaskScheduled", "golden_app.py:"],
    ),
    ("chain", "range(length)", "range(length - 1)", ["the orchestration goes on", "it returned"]),
    ("chain", "    return value\n", "    return value + 1\n", ["it returned 16", "it returned 17"]),
    ("chain", "    return value\n", "    raise KeyError(value)\n", ["it returned 16", "it raised builtins.KeyError"]),
    ("fan_out", "for number in range(width)", "for number in reversed(range(width))", ["input=0", "input=4"]),
    (
        "generator",
        "yield ctx.create_timer(A_MOMENT)",
        "yield ctx.create_timer(2 * A_MOMENT)",
        ["TimerCreated", "fire_at"],
    ),
    ("timers", "    await ctx.create_timer(A_MOMENT)\n", "", ["TimerCreated", "event_id=1"]),
    ("events", '"Never", timeout=A_MOMENT', '"Never"', ["TimerCreated", "nothing more"]),
    (
        "entities",
        "ctx.call_entity(source, Account.add, -50)",
        "ctx.call_entity(target, Account.add, -50)",
        ["@account@"],
    ),
    ("entities", "ctx.lock(target, source)", "ctx.lock(target)", ["EntityLockRequested", "lock_set"]),
    ("sub_orchestrations", 'tags={"n": str(n)}', 'tags={"m": str(n)}', ["tags={'n': '0'}", "tags={'m': '0'}"]),
    (
        "sub_orchestrations",
        "ctx.send_event(detached, ORDERED, Order",
        "ctx.send_event(detached, 'Other', Order",
        ["EventSent"],
    ),
    (
        "races",
        "ctx.create_timer(A_MOMENT), ctx.call_activity(never)",
        "ctx.call_activity(never), ctx.create_timer(A_MOMENT)",
        ["TimerCreated", "name='never'"],
    ),
    (
        "races",
        "won = await select(",
        "won = await when_any(",
        ["the orchestration goes on", "it raised builtins.TypeError"],
    ),
    ("sagas", "saga.add_compensation(give_back, order)", "pass", ["the orchestration goes on", "it returned"]),
    ("patched", 'ctx.patched("twice")', 'ctx.patched("thrice")', ["the orchestration goes on", "it returned"]),
    ("updates", "return total\n\n    def peek", "return -total\n\n    def peek", ["UpdateCompleted", "result='42'"]),
    ("updates", 'ctx.set_update_handler("peek", peek)', "pass", ["UpdateCompleted", "result='42'", "LookupError"]),
    ("deterministic", "ctx.new_uuid()), str(ctx.new_uuid())", "ctx.new_uuid()), '2'", ["it returned"]),
    ("failed", "Order(item, count=2)", "Order(item)", ['"count":2', '"count":1']),
    (
        "failed",
        "    return await ctx.call_activity(reserve, Order(item, count=2))\n",
        "    try:\n        return await ctx.call_activity(reserve, Order(item, count=2))\n"
        "    except OutOfStockError as error:\n        raise KeyError(item) from error\n",
        ["it raised golden_app.OutOfStockError: no pears left", "it raised builtins.KeyError"],
    ),
    ("cancelled", "    finally:\n", "    except CancelledError:\n", ["it ended as Canceled", "it returned null"]),
    ("continues", '"{tick} {doubled}"', '"{tick}"', ['it returned "two 2"']),
    (
        "terminated",
        "ctx.call_activity(double, 1)\n    await ctx.create_timer(LONG)",
        "ctx.create_timer(LONG)",
        ["TaskScheduled"],
    ),
    ("running", 'await ctx.wait_for_external_event("Never")', "return", ["the orchestration goes on", "it returned"]),
]


@pytest.mark.parametrize(
    ("name", "old", "new", "parts"), CHANGES, ids=[f"{number}-{change[0]}" for number, change in enumerate(CHANGES)]
)
def test_a_change_of_the_code_is_caught(name: str, old: str, new: str, parts: list[str]) -> None:
    start = SOURCE.index(f"def {SCENARIO_FUNCTIONS.get(name, name)}(")
    head, body = SOURCE[:start], SOURCE[start:]
    assert old in body
    changed = body.replace(old, new, 1)
    with pytest.raises(NonDeterminismError) as caught:
        app_of(head + changed).check_replay(golden(name))
    assert f"Instance {name!r} of orchestrator" in str(caught.value)
    for part in parts:
        assert part in str(caught.value)


SCENARIO_FUNCTIONS = {"failed": "fails"}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("chain", "return 2 * number", "return 3 * number"),
        ("patched", 'if ctx.patched("twice"):', "if True:"),
        (
            "terminated",
            "    await ctx.create_timer(LONG)\n\n\n@app.orchestrator\nasync def catches",
            "    await ctx.create_timer(LONG)\n    raise KeyError\n\n\n@app.orchestrator\nasync def catches",
        ),
        ("failed", "class OutOfStockError(Exception):", "class OutOfStockError(LookupError):"),
        ("updates", 'OutOfStockError("no luck")', 'OutOfStockError("bad luck")'),
        ("updates", '"peek", peek)', '"peek", peek)\n    ctx.set_update_handler("unknown", peek)'),
        ("updates", "if amount < 0:", "if amount > 0:"),
        ("running", 'ctx.set_custom_status("waits")', 'ctx.set_custom_status("does not wait")'),
    ],
)
def test_a_change_that_replays_is_let_through(name: str, old: str, new: str) -> None:
    assert old in SOURCE
    app_of(SOURCE.replace(old, new, 1)).check_replay(golden(name))


def test_code_that_is_not_there_is_told_from_code_that_differs() -> None:
    with pytest.raises(NotRegisteredError, match="no orchestrator 'chain'"):
        App().check_replay(golden("chain"))
    with pytest.raises(VersionMismatchError, match=r"no version '2.0'.*'1.9'"):
        app_of(SOURCE.replace('version="2.0")\n', 'version="2.1")\n')).check_replay(golden("versioned"))
    with pytest.raises(CorruptRecordError, match="no exported history"):
        App().check_replay("{}")


def test_a_cancellation_before_the_begin_needs_no_code() -> None:
    app = app_of(SOURCE.replace("        await ctx.call_activity(never)\n    finally", "        pass\n    finally"))
    app.check_replay(golden("cancelled_before_it_began"))


def test_recording_again_gives_a_history_that_replays(tmp_path: Path) -> None:
    """Scenarios stay runnable: what they did when they were recorded, they do today."""
    import asyncio

    import golden_app
    from record import record

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(record(name) for name in SCENARIOS))

    for text in asyncio.run(all_of_them()):
        golden_app.app.check_replay(text)
