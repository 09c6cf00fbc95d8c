"""Activities that do not run on the host that owns their instance.

They are lent when their partition moves while they run; offered when their owner has no room for them, or not the code,
or does not serve their queue; borrowed by hosts with nothing to do. Their outcomes go to whoever owns the instance
then, as messages do; the attempt says whether they still count. Whoever dies meanwhile had them, and their owner takes
them back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Final

from holdfast.engine.activity_runner import ActivityRunner
from holdfast.engine.activity_starts import recover_activity
from holdfast.engine.answers import Answers
from holdfast.engine.clock import to_microseconds
from holdfast.engine.config import HostConfig
from holdfast.engine.fleet_mail import pause_s
from holdfast.engine.stored import decode_activity, encode_report
from holdfast.engine.unserved import Unserved
from holdfast.errors import CorruptRecordError, StorageError
from holdfast.hub.instance import ScheduledActivity
from holdfast.model.ids import partition_of
from holdfast.model.messages import DurableKey
from holdfast.model.queues import DEFAULT_QUEUE
from holdfast.model.work_items import ActivityWorkItem, Outcome
from holdfast.registry.registry import ACTIVITY, ORCHESTRATOR, declared_queues, is_served
from holdfast.storage.mail import Mail, PassedAttempt
from holdfast.storage.port import ActivityRow, ArrivalRow

if TYPE_CHECKING:
    from holdfast.engine.node import Node

logger = logging.getLogger("holdfast.engine")

_PER_ROUND: Final = 200
_OFFERS_MAX: Final = 50_000
_REPORTED_MAX: Final = 10_000
_IN_QUESTION_MAX: Final = 50_000


class Lending:
    """Of one engine. One loop offers, takes back, borrows and reports."""

    def __init__(
        self,
        mail: Mail,
        runner: ActivityRunner,
        answers: Answers,
        config: HostConfig,
        functions: Collection[str],
        node: Callable[[], Node | None],
        unserved: Unserved,
    ) -> None:
        """Begin with nothing.

        Args:
            functions: what this host can run, as `registry.functions` says it.
        """
        self._mail = mail
        self._runner = runner
        self._answers = answers
        self._config = config
        self._functions = {*functions, *declared_queues(config.queues)}
        self._activities = [name.removeprefix(ACTIVITY) for name in functions if name.startswith(ACTIVITY)]
        self._node = node
        self._known: frozenset[str] = frozenset(self._functions)
        self._unserved = unserved
        self._offers: dict[DurableKey, ScheduledActivity] = {}
        self._reports: list[tuple[ActivityWorkItem, Outcome]] = []
        self._wake = asyncio.Event()
        self._is_closed = False
        self._hosts_changed = True
        self._has_offers = True
        """Whether anything of this host is with others, or is to be."""
        self._may_borrow = True
        """Whether others may offer something that there was no room for."""
        mail.declare(self._functions)
        self._began_again = False
        self._reported: deque[DurableKey] = deque(maxlen=_REPORTED_MAX)
        """What was reported lately: the owner may not have stored it yet."""
        self._in_question: dict[str, str] = {}
        """Instances that wait until it is known whether anybody has their orchestrator, by id, with its name."""
        self._nobody_has: set[str] = set()
        """Those of which it is known now that nobody has it; each is told once."""

    async def learn(self) -> None:
        """Find out what other hosts can run."""
        self._known = await self._mail.declared() | self._functions
        self._unserved.forget(self._is_served, self._is_known)

    def knows_orchestrator(self, name: str) -> bool:
        """Whether some host of the fleet has an orchestrator, as far as is known here."""
        return ORCHESTRATOR + name.casefold() in self._known

    def may_know_orchestrator(self, name: str, instance_id: str) -> bool:
        """Whether some host may have the orchestrator of an instance that is to run; False if none has.

        Of one who has just come nothing may be known here yet. So the store is asked first, and the instance is woken
        then.
        """
        if self.knows_orchestrator(name):
            return True
        is_certain = self.is_alone or instance_id in self._nobody_has
        self._nobody_has.discard(instance_id)
        if is_certain or len(self._in_question) + len(self._nobody_has) >= _IN_QUESTION_MAX:
            return False
        self._in_question[instance_id] = name
        self._wake.set()
        return True

    @property
    def is_alone(self) -> bool:
        """Whether no other host owns anything; then there is nobody to run anything."""
        node = self._node()
        return node is None or node.partitions.some is None

    def lacks(self, activity: ScheduledActivity) -> bool:
        """Whether this host cannot run an activity; another one may."""
        return ACTIVITY + activity.name.casefold() not in self._functions

    def look(self, *, hosts_changed: bool = False) -> None:
        """Look soon for offers of others, and for what can be taken back; and for what other hosts can run."""
        self._hosts_changed = self._hosts_changed or hosts_changed
        self._may_borrow = True
        self._wake.set()

    def offer(self, activity: ScheduledActivity) -> bool:
        """Let another host run an activity; return False if there is none, or too many are being offered."""
        if self.is_alone or len(self._offers) >= _OFFERS_MAX:
            return False
        self._offers[activity.key] = activity
        self._wake.set()
        return True

    async def lend(self, partition_count: int) -> None:
        """Let the next owners know what runs here, before there are any; what cannot be told runs again there."""
        outcomes = (*self._answers.waiting(), *self._reports)
        work_items = [*self._runner.running(), *(work_item for work_item, _ in outcomes)]
        if work_items:
            with contextlib.suppress(StorageError):
                await self._mail.lend([_passed(each, partition_count) for each in work_items])

    def is_offering(self, key: DurableKey) -> bool:
        """Whether an activity is about to be offered."""
        return key in self._offers

    def forget_offers(self) -> None:
        """Offer nothing for a node that is given up: whoever owns it next finds it in the store."""
        self._offers.clear()
        self._in_question.clear()
        self._nobody_has.clear()
        self._began_again = True
        self._wake.set()

    def report(self, work_item: ActivityWorkItem, outcome: Outcome) -> None:
        """Send an outcome to whoever owns the instance now, which may be this host again by then."""
        self._answers.discard((work_item.execution_id, work_item.sequence))
        self._reports.append((work_item, outcome))
        self._wake.set()

    async def run(self) -> None:
        """Go round for ever. A store that cannot be reached is tried again."""
        while True:
            # Nobody tells that its own offers are over, or should have started; nor that it has room for others now.
            is_seldom = not self._has_offers and not self._may_borrow
            wait_s = pause_s(self._mail, self._config.poll_s) if is_seldom else self._config.poll_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()
            is_told = self._wake.is_set()
            if not is_told and self.is_alone and not self._has_offers:
                continue  # it is alone, and nobody says that there is something to do
            self._wake.clear()
            try:
                await self._go_round(is_told=is_told)
            except StorageError as error:
                logger.info("Activities cannot be passed between hosts just now: %s", error)
                self._wake.set()
                await asyncio.sleep(self._config.poll_s)
            except Exception:  # a bug of ours; without this loop nothing would pass any more
                logger.exception("An internal error, after which it goes on.")
                await asyncio.sleep(self._config.poll_s)

    async def _go_round(self, *, is_told: bool) -> None:
        await self._post_reports()
        if self._began_again:  # what it had borrowed and not begun was forgotten
            self._began_again = False
            await self._give_back([*self._runner.known_keys(), *self._answers.keys()])
        node, has_room = self._node(), self._runner.queued <= self._config.activity_queue_max // 2
        if node is None or self._is_closed:
            return
        if self._hosts_changed:
            await self.learn()
            self._hosts_changed = False
        await self._answer_questions(node)
        await self._make_offers(node)
        has_own = is_told or self._has_offers
        taken_back = await self._reclaim(node, self._activities if has_room else []) if has_own else 0
        borrowed = 0
        if not taken_back and self._runner.queued == 0 and node is self._node():
            borrowed = await self._borrow()
        if has_own:
            await self._see_what_waits()
        if taken_back == _PER_ROUND or borrowed == _PER_ROUND:
            self._wake.set()

    async def _answer_questions(self, node: Node) -> None:
        asked = dict(self._in_question)
        if asked:
            await self.learn()
        for instance_id, name in asked.items():
            if self._in_question.pop(instance_id, None) and not self.knows_orchestrator(name):
                self._nobody_has.add(instance_id)
                node.wake(instance_id)

    def _is_served(self, queue: str) -> bool:
        """Whether some host that lives serves a queue, as far as is known here."""
        return is_served(queue, self._known)

    def _is_known(self, name: str) -> bool:
        """Whether some host that lives has the code of an activity, as far as is known here."""
        return ACTIVITY + name.casefold() in self._known

    async def _see_what_waits(self) -> None:
        offers = await self._mail.offers()
        self._has_offers = bool(offers)
        for each in offers:
            if each.is_waiting and not self._is_served(each.queue):
                self._unserved.note_queue(each.queue)
            elif each.is_waiting and not self._is_known(each.function):
                self._unserved.note_activity(each.function)

    async def _reclaim(self, node: Node, names: list[str]) -> int:
        now = to_microseconds(node.clock.now())
        try:
            rows = await self._mail.reclaim(names, self._config.queues, now, _PER_ROUND)
        except StorageError:
            node.starts.overflowed.set()  # they may be offered no more: then they are found in the store
            raise
        for row, was_begun in rows:
            self._take_back(row, was_begun=was_begun)
        return len(rows)

    async def _borrow(self) -> int:
        limit = min(self._runner.room, _PER_ROUND)  # what it cannot begin at once is for others
        if not limit:
            return 0
        try:
            rows = await self._mail.borrow(self._activities, self._config.queues, limit)
        except StorageError:
            self._began_again = True  # they may have been taken: then they are given back
            raise
        self._may_borrow = len(rows) == limit
        for row in rows:
            with contextlib.suppress(CorruptRecordError):  # its owner finds that out, too
                self._runner.submit(decode_activity(row))
        return len(rows)

    async def _make_offers(self, node: Node) -> None:
        if any(self.lacks(each) or not self._config.serves(each.policy.queue) for each in self._offers.values()):
            await self.learn()
        offers, self._offers = self._offers, {}
        for each in [each for each in offers.values() if self._is_unknown(each)]:
            self._runner.submit(each)  # which says that there is no such activity
            del offers[each.key]
        if not offers:
            return
        try:
            await self._mail.offer([_passed(each, node.partitions.count) for each in offers.values()])
        except StorageError:
            self._offers = {**offers, **self._offers}
            raise

    def _is_unknown(self, activity: ScheduledActivity) -> bool:
        """Whether no host has the code of an activity, though there are some that serve its queue."""
        return not self._is_known(activity.name) and self._is_served(activity.policy.queue or DEFAULT_QUEUE)

    async def _give_back(self, kept: Collection[DurableKey]) -> None:
        try:
            unsent = [(each.execution_id, each.sequence) for each, _ in self._reports]
            await self._mail.give_offers_back([*kept, *unsent, *self._reported])
        except StorageError:
            self._began_again = True
            raise

    def _take_back(self, row: ActivityRow, *, was_begun: bool) -> None:
        node = self._node()
        if node is not None:  # else the next one looks at the store from the beginning
            with contextlib.suppress(CorruptRecordError):  # a look at the store finds that out, too
                recover_activity(node, decode_activity(row), was_begun=was_begun)

    async def _post_reports(self) -> None:
        reports, node = self._reports, self._node()
        if not reports or node is None:
            return
        self._reports = []
        rows = [
            ArrivalRow(
                partition_of(each.instance_id, node.partitions.count),
                each.instance_id,
                each.execution_id,
                encode_report(each, outcome),
            )
            for each, outcome in reports
        ]
        try:
            await self._mail.post(rows)
        except StorageError:
            self._reports = reports + self._reports
            raise
        for each, _ in reports:
            self._reported.append((each.execution_id, each.sequence))

    def take_no_more(self) -> None:
        """Offer, take back and borrow nothing more."""
        self._is_closed = True

    async def flush(self) -> None:
        """Send the outcomes that are to be sent, if that can be, and give back what has none."""
        with contextlib.suppress(StorageError):
            await self._post_reports()
            await self._give_back(list(self._answers.keys()))


def _passed(work_item: ActivityWorkItem, partition_count: int) -> PassedAttempt:
    return PassedAttempt(
        partition_of(work_item.instance_id, partition_count),
        work_item.execution_id,
        work_item.sequence,
        work_item.attempt,
        work_item.name.casefold(),
        work_item.policy.queue or DEFAULT_QUEUE,
        None if work_item.start_by is None else to_microseconds(work_item.start_by),
    )
