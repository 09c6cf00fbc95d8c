"""An operation that kills the process is found out, also when it is the first of a new entity."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import asyncio, os, sys
from dataclasses import dataclass
from holdfast import App, Entity, EntityId

app = App()

@app.entity
@dataclass
class Deadly(Entity):
    async def kill(self) -> None:
        os._exit(9)

@app.entity
@dataclass
class Innocent(Entity):
    value: int = 0
    def add(self) -> int:
        self.value += 1
        return self.value

async def main() -> None:
    deadly = EntityId(Deadly, "d")
    async with app.host(sys.argv[1]) as host:
        if await host.client.get_entity(deadly) is None:
            await host.client.signal_entity(deadly, Deadly.kill)
        async with asyncio.timeout(20):
            while True:
                found = await host.client.get_entity(deadly)
                if found is not None and found.parked is not None:
                    break
                await asyncio.sleep(0.01)
        print(found.messages, found.parked.error_message)
        assert await host.client.call_entity(EntityId(Innocent, "i"), Innocent.add) == 1

asyncio.run(main())
"""


def test_an_operation_that_kills_the_process_parks_its_entity(tmp_path: Path) -> None:
    script = tmp_path / "deadly.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), f"sqlite:///{(tmp_path / 'hub.db').as_posix()}"]
    codes: list[int] = []
    output = ""
    while len(codes) < 12 and (not codes or codes[-1]):
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        codes.append(run.returncode)
        output = run.stdout + run.stderr
    assert codes == [9, 9, 9, 9, 9, 0], output
    assert output.startswith("1 The process died 5 times while an episode of its orchestrator or entity")
