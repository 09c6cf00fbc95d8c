"""The tutorial's program does what the tutorial says: it is killed, and goes on where it was."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial.md"


def test_countdown_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    found = re.search(r"^```python\n(.*?)^```$", TUTORIAL.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    (tmp_path / "countdown.py").write_text(found[1].replace("asyncio.sleep(1)", "asyncio.sleep(0.1)"), encoding="utf-8")
    command = [sys.executable, "-W", "error", "countdown.py"]
    before: list[str] = []
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        for line in first.stdout:
            before.append(line.strip())
            if line.startswith("3"):
                first.kill()
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 0, second.stderr
    after = second.stdout.splitlines()
    assert before[1:4] == ["5 ...", "4 ...", "3 ..."]
    assert "It is under way already." in after
    counted = [line for line in after if line.endswith(" ...")]
    # What was running when it was killed runs again, and nothing before it.
    assert counted in (["3 ...", "2 ...", "1 ..."], ["2 ...", "1 ..."])
    assert after[-1] == str([f"announced {seconds}" for seconds in (5, 4, 3, 2, 1)])
