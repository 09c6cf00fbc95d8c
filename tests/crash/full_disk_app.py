"""A host on a small file system, which fills it until everything is refused, makes room, and goes on.

`full_disk_app.py DIRECTORY` finds a file `ballast` there, and prints what was refused, and "done" at the end.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from holdfast import App, Host, HostConfig, OrchestrationContext, OverloadedError, StorageError
from holdfast.engine import culprits

app = App()


@app.orchestrator
async def echo(ctx: OrchestrationContext, text: str) -> int:
    await ctx.create_timer(timedelta(milliseconds=1))
    return len(text)


async def fill(host: Host) -> list[str]:
    """Start orchestrations with much input until many in a row are refused; return those that were not."""
    acknowledged: list[str] = []
    refused_in_a_row = number = 0
    while refused_in_a_row < 30:
        number += 1
        try:
            await host.client.start_new(echo, "x" * 5_000, instance_id=f"i{number}")
        except (StorageError, OverloadedError) as error:
            refused_in_a_row += 1
            print("refused:", error, flush=True)
            await asyncio.sleep(0.01)
        else:
            refused_in_a_row = 0
            acknowledged.append(f"i{number}")
    return acknowledged


async def main() -> None:
    folder = Path(sys.argv[1])
    culprits._BACK_OFF_S = (0.0, 0.01)  # pyright: ignore[reportPrivateUsage] - nobody waits for an operator here
    async with app.host(f"sqlite:///{folder / 'hub.db'}", config=HostConfig(drain_s=1)) as host:
        acknowledged = await fill(host)
        (folder / "ballast").unlink()
        for instance_id in acknowledged:
            while True:
                try:
                    result = await host.client.wait_for_completion(instance_id, timeout=timedelta(seconds=30))
                except (StorageError, OverloadedError):
                    await asyncio.sleep(0.01)
                else:
                    break
            assert result == 5_000
        while True:
            try:
                await host.client.start_new(echo, "the last", instance_id="last", request_key="last")
            except (StorageError, OverloadedError):
                await asyncio.sleep(0.01)
            else:
                break
        assert await host.client.wait_for_completion("last", timeout=timedelta(seconds=30)) == 8
    print("done", len(acknowledged), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
