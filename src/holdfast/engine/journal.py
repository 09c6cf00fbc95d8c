"""The journal: all transitions of the node in one order, and the group commit that makes a growing prefix durable.

Natural batching: while one group is being written the next one forms. At most one group is in flight, and the durable
set is always a prefix. Whoever must not act before a transition is durable waits for its number here.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable, Iterable

from holdfast.engine.coalesce import Entry, coalesce
from holdfast.engine.config import HostConfig
from holdfast.engine.partitions import OwnPartitions
from holdfast.errors import CommitFailedError, StorageError
from holdfast.hub.transition import Output, Transition
from holdfast.storage.port import Ownership, Store, WriteSet


class Journal:
    """The transitions of one ownership of a store. A failed commit ends it; the engine then makes a new one."""

    def __init__(
        self,
        store: Store,
        ownership: Ownership,
        config: HostConfig,
        release: Callable[[list[Output]], None],
        changed: Callable[[Iterable[str]], None],
        sent_elsewhere: Callable[[set[int]], None],
        partitions: OwnPartitions,
    ) -> None:
        """Store nothing yet.

        Args:
            release: gets the outputs of transitions that are durable now.
            changed: gets the ids of instances whose transitions are.
            sent_elsewhere: gets the partitions of other nodes to which messages are durable now.
        """
        self.durable_lsn = ownership.lsn
        self.group_max = config.group_transitions_max
        """How many transitions one commit may have; unless it is one, it takes all if the journal may not hold more."""
        self._in_flight_lsn = 0
        self.failed_group: list[str] = []
        """The instances of the group whose commit failed, for whatever reason."""
        self._store = store
        self._ownership = ownership
        self._transitions_max = config.journal_transitions_max
        self._bytes_max = config.journal_bytes_max
        self._release = release
        self._changed = changed
        self._sent_elsewhere = sent_elsewhere
        self._partitions = partitions
        self._waiting: deque[Entry] = deque()
        self._waiting_bytes = 0
        self._tail_lsn: int = ownership.lsn
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._is_committing = True
        """Whether a commit is in flight, or about to be; also before the first one may begin, and after the last."""
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._context = contextvars.copy_context()
        self._failure: StorageError | None = None

    @property
    def is_full(self) -> bool:
        """Whether execution has run as far ahead of the store as it may."""
        return self.room <= 0 or self.room_bytes <= 0

    @property
    def room(self) -> int:
        """How many more transitions it may have."""
        return self._transitions_max - (self._tail_lsn - self.durable_lsn)

    @property
    def room_bytes(self) -> int:
        """How much longer they may be together."""
        return self._bytes_max - self._waiting_bytes

    @property
    def is_settled(self) -> bool:
        """Whether everything is durable."""
        return self._tail_lsn == self.durable_lsn

    @property
    def _takes_all(self) -> bool:
        # Who wants one at a time looks for a culprit; and a step may append several to a journal that has room for one.
        return self.group_max >= self._transitions_max and self.group_max > 1

    def append(self, transition: Transition) -> None:
        """Add the next transition.

        Raises:
            UnstorableError: if it cannot be encoded. Its instance has changed by then: this is the end of the node.
        """
        if transition.lsn != self._tail_lsn + 1:
            raise AssertionError("transitions enter the journal in the order of their numbers")
        # If a group ends before later changes of the instance, its row is to be the one of now.
        entry = Entry(transition, self._partitions.count, with_row=not self._takes_all)
        self._tail_lsn = transition.lsn
        self._waiting.append(entry)
        self._waiting_bytes += entry.size_bytes
        if not self._is_committing:
            self._commit_soon()

    def durable(self, lsn: int) -> asyncio.Future[None]:
        """Return a future for the moment when a transition is durable; it fails if the transition is lost."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._failure is not None:
            future.set_exception(self._failure)
        elif lsn <= self.durable_lsn:
            future.set_result(None)
        else:
            self._waiters.append((lsn, future))
        return future

    async def settled(self) -> None:
        """Wait until everything appended so far is durable.

        Raises:
            StorageError: if that cannot happen any more.
        """
        await self.durable(self._tail_lsn)

    async def run(self) -> None:
        """Commit group after group, for ever.

        Raises:
            StorageError: when a commit fails; everything that is not durable by then is lost.
        """
        if self._waiting:
            self._commit_soon()
        else:
            self._is_committing = False
        try:
            await self._ended
        finally:
            self._ended.cancel()

    def _commit_soon(self) -> None:
        """Begin a commit in the next turn of the loop but one: a start and its first episode, say, are one group."""
        self._is_committing = True
        loop = asyncio.get_running_loop()
        # In a context of its own: what a client has set there is not for the code that runs because of a commit.
        loop.call_soon(lambda: loop.call_soon(self._commit_group), context=self._context)

    def _take_group(self) -> list[Entry]:
        count = len(self._waiting) if self._takes_all else min(len(self._waiting), self.group_max)
        return [self._waiting.popleft() for _ in range(count)]

    def _commit_group(self) -> None:
        if self._ended.done():
            return
        group = self._take_group()
        self._in_flight_lsn = group[-1].transition.lsn
        try:
            writes = coalesce(self.durable_lsn, group, self._partitions.count, self._partitions.some)
            commit = asyncio.ensure_future(self._store.commit(self._ownership.fence, writes))
        except Exception as error:
            self._end(error)
        else:
            commit.add_done_callback(lambda commit: self._committed(commit, group, writes))

    def _committed(self, commit: asyncio.Future[None], group: list[Entry], writes: WriteSet) -> None:
        error = None if commit.cancelled() else commit.exception()
        if self._ended.done() or commit.cancelled():
            return  # nobody wants to hear of it any more, but a commit is not left half done
        if error is not None:
            self.failed_group = [entry.transition.instance_id for entry in group]
            self._end(error)
            return
        self.durable_lsn = writes.lsn
        self._is_committing = bool(self._waiting)
        if self._is_committing:
            self._commit_group()  # at once: what is released now is done beside it
        try:
            self._tell(group, writes)
        except Exception as error:
            self._end(error)

    def _end(self, error: BaseException) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    def _tell(self, group: list[Entry], writes: WriteSet) -> None:
        """Release what was waiting for a group that is durable now."""
        outputs: list[Output] = []
        for entry in group:
            self._waiting_bytes -= entry.size_bytes
            outputs += entry.transition.outputs
        while self._waiters and self._waiters[0][0] <= writes.lsn:
            future = self._waiters.popleft()[1]
            if not future.done():
                future.set_result(None)
        self._release(outputs)
        self._changed(entry.transition.instance_id for entry in group)
        if writes.arrivals_inserted:
            self._sent_elsewhere({row.partition for row in writes.arrivals_inserted})

    def fail(self, error: StorageError) -> None:
        """Give up what is not durable, and tell whoever waits for it."""
        self._failure = error
        while self._waiters:
            lsn, future = self._waiters.popleft()
            if not future.done():
                future.set_exception(_lost(error, lsn <= self._in_flight_lsn))


def _lost(error: StorageError, was_in_flight: bool) -> StorageError:
    """Return the error for one who waits: what was behind the group in flight is certainly not stored."""
    if isinstance(error, CommitFailedError):
        return CommitFailedError(str(error), outcome_unknown=error.outcome_unknown and was_in_flight)
    return type(error)(*error.args)
