"""What `holdfast demo` runs: a chain of activities that say in a file when they run, and then ask for an approval."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec

from holdfast.app import App
from holdfast.cli.demo import STEPS
from holdfast.replay.context import OrchestrationContext

STEP_S = 0.3

app = App()


class Work(msgspec.Struct, frozen=True):
    """One step, and the file in which it leaves its name."""

    log: str
    step: str


@app.activity
def work(what: Work) -> str:
    time.sleep(STEP_S)
    with Path(what.log).open("a", encoding="utf-8") as file:
        file.write(f"{what.step} {os.getpid()}\n")
    return f"{what.step}: done"


@app.orchestrator
async def order(ctx: OrchestrationContext, log: str) -> list[str]:
    done = [await ctx.call_activity(work, Work(log, step)) for step in STEPS]
    approval: str = await ctx.wait_for_external_event("Approval")
    return [*done, f"approval: {approval}"]
