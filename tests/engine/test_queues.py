"""Named queues: activities run on hosts that serve theirs, and wait for one, wherever their instance is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from engine_kit import SOON, Run, running, until
from fleet_kit import PARTITIONS, ids_of, joined, owned_by, shared_by

from holdfast import (
    App,
    ConfigurationError,
    HostConfig,
    OrchestrationContext,
    OrchestrationFailedError,
    OrchestrationStatus,
    RetryPolicy,
    when_all,
)
from holdfast.engine.config import config_from_mapping
from holdfast.storage.port import Store
from postgres_kit import drop, new_schema

MakeStore = Callable[[], Store]
BRISK = HostConfig(drain_s=0.2, poll_s=0.1, renew_s=0.1)
SHORT = timedelta(milliseconds=30)
NOT_SERVED = "Activities wait in the queue 'gpu', which no host serves."


def serving(*queues: str) -> HostConfig:
    return msgspec.structs.replace(BRISK, queues=queues)


def make_app(ran: list[str]) -> App:
    """Make an app that notes in which queue an activity was meant to run."""
    app = App()

    @app.activity
    async def plain(item: str) -> str:
        ran.append(item)
        return item

    @app.activity(queue="gpu", retry=RetryPolicy(max_attempts=2, first_retry_interval=timedelta(0)))
    async def train(item: str) -> str:
        ran.append(item)
        if ran.count(item) == 1 and item == "flaky":
            raise ConnectionError
        return item

    @app.orchestrator
    async def all_kinds(ctx: OrchestrationContext) -> list[str]:
        return await when_all(
            [
                ctx.call_activity(plain, "plain"),
                ctx.call_activity(train, "gpu"),
                ctx.call_activity(train, "flaky"),
                ctx.call_activity(plain, "gpu by call", queue="gpu"),
                ctx.call_activity(train, "plain by call", queue="default"),
                ctx.call_activity("train", "plain by name"),
            ]
        )

    @app.orchestrator
    async def training(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(train, "late")

    @app.orchestrator
    async def impatient(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(train, "impatient", start_timeout=SHORT)

    @app.orchestrator
    async def patient(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(train, "patient", start_timeout=timedelta(days=1))

    @app.orchestrator
    async def speculating(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity(guess, "guess")

    @app.activity(queue="gpu", speculative=True)
    async def guess(item: str) -> str:
        ran.append(item)
        return item

    @app.orchestrator
    async def unknown(ctx: OrchestrationContext) -> str:
        return await ctx.call_activity("nowhere", queue="gpu")

    _ = (all_kinds, training, impatient, patient, speculating, unknown)
    return app


PLAIN = {"plain", "plain by call", "plain by name"}
GPU = {"gpu", "flaky", "gpu by call"}


@pytest.fixture
def url(postgres_server: str) -> Iterator[str]:
    url = new_schema(postgres_server, partitions=PARTITIONS)
    yield f"{url}&lease_s=3600"
    drop(url)


def served_by(store: Store, app: App, scenario: Callable[[Run], Any], *queues: str) -> None:
    async def main() -> None:
        async with running(app, store, serving(*queues)) as run:
            await scenario(run)

    asyncio.run(main())


# With several hosts


def test_each_activity_runs_where_its_queue_is_served(url: str) -> None:
    async def scenario() -> None:
        ran: tuple[list[str], list[str]] = ([], [])
        async with (
            joined(make_app(ran[0]), url, serving("default")) as a,
            joined(make_app(ran[1]), url, serving("gpu", "other")) as b,
        ):
            await shared_by(a, b)
            for run in (a, b):
                started = await run.client.start_new("all_kinds", instance_id=next(ids_of(run)))
                assert await started.wait_for_completion(timeout=SOON) == [
                    *("plain", "gpu", "flaky", "gpu by call", "plain by call", "plain by name")
                ]
            assert (set(ran[0]), set(ran[1])) == (PLAIN, GPU)

    asyncio.run(scenario())


def test_what_nobody_serves_waits_and_runs_once_somebody_does(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        ran: list[str] = []
        async with joined(make_app([]), url, serving("default")) as a, AsyncExitStack() as stack:
            alone = await a.client.start_new("training")
            await until(lambda: NOT_SERVED in caplog.text)
            b = await stack.enter_async_context(joined(make_app([]), url, serving("default")))
            await shared_by(a, b)
            of_two = await a.client.start_new("training", instance_id=next(ids_of(b)))
            await stack.enter_async_context(joined(make_app(ran), url))
            for started in (alone, of_two):
                assert await started.wait_for_completion(timeout=SOON) == "late"
            assert ran == ["late", "late"]

    asyncio.run(scenario())
    assert caplog.text.count(NOT_SERVED) <= 2, "each host says it once"


def test_a_start_timeout_ends_the_wait_for_a_host_that_serves(url: str) -> None:
    async def scenario() -> None:
        async with joined(make_app([]), url, serving()) as a, joined(make_app([]), url, serving("default")) as b:
            await shared_by(a, b)
            for run in (a, b):
                started = await run.client.start_new("impatient", instance_id=next(ids_of(run)))
                with pytest.raises(OrchestrationFailedError, match="found no place to run before its start_timeout"):
                    await started.wait_for_completion(timeout=SOON)

    asyncio.run(scenario())


def test_what_no_host_has_fails_if_its_queue_is_served_and_waits_if_it_is_not(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        app, other = make_app([]), make_app([])

        @other.activity
        async def nowhere() -> str:
            return "somewhere"

        async with joined(app, url, serving()) as a, joined(app, url, serving()) as b, AsyncExitStack() as stack:
            await shared_by(a, b)
            waiting = await a.client.start_new("unknown", instance_id=next(ids_of(a)))
            await until(lambda: NOT_SERVED in caplog.text)
            c = await stack.enter_async_context(joined(app, url, serving("gpu")))
            await shared_by(a, b, c)
            failing = await a.client.start_new("unknown", instance_id=next(ids_of(a)))
            with pytest.raises(OrchestrationFailedError, match="nowhere"):
                await failing.wait_for_completion(timeout=SOON)
            await until(lambda: "Calls of activity 'nowhere' wait" in caplog.text)
            await stack.enter_async_context(joined(other, url))
            assert await waiting.wait_for_completion(timeout=SOON) == "somewhere"
            _ = nowhere

    asyncio.run(scenario())


def test_a_host_that_serves_nothing_owns_instances_all_the_same(url: str) -> None:
    async def scenario() -> None:
        ran: list[str] = []
        async with joined(make_app([]), url, serving()) as a, joined(make_app(ran), url) as b:
            await shared_by(a, b)
            assert owned_by(a)
            started = await a.client.start_new("speculating", instance_id=next(ids_of(a)))
            assert await started.wait_for_completion(timeout=SOON) == "guess"
            assert ran == ["guess"]

    asyncio.run(scenario())


# With one host


def test_alone_it_waits_in_the_store_for_a_host_that_serves(
    make_store: MakeStore, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[str] = []
    app = make_app(ran)

    async def start(run: Run) -> None:
        for id_ in ("a", "b"):
            await run.client.start_new("training", instance_id=id_)
        await until(lambda: run.engine.is_quiet)

    async def look(run: Run) -> None:
        await until(lambda: caplog.text.count(NOT_SERVED) == 2)  # once by each host
        for id_ in ("a", "b"):
            status = await run.client.get_status(id_)
            assert status is not None
            assert status.runtime_status is OrchestrationStatus.RUNNING

    async def end(run: Run) -> None:
        for id_ in ("a", "b"):
            assert await run.client.wait_for_completion(id_, timeout=SOON) == "late"

    served_by(make_store(), app, start, "default")
    served_by(make_store(), app, look, "default")
    assert (ran, caplog.text.count(NOT_SERVED)) == ([], 2)
    served_by(make_store(), app, end, "default", "gpu")
    assert ran == ["late", "late"]


def test_alone_a_start_timeout_ends_the_wait_also_after_a_restart(make_store: MakeStore) -> None:
    app = make_app([])

    async def start(run: Run) -> None:
        await run.client.start_new("impatient", instance_id="now")
        with pytest.raises(OrchestrationFailedError, match="found no place to run before its start_timeout"):
            await run.client.wait_for_completion("now", timeout=SOON)
        await run.client.start_new("impatient", instance_id="later")
        await until(lambda: run.engine.is_quiet)

    async def end(run: Run) -> None:
        with pytest.raises(OrchestrationFailedError, match="found no place to run before its start_timeout"):
            await run.client.wait_for_completion("later", timeout=SOON)

    served_by(make_store(), app, start, "default")
    served_by(make_store(), app, end, "default")


def test_what_waits_for_a_host_is_not_suspected_of_killing_the_ones_that_left_it(make_store: MakeStore) -> None:
    """Each crash counts it, since nobody knows what was running; it was counted until it was parked."""
    app = make_app([])

    async def start(run: Run) -> None:
        await run.client.start_new("patient", instance_id="a")
        await until(lambda: run.engine.is_quiet)

    async def crash() -> None:
        store = make_store()
        async with running(app, store, serving("default")) as run:
            suspects = run.engine.node.suspects
            await until(lambda: not suspects._is_scanning)  # type: ignore[reportPrivateUsage]  # no sign of it is public
            await until(lambda: run.engine.is_quiet)
            await store.close()

    served_by(make_store(), app, start, "default")
    for _ in range(7):
        asyncio.run(crash())

    async def end(run: Run) -> None:
        assert await run.client.wait_for_completion("a", timeout=SOON) == "patient"

    served_by(make_store(), app, end, "gpu")


def test_a_call_stays_in_its_queue_whatever_becomes_of_its_code(make_store: MakeStore) -> None:
    """It runs by what was recorded with the call; after a rewind, too."""
    ran: list[str] = []

    def app(queue: str, *, fails: bool) -> App:
        app = App()

        @app.activity(queue=queue)
        async def train(item: str) -> str:
            ran.append(item)
            if fails:
                raise ValueError(item)
            return item

        @app.orchestrator
        async def training(ctx: OrchestrationContext) -> str:
            return await ctx.call_activity(train, "x")

        _ = training
        return app

    async def start(run: Run) -> None:
        await run.client.start_new("training", instance_id="a")
        await until(lambda: run.engine.is_quiet)

    async def fail(run: Run) -> None:
        with pytest.raises(OrchestrationFailedError, match="x"):
            await run.client.wait_for_completion("a", timeout=SOON)

    async def rewind(run: Run) -> None:
        await run.client.rewind("a")
        await until(lambda: run.engine.is_quiet)
        assert ran == ["x"]

    async def end(run: Run) -> None:
        assert await run.client.wait_for_completion("a", timeout=SOON) == "x"

    served_by(make_store(), app("gpu", fails=True), start, "default")
    served_by(make_store(), app("default", fails=True), start_nothing, "default")
    assert ran == []
    served_by(make_store(), app("default", fails=True), fail, "gpu")
    served_by(make_store(), app("default", fails=False), rewind, "default")
    served_by(make_store(), app("default", fails=False), end, "gpu")
    assert ran == ["x", "x"]


async def start_nothing(run: Run) -> None:
    await until(lambda: run.engine.is_quiet)


# What cannot be meant

NAMES_NO_QUEUE = ["", "a b", "a,b", "*", "ü", "x" * 65, 5]


@pytest.mark.parametrize("queue", NAMES_NO_QUEUE)
def test_what_cannot_name_a_queue_is_refused_at_the_decorator_and_at_the_call(queue: Any) -> None:
    app = App()
    with pytest.raises(ConfigurationError, match="cannot name a queue; use 1 to 64 letters"):
        app.activity(queue=queue)(make_app)

    @app.orchestrator
    async def calling(ctx: OrchestrationContext) -> str:
        try:
            await ctx.call_activity("work", queue=queue)
        except ValueError as error:
            return str(error)
        return "it was not refused"

    async def main() -> None:
        async with app.host("memory://") as host:
            started = await host.client.start_new(calling)
            assert "cannot name a queue" in await started.wait_for_completion(timeout=SOON)

    asyncio.run(main())


@pytest.mark.parametrize("queues", [["gpu"], "gpu", ("gpu", ""), ("gpu", 5), {"gpu"}, 3])
def test_a_host_is_refused_queues_that_cannot_be(queues: Any) -> None:
    with pytest.raises(ConfigurationError, match="queue"):
        HostConfig(queues=queues)


@pytest.mark.parametrize(
    ("given", "served"), [("gpu", ("gpu",)), ("gpu, default", ("gpu", "default")), (["gpu"], ("gpu",)), ([], ())]
)
def test_queues_are_set_as_texts_or_lists(given: object, served: tuple[str, ...]) -> None:
    assert config_from_mapping({"queues": given}).queues == served
    assert config_from_mapping({}).queues is None


def test_every_queue_is_served_unless_some_are_named() -> None:
    assert all(HostConfig().serves(queue) for queue in (None, "default", "gpu"))
    assert [serving("gpu").serves(queue) for queue in (None, "default", "gpu")] == [False, False, True]
    assert [serving("default").serves(queue) for queue in (None, "default", "gpu")] == [True, True, False]
