"""Transactions in the store's own database in which activities of users run, and in which it is recorded that they did.

What such an activity writes is committed together with its result, or not at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from holdfast.model.work_items import ActivityWorkItem
from holdfast.storage.port import ArrivalRow


class Transactions(Protocol):
    """Methods raise `StorageError` when the database cannot be reached, and nothing was committed."""

    async def run(
        self, attempt: Callable[[], ActivityWorkItem], work: Callable[[object], Awaitable[str]]
    ) -> ArrivalRow | None:
        """Run the work of an attempt in a transaction, over the connection that it is given, and commit.

        Of all attempts of one activity at most one commits. An attempt that was given up, or whose activity is not
        waited for any more, is undone; so is one whose activity another attempt has completed.

        Args:
            attempt: returns what this is an attempt of, which may change while it runs.
            work: does it; returns the report of it, as the event of an arrival. What it raises undoes the transaction.

        Returns:
            The report that is stored as an arrival, of this attempt or of the one that came before it; None if this
            attempt concerns nobody.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
