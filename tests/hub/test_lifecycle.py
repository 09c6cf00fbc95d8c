"""The lifecycle as a table: exactly these transitions, and one way to end."""

from __future__ import annotations

import ast
import inspect
from datetime import UTC, datetime
from pathlib import Path

import pytest

import holdfast.hub
from holdfast.errors import InstanceNotRunningError
from holdfast.hub import lifecycle
from holdfast.hub.instance import Instance
from holdfast.hub.lifecycle import TRANSITIONS, Trigger, move
from holdfast.model.status import OrchestrationStatus

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize("status", OrchestrationStatus)
@pytest.mark.parametrize("trigger", Trigger)
def test_what_is_not_in_the_table_is_an_error(status: OrchestrationStatus, trigger: Trigger) -> None:
    instance = Instance("i", "x", "o", NOW)
    instance.status = status
    expected = TRANSITIONS.get((status, trigger))
    if expected is None:
        with pytest.raises(InstanceNotRunningError, match=trigger.value):
            move(instance, trigger)
        assert instance.status is status
    else:
        move(instance, trigger)
        assert instance.status is expected


def test_nothing_but_a_new_start_and_a_rewind_leaves_an_end() -> None:
    leaving = {trigger for (status, trigger) in TRANSITIONS if status.is_terminal}
    assert leaving == {Trigger.RESTART, Trigger.REWIND}


def test_the_end_is_reached_by_one_function() -> None:
    """No other place of the hub moves an instance into a terminal status, or sets a status at all."""
    ends = {trigger.name for (_, trigger), after in TRANSITIONS.items() if after.is_terminal}
    calls: list[str] = []
    for path in Path(inspect.getfile(holdfast.hub)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                calls += [
                    f"{path.name}:{node.lineno} sets a status"
                    for target in targets
                    if isinstance(target, ast.Attribute) and target.attr == "status" and path.name != "instance.py"
                ]
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "move":
                trigger = node.args[1]
                if not isinstance(trigger, ast.Attribute) or trigger.attr in ends:
                    calls.append(f"{path.name}:{node.lineno} ends an instance")
    source, start = inspect.getsourcelines(lifecycle.end_instance)
    inside = range(start, start + len(source))
    moves, start = inspect.getsourcelines(lifecycle.move)
    setting = range(start, start + len(moves))
    allowed = {f"lifecycle.py:{line} ends an instance" for line in inside}
    allowed |= {f"lifecycle.py:{line} sets a status" for line in setting}
    assert set(calls) <= allowed
    assert len(calls) == 2
