"""The orchestrator of bulk jobs, which every app has."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import msgspec

from holdfast.model.bulk import BULK, BULK_PAGE, BulkPage, BulkProgress, BulkRequest
from holdfast.model.refs import Activity, AsyncActivity, Orchestrator
from holdfast.model.retry import RetryPolicy
from holdfast.replay.context import OrchestrationContext

_PAGES_PER_EXECUTION: Final = 100
_PATIENCE: Final = RetryPolicy(
    max_attempts=1_000, first_retry_interval=timedelta(seconds=1), max_retry_interval=timedelta(minutes=1)
)


async def _elsewhere(page: BulkRequest) -> BulkPage:
    raise AssertionError(f"the engine has the body of this activity; {page!r} is not for this one")


PAGE: Final[Activity[BulkRequest, BulkPage]] = AsyncActivity(BULK_PAGE, _elsewhere, "page")


async def _bulk(ctx: OrchestrationContext, request: BulkRequest) -> BulkProgress:
    progress, after = request.progress, request.after
    for _ in range(_PAGES_PER_EXECUTION):
        step = msgspec.structs.replace(request, after=after)
        page = await ctx.call_activity(PAGE, step, retry=_PATIENCE)
        progress = BulkProgress(done=progress.done + page.done, refused=progress.refused + page.refused)
        ctx.set_custom_status(progress)
        if page.next_after is None:
            return progress
        after = page.next_after
    ctx.continue_as_new(msgspec.structs.replace(request, after=after, progress=progress))
    return progress


BULK_ORCHESTRATOR: Final[Orchestrator[BulkRequest, BulkProgress]] = Orchestrator(BULK, _bulk, "request")
