"""Statements of two hosts that change several of the same rows: neither waits for the other for ever.

A third one holds a row in the middle, so that both really have some rows, and wait for others.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
import pytest
from postgres_faults import until

from holdfast.storage.mail import NewRequest, PassedAttempt, RequestAnswer
from holdfast.storage.open_store import open_store
from holdfast.storage.postgres.mail import PostgresMail
from postgres_kit import connect, drop, execute, new_schema

ROWS: Final = 9
MIDDLE: Final = ROWS // 2
KEYS: Final = [("e", number) for number in range(ROWS)]

Change = Callable[[PostgresMail, Sequence[int]], Awaitable[object]]


def passed(number: int, attempt: int = 1) -> PassedAttempt:
    return PassedAttempt(0, "e", number, attempt, "f", "default", None)


REQUESTS: Final[dict[str, Change]] = {
    "answer": lambda mail, ids: mail.answer([RequestAnswer(each, 200, "") for each in ids]),
    "give back": lambda mail, ids: mail.give_back(ids),
    "withdraw": lambda mail, ids: mail.withdraw(ids),
    "collect": lambda mail, _: mail.collect(),
    "tidy up": lambda mail, _: mail.take_orphans(ROWS, ()),
}
OFFERS: Final[dict[str, Change]] = {
    "offer": lambda mail, numbers: mail.offer([passed(each, 2) for each in numbers]),
    "lend": lambda mail, numbers: mail.lend([passed(each) for each in numbers]),
    "give back": lambda mail, _: mail.give_offers_back(()),
    "reclaim": lambda mail, _: mail.reclaim(["f"], None, 0, ROWS),
}


@pytest.fixture
def url(postgres_server: str) -> Iterator[str]:
    url = new_schema(postgres_server)
    yield url
    drop(url)


@asynccontextmanager
async def two_hosts(url: str) -> AsyncGenerator[tuple[PostgresMail, PostgresMail]]:
    stores = [open_store(url) for _ in range(2)]
    await stores[0].acquire(0)
    mails: list[PostgresMail] = []
    for store in stores:
        assert isinstance(store.mail, PostgresMail)
        store.mail.owned = None
        mails.append(store.mail)
    try:
        yield mails[0], mails[1]
    finally:
        for store in stores:
            await store.close()


async def meet(url: str, row: str, changes: Sequence[Awaitable[object]]) -> None:
    """Let all changes run into a row that is held, and go on."""
    keeper = await connect(url)
    try:
        await keeper.execute(f"BEGIN; SELECT FROM {row} FOR UPDATE")
        jobs = list[asyncio.Future[object]]()
        for change in changes:
            jobs.append(asyncio.ensure_future(change))
            await until(lambda: _all_wait(jobs, keeper))
        await keeper.execute("COMMIT")
        await asyncio.gather(*jobs)
    finally:
        await keeper.close()


async def _all_wait(jobs: Sequence[asyncio.Future[object]], keeper: asyncpg.Connection[asyncpg.Record]) -> bool:
    """Whether all that have anything to wait for do so."""
    blocked = await keeper.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")
    return blocked >= sum(not job.done() for job in jobs)


def pairs(changes: dict[str, Change]) -> Iterator[tuple[str, str]]:
    """Give all pairs; the last one is in the output of a test that fails."""
    for pair in itertools.combinations_with_replacement(changes, 2):
        print(pair)
        yield pair


def test_requests(url: str) -> None:
    async def scenario() -> None:
        async with two_hosts(url) as (caller, taker):
            for one, other in pairs(REQUESTS):
                ids = await caller.send([NewRequest(0, "m", "{}")] * ROWS)
                await taker.take(ROWS)
                status = 200 if "collect" in (one, other) else "NULL"
                await execute(url, f"UPDATE request SET status = {status} WHERE request_id % 2 = 0")
                changes = [REQUESTS[one](caller, ids), REQUESTS[other](taker, ids[::-1])]
                await meet(url, f"request WHERE request_id = {ids[MIDDLE]}", changes)
                await execute(url, "DELETE FROM request")

    asyncio.run(scenario())


def test_offers(url: str) -> None:
    async def scenario() -> None:
        async with two_hosts(url) as (a, b):
            for one, other in pairs(OFFERS):
                await a.offer([passed(each) for each in range(ROWS)])
                await execute(url, f"UPDATE offer SET taker = '{a._token}'")  # pyright: ignore[reportPrivateUsage]
                changes = [OFFERS[one](a, range(ROWS)), OFFERS[other](b, range(ROWS)[::-1])]
                await meet(url, f"offer WHERE sequence = {MIDDLE}", changes)
                await execute(url, "DELETE FROM offer")

    asyncio.run(scenario())


def test_what_somebody_holds_is_left_alone_and_the_rest_is_taken(url: str) -> None:
    """A transaction of somebody that was left open stopped every queue."""

    async def scenario() -> None:
        async with two_hosts(url) as (a, b):
            ids = await a.send([NewRequest(0, "m", "{}")] * ROWS)
            await execute(
                url,
                "INSERT INTO activity SELECT 0, 'e', n, 'i', 'f', NULL, NULL, 1, 0, 0, 0, NULL"
                f" FROM generate_series(0, {ROWS - 1}) AS n",
            )
            await a.offer([passed(each) for each in range(ROWS)])
            b.owned = [7]  # what it does not own itself it may borrow
            keeper = await connect(url)
            try:
                await keeper.execute(
                    f"BEGIN; SELECT FROM request WHERE request_id = {ids[MIDDLE]} FOR UPDATE;"
                    f"SELECT FROM offer WHERE sequence = {MIDDLE} FOR UPDATE"
                )
                borrowed = await b.borrow(["f"], None, ROWS)
                assert sorted(each.sequence for each in borrowed) == [n for n in range(ROWS) if n != MIDDLE]
                taken = await a.take(ROWS)
                assert [each.request_id for each in taken] == [id_ for id_ in ids if id_ != ids[MIDDLE]]
            finally:
                await keeper.close()

    asyncio.run(scenario())
