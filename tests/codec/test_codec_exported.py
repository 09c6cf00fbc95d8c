"""Exported histories: what is written is read again, also by later releases, and damage is told as such."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from holdfast.codec.exported import decode_exported, encode_exported
from holdfast.errors import CorruptRecordError, PayloadError
from holdfast.model.exported import ExportedHistory
from holdfast.model.history import EventRaised, ExecutionStarted, OrchestratorStarted, TaskScheduled

NOW = datetime(2026, 11, 22, tzinfo=UTC)
HISTORY = ExportedHistory(
    instance_id="i",
    execution_id="x",
    name="flow",
    version=None,
    episodes=(
        (
            OrchestratorStarted(timestamp=NOW),
            ExecutionStarted(timestamp=NOW, name="flow", instance_id="i", execution_id="x", input='{"ä": "\\""}'),
            TaskScheduled(timestamp=NOW, event_id=0, name="a", input="null"),
        ),
        (OrchestratorStarted(timestamp=NOW), EventRaised(timestamp=NOW, name="e", input=None)),
    ),
)


@pytest.mark.parametrize(
    "history",
    [
        HISTORY,
        msgspec.structs.replace(HISTORY, episodes=()),
        msgspec.structs.replace(HISTORY, episodes=((),)),
        msgspec.structs.replace(HISTORY, version="2.0", instance_id='é"\\'),
    ],
)
def test_it_comes_back(history: ExportedHistory) -> None:
    text = encode_exported(history)
    assert decode_exported(text) == history
    assert text.endswith("}\n")


def test_the_format_is_this() -> None:
    """It is in other people's repositories: when this fails, raise FORMAT_VERSION and add an upcaster."""
    plain = json.loads(encode_exported(HISTORY))
    assert {key: plain[key] for key in plain if key != "episodes"} == {
        "v": 1,
        "instance_id": "i",
        "execution_id": "x",
        "name": "flow",
        "version": None,
    }
    assert plain["episodes"][1] == [
        {"type": "OrchestratorStarted", "timestamp": "2026-11-22T00:00:00Z"},
        {"type": "EventRaised", "timestamp": "2026-11-22T00:00:00Z", "name": "e"},
    ]


def test_the_upcasters_of_history_rows_read_older_exports() -> None:
    old = json.loads(encode_exported(HISTORY)) | {"v": 0}
    for episode in old["episodes"]:
        for event in episode:
            event["kind"] = event.pop("type")

    def upcast(row: dict[str, Any]) -> dict[str, Any]:
        events = [{"type" if key == "kind" else key: each[key] for key in each} for each in row["events"]]
        return {"v": 1, "events": events}

    assert decode_exported(json.dumps(old), {0: upcast}) == HISTORY
    with pytest.raises(CorruptRecordError, match=r"Episode 0 of .* 'i' .*format version is 0, which"):
        decode_exported(json.dumps(old))


def changed(**fields: Any) -> str:
    return json.dumps(json.loads(encode_exported(HISTORY)) | fields)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no exported history: .*truncated.* Make one with `holdfast export-history`"),
        ("[]", "no exported history: Expected `object`"),
        ("{}", "missing required field `v`"),
        ("[" * 100_000, "no exported history"),
        (encode_exported(HISTORY)[:-20], "no exported history"),
        (changed(more=1), "unknown field `more`"),
        (changed(name=7), r"\$.name"),
        (changed(episodes={}), r"\$.episodes"),
        (changed(v="1"), r"\$.v"),
        (changed(v=2), "format version is 2; this release reads up to 1. Upgrade Holdfast"),
        (changed(episodes=[[], [{"type": "Nothing"}]]), "Episode 1 of the exported history of instance 'i'"),
        (changed(episodes=[7]), "Episode 0"),
    ],
)
def test_damage_is_told(text: str, reason: str) -> None:
    with pytest.raises(CorruptRecordError, match=reason):
        decode_exported(text)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(PayloadError, match="instance 'i'"):
        encode_exported(msgspec.structs.replace(HISTORY, name="\ud800"))
