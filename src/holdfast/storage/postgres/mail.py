"""Requests between hosts as rows of a table, and hints by NOTIFY, in transactions of their own.

A NOTIFY makes its transaction wait for a lock that all of them share, so none is in a transaction that holds work.
Through a pooler in transaction mode nobody can listen; then the hosts find everything when they look.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec

from holdfast.errors import StorageError
from holdfast.model.messages import DurableKey
from holdfast.storage.mail import HINT_KINDS, HintKind, NewRequest, OffersOf, PassedAttempt, RequestAnswer, RequestRow
from holdfast.storage.port import ActivityRow, ArrivalRow
from holdfast.storage.postgres.connections import Connection, Connections
from holdfast.storage.postgres.failures import FAILURES
from holdfast.storage.postgres.location import Location
from holdfast.storage.postgres.queries import QUERIES
from holdfast.storage.postgres_schema import channel_of

logger = logging.getLogger("holdfast.storage")

_LISTEN_AGAIN_S: Final = 1.0
_LISTENS_CHECK_S: Final = 10.0
_LISTENS_ANSWER_S: Final = 5.0
"""Together with the time before, the longest for which a host may believe that it hears what it does not."""
_RANDOM_BITS: Final = 10
"""Of the ids of requests, below the microsecond in which they were made: a table that a crash of the server empties
would number them from the beginning again, and there are hosts that still know the old ones."""
_PAYLOAD_CHARS_MAX: Final = 7_000
"""Of a NOTIFY: PostgreSQL takes up to 8,000 bytes."""
_ALL: Final = "*"


class PostgresMail:
    """The mail of one host, which is known by the token of its store."""

    def __init__(self, location: Location, token: str) -> None:
        self._location = location
        self._token = token
        self._connections = Connections(location)
        self._channel = channel_of(location.schema)
        self._told = None if location.is_pooled else self._channel
        """Where hints go; behind a pooler nobody hears any."""
        self._listening: asyncio.Task[None] | None = None
        self._hears = False
        self.owned: Collection[int] | None = ()
        """The partitions of the store; None for all."""
        self.functions: Sequence[str] = ()
        """What this host can run, which is stored as it takes partitions: nobody owns any of whom that is not known."""

    async def send(self, requests: Sequence[NewRequest]) -> list[int]:
        partitions, methods, arguments = zip(
            *((each.partition, each.method, each.arguments) for each in requests), strict=True
        )

        first = (time.time_ns() // 1_000 << _RANDOM_BITS) + secrets.randbits(_RANDOM_BITS)
        ids = list(range(first, first + len(requests)))
        told = (self._told, _payload("requests", {str(each) for each in partitions}))
        columns = (ids, partitions, methods, arguments, self._token)
        await self._connections.commit(QUERIES["send_requests"], *columns, *told, is_repeatable=True)
        return ids

    async def take(self, limit: int) -> list[RequestRow]:
        return await self._take("take_requests", limit)

    async def take_orphans(self, limit: int, known: Collection[int]) -> list[RequestRow]:
        return await self._take("take_orphans", limit, list(known))

    async def _take(self, query: str, limit: int, *more: object) -> list[RequestRow]:
        owned = None if self.owned is None else list(self.owned)
        rows = await self._connections.commit(QUERIES[query], owned, limit, self._token, *more)
        return sorted((RequestRow(*row) for row in rows), key=lambda row: row.request_id)

    async def give_back(self, request_ids: Sequence[int]) -> None:
        async def give_back(connection: Connection) -> None:
            await connection.execute(QUERIES["give_requests_back"], request_ids, self._token)
            await self._notify(connection, "requests", (_ALL,))

        await self._connections.write(give_back)

    async def answer(self, answers: Sequence[RequestAnswer]) -> None:
        columns = zip(*((each.request_id, each.status, each.body) for each in answers), strict=True)
        await self._connections.commit(QUERIES["answer_requests"], *columns, self._told, is_repeatable=True)

    async def collect(self) -> list[RequestAnswer]:
        rows = await self._connections.commit(QUERIES["collect_answers"], self._token)
        return [RequestAnswer(*row) for row in rows]

    async def lost(self, request_ids: Collection[int]) -> set[int]:
        wanted = list(request_ids)
        return set(wanted) - {row[0] for row in await self._connections.ask(QUERIES["requests_left"], wanted)}

    async def withdraw(self, request_ids: Sequence[int]) -> None:
        await self._connections.commit(QUERIES["withdraw_requests"], request_ids, is_repeatable=True)

    async def post(self, arrivals: Sequence[ArrivalRow]) -> None:
        columns = zip(
            *((each.partition, each.instance_id, each.execution_id, each.event) for each in arrivals), strict=True
        )

        async def post(connection: Connection) -> None:
            await connection.execute(QUERIES["post_arrivals"], *columns)
            await self._notify(connection, "arrivals", {str(each.partition) for each in arrivals})

        await self._connections.write(post)

    async def lend(self, attempts: Sequence[PassedAttempt]) -> None:
        columns = (*_columns(attempts), self._token)
        await self._connections.commit(QUERIES["lend_activities"], *columns, is_repeatable=True)

    def declare(self, functions: Collection[str]) -> None:
        self.functions = sorted(functions)

    async def declared(self) -> frozenset[str]:
        return frozenset(row[0] for row in await self._connections.ask(QUERIES["functions"]))

    async def offer(self, attempts: Sequence[PassedAttempt]) -> None:
        columns = _columns(attempts)

        async def offer(connection: Connection) -> None:
            await connection.execute(QUERIES["offer_activities"], *columns)
            await self._notify(connection, "offers", (_ALL,))

        await self._connections.write(offer)

    async def borrow(self, names: Sequence[str], queues: Sequence[str] | None, limit: int) -> list[ActivityRow]:
        if self.owned is None:
            return []
        asked = (names, list(self.owned), limit, self._token, queues)
        return [ActivityRow(*row) for row in await self._connections.commit(QUERIES["borrow_activities"], *asked)]

    async def reclaim(
        self, names: Sequence[str], queues: Sequence[str] | None, now: int, limit: int
    ) -> list[tuple[ActivityRow, bool]]:
        owned = None if self.owned is None else list(self.owned)

        async def reclaim(connection: Connection) -> list[tuple[ActivityRow, bool]]:
            await connection.execute(QUERIES["clear_offers"], owned)
            rows = await connection.fetch(QUERIES["reclaim_activities"], owned, names, limit, queues, now)
            return [(ActivityRow(*row[1:]), row[0]) for row in (tuple(each) for each in rows)]

        return await self._connections.write(reclaim)

    async def give_offers_back(self, kept: Collection[DurableKey]) -> None:
        columns = ([key[0] for key in kept], [key[1] for key in kept])

        async def give_back(connection: Connection) -> None:
            if await connection.execute(QUERIES["give_offers_back"], self._token, *columns) != "UPDATE 0":
                await self._notify(connection, "offers", (_ALL,))

        await self._connections.write(give_back)

    async def offers(self) -> list[OffersOf]:
        owned = None if self.owned is None else list(self.owned)
        return [OffersOf(*row) for row in await self._connections.ask(QUERIES["offers"], owned)]

    async def other_hosts(self) -> list[int]:
        return [row[0] for row in await self._connections.ask(QUERIES["partitions_of_others"], self._token)]

    async def hint(self, kind: HintKind, partitions: Collection[int]) -> None:
        if self._told is not None:
            payload = _payload(kind, list(map(str, partitions)) or [_ALL])
            await self._connections.commit(QUERIES["tell"], self._told, payload, is_repeatable=True)

    async def _notify(self, connection: Connection, kind: HintKind, addressees: Collection[str]) -> None:
        if self._told is not None:
            await connection.execute(QUERIES["tell"], self._told, _payload(kind, addressees))

    @property
    def hears(self) -> bool:
        return self._hears

    def listen(self, heard: Callable[[HintKind], None]) -> None:
        if self._listening is None and not self._location.is_pooled:
            self._listening = asyncio.get_running_loop().create_task(self._keep_listening(heard))

    async def _keep_listening(self, heard: Callable[[HintKind], None]) -> None:
        while True:
            try:
                await self._listen(heard)
            except (StorageError, *FAILURES) as error:
                logger.info("Hints of other hosts are not heard just now; this one looks by itself: %s", error)
            await asyncio.sleep(_LISTEN_AGAIN_S)

    async def _listen(self, heard: Callable[[HintKind], None]) -> None:
        """Listen until the connection ends, without a word perhaps: so it is tried now and then."""
        connection = await self._connections.connect()
        try:

            def hear(_connection: object, _pid: int, _channel: str, payload: object) -> None:
                self._hear(str(payload), heard)

            await connection.add_listener(self._channel, hear)
            self._hears = True
            for kind in HINT_KINDS:
                heard(kind)  # what was told before nobody heard
            while not connection.is_closed():
                await asyncio.sleep(_LISTENS_CHECK_S)
                await connection.execute("SELECT 1", timeout=_LISTENS_ANSWER_S)
        finally:
            self._hears = False
            connection.terminate()

    def _hear(self, payload: str, heard: Callable[[HintKind], None]) -> None:
        kind, *addressees = payload.split(" ")
        me = {self._token, _ALL}
        is_for_me = not me.isdisjoint(addressees) or self.owned is None
        if kind in HINT_KINDS and (is_for_me or not {str(each) for each in self.owned or ()}.isdisjoint(addressees)):
            heard(kind)

    async def close(self) -> None:
        """Stop listening, and close all connections."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        await self._connections.close()


def _payload(kind: HintKind, addressees: Collection[str]) -> str:
    named = " ".join(addressees)
    return f"{kind} {named if len(named) <= _PAYLOAD_CHARS_MAX else _ALL}"


def _columns(attempts: Sequence[PassedAttempt]) -> list[tuple[object, ...]]:
    return list(zip(*map(msgspec.structs.astuple, attempts), strict=True))
