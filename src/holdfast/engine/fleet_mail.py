"""The requests of clients that pass between the hosts of a fleet: what is asked here of others, and what others ask."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, TypeAlias, TypeVar

from holdfast.client.exchange import Answer, AnswerLostError, NotSentError
from holdfast.errors import HostStoppedError, InstanceElsewhereError, StorageError
from holdfast.storage.mail import HintKind, Mail, NewRequest, RequestAnswer, RequestRow

logger = logging.getLogger("holdfast.engine")

_TAKEN_MAX: Final = 10_000
"""Requests of others that are worked on at the same time; most of them wait for something."""
_PER_ROUND: Final = 500
_PATIENCE_S: Final = 30.0
"""How long an answer may take, besides what the request itself waits; it outlives the lease of a host that is dead."""

_SELDOM: Final = 10
"""So much longer waits a host before it looks by itself, as long as it hears hints."""

T = TypeVar("T")
Serve: TypeAlias = Callable[[RequestRow], Awaitable[tuple[int, str]]]


class _Asked:
    """A request of a client here, and the answer to come."""

    def __init__(self, request: NewRequest) -> None:
        self.request = request
        self.request_id: int | None = None
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()


class FleetMail:
    """One loop sends, takes, answers and collects, each for all that has come up meanwhile."""

    def __init__(self, mail: Mail, serve: Serve, poll_s: float, is_alone: Callable[[], bool]) -> None:
        """Send nothing yet.

        Args:
            serve: does what a request asks for, and returns its status and body; raises InstanceElsewhereError or
                HostStoppedError if that is for another host to do.
            is_alone: whether no other host owns anything; then nobody asks anything, and there is nobody to be asked.
        """
        self._is_alone = is_alone
        self._mail = mail
        self._serve = serve
        self._poll_s = poll_s
        self._wake = asyncio.Event()
        self._looks = set[HintKind]()
        self._to_send: list[_Asked] = []
        self._asked: dict[int, _Asked] = {}
        self._to_withdraw: list[int] = []
        self._to_answer: list[RequestAnswer] = []
        self._to_give_back: list[int] = []
        self._to_hint: set[int] = set()
        self._taken: dict[int, asyncio.Task[None]] = {}
        self._going_round = asyncio.Lock()
        self._look_at = 0.0
        """When to look at everything, by the clock of the loop."""
        self._is_closed = False

    async def ask(self, request: NewRequest, wait_s: float | None) -> Answer | None:
        """Send a request to whoever owns its partition, and return the answer; None if the wait ran out.

        Raises:
            NotSentError: if it was not sent.
            AnswerLostError: if it is not known what became of it.
        """
        if self._is_closed:
            raise NotSentError("this host has stopped")
        asked = _Asked(request)
        self._to_send.append(asked)
        self._wake.set()
        try:
            async with asyncio.timeout((wait_s or 0) + _PATIENCE_S):
                return await asked.answer
        except TimeoutError:
            if wait_s is not None:
                return None
            raise AnswerLostError("no host of the fleet has answered") from None
        finally:
            asked.answer.cancel()
            if asked.request_id is not None and self._asked.pop(asked.request_id, None) is not None:
                self._to_withdraw.append(asked.request_id)

    def look(self, kind: HintKind) -> None:
        """Look soon for requests or answers."""
        self._looks.add(kind)
        self._wake.set()

    def look_around(self) -> None:
        """Look soon at everything, also for what hosts have left that are gone."""
        self._look_at = 0.0
        self._wake.set()

    def hint_arrivals(self, partitions: Collection[int]) -> None:
        """Tell the owners of partitions that something has arrived for them."""
        self._to_hint.update(partitions)
        self._wake.set()

    async def run(self) -> None:
        """Go round for ever. A store that cannot be reached is tried again."""
        ticking = asyncio.get_running_loop().time
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._look_at):
                    await self._wake.wait()
            self._wake.clear()
            is_due = ticking() >= self._look_at  # also where so much is asked that there is never a pause
            try:
                if is_due:
                    self._look_at = ticking() + pause_s(self._mail, self._poll_s)
                    if self._asked or not self._is_alone():  # who is alone now may have asked one that is gone
                        self._looks.update(("requests", "answers"))
                        await self._tidy_up()
                await self._go_round()
            except StorageError as error:
                logger.info("The other hosts cannot be reached by way of the store just now: %s", error)
                self._look_at = 0.0
                await asyncio.sleep(self._poll_s)
            except Exception:  # a bug of ours; without this loop nothing would pass any more
                logger.exception("An internal error, after which it goes on.")
                await asyncio.sleep(self._poll_s)

    async def _tidy_up(self) -> None:
        """Take on what hosts had taken that are gone; give up what the server has lost, as it does when it crashes."""
        if self._asked:
            for request_id in await self._mail.lost(self._asked.keys()):
                self._settle(request_id, AnswerLostError("the server of the store has forgotten the request"))
        answered = (answer.request_id for answer in self._to_answer)
        self._work_on(await self._mail.take_orphans(self._room(), {*self._taken, *answered, *self._to_give_back}))

    async def _go_round(self) -> None:
        async with self._going_round:
            if self._to_hint:
                hinted, self._to_hint = self._to_hint, set()
                await self._mail.hint("arrivals", hinted)
            await self._send()
            await _pass_on(self._to_give_back, self._mail.give_back)
            await _pass_on(self._to_answer, self._mail.answer)
            await _pass_on(self._to_withdraw, self._mail.withdraw)
            if "answers" in self._looks and self._asked:
                self._looks.discard("answers")
                for answer in await self._mail.collect():
                    self._settle(answer.request_id, Answer(answer.status, answer.body.encode()))
            if "requests" in self._looks:
                self._looks.discard("requests")
                await self._take()

    async def _send(self) -> None:
        sending, self._to_send = [each for each in self._to_send if not each.answer.done()], []
        if not sending:
            return
        try:
            ids = await self._mail.send([each.request for each in sending])
        except StorageError as error:
            lost = AnswerLostError if getattr(error, "outcome_unknown", False) else NotSentError
            for each in sending:
                if not each.answer.done():
                    each.answer.set_exception(lost(str(error)))
            raise
        for request_id, each in zip(ids, sending, strict=True):
            each.request_id = request_id
            if each.answer.done():
                self._to_withdraw.append(request_id)
            else:
                self._asked[request_id] = each

    def _room(self) -> int:
        return 0 if self._is_closed else min(_PER_ROUND, _TAKEN_MAX - len(self._taken))

    async def _take(self) -> None:
        room = self._room()
        if room > 0:
            requests = await self._mail.take(room)
            self._work_on(requests)
            if len(requests) == room:
                self.look("requests")

    def _work_on(self, requests: Sequence[RequestRow]) -> None:
        for request in requests:
            if request.request_id in self._taken:
                continue  # it was another host's meanwhile, which took this one for dead, and has given it back
            self._taken[request.request_id] = asyncio.get_running_loop().create_task(self._work(request))

    def _settle(self, request_id: int, outcome: Answer | AnswerLostError) -> None:
        asked = self._asked.pop(request_id, None)
        if asked is None or asked.answer.done():
            return
        if isinstance(outcome, Answer):
            asked.answer.set_result(outcome)
        else:
            asked.answer.set_exception(outcome)

    async def _work(self, request: RequestRow) -> None:
        try:
            status, body = await self._serve(request)
            self._to_answer.append(RequestAnswer(request.request_id, status, body))
        except (InstanceElsewhereError, HostStoppedError, asyncio.CancelledError):
            self._to_give_back.append(request.request_id)
        finally:
            del self._taken[request.request_id]
            self._wake.set()

    async def close(self) -> None:
        """Take no more requests, and give back those that are not answered."""
        if self._is_closed:
            return
        self._is_closed = True
        for job in self._taken.values():
            job.cancel()
        if self._taken:
            await asyncio.wait(self._taken.values())
        self._to_withdraw.extend(self._asked)
        with contextlib.suppress(StorageError):
            await self._go_round()
        for asked in [*self._to_send, *self._asked.values()]:
            if not asked.answer.done():
                asked.answer.set_exception(AnswerLostError("this host has stopped"))


def pause_s(mail: Mail, poll_s: float) -> float:
    """Return how long to wait for a hint before looking without one."""
    return poll_s * _SELDOM if mail.hears else poll_s


async def _pass_on(waiting: list[T], pass_on: Callable[[Sequence[T]], Awaitable[None]]) -> None:
    """Pass on what waits. It goes on waiting if that fails: whoever is to get it would wait in vain."""
    if waiting:
        passed = waiting[:]
        await pass_on(passed)
        del waiting[: len(passed)]
