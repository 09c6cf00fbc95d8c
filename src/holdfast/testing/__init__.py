"""Holdfast under test: simulated time, crashes and failures, for this project and for the apps of its users."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.model.http_call import DurableHttpRequest
    from holdfast.testing.contexts import (
        FakeActivityContext,
        FakeEntityContext,
        OperationResult,
        fake_activity_context,
        fake_entity_context,
        run_operation,
    )
    from holdfast.testing.driven import OrchestratorTest
    from holdfast.testing.everywhere import for_each_crash
    from holdfast.testing.faults import Faults
    from holdfast.testing.histories import HistorySnapshot, assert_history_snapshot
    from holdfast.testing.open_work import OpenCall, OpenOperation
    from holdfast.testing.script import run_orchestrator
    from holdfast.testing.sent import SentEvent, SentSignal, SentStart
    from holdfast.testing.simulation import Simulation, SimulationFailedError

__all__ = [
    "DurableHttpRequest",
    "FakeActivityContext",
    "FakeEntityContext",
    "Faults",
    "HistorySnapshot",
    "OpenCall",
    "OpenOperation",
    "OperationResult",
    "OrchestratorTest",
    "SentEvent",
    "SentSignal",
    "SentStart",
    "Simulation",
    "SimulationFailedError",
    "assert_history_snapshot",
    "fake_activity_context",
    "fake_entity_context",
    "for_each_crash",
    "run_operation",
    "run_orchestrator",
]

_ROOMS = {
    "contexts": "FakeActivityContext FakeEntityContext OperationResult fake_activity_context fake_entity_context "
    "run_operation",
    "everywhere": "for_each_crash",
    "faults": "Faults",
    "http": "DurableHttpRequest",
    "histories": "HistorySnapshot assert_history_snapshot",
    "open_work": "OpenCall OpenOperation",
    "driven": "OrchestratorTest",
    "script": "run_orchestrator",
    "sent": "SentEvent SentSignal SentStart",
    "simulation": "Simulation SimulationFailedError",
}


def __getattr__(name: str) -> object:
    """Import what is asked for, and no more: the pytest plugin is loaded where nobody asks for anything."""
    for module, names in _ROOMS.items():
        if name in names.split():
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
