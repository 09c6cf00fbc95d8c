"""`holdfast demo` keeps its promise, on every machine."""

from __future__ import annotations

from pathlib import Path

from cli_process import holdfast

from holdfast.cli.demo import STEPS


def test_it_kills_a_host_and_finishes(tmp_path: Path) -> None:
    shown = holdfast("demo", cwd=tmp_path)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    for part in (*STEPS, "Killed it", "approval: granted", "recorded activities ran once"):
        assert part in shown.stdout
    assert list(tmp_path.iterdir()) == []
