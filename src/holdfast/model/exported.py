"""The history of one execution, on its own: what a replay needs when there is no store."""

from __future__ import annotations

import msgspec

from holdfast.model.history import HistoryEvent


class ExportedHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The current execution of one instance, episode by episode; no episodes if none of its code has run yet.

    It may have been asked for in part; a replay needs all of it.
    """

    instance_id: str
    execution_id: str
    name: str
    version: str | None
    episodes: tuple[tuple[HistoryEvent, ...], ...]
