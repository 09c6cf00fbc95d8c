"""Doing something with several instances: one that fails stops no other, and is told."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence

import typer

from holdfast.cli.errors import exit_code_of
from holdfast.errors import HoldfastError, HostStoppedError, HostUnreachableError


class Attempts:
    """Counts what was done, and remembers the highest exit code of what failed."""

    def __init__(self) -> None:
        self.done = 0
        self.exit_code = 0

    async def attempt(self, action: Awaitable[bool]) -> None:
        """Wait for an action, which returns whether it has done anything; tell why if it fails.

        Raises:
            HostUnreachableError, HostStoppedError: without a host all others would fail as well.
        """
        try:
            self.done += await action
        except (HostUnreachableError, HostStoppedError):
            raise
        except HoldfastError as error:
            self._tell(error)

    async def each(self, instance_ids: Sequence[str], act: Callable[[str], Awaitable[bool]]) -> None:
        """Do something with all that were named, whatever fails; tell how many were not tried without a host."""
        wanted = list(dict.fromkeys(instance_ids))
        for number, instance_id in enumerate(wanted, 1):
            try:
                await self.attempt(act(instance_id))
            except (HostUnreachableError, HostStoppedError) as error:
                self._tell(error)
                if left := wanted[number:]:
                    typer.echo(f"holdfast: Not tried: {', '.join(left)}.", err=True)
                return

    def leave(self) -> None:
        """Leave with the exit code of what failed, if anything did."""
        if self.exit_code:
            sys.exit(self.exit_code)

    def _tell(self, error: HoldfastError) -> None:
        typer.echo(f"holdfast: {error}", err=True)
        self.exit_code = max(self.exit_code, exit_code_of(error))
