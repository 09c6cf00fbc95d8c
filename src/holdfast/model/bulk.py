"""Bulk jobs: one action for all orchestrations that a filter finds, as an orchestration of its own."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from holdfast.model.requests import InstanceFilter

BULK: Final = "BuiltIn::Bulk"
"""The name of the orchestrator of bulk jobs."""
BULK_PAGE: Final = "BuiltIn::BulkPage"
"""The name of the activity that does one page of a bulk job."""

BulkAction: TypeAlias = Literal["terminate", "cancel", "suspend", "resume", "rewind", "purge"]


class BulkProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a bulk job is: its custom status while it runs, and its result.

    `done` counts those that took the action in, `refused` those that were not, or not any more, in a state for it. A
    page that is done again, after a crash, may count an instance as refused that was done before.
    """

    done: int = 0
    refused: int = 0


class BulkRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The input of a bulk job, and where it is."""

    action: BulkAction
    wanted: InstanceFilter
    reason: str | None = None
    after: str = ""
    progress: BulkProgress = BulkProgress()


class BulkPage(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one page; `next_after` is where the next one begins, None at the end."""

    done: int
    refused: int
    next_after: str | None
