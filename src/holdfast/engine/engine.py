"""The life of an engine: it owns a store while it runs, and starts afresh from what is stored after a failed commit."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import MappingProxyType

import msgspec

from holdfast.client.origins import random_id
from holdfast.durable_http.caller import TokenSource
from holdfast.engine.activity_runner import ActivityRunner
from holdfast.engine.answers import Answers
from holdfast.engine.arrivals import first_arrivals, take_in_committed
from holdfast.engine.builtins import Builtins
from holdfast.engine.clock import Clock, SystemClock, to_microseconds
from holdfast.engine.coalesce import UnstorableError
from holdfast.engine.config import HostConfig
from holdfast.engine.culprits import Culprits
from holdfast.engine.handover import LEAVE_S, hand_over, leave, wake_waiters
from holdfast.engine.membership import Membership
from holdfast.engine.node import Node
from holdfast.engine.progress import Progress
from holdfast.engine.recovery import check_renewal, keep_filled, keep_ownership, recover, recover_after
from holdfast.engine.retention import keep_retention, retention_rules
from holdfast.engine.standby import begin_in_turn
from holdfast.engine.waiters import Waiters
from holdfast.engine.worker import Worker
from holdfast.errors import (
    CommitFailedError,
    ConfigurationError,
    HostStoppedError,
    OverloadedError,
    OwnershipLostError,
    StorageError,
    StoreInUseError,
)
from holdfast.model.converter import DataConverter
from holdfast.model.failure import failure_from_exception, qualified_name
from holdfast.model.ids import NewId
from holdfast.model.work_items import ActivityWorkItem, Failed, Outcome
from holdfast.registry.registry import Registry
from holdfast.storage.port import Store

logger = logging.getLogger("holdfast.engine")

_ISOLATION_S = 0.5
_UNANSWERED = (
    "The host had to start again before the request was answered. Ask again with the same update_id, or the same key."
)
_HOST_STOPPED = qualified_name(HostStoppedError)
_LOOK_FOR_SHARE_S = 0.5


class Engine:
    """Runs the functions of one app on one store, through one `Node` after another if commits fail."""

    def __init__(
        self,
        registry: Registry,
        store: Store,
        converter: DataConverter,
        config: HostConfig,
        clock: Clock | None = None,
        new_id: NewId = random_id,
        token_sources: Mapping[str, TokenSource] = MappingProxyType({}),
    ) -> None:
        self.registry = registry
        self.store = store
        self.config = config
        self._converter = converter
        self.clock: Clock = clock or SystemClock()
        self.new_id = new_id
        self.waiters = Waiters()
        self.membership = Membership()
        self.worker = Worker(registry, converter, config, self.membership.may_know_orchestrator)
        self.builtins = Builtins(config.http_calls, token_sources)
        self.answers = Answers()
        self._progress = Progress(self._record_progress)
        self.runner = ActivityRunner(
            lambda name, version: self.builtins.find(name) or registry.activity(name, version),
            converter,
            config,
            self.clock,
            self._activity_finished,
            self._progress.reported,
            store.transactions,
            lambda report: take_in_committed(self._node, report),
        )
        self._node: Node | None = None
        self._first_lsn = 0
        self.last_failure: Exception | None = None
        """Why it had to start from what is stored, if it had to."""
        self._jobs: set[asyncio.Task[None]] = set()
        self._culprits = Culprits()
        self._is_stopping = False
        self._is_shared = False
        """Whether others own parts of the hub: who loses its own then takes another one."""
        self._moving: asyncio.Task[None] | None = None
        self._stopped: asyncio.Future[None] | None = None
        self._context = contextvars.copy_context()

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken in now."""
        return self._node is not None and not self._is_stopping

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is being read, stepped, stored or run at this moment."""
        return self._node is not None and self._node.is_quiet and not self.runner.known_keys()

    @property
    def banned(self) -> frozenset[str]:
        """Instances that are left alone because their changes cannot be stored."""
        return frozenset(self._culprits.banned)

    @property
    def node(self) -> Node:
        """The node of now.

        Raises:
            HostStoppedError: if the engine is not running.
            OverloadedError: while it starts afresh.
        """
        if self._is_stopping or self._stopped is None or self._stopped.done():
            raise HostStoppedError("The host is not running; nothing was stored.")
        if self._node is None:
            if self.last_failure is None:
                raise OverloadedError("The host is starting; nothing was stored. Try again soon.")
            raise OverloadedError(
                "The host is recovering from a failure; nothing was stored. Try again soon. It was: "
                f"{self.last_failure}"
            )
        return self._node

    def note_failure(self, error: Exception) -> None:
        """Keep the reason for which the engine starts again; a simulation looks at it."""
        self.last_failure = error

    async def start(self) -> None:
        """Take the store and begin to work.

        Raises:
            StoreInUseError: if another process owns it, for as long as the setting `standby_s` says.
            StorageError: if it cannot be opened.
        """
        if self._stopped is not None or self._is_stopping:
            raise ConfigurationError("A host runs once; make a new one with app.host(...).")
        self._stopped = asyncio.get_running_loop().create_future()
        self._context = contextvars.copy_context()
        try:
            await begin_in_turn(lambda: self._begin(after_crash=None), self.config.standby_s)
        except BaseException:
            self._stopped = None
            await self.store.close()
            raise

    async def wait_stopped(self) -> None:
        """Wait until the engine has stopped.

        Raises:
            OwnershipLostError: if it had to, because another process has the store.
        """
        if self._stopped is not None:
            await asyncio.shield(self._stopped)

    async def stop(self) -> None:
        """Let running activities finish within the configured time, store everything, give the store back."""
        if self._is_stopping or self._stopped is None:
            return
        if self._moving is not None:  # else what it owns would not be left in good order
            await asyncio.wait({self._moving}, timeout=LEAVE_S)
        self._is_stopping = True
        await self.membership.take_no_more()
        await asyncio.gather(
            self.runner.drain(self.config.drain_s),
            *([] if self._node is None else [self._node.batches.drain(self.config.drain_s)]),
        )
        await self.builtins.close()
        self._progress.close()
        node, self._node = self._node, None
        await self.membership.leave()
        if node is not None:
            await leave(node, self.store)
        await self._end(None)

    async def _end(self, error: StorageError | None) -> None:
        self._is_stopping = True
        await self.membership.leave()
        for job in self._jobs - {asyncio.current_task()}:
            job.cancel()
        self.waiters.fail_all(HostStoppedError("The host has stopped; ask again once it runs."))
        await self.store.close()
        if self._stopped is not None and not self._stopped.done():
            if error is None:
                self._stopped.set_result(None)
            else:
                self._stopped.set_exception(error)
                self._stopped.exception()  # whoever waits is told; if nobody does, that is no second error

    async def _begin(self, *, after_crash: bool | None) -> None:
        ownership = await self.store.acquire(to_microseconds(self.clock.now()), after_crash=after_crash)
        check_renewal(self.config, ownership)
        self._is_shared = ownership.lease_s is not None
        arrived = await first_arrivals(self.store)
        await self.membership.learn()

        def failed(error: Exception, instance_id: str | None) -> None:
            self._node_failed(node, error, instance_id)

        group_max = 1 if self._culprits.is_isolating else self.config.group_transitions_max
        node = Node(
            self.store,
            ownership,
            self.worker,
            self.runner,
            self.answers,
            self.waiters,
            self.clock,
            msgspec.structs.replace(self.config, group_transitions_max=group_max),
            self._culprits.left_alone(),
            failed,
            self.membership,
        )
        self._node, self._first_lsn = node, ownership.lsn
        self.membership.begins(node)
        node.arrivals.take_in(arrived)
        self._start_job(node, node.journal.run)
        self._start_job(node, lambda: recover(node, self.store, self.runner))
        self._start_job(node, node.arrivals.run)
        self._start_job(node, lambda: keep_filled(node, self.store, self.runner))
        self._start_job(node, lambda: keep_ownership(node, self.store, ownership.lease_s, lambda: self._move(node)))
        rules = retention_rules(self.config, self.registry.orchestrator_versions)
        self._start_job(node, lambda: keep_retention(rules, node, self.store))
        self._start_job(node, lambda: wake_waiters(node, self.waiters, self.store))
        self.waiters.fail_requests(CommitFailedError(_UNANSWERED, outcome_unknown=True))
        for work_item, outcome in self.answers.offer_again():
            node.reports.finished(work_item, outcome)
        self._park_guilty(node)
        if self._culprits.is_isolating:
            asyncio.get_running_loop().call_later(_ISOLATION_S, self._judge, node)

    def _park_guilty(self, node: Node) -> None:
        for instance_id, error in self._culprits.take_guilty().items():
            node.parking.park_by_id(instance_id, failure_from_exception(error))

    def _judge(self, node: Node) -> None:
        """Decide about the instances held back from a node, and let them go on, or be parked."""
        if node is not self._node or self._is_stopping:
            return
        self._culprits.judge(progress=node.journal.durable_lsn > self._first_lsn)
        node.left_alone.intersection_update(self._culprits.banned)
        self._park_guilty(node)
        node.reports.offer_again()
        if self._culprits.is_isolating:
            asyncio.get_running_loop().call_later(_ISOLATION_S, self._judge, node)
        else:
            node.journal.group_max = self.config.group_transitions_max
        lsn = node.hub.lsn
        self._start_job(node, lambda: recover_after(lsn, node, self.store, self.runner))

    def _start_job(self, node: Node, work: Callable[[], Awaitable[None]]) -> None:
        async def guarded() -> None:
            try:
                await work()
            except Exception as error:
                self._node_failed(node, error, None)

        job = asyncio.get_running_loop().create_task(guarded())
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    def _node_failed(self, node: Node, error: Exception, instance_id: str | None) -> None:
        """Handle a failure as a crash: forget what is not durable, take the store anew, go on from there."""
        node.journal.fail(_as_storage_error(error))
        if node is not self._node or self._is_stopping:
            return
        if isinstance(error, StorageError):
            logger.error("%s The host goes on from what is stored, if it still owns the store.", error)
        else:
            logger.error("An internal error. The host starts again from what is stored.", exc_info=error)
            blamed = error.instance_id if isinstance(error, UnstorableError) else instance_id
            if blamed is not None:
                self._culprits.suspect(blamed, error)
        self._node = None
        self.membership.pauses()
        self.note_failure(error)
        progress = node.journal.durable_lsn > self._first_lsn
        self._culprits.failed(error, node.journal.failed_group, progress=progress)
        node.abandon()
        # A store that another process took is not taken back, unless it can be shared: the two would fight for ever.
        if isinstance(error, OwnershipLostError) and not self._is_shared:
            self._start_aside(self._end(error))
        else:
            self._start_aside(self._begin_again(node, list(self._jobs), self._culprits.back_off_s()))

    def _start_aside(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Do what goes on while there is no node."""
        job = asyncio.get_running_loop().create_task(work, context=self._context)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job

    def _move(self, node: Node) -> None:
        """Begin again with another share of the hub; nothing of what was begun is lost, or seen to fail."""
        if node is self._node and not self._is_stopping and not self._culprits.is_isolating:
            self._node = None
            self.membership.pauses()
            self.note_failure(OverloadedError("Partitions are moving between hosts."))
            self._moving = self._start_aside(self._hand_over(node, list(self._jobs)))

    async def _hand_over(self, node: Node, jobs: list[asyncio.Task[None]]) -> None:
        await hand_over(node, self.membership)
        # At once, however it went before: until then nobody renews the lease, nor works on what is owned already.
        await self._begin_again(node, jobs, 0.0)

    async def _begin_again(self, old: Node, old_jobs: list[asyncio.Task[None]], pause_s: float) -> None:
        for job in old_jobs:
            job.cancel()
        await asyncio.gather(*old_jobs, return_exceptions=True)
        await old.batches.closed(LEAVE_S)
        while not self._is_stopping:
            await asyncio.sleep(pause_s)
            try:
                await self._begin(after_crash=False)
            except Exception as error:  # of the store, or a bug of ours: there is nothing better than to try again
                self.note_failure(error)
                if isinstance(error, StorageError) and _has_other_owner(error):
                    if self._is_shared:
                        pause_s = _LOOK_FOR_SHARE_S
                        continue
                    logger.error("This host has lost its store and stops: %s", error)  # noqa: TRY400
                    await self._end(error)
                    return
                logger.error("The store cannot be taken again yet: %r", error)  # noqa: TRY400
                self._culprits.failures_in_a_row += 1
                pause_s = self._culprits.back_off_s()
            else:
                return

    def _record_progress(self, work_item: ActivityWorkItem, progress: str) -> None:
        if self._node is not None:
            self._node.reports.progressed(work_item, progress)

    def _activity_finished(self, work_item: ActivityWorkItem, outcome: Outcome) -> None:
        self._progress.ended(work_item)
        if self._is_stopping and isinstance(outcome, Failed) and outcome.details.error_type == _HOST_STOPPED:
            return  # it could not do its work because this host is stopping; it runs again on the next
        self.answers.add(work_item, outcome)
        if self._node is not None:
            self._node.reports.finished(work_item, outcome)


def _has_other_owner(error: StorageError) -> bool:
    return isinstance(error, OwnershipLostError | StoreInUseError)


def _as_storage_error(error: Exception) -> StorageError:
    if isinstance(error, StorageError):
        return error
    return CommitFailedError(f"The engine had to start again: {error}", outcome_unknown=True)
