"""What `holdfast.testing` offers, and what it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import holdfast.testing

PUBLIC = {
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
}


def test_the_public_names_are_these_and_sorted() -> None:
    """A name that is added or taken away is a decision; it is made here too."""
    assert list(holdfast.testing.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_documented_with_all_that_it_offers(name: str) -> None:
    public = getattr(holdfast.testing, name)
    members = vars(public).items() if isinstance(public, type) else ()
    parts = {name: public} | {
        f"{name}.{each}": found
        for each, found in members
        if not each.startswith("_") and (inspect.isfunction(found) or isinstance(found, property))
    }
    for part, found in parts.items():
        if part.endswith((".name", ".has_input")):
            continue  # they say it all
        assert found.__doc__, part
        assert inspect.cleandoc(found.__doc__).splitlines()[0].endswith((".", ":")), part


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = holdfast.testing.nothing


def test_the_import_brings_in_no_more_than_is_asked_for() -> None:
    """The plugin is loaded in every run of pytest where Holdfast is installed."""
    listing = "import sys, {}; print(*(name for name in sys.modules if name.startswith('holdfast.testing.')))"
    for module, expected in (("holdfast.testing", []), ("holdfast.testing.plugin", ["holdfast.testing.plugin"])):
        command = [sys.executable, "-c", listing.format(module)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert done.stdout.split() == expected
