"""The demo itself, once: a host that dies twice, over HTTP, on SQLite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from examples import demo

ROOT = Path(__file__).resolve().parents[2]


def test_demo_finishes_all_six_patterns_over_two_crashes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo"], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert sum(line.startswith("killed the host") for line in lines) == 2
    patterns = ("chaining", "fan-out/fan-in", "async HTTP API", "monitor", "human interaction", "aggregator")
    for pattern in patterns:
        assert sum(line.startswith(pattern) for line in lines) == 1, pattern


def test_demo_fails_loudly_and_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(demo, "THREADS", "many")
    assert demo.main() == 1
    shown = capsys.readouterr().err
    assert "What host 1 said" in shown
    assert "threads_max" in shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("activity", "subject", "pattern"),
    [
        ("ship", "A1", "chaining"),
        ("count_lines", "a.py", "fan-out/fan-in"),
        ("notify", "http://localhost/jobs/1 is completed", "monitor"),
        ("notify", "Ann asks for 120", "human interaction"),
        ("pay", "Ann", "human interaction"),
    ],
)
def test_attempts_are_told_apart_by_pattern(activity: str, subject: str, pattern: str) -> None:
    assert demo.pattern_of(activity, subject) == pattern
