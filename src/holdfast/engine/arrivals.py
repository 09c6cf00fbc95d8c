"""What comes to the instances of a node from outside of it: from other nodes, and from transactions of users.

It lies in the store until a transition of this node takes it in. From then on it is as if it had been sent here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from holdfast.engine.answers import Answers
from holdfast.engine.confirmations import Confirmations
from holdfast.engine.stored import decode_arrival
from holdfast.errors import CorruptRecordError, InvalidInputError
from holdfast.model.history import EntityOperationSignaled, ExecutionStarted
from holdfast.model.ids import EntityId, partition_of, validate_instance_id
from holdfast.model.messages import Arrival
from holdfast.model.work_items import ActivityWorkItem
from holdfast.storage.port import ArrivalRow, Store

if TYPE_CHECKING:
    from holdfast.engine.node import Node

logger = logging.getLogger("holdfast.engine")

_ROWS_PER_READ: Final = 1_000
_FIRST_ROWS_MAX: Final = 10_000
_LOOK_FOR_ROOM_S: Final = 0.05


async def first_arrivals(store: Store) -> list[ArrivalRow]:
    """Return what lies there when a node begins, a bounded number.

    It takes this in before anything else: what an instance has sent from another node comes before what it sends from
    here, so that messages of one sender keep their order.
    """
    return await store.arrivals(0, _FIRST_ROWS_MAX)


def take_in_committed(node: Node | None, report: ArrivalRow) -> None:
    """Take in what a transactional activity has stored itself, unless it is for another host to find."""
    if node is not None and node.partitions.have(report.instance_id):
        node.arrivals.take_in([report])


class Arrivals:
    """Looks for what has arrived, when it is told to, and now and then."""

    def __init__(self, node: Node, store: Store, answers: Answers) -> None:
        self._node = node
        self._answers = answers
        self._store = store
        self._taken: set[int] = set()
        """What is taken in, and may still be found in the store."""
        self._reports: dict[int, ActivityWorkItem] = {}
        """Outcomes from other hosts; each stays in the store until it is known to be stored, or to concern nobody."""
        self._staying = 0
        """How many that were taken in stay in the store for a while: outcomes, and what cannot be read."""
        self._wanted = asyncio.Event()
        self._looking = asyncio.Lock()
        self._confirmations = Confirmations(self._look)

    def look(self) -> None:
        """Look soon: somebody says that something has arrived."""
        self._wanted.set()

    async def run(self) -> None:
        """Take in what arrives, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._node.config.poll_s):
                    await self._wanted.wait()
            self._wanted.clear()
            await self._look()

    async def caught_up(self) -> None:
        """Take in what has arrived by now; one look serves all who ask at the same time."""
        await self._confirmations.confirm()

    async def _look(self) -> None:
        async with self._looking:
            await self._look_from_the_first()

    async def _look_from_the_first(self) -> None:
        """Read always from the first on: ids are given before they can be read, so that one may come late.

        Of one sender all come in their order, as long as nothing is skipped.
        """
        while True:
            while self._node.journal.is_full:  # noqa: ASYNC110 - nothing tells that it has room again
                await asyncio.sleep(_LOOK_FOR_ROOM_S)
            limit, before = _ROWS_PER_READ + self._staying, set(self._taken)
            rows = await self._store.arrivals(0, limit)
            self.take_in(rows)
            self._forget_reports()
            is_last = len(rows) < limit
            seen = before if is_last else {each for each in before if each <= rows[-1].arrival_id}
            self._taken -= seen - {row.arrival_id for row in rows}  # what was taken in, and is not there, is gone
            if is_last:
                break
            await self._node.journal.settled()  # then what was taken in now is not read again

    def take_in(self, rows: Sequence[ArrivalRow]) -> None:
        """Take in, in one transition, what was not taken in before."""
        node = self._node
        arrivals: list[Arrival] = []
        for row in rows:
            if row.arrival_id in self._taken:
                continue
            self._taken.add(row.arrival_id)
            try:
                found = decode_arrival(row)
                _check(row, found, node.partitions.count)
            except CorruptRecordError as error:  # it stays where it is, for somebody to look at
                self._staying += 1
                logger.error("What has arrived for %r cannot be read: %s", row.instance_id, error)  # noqa: TRY400
                continue
            if isinstance(found, Arrival):
                arrivals.append(found)
            else:
                self._staying += 1
                self._reports[row.arrival_id] = found[0]
                self._answers.add(*found)
                node.reports.finished(*found)
        if arrivals:
            node.guarded(arrivals[0].instance_id, lambda: node.append(node.hub.receive(arrivals, node.clock.now())))

    def _forget_reports(self) -> None:
        node = self._node
        done = [
            (work_item.instance_id, arrival_id)
            for arrival_id, work_item in self._reports.items()
            if (work_item.execution_id, work_item.sequence) not in self._answers
        ]
        for _, arrival_id in done:
            del self._reports[arrival_id]
            self._staying -= 1
        if done:
            node.guarded(done[0][0], lambda: node.append(node.hub.forget_arrivals(done, node.clock.now())))


def _check(row: ArrivalRow, found: object, partition_count: int) -> None:
    """Check that what anybody may have inserted is for its receiver, and that this can exist.

    Raises:
        CorruptRecordError: otherwise.
    """
    event, instance_id = found.event if isinstance(found, Arrival) else None, row.instance_id
    is_known = True
    try:
        if isinstance(event, EntityOperationSignaled):
            is_known = EntityId.parse(instance_id).instance_id == instance_id == event.target_instance_id
        elif isinstance(event, ExecutionStarted):
            is_known = validate_instance_id(instance_id) == event.instance_id
    except InvalidInputError as error:
        raise CorruptRecordError(str(error)) from error
    if not is_known:
        raise CorruptRecordError(f"It is for {instance_id!r}, and its event is for another instance.")
    if row.partition != partition_of(instance_id, partition_count):
        raise CorruptRecordError(f"It lies in partition {row.partition}, where its instance is not.")
