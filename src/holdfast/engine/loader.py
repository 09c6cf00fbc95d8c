"""Brings instances and histories into memory, many per read, without ever making anybody wait on the loop."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import contextmanager
from typing import TypeAlias

from holdfast.engine.journal import Journal
from holdfast.engine.residents import Resident, Residents
from holdfast.errors import CommitFailedError, CorruptRecordError, HoldfastError, InstanceElsewhereError, StorageError
from holdfast.storage.port import Store, StoredInstance

logger = logging.getLogger("holdfast.engine")

_INSTANCES_PER_READ = 500

Arrived: TypeAlias = Callable[[Resident | None], None]
Refused: TypeAlias = Callable[[HoldfastError], None]


class Loader:
    """What waits for an instance that is not in memory is done in order once it has come, or turned out not to exist.

    An instance leaves memory only when all of it is durable, so what is read is its latest state; and messages sent
    while it is being read are known here, so one that is read too is delivered once.
    """

    def __init__(
        self,
        store: Store,
        journal: Journal,
        residents: Residents,
        left_alone: set[str],
        loaded: Callable[[StoredInstance], None],
        failed: Callable[[Exception, str | None], None],
        owns: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._residents = residents
        self._left_alone = left_alone
        self._loaded = loaded
        self._failed = failed
        self._owns = owns
        self._wanted: dict[str, list[tuple[Arrived, Refused | None, int | None]]] = {}
        self._journal = journal
        self._gone: dict[str, int] = {}
        """Instances that were purged, with the transition that did it; as long as a read may still see them."""
        self._reading: set[str] = set()
        self._reads: dict[int, int] = {}
        """By number, the reads that are open, with what was durable when they began."""
        self._reads_begun = 0
        self._jobs: set[asyncio.Task[None]] = set()
        self._is_scheduled = False

    def close(self, error: StorageError) -> None:
        """Give up, and tell whoever waits for an instance."""
        wanted, self._wanted = self._wanted, {}
        for waiting in wanted.values():
            for _, refused, _ in waiting:
                if refused is not None:
                    refused(error)
        for job in self._jobs:
            job.cancel()

    @property
    def is_idle(self) -> bool:
        return not self._wanted and not self._jobs

    @property
    def is_crowded(self) -> bool:
        """Whether more is waited for than one read brings."""
        return len(self._wanted) > _INSTANCES_PER_READ

    def wants(self, instance_id: str) -> bool:
        """Whether somebody waits for an instance, which is being read or about to be."""
        return instance_id in self._wanted

    def forget(self, instance_ids: Iterable[str], lsn: int) -> None:
        """Note that instances, neither in memory nor waited for, do not exist from a transition on."""
        known_lsn = self.known_lsn()
        self._gone = {instance_id: at for instance_id, at in self._gone.items() if at > known_lsn}
        self._gone.update(dict.fromkeys(instance_ids, lsn))

    def gone_at(self, instance_id: str) -> int:
        """Return the transition that has purged an instance, 0 if no read that is open can still see it."""
        return self._gone.get(instance_id, 0)

    @contextmanager
    def reading(self) -> Generator[int, None, None]:
        """Read the store past the loader; gives up to where the read sees what is durable, at least."""
        self._reads_begun += 1
        number = self._reads_begun
        self._reads[number] = self._journal.durable_lsn
        try:
            yield self._reads[number]
        finally:
            del self._reads[number]

    def known_lsn(self) -> int:
        """Return up to where every open read sees what is durable."""
        return min([self._journal.durable_lsn, *self._reads.values()])

    def at_hand(self, instance_id: str) -> Resident | None:
        """Return an instance that is in memory, and for which nobody waits any more; None says nothing."""
        return None if instance_id in self._wanted else self._residents.get(instance_id)

    def may_create(self, instance_id: str) -> bool:
        """Whether an instance whose id is new is this node's, and nobody else waits for it."""
        return instance_id not in self._wanted and self._owns(instance_id)

    def with_resident(
        self,
        instance_id: str,
        arrived: Arrived,
        refused: Refused | None = None,
        *,
        message_id: int | None = None,
        is_new: bool = False,
    ) -> None:
        """Call back with an instance, at once if it is in memory; with None if it does not exist.

        Args:
            refused: called instead if it cannot be read, if the node is given up before, or if the instance is
                another node's (InstanceElsewhereError).
            message_id: the message that is to be delivered; if it is found stored, `arrived` is not called for it.
            is_new: the id cannot exist yet, so that the store need not be asked.
        """
        resident = self._residents.get(instance_id)
        if resident is None and not self._owns(instance_id):
            if refused is not None:
                refused(InstanceElsewhereError(instance_id))
            return
        is_known = resident is not None or is_new or self.gone_at(instance_id) > self._journal.durable_lsn
        if is_known and instance_id not in self._wanted:
            arrived(resident)
            return
        self._wanted.setdefault(instance_id, []).append((arrived, refused, message_id))
        self._schedule()

    def with_history(
        self, instance_id: str, execution_id: str, durable: Awaitable[None], arrived: Callable[[list[str]], None]
    ) -> None:
        """Call back with the episodes of an execution, once all of them are stored."""

        async def read() -> None:
            await durable
            arrived(await self._store.load_history(instance_id, execution_id))

        self._start(read)

    def _schedule(self) -> None:
        if not self._is_scheduled and self._wanted.keys() - self._reading:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._read_wanted)

    def _read_wanted(self) -> None:
        self._is_scheduled = False
        unread = [instance_id for instance_id in self._wanted if instance_id not in self._reading]
        for start in range(0, len(unread), _INSTANCES_PER_READ):
            batch = unread[start : start + _INSTANCES_PER_READ]
            self._reading.update(batch)
            self._start(functools.partial(self._read, batch))

    def _start(self, read: Callable[[], Awaitable[None]]) -> None:
        job = asyncio.get_running_loop().create_task(self._guarded(read))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _guarded(self, read: Callable[[], Awaitable[None]]) -> None:
        try:
            await read()
        except StorageError as error:
            self._failed(error, None)

    async def _read(self, instance_ids: list[str]) -> None:
        with self.reading():
            found = {stored.instance_id: stored for stored in await self._store.load(instance_ids)}
            self._arrive_all(instance_ids, found)

    def _arrive_all(self, instance_ids: list[str], found: dict[str, StoredInstance]) -> None:
        for instance_id in instance_ids:
            # What those who wait send to this very instance gets into line behind them; it is not read once more.
            waiting = self._wanted.get(instance_id, [])
            try:
                self._arrive(instance_id, found.get(instance_id), waiting)
            except CorruptRecordError as error:
                logger.error("Instance %r cannot be read and is left alone: %s", instance_id, error)  # noqa: TRY400
                for _, refused, _ in waiting:
                    if refused is not None:
                        refused(error)
            except Exception as error:
                self._failed(error, instance_id)
                for _, refused, _ in waiting:
                    if refused is not None:
                        refused(CommitFailedError(f"An internal error; it is not known what was stored: {error!r}"))
                return
            finally:
                self._wanted.pop(instance_id, None)
                self._reading.discard(instance_id)

    def _arrive(
        self, instance_id: str, stored: StoredInstance | None, waiting: list[tuple[Arrived, Refused | None, int | None]]
    ) -> None:
        delivered: set[int] = set()
        if instance_id in self._left_alone:
            raise CorruptRecordError("its last changes could not be stored; it is held back")
        if stored is not None:
            self._loaded(stored)
            delivered = {row.message_id for row in stored.messages}
        for arrived, _, message_id in waiting:
            if message_id is None or message_id not in delivered:
                arrived(self._residents.get(instance_id))
