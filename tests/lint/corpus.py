"""Reads the corpus: files whose findings are marked at the end of their lines, as `#! HF101 HF202`."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
BAD, GOOD = HERE / "bad", HERE / "good"

_MARK = re.compile(r"#! ((?:HF\d{3} ?)+)$")


def expected() -> list[tuple[str, int, str]]:
    """Return file, line and code of each finding that is marked."""
    found: list[tuple[str, int, str]] = []
    for path in sorted(BAD.rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            marked = _MARK.search(line)
            found += [(path.relative_to(BAD).as_posix(), number, code) for code in marked[1].split()] if marked else []
    return sorted(found)
