"""Finding the work that waits in the store: all of it after a start, and later what did not fit into memory."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from holdfast.engine.activity_runner import ActivityRunner
from holdfast.engine.activity_starts import recover_activity
from holdfast.engine.clock import to_microseconds
from holdfast.engine.config import HostConfig
from holdfast.engine.node import Node
from holdfast.engine.stored import decode_activity, decode_timer
from holdfast.errors import ConfigurationError, CorruptRecordError, OwnershipLostError, StorageError
from holdfast.model.failure import failure_from_exception
from holdfast.storage.port import Ownership, PageKey, Store

logger = logging.getLogger("holdfast.engine")

_ROWS_PER_READ = 5_000
_INSTANCES_PER_READ = 500
_LOOK_FOR_ROOM_S = 0.05
_CLOCK_SET_S = 5.0
_LEASE_LEFT = 0.1
"""The part of a lease that must be left when a host takes its hands off, for a loop that is late."""


async def recover(node: Node, store: Store, runner: ActivityRunner) -> None:
    """Take up everything that was going on when the store was left."""
    await _fill_timers(node, store)
    await _fill_activities(node, store, runner)
    after = ""
    while True:
        instance_ids = await store.instances_with_messages(after, _INSTANCES_PER_READ)
        if not instance_ids:
            break
        for instance_id in instance_ids:
            node.wake(instance_id)
        after = instance_ids[-1]
        pause_s = 0.001
        while not node.loader.is_idle or node.journal.is_full:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LOOK_FOR_ROOM_S)
    node.suspects.scanned()


async def recover_after(lsn: int, node: Node, store: Store, runner: ActivityRunner) -> None:
    """Find what was sent to instances while they were held back: nothing of it is in memory.

    Args:
        lsn: the last transition of that time; what it sent can be found only once it is stored.
    """
    await node.journal.durable(lsn)
    await recover(node, store, runner)


async def keep_filled(node: Node, store: Store, runner: ActivityRunner) -> None:
    """Bring the timers of the next while, and what found no room, into memory as time passes. Never ends."""
    half_horizon_s = node.config.timer_horizon_s / 2
    look_around_s = min(node.config.clock_check_s, half_horizon_s)
    ticking = asyncio.get_running_loop().time
    filled_at, offset_s = ticking(), _wall_clock_offset_s(node, ticking())
    while True:
        if node.starts.overflowed.is_set() or node.timers.has_overflowed:
            await asyncio.sleep(_LOOK_FOR_ROOM_S)
        else:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(look_around_s):
                    await node.starts.overflowed.wait()
        if node.starts.overflowed.is_set() and runner.queued <= node.config.activity_queue_max // 2:
            await _fill_activities(node, store, runner)
        if node.timers.has_room and not node.loader.is_crowded and not node.journal.is_full:
            await _fill_further(node, store, runner)
        was_set = abs(_wall_clock_offset_s(node, ticking()) - offset_s) > _CLOCK_SET_S
        if was_set or ticking() >= filled_at + half_horizon_s:
            filled_at, offset_s = ticking(), _wall_clock_offset_s(node, ticking())
            if not node.timers.has_overflowed:  # else it is read on from there, and to the horizon, in time
                await _fill_timers(node, store)
            await _fill_activities(node, store, runner)


def check_renewal(config: HostConfig, ownership: Ownership) -> None:
    """Check that a lease is renewed long before it is over.

    Raises:
        ConfigurationError: otherwise.
    """
    if ownership.lease_s is not None and config.renew_s > ownership.lease_s / 2:
        raise ConfigurationError(
            f"The lease of this store takes {ownership.lease_s:g} s; renew_s={config.renew_s:g} is more than half of "
            "that: the host would lose it while it lives. Set renew_s to a third of the lease."
        )


async def keep_ownership(node: Node, store: Store, lease_s: float | None, due: Callable[[], None]) -> None:
    """Make sure now and then that the store is still ours, also when there is nothing to commit. Never ends.

    A store that cannot be read just now tells nothing, and is asked again, until a lease may be over: another host may
    begin then what this one has in memory. The same is so of a store that does not answer at all.

    Args:
        due: called when partitions should move, to this host or from it.

    Raises:
        OwnershipLostError: when it is not; whoever waits at this host would wait for ever.
        StorageError: when that cannot be found out before the lease may be over.
    """
    ticking = asyncio.get_running_loop().time
    every_s, left_s = node.config.renew_s, None if lease_s is None else lease_s * _LEASE_LEFT
    confirmed_at = ticking()
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await node.has_doubts.wait()
        node.has_doubts.clear()
        asked_at = ticking()
        sure_s = None if lease_s is None or left_s is None else confirmed_at + lease_s - left_s - asked_at
        try:
            # One that slept for longer than its lease asks too: perhaps nobody came meanwhile.
            if await _renew(node, store, None if sure_s is None or left_s is None else max(sure_s, left_s)):
                due()
            confirmed_at = asked_at
        except OwnershipLostError:
            raise
        except StorageError as error:
            if sure_s is not None and ticking() - asked_at + every_s > sure_s:
                raise
            logger.warning("It could not be found out whether this host still owns its store: %s", error)


async def _renew(node: Node, store: Store, limit_s: float | None) -> bool:
    """Ask the store once, and give up after a while. What hangs then may take long even to be cancelled.

    Raises:
        StorageError: what the store says, or that it says nothing.
    """
    job = asyncio.ensure_future(store.renew(node.fence))
    job.add_done_callback(_heard)
    try:
        await asyncio.wait({job}, timeout=limit_s)
        if not job.done():
            raise StorageError(
                f"The store has not answered for {limit_s:.1f} s whether this host still owns it. Is the network there?"
            )
    finally:
        job.cancel()
    return job.result()


def _heard(renewal: asyncio.Future[bool]) -> None:
    """Take note of an error for which nobody waits any more."""
    if not renewal.cancelled():
        renewal.exception()


def _wall_clock_offset_s(node: Node, ticks_s: float) -> float:
    """By how much the wall clock is ahead of the one that nobody sets."""
    return node.clock.now().timestamp() - ticks_s


async def _fill_further(node: Node, store: Store, runner: ActivityRunner) -> None:
    """Take up what was left to the store when there were too many timers in memory."""
    last = node.timers.go_on()
    await node.journal.settled()  # what was left to the store just now is there
    after = None if last is None else (to_microseconds(last[0]), *last[1])
    await _fill_timers(node, store, after)
    if not node.starts.overflowed.is_set():  # else they are read from the first on
        await _fill_activities(node, store, runner, after)


async def _fill_timers(node: Node, store: Store, after: PageKey | None = None) -> None:
    rows_read, last = 0, None
    while True:
        rows = await store.timers_due(to_microseconds(node.timers.horizon()), _ROWS_PER_READ, after)
        for row in rows:
            try:
                last = decode_timer(row)
                node.timers.add(last.key, last.due_at, last)
            except CorruptRecordError as error:
                node.parking.park_by_id(row.instance_id, failure_from_exception(error))
        if len(rows) < _ROWS_PER_READ:
            return
        after = (rows[-1].due_at, *rows[-1].key)
        rows_read += len(rows)
        if rows_read >= node.config.timers_max and last is not None:
            node.timers.leave_after(last.due_at, last.key)
            return


async def _fill_activities(node: Node, store: Store, runner: ActivityRunner, after: PageKey | None = None) -> None:
    """Start stored activities that are neither queued nor running here, as many as there is room for."""
    node.starts.overflowed.clear()
    while not node.starts.overflowed.is_set():
        until = to_microseconds(node.timers.horizon())
        rows = await store.activities_visible(until, _ROWS_PER_READ, after)
        known = runner.known_keys()
        for row in rows:
            if row.key in known:
                continue
            try:
                recover_activity(node, decode_activity(row))
            except CorruptRecordError as error:
                node.parking.park_by_id(row.instance_id, failure_from_exception(error))
        if len(rows) < _ROWS_PER_READ:
            return
        after = (rows[-1].visible_at, *rows[-1].key)
