"""What hosts that share a hub tell each other past their instances: requests of clients, offers of work, and hints.

Nothing of it has to last, but what is posted. What is lost is asked for again; a hint only saves the wait for the next
look.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import msgspec

if TYPE_CHECKING:
    from holdfast.model.messages import DurableKey
    from holdfast.storage.port import ActivityRow, ArrivalRow

HintKind: TypeAlias = Literal["arrivals", "requests", "answers", "hosts", "offers"]
HINT_KINDS: tuple[HintKind, ...] = ("arrivals", "requests", "answers", "hosts", "offers")


class PassedAttempt(msgspec.Struct, frozen=True):
    """An attempt of an activity that is not run by the owner of its partition; `function` is its name in lower case.

    If nobody has taken it by `start_by`, in microseconds, its owner takes it back.
    """

    partition: int
    execution_id: str
    sequence: int
    attempt: int
    function: str
    queue: str
    start_by: int | None


class OffersOf(msgspec.Struct, frozen=True):
    """What is offered or lent of one activity in one queue: whether there is any that nobody has taken."""

    queue: str
    function: str
    is_waiting: bool


class NewRequest(msgspec.Struct, frozen=True):
    """A request for whoever owns a partition: a method of the hub, and its arguments as JSON."""

    partition: int
    method: str
    arguments: str


class RequestRow(msgspec.Struct, frozen=True):
    """A request that this host has taken. `was_begun` tells that a host that is gone had taken it before."""

    request_id: int
    method: str
    arguments: str
    was_begun: bool


class RequestAnswer(msgspec.Struct, frozen=True):
    """What came of a request, with a status as in HTTP."""

    request_id: int
    status: int
    body: str


class Mail(Protocol):
    """Methods raise `StorageError` when the store cannot be reached."""

    async def send(self, requests: Sequence[NewRequest]) -> list[int]:
        """Send requests; return their ids in the same order."""
        ...

    async def take(self, limit: int) -> list[RequestRow]:
        """Take requests for the partitions that this store owns and that nobody has taken."""
        ...

    async def take_orphans(self, limit: int, known: Collection[int]) -> list[RequestRow]:
        """Take requests for these partitions that a host had taken which is gone.

        Args:
            known: what is being done here. Of what else this store has taken nobody has heard, as an answer was lost.
        """
        ...

    async def give_back(self, request_ids: Sequence[int]) -> None:
        """Let whoever owns their partitions now take requests that were taken here."""
        ...

    async def answer(self, answers: Sequence[RequestAnswer]) -> None:
        """Answer requests, unless they are gone."""
        ...

    async def collect(self) -> list[RequestAnswer]:
        """Return the answers that have come for this store, each once."""
        ...

    async def lost(self, request_ids: Collection[int]) -> set[int]:
        """Return which requests of this store are not there any more; the server may have lost them in a crash."""
        ...

    async def withdraw(self, request_ids: Sequence[int]) -> None:
        """Forget requests for whose answers nobody waits any more."""
        ...

    async def post(self, arrivals: Sequence[ArrivalRow]) -> None:
        """Send messages, durably, in a transaction of their own."""
        ...

    async def lend(self, attempts: Sequence[PassedAttempt]) -> None:
        """Let whoever owns some activities next know that they run here."""
        ...

    def declare(self, functions: Collection[str]) -> None:
        """Say what this host can run, in the very transactions in which it takes partitions from now on."""
        ...

    async def declared(self) -> frozenset[str]:
        """Return what any host has declared that lives and owns partitions."""
        ...

    async def offer(self, attempts: Sequence[PassedAttempt]) -> None:
        """Let other hosts run activities of this one."""
        ...

    async def borrow(self, names: Sequence[str], queues: Sequence[str] | None, limit: int) -> list[ActivityRow]:
        """Take activities of some names, in lower case, that other hosts offer in some queues; None for all queues."""
        ...

    async def reclaim(
        self, names: Sequence[str], queues: Sequence[str] | None, now: int, limit: int
    ) -> list[tuple[ActivityRow, bool]]:
        """Take own offers back: of those that nobody has taken, the ones with some names in some queues (None for all)
        and the ones that should have started by now; and all whose takers are gone.

        With each goes whether somebody had taken it: then it may have been running.
        """
        ...

    async def give_offers_back(self, kept: Collection[DurableKey]) -> None:
        """Let others have all that this host has taken, except for some that it runs or has reported."""
        ...

    async def offers(self) -> list[OffersOf]:
        """Return of which activities anything is offered or lent of the partitions that this store owns."""
        ...

    async def other_hosts(self) -> list[int]:
        """Return a partition of each other host that owns any."""
        ...

    async def hint(self, kind: HintKind, partitions: Collection[int]) -> None:
        """Tell the owners of partitions, all hosts if there are none, that they should look for something.

        Those who wait for answers to requests are told by `answer`.
        """
        ...

    @property
    def hears(self) -> bool:
        """Whether hints reach this host now; if not, it has to look more often."""
        ...

    def listen(self, heard: Callable[[HintKind], None]) -> None:
        """Call back with what this host should look for, from now on."""
        ...
