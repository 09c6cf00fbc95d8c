"""Transactional activities: what they write is committed together with their result, exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from engine_kit import SOON, FailingStore, Run, insist, running, until
from outbox_kit import CONFIG, arrivals, completed, host

from holdfast import (
    App,
    ConfigurationError,
    HoldfastError,
    OrchestrationContext,
    Outbox,
    RetryPolicy,
    TaskFailedError,
    activity_context,
)
from holdfast.engine import engine
from holdfast.engine.stored import encode_report
from holdfast.model.work_items import COMMITTED_ATTEMPT, ActivityWorkItem, Succeeded
from holdfast.storage.memory import MemoryStore
from holdfast.storage.open_store import open_store
from holdfast.storage.postgres import transactions
from postgres_kit import connect, drop, execute, new_schema, schema_of


@pytest.fixture
def url(postgres_server: str) -> Iterator[str]:
    url = new_schema(postgres_server, partitions=4)
    asyncio.run(make_table(url))
    yield url
    drop(url)


async def make_table(url: str) -> None:
    async with host(url, App()):
        await execute(url, "CREATE TABLE written (what text)")


async def written(url: str) -> list[str]:
    connection = await connect(url)
    rows = await connection.fetch("SELECT what FROM written ORDER BY what")
    await connection.close()
    return [row[0] for row in rows]


class Bank:
    """An app whose activity writes a row for each time it runs, and what it is to do on each run."""

    def __init__(self, url: str, **options: Any) -> None:
        self.app, self.runs, self.gate = App(), 0, asyncio.Event()
        self.mood: list[str] = []
        table = f"{schema_of(url)}.written" if "schema=" in url else "written"

        @self.app.activity(transactional=True, **options)
        async def write(what: str) -> str:
            self.runs += 1
            mood = self.mood.pop(0) if self.mood else ""
            connection = activity_context().connection
            await connection.execute(f"INSERT INTO {table} VALUES ($1)", what)
            if mood == "raise":
                raise ValueError(what)
            if mood == "wait":
                await self.gate.wait()
            if mood == "commit":
                await connection.execute("COMMIT")
            if mood == "break":
                with pytest.raises(asyncpg.PostgresError):
                    await connection.execute("SELECT 1 / 0")
            if mood == "unfit":
                return object()  # pyright: ignore
            return f"run {self.runs}"

        @self.app.orchestrator
        async def writes(ctx: OrchestrationContext, what: str) -> str:
            try:
                return await ctx.call_activity(write, what)
            except TaskFailedError as error:
                return f"failed: {error.details.error_type}"
            except ValueError:
                return "failed: ValueError"

        self.writes = writes


async def result(run: Run, bank: Bank, instance_id: str = "i") -> Any:
    await run.client.start_new(bank.writes, "row", instance_id=instance_id)
    return await run.client.wait_for_completion(instance_id, timeout=SOON)


def on(url: str, bank: Bank) -> Any:
    async def scenario() -> Any:
        async with host(url, bank.app) as run:
            found = await result(run, bank)
            await until_none_waits(url)
        return found, await written(url)

    return asyncio.run(scenario())


async def until_none_waits(url: str) -> None:
    async with asyncio.timeout(SOON.total_seconds()):
        while await arrivals(url):
            await asyncio.sleep(0.01)


def test_what_it_writes_and_what_it_returns_are_there_together(url: str) -> None:
    assert on(url, Bank(url)) == ("run 1", ["row"])


@pytest.mark.parametrize("mood", ["raise", "commit", "break", "unfit"])
def test_an_attempt_that_fails_leaves_nothing(url: str, mood: str) -> None:
    bank = Bank(url)
    bank.mood = [mood]
    said, rows = on(url, bank)
    assert said.startswith("failed: ")
    assert rows == (["row"] if mood == "commit" else [])  # a COMMIT of its own is not ours to undo


def test_a_retry_begins_with_nothing_written(url: str) -> None:
    bank = Bank(url, retry=RetryPolicy(max_attempts=3, first_retry_interval=timedelta(milliseconds=1)))
    bank.mood = ["raise", "break"]
    assert on(url, bank) == ("run 3", ["row"])


def test_an_attempt_that_takes_too_long_is_undone_before_the_next_begins(url: str) -> None:
    policy = RetryPolicy(max_attempts=2, first_retry_interval=timedelta(milliseconds=1))
    bank = Bank(url, retry=policy, timeout=timedelta(seconds=1))
    bank.mood = ["wait"]
    assert on(url, bank) == ("run 2", ["row"])


def test_a_host_that_dies_after_the_commit_does_not_run_it_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, committed = Bank(url), list[object]()

    async def scenario() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(engine, "take_in_committed", lambda _, report: committed.append(report))
            config = type(CONFIG)(drain_s=0.1, poll_s=3600)  # nor does it find the report by itself
            async with host(url, bank.app, config) as run:
                await run.client.start_new(bank.writes, "row", instance_id="i")
                await until(lambda: bool(committed))
        async with host(url, bank.app) as run:
            assert await completed(run, "i") == "run 1"
            await until_none_waits(url)

    asyncio.run(scenario())
    assert (bank.runs, asyncio.run(written(url))) == (1, ["row"])


@pytest.mark.parametrize("how", ["before", "unknown, not applied", "unknown, applied"])
@pytest.mark.parametrize("gap", [0, 1, 2])
@pytest.mark.parametrize("number", range(1, 6))
def test_commits_of_the_host_that_fail_write_nothing_twice(url: str, how: str, number: int, gap: int) -> None:
    bank = Bank(url)

    async def scenario() -> None:
        store = FailingStore(open_store(url))
        async with running(bank.app, store, CONFIG) as run:  # pyright: ignore
            store.fail_at = {store.commits + number: how, store.commits + number + gap: how}

            async def start() -> None:
                if await run.client.get_status("i") is None:
                    await run.client.start_new(bank.writes, "row", instance_id="i")

            await insist(start)
            assert await insist(lambda: completed(run, "i")) == "run 1"
        await store.close()

    asyncio.run(scenario())
    assert asyncio.run(written(url)) == ["row"]  # it may have begun twice: between two nodes nobody hears of a commit


@pytest.mark.parametrize("is_applied", [True, False])
def test_a_commit_whose_answer_is_lost_is_looked_up(
    url: str, is_applied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = Bank(url, retry=RetryPolicy(max_attempts=2, first_retry_interval=timedelta(milliseconds=1)))
    commit, lost = transactions._commit, [True]

    async def losing(connection: Any) -> bool:
        if not lost:
            return await commit(connection)
        lost.clear()
        if is_applied:
            await commit(connection)
        connection.terminate()
        return False

    monkeypatch.setattr(transactions, "_commit", losing)
    assert on(url, bank) == ("run 1" if is_applied else "run 2", ["row"])


def test_of_two_that_run_the_same_attempt_one_commits(url: str) -> None:
    """A host that was paused, and the one that took its place."""
    bank = Bank(url)
    bank.mood = ["wait"]

    async def scenario() -> None:
        async with host(url, bank.app) as run:
            started = await run.client.start_new(bank.writes, "row", instance_id="i")
            await until(lambda: bank.runs == 1)
            status = await run.client.get_status("i")
            assert status is not None
            connection = await connect(url)
            execution, sequence = await connection.fetchrow("SELECT execution_id, sequence FROM activity") or ("", 0)
            twin = ActivityWorkItem("i", execution, sequence, "write", '"row"', attempt=1)
            late = ActivityWorkItem("i", execution, sequence, "write", '"row"', attempt=2)
            other = open_store(url)
            assert other.transactions is not None

            async def work(of: Any) -> str:
                await of.execute(f"INSERT INTO {schema_of(url)}.written VALUES ('twin')")
                return encode_report(msgspec.structs.replace(twin, attempt=COMMITTED_ATTEMPT), Succeeded('"twin"'))

            assert await other.transactions.run(lambda: late, work) is None
            first = await other.transactions.run(lambda: twin, work)
            assert first is not None
            bank.gate.set()
            assert await started.wait_for_completion(timeout=SOON) == "twin"
            assert await other.transactions.run(lambda: twin, work) is None
            await connection.close()
            await other.close()

    asyncio.run(scenario())
    assert asyncio.run(written(url)) == ["twin"]


def test_the_second_of_two_reports_what_the_first_committed(url: str) -> None:
    bank = Bank(url)
    bank.mood = ["wait"]

    async def scenario() -> None:
        async with host(url, bank.app, type(CONFIG)(drain_s=0.1, poll_s=3600)) as run:
            started = await run.client.start_new(bank.writes, "row", instance_id="i")
            await until(lambda: bank.runs == 1)
            connection = await connect(url)
            execution, sequence = await connection.fetchrow("SELECT execution_id, sequence FROM activity") or ("", 0)
            twin = ActivityWorkItem("i", execution, sequence, "write", '"row"', attempt=1)
            other = open_store(url)
            assert other.transactions is not None

            async def work(_: object) -> str:
                return encode_report(msgspec.structs.replace(twin, attempt=COMMITTED_ATTEMPT), Succeeded('"twin"'))

            assert await other.transactions.run(lambda: twin, work) is not None
            bank.gate.set()  # only now, and it finds the other's report
            assert await started.wait_for_completion(timeout=SOON) == "twin"
            await connection.close()
            await other.close()

    asyncio.run(scenario())
    assert asyncio.run(written(url)) == []


def test_many_at_once_all_commit(url: str) -> None:
    bank = Bank(url)

    async def scenario() -> None:
        async with host(url, bank.app) as run:
            await asyncio.gather(*(result(run, bank, f"i{number}") for number in range(40)))

    asyncio.run(scenario())
    assert (bank.runs, len(asyncio.run(written(url)))) == (40, 40)


def test_it_sends_by_an_outbox_over_its_connection(url: str) -> None:
    app, outbox = App(), Outbox(schema_of(url))

    @app.activity(transactional=True)
    async def sends() -> None:
        await outbox.start_new(activity_context().connection, "sent", instance_id="sent")

    @app.orchestrator
    async def sent(ctx: OrchestrationContext) -> str:
        return "came"

    @app.orchestrator
    async def calls(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(sends)

    async def scenario() -> None:
        async with host(url, app) as run:
            await (await run.client.start_new(calls)).wait_for_completion(timeout=SOON)
            assert await completed(run, "sent") == "came"

    asyncio.run(scenario())


def test_elsewhere_than_on_postgresql_it_fails_and_says_why() -> None:
    bank = Bank("memory://")

    async def scenario() -> None:
        async with running(bank.app, MemoryStore(), CONFIG) as run:
            assert await result(run, bank) == "failed: holdfast.errors.ConfigurationError"

    asyncio.run(scenario())
    assert bank.runs == 0


def test_only_async_functions_can_be_transactional_and_only_they_have_a_connection() -> None:
    app = App()
    with pytest.raises(ConfigurationError, match="`async def`"):

        @app.activity(transactional=True)
        def plain() -> None: ...

    with pytest.raises(ConfigurationError, match="not speculative"):

        @app.activity(transactional=True, speculative=True)
        async def ahead() -> None: ...

    @app.activity
    async def other() -> None:
        with pytest.raises(HoldfastError, match="transactional=True"):
            _ = activity_context().connection

    @app.orchestrator
    async def calls(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(other)

    async def scenario() -> None:
        async with running(app, MemoryStore(), CONFIG) as run:
            await (await run.client.start_new(calls)).wait_for_completion(timeout=SOON)

    asyncio.run(scenario())


def test_an_outcome_that_comes_twice_is_kept_until_the_first_is_stored(url: str) -> None:
    """Its report would be removed before that, and a crash between the two would run the activity again."""
    bank = Bank(url)
    bank.mood = ["wait"]

    async def scenario() -> None:
        async with host(url, bank.app) as run:
            started = await run.client.start_new(bank.writes, "row", instance_id="i")
            await until(lambda: bank.runs == 1)
            [item] = run.engine.runner.running()
            answers, key = run.engine.answers, (item.execution_id, item.sequence)
            answers.add(item, Succeeded('"told"'))
            for _ in range(2):
                run.engine.node.reports.finished(item, Succeeded('"told"'))
            assert key in answers
            bank.gate.set()
            assert await started.wait_for_completion(timeout=SOON) == "told"
            await until(lambda: key not in answers)

    asyncio.run(scenario())
