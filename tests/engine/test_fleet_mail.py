"""The requests that pass between hosts, over a mail that fails when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from engine_kit import until

from holdfast.client.exchange import Answer, AnswerLostError
from holdfast.engine.fleet_mail import FleetMail, Serve
from holdfast.errors import CommitFailedError
from holdfast.storage.mail import HintKind, NewRequest, RequestAnswer, RequestRow

OFTEN_S = 0.005


class Table:
    """The requests of all hosts."""

    def __init__(self) -> None:
        self.rows: dict[int, tuple[str, NewRequest]] = {}
        self.takers: dict[int, str] = {}
        self.answers: dict[int, RequestAnswer] = {}
        self.last_id = 0


class FakeMail:
    """The mail of one host. Its next calls fail as planned: `before` they did anything, or `after`."""

    def __init__(self, table: Table, name: str, *, is_owner: bool = False) -> None:
        self._table = table
        self._name = name
        self._is_owner = is_owner
        self.planned: dict[str, list[str]] = {}
        self.hinted: list[HintKind] = []
        self.hears = False
        self.looks = 0

    def _begin(self, call: str) -> None:
        if self.planned.get(call, [])[:1] == ["before"]:
            self.planned[call].pop(0)
            raise CommitFailedError("planted: nothing was done")

    def _end(self, call: str) -> None:
        if self.planned.get(call):
            self.planned[call].pop(0)
            raise CommitFailedError("planted: the answer got lost", outcome_unknown=True)

    async def send(self, requests: Sequence[NewRequest]) -> list[int]:
        self._begin("send")
        table, ids = self._table, list[int]()
        for request in requests:
            table.last_id += 1
            table.rows[table.last_id] = (self._name, request)
            ids.append(table.last_id)
        self._end("send")
        return ids

    async def take(self, limit: int) -> list[RequestRow]:
        self._begin("take")
        free = [id_ for id_ in self._table.rows if self._is_owner and id_ not in self._table.takers][:limit]
        self._table.takers |= dict.fromkeys(free, self._name)
        self._end("take")
        return [self._row(id_, was_begun=False) for id_ in free]

    async def take_orphans(self, limit: int, known: Collection[int]) -> list[RequestRow]:
        await asyncio.sleep(0)
        self.looks += 1
        mine = [id_ for id_, taker in self._table.takers.items() if taker == self._name]
        found = [id_ for id_ in mine if id_ in self._table.rows and id_ not in {*known, *self._table.answers}]
        return [self._row(id_, was_begun=False) for id_ in found[:limit]]

    def _row(self, id_: int, *, was_begun: bool) -> RequestRow:
        request = self._table.rows[id_][1]
        return RequestRow(id_, request.method, request.arguments, was_begun)

    async def give_back(self, request_ids: Sequence[int]) -> None:
        self._begin("give_back")
        for id_ in request_ids:
            if self._table.takers.get(id_) == self._name:
                del self._table.takers[id_]
        self._end("give_back")

    async def answer(self, answers: Sequence[RequestAnswer]) -> None:
        self._begin("answer")
        for each in answers:
            if each.request_id in self._table.rows:
                self._table.answers.setdefault(each.request_id, each)
        self._end("answer")

    async def collect(self) -> list[RequestAnswer]:
        self._begin("collect")
        ids = [id_ for id_ in self._table.answers if id_ in self._table.rows and self._table.rows[id_][0] == self._name]
        found = [self._table.answers.pop(id_) for id_ in ids]
        for id_ in ids:
            del self._table.rows[id_]
        self._end("collect")
        return found

    async def lost(self, request_ids: Collection[int]) -> set[int]:
        return {id_ for id_ in request_ids if id_ not in self._table.rows}

    async def withdraw(self, request_ids: Sequence[int]) -> None:
        self._begin("withdraw")
        for id_ in request_ids:
            self._table.rows.pop(id_, None)
        self._end("withdraw")

    async def other_hosts(self) -> list[int]:
        return [0]

    async def hint(self, kind: HintKind, partitions: Collection[int]) -> None:
        self.hinted.append(kind)

    def listen(self, heard: Callable[[HintKind], None]) -> None:
        pass


async def echo(request: RequestRow) -> tuple[int, str]:
    return 200, request.arguments


@asynccontextmanager
async def at_work(mail: Any, serve: Serve = echo, poll_s: float = OFTEN_S) -> AsyncGenerator[FleetMail]:
    fleet_mail = FleetMail(mail, serve, poll_s, lambda: False)
    job = asyncio.create_task(fleet_mail.run())
    try:
        yield fleet_mail
    finally:
        await fleet_mail.close()
        job.cancel()


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(20):  # less than the patience of whoever asks
            await scenario()

    asyncio.run(in_time())


@pytest.mark.parametrize("how", ["before", "after"])
@pytest.mark.parametrize("call", ["take", "answer", "collect", "withdraw", "give_back"])
def test_what_is_lost_on_the_way_is_passed_again(call: str, how: str) -> None:
    async def scenario() -> None:
        table = Table()
        asker, taker = FakeMail(table, "asker"), FakeMail(table, "taker", is_owner=True)
        async with at_work(asker) as asking, at_work(taker):
            given_up = asyncio.create_task(asking.ask(NewRequest(0, "m", "0"), None))
            await asyncio.sleep(0)
            given_up.cancel()
            asker.planned[call], taker.planned[call] = [how], [how]
            answers = await asyncio.gather(
                *(asking.ask(NewRequest(0, "m", f"{n}"), None) for n in range(5)), return_exceptions=True
            )
            for number, answer in enumerate(answers):
                lost = isinstance(answer, AnswerLostError) and (call, how) == ("collect", "after")
                assert lost or answer == Answer(200, f"{number}".encode())
            await until(lambda: not table.rows)

    run(scenario)


def test_who_never_pauses_looks_all_the_same() -> None:
    """Where nobody can listen, a host that asked all the time never looked for answers."""

    async def scenario() -> None:
        table = Table()
        is_over = False
        async with at_work(FakeMail(table, "asker")) as asking, at_work(FakeMail(table, "taker", is_owner=True)):

            async def hint() -> None:
                while not is_over:
                    asking.hint_arrivals({1})
                    await asyncio.sleep(0)

            hinting = asyncio.create_task(hint())
            answer = await asking.ask(NewRequest(0, "m", "x"), None)
            assert answer is not None
            is_over = True
            await hinting

    run(scenario)


def test_who_hears_hints_looks_around_when_it_is_told_that_hosts_have_changed() -> None:
    async def scenario() -> None:
        table = Table()
        taker = FakeMail(table, "taker", is_owner=True)
        taker.hears = True
        async with at_work(taker, poll_s=3600) as taking, at_work(FakeMail(table, "asker")) as asking:
            await until(lambda: taker.looks > 0)
            asked = asyncio.create_task(asking.ask(NewRequest(0, "m", "x"), None))
            await until(lambda: bool(table.rows))
            table.takers[1] = "taker"  # as after a host that is gone
            taking.look_around()
            answer = await asked
            assert answer is not None

    run(scenario)


def test_what_comes_back_to_a_host_that_works_on_it_is_not_begun_again() -> None:
    async def scenario() -> None:
        table, begun, may_end = Table(), list[int](), asyncio.Event()
        asker, taker = FakeMail(table, "asker"), FakeMail(table, "taker", is_owner=True)

        async def serve(request: RequestRow) -> tuple[int, str]:
            begun.append(request.request_id)
            await may_end.wait()
            return await echo(request)

        async with at_work(asker) as asking, at_work(taker, serve):
            asked = asyncio.create_task(asking.ask(NewRequest(0, "m", "x"), None))
            await until(lambda: begun == [1])
            for _ in range(3):  # as by another host, which had taken this one for dead
                del table.takers[1]
                await until(lambda: table.takers.get(1) == "taker")
            may_end.set()
            answer = await asked
            assert answer is not None
            assert begun == [1]

    run(scenario)


def test_a_host_that_stops_withdraws_what_it_has_asked() -> None:
    async def scenario() -> None:
        table = Table()
        async with at_work(FakeMail(table, "asker")) as asking:
            asked = asyncio.create_task(asking.ask(NewRequest(0, "m", "x"), None))
            await until(lambda: bool(table.rows))
        assert table.rows == {}
        with pytest.raises(AnswerLostError, match="has stopped"):
            await asked

    run(scenario)
