"""Hosts that share a hub: each has a part of it, and each answers for all of it, whoever comes and goes."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from engine_kit import SOON, Run, World, eventually, insist, make_app, until
from fleet_kit import CONFIG, PARTITIONS, ids_of, joined, owned_by, shared_by

from holdfast import (
    App,
    Client,
    Entity,
    EntityId,
    HostConfig,
    InstanceQuery,
    OrchestrationContext,
    OrchestrationStatus,
)
from holdfast.engine import culprits as culprits_module
from holdfast.model.ids import partition_of
from postgres_kit import connect, drop, execute, new_schema

Scenario = Callable[[], Coroutine[Any, Any, None]]
MORE_COLUMNS = "; ".join(
    f"ALTER TABLE {table} ADD COLUMN of_the_next_version TEXT"
    for table in ("hub", "node", "partition", "instance", "history", "inbox", "arrival", "request", "activity", "offer")
)
CONNECTIONS_MAX = 11
"""Of one host, as the manual says."""
LONG = "&lease_s=3600"
"""A lease that no test can wait for."""


@pytest.fixture
def url(postgres_server: str) -> Iterator[str]:
    url = new_schema(postgres_server, partitions=PARTITIONS)
    yield url
    drop(url)


@asynccontextmanager
async def fleet(app: App, url: str, hosts: int, config: HostConfig = CONFIG) -> AsyncGenerator[list[Run]]:
    async with AsyncExitStack() as stack:
        runs = [await stack.enter_async_context(joined(app, url, config)) for _ in range(hosts)]
        await shared_by(*runs)
        yield runs


# Who has what


def test_hosts_say_what_they_own_as_it_changes_and_who_is_gone(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "holdfast")

    async def scenario() -> None:
        app = make_app(World())
        config = HostConfig(drain_s=0.2, renew_s=0.1)
        async with joined(app, url + LONG, config) as a:
            assert "This host owns" not in caplog.text
            async with joined(app, url + LONG, config) as b:
                await shared_by(a, b)
                assert caplog.text.count("This host owns 6 of the 12 partitions of the task hub now.") == 2
                assert "This host waits for its share of the task hub" in caplog.text
                await b.store.close()
                await shared_by(a)
                assert "is over: what it owned is free for others." in caplog.text
                assert "This host owns 12 of the 12 partitions" in caplog.text

    asyncio.run(scenario())


def test_hosts_that_join_get_their_share_of_what_the_others_have_too_much_of(url: str) -> None:
    async def scenario() -> None:
        app = make_app(World())
        async with joined(app, url + LONG) as a:
            assert len(owned_by(a)) == PARTITIONS
            async with joined(app, url + LONG) as b:
                of_two = await shared_by(a, b)
                async with joined(app, url + LONG) as c:
                    of_three = await shared_by(a, b, c)
                    assert of_three[0] <= of_two[0], "a partition has moved between hosts that had none too many"
                    assert of_three[1] <= of_two[1], "a partition has moved between hosts that had none too many"

    asyncio.run(scenario())


def test_what_a_host_that_stops_had_goes_on_elsewhere_and_nothing_waits_for_its_lease(url: str) -> None:
    async def scenario() -> None:
        app = make_app(World())
        async with joined(app, url + LONG) as a, joined(app, url + LONG) as b, AsyncExitStack() as stack:
            c = await stack.enter_async_context(joined(app, url + LONG))
            before = await shared_by(a, b, c)
            waiting = [id_ for id_, _ in zip(ids_of(c), range(5), strict=False)]
            for id_ in waiting:
                await c.client.start_new("events", 2, instance_id=id_)
                await a.client.raise_event(id_, "e", "early")
            await stack.aclose()
            after = await shared_by(a, b)
            assert before[0] <= after[0]
            assert before[1] <= after[1]
            for id_ in waiting:
                await b.client.raise_event(id_, "e", "late")
                assert await a.client.wait_for_completion(id_, timeout=SOON) == ["early", "late"]

    asyncio.run(scenario())


def test_what_a_host_that_dies_had_goes_on_elsewhere(url: str) -> None:
    async def scenario() -> None:
        async with fleet(make_app(World()), url + LONG, 3, HostConfig(drain_s=0.2, renew_s=0.2)) as (a, b, c):
            waiting = [id_ for id_, _ in zip(ids_of(c), range(5), strict=False)]
            for id_ in waiting:
                await c.client.start_new("events", 2, instance_id=id_)
                await a.client.raise_event(id_, "e", "early")
            results = [asyncio.create_task(b.client.wait_for_completion(id_, timeout=SOON)) for id_ in waiting]
            await c.store.close()
            await shared_by(a, b)
            for id_ in waiting:
                await a.client.raise_event(id_, "e", "late")
            assert await asyncio.gather(*results) == [["early", "late"]] * 5

    asyncio.run(scenario())


@pytest.mark.soak
def test_a_host_of_which_nothing_is_heard_is_replaced_within_two_leases(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock of the database; soak, as a machine that has too much to do may take longer."""
    lease_s = 5.0

    async def scenario() -> None:
        config = HostConfig(drain_s=0.2, renew_s=lease_s / 3)
        short = f"{url}&lease_s={lease_s}"
        async with joined(make_app(World()), short, config) as a, joined(make_app(World()), short, config) as b:
            await shared_by(a, b)
            for name in ("renew", "commit", "acquire"):
                monkeypatch.setattr(b.store, name, _say_nothing)
            connection = await connect(url)
            lease_until = "SELECT lease_until FROM node WHERE node_id = $1"
            last_word = await connection.fetchval(lease_until, b.engine.node.fence.node_id) - timedelta(seconds=lease_s)
            await shared_by(a)
            took = await connection.fetchval("SELECT clock_timestamp()") - last_word
            await connection.close()
            assert timedelta(seconds=lease_s) < took < timedelta(seconds=2 * lease_s)

    asyncio.run(scenario())


def test_a_host_that_drains_renews_its_lease_until_its_work_has_ended(url: str) -> None:
    """Its heart-beats ended before its work did, which then ran a second time elsewhere."""

    async def scenario() -> None:
        world, config, app = World(), HostConfig(drain_s=60, renew_s=0.05), App()

        @app.activity
        async def work() -> None:
            world.calls.append("work")
            await world.gate.wait()

        @app.orchestrator
        async def gated(ctx: OrchestrationContext) -> None:
            await ctx.call_activity(work)

        _ = gated
        connection = await connect(url)
        async with joined(app, url + LONG, config) as a, joined(app, url + LONG, config) as b:
            await shared_by(a, b)
            run = await a.client.start_new("gated", instance_id=next(ids_of(a)))
            await until(lambda: len(world.calls) == 1)
            stopping = asyncio.create_task(a.engine.stop())
            await until(lambda: a.engine.membership.is_leaving)
            lease_until = "SELECT lease_until FROM node WHERE node_id = 'n0'"
            for _ in range(3):
                before = await connection.fetchval(lease_until)
                while await connection.fetchval(lease_until) == before:
                    await asyncio.sleep(0.01)
            assert not stopping.done()
            world.gate.set()
            await stopping
            await b.client.wait_for_completion(run.instance_id, timeout=SOON)
        await connection.close()
        assert world.calls == ["work"]

    asyncio.run(scenario())


def test_a_host_whose_event_loop_was_blocked_does_no_harm_when_it_goes_on(url: str) -> None:
    """What it was about to store is refused; it forgets that, and gets a share again."""
    is_blocked, may_go_on, is_over = threading.Event(), threading.Event(), threading.Event()
    begun: list[str] = []

    def make(name: str) -> App:
        app = App()

        @app.activity
        async def work() -> str:
            if name == "b":
                begun.append(name)
                await asyncio.to_thread(may_go_on.wait)
            return name

        @app.orchestrator
        async def one(ctx: OrchestrationContext) -> list[str]:
            early = ctx.wait_for_external_event("e")
            return [await ctx.call_activity(work), await early]

        _ = one
        return app

    async def be_blocked(ids: Future[list[str]]) -> None:
        async with joined(make("b"), short, config) as b:
            await until(lambda: 0 < len(owned_by(b)) < PARTITIONS)
            found = [id_ for id_, _ in zip(ids_of(b), range(5), strict=False)]
            for id_ in found:
                await b.client.start_new("one", instance_id=id_)
                await b.client.raise_event(id_, "e", id_)
            await until(lambda: len(begun) == len(found))
            ids.set_result(found)
            is_blocked.set()
            assert may_go_on.wait(SOON.total_seconds())
            await until(is_over.is_set)

    async def scenario() -> None:
        ids = Future[list[str]]()
        async with joined(make("a"), short, config) as a:
            other = threading.Thread(target=lambda: asyncio.run(be_blocked(ids)))
            other.start()
            try:
                await until(is_blocked.is_set)
                await shared_by(a)
                for id_ in await asyncio.wrap_future(ids):
                    assert await a.client.wait_for_completion(id_, timeout=SOON) == ["a", id_]
                may_go_on.set()
                await until(lambda: 0 < len(owned_by(a)) < PARTITIONS)
                for id_ in await asyncio.wrap_future(ids):
                    again = await a.client.start_new("one", instance_id=f"{id_}-again")
                    await again.raise_event("e", "x")
                    assert (await again.wait_for_completion(timeout=SOON))[1] == "x"
                    assert await a.client.wait_for_completion(id_, timeout=SOON) == ["a", id_]
            finally:
                may_go_on.set()
                is_over.set()
                await asyncio.to_thread(other.join)

    config, short = HostConfig(drain_s=0.2, renew_s=0.2), f"{url}&lease_s=1"
    asyncio.run(scenario())


async def _say_nothing(*_: object, **__: object) -> None:
    await asyncio.Event().wait()


def test_a_move_does_not_wait_for_the_back_off_of_an_earlier_failure(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it did, nobody renewed its lease: one after the other they took all from each other."""
    monkeypatch.setattr(culprits_module, "_BACK_OFF_S", (0.0, 3600.0))

    async def scenario() -> None:
        app = make_app(World())
        async with joined(app, url + LONG) as a:
            a.engine._culprits.failures_in_a_row = 3  # type: ignore[reportPrivateUsage]  # as after a crash of the server
            async with joined(app, url + LONG) as b:
                await shared_by(a, b)

    asyncio.run(scenario())


def test_a_host_that_waits_for_its_share_does_not_wait_for_a_back_off(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        app = make_app(World())
        async with joined(app, url + LONG) as a, joined(app, url + LONG) as b:
            await shared_by(a, b)
            node = b.engine.node
            # As by another one that took it for dead.
            await execute(
                url,
                "UPDATE node SET released = true, owner_token = '' WHERE node_id = 'n1';"
                "INSERT INTO node VALUES ('n2', 1000, 0, false, '', 'of nobody', 'infinity');"
                "UPDATE partition SET node_id = 'n2', epoch = epoch + 1 WHERE node_id = 'n1'",
            )
            node.has_doubts.set()
            await until(lambda: node.is_abandoned)
            monkeypatch.setattr(culprits_module, "_BACK_OFF_S", (3600.0,))
            await until(lambda: bool(owned_by(b)))

    asyncio.run(scenario())


# Requests at any host


def make_any_app() -> App:
    app = make_app(World())

    @app.orchestrator
    async def cart(ctx: OrchestrationContext) -> list[str]:
        items: list[str] = []

        def check(item: str) -> None:
            if item in items:
                raise ValueError(f"{item} is in the cart already")

        def add(item: str) -> int:
            items.append(item)
            return len(items)

        ctx.set_query_handler("items", lambda: items)
        ctx.set_update_handler("add", add, validator=check)
        await ctx.wait_for_external_event("checkout")
        return items

    @app.activity
    async def fail(message: str) -> None:
        raise ValueError(message)

    @app.orchestrator
    async def failing(ctx: OrchestrationContext) -> None:
        await ctx.call_activity(fail, "no")

    @app.orchestrator
    async def holder(ctx: OrchestrationContext, key: str) -> None:
        async with ctx.lock(account(key)):
            await ctx.wait_for_external_event("never")

    @app.entity
    @dataclass
    class Diary(Entity):
        numbers: list[int] = field(default_factory=list)

        def add(self, number: int) -> None:
            self.numbers.append(number)

    _ = (cart, failing, holder, Diary)
    return app


def account(key: str) -> EntityId[Any]:
    return EntityId("account", key)


BRIEF = timedelta(milliseconds=20)


async def ask_everything(client: Client, new_id: Callable[[], str], new_key: Callable[[], str]) -> list[object]:
    """Ask for whatever a client can ask for, of instances that exist or do not; return what came of each request."""
    found: list[object] = []

    async def ask(request: Awaitable[Any]) -> None:
        try:
            found.append(("returned", await request))
        except Exception as error:
            found.append((type(error).__name__, str(error)))

    async def ended(id_: str) -> None:
        await client.wait_until_stopped(id_, timeout=SOON)

    missing, cart, chain, failing, held = (new_id() for _ in range(5))
    for request in (
        client.raise_event(missing, "e", 1),
        client.terminate(missing),
        client.suspend(missing),
        client.resume(missing),
        client.cancel(missing),
        client.query(missing, "items"),
        client.update(missing, "add", "x", timeout=SOON),
        client.rewind(missing),
        client.restart(missing),
        client.fork(missing, new_instance_id=new_id()),
        client.purge(missing),
        client.wait_for_completion(missing, timeout=SOON),
        client.get_status(missing),
        client.get_history(missing),
    ):
        await ask(request)
    await client.start_new("cart", instance_id=cart)
    await eventually(lambda: _is_asked(client, cart))
    for request in (
        client.start_new("cart", instance_id=cart),
        client.start_new("unknown", instance_id=new_id()),
        client.start_new("chain", "three", instance_id=new_id()),
        client.query(cart, "items"),
        client.query(cart, "unknown"),
        client.update(cart, "add", "pear", update_id="1", timeout=SOON),
        client.update(cart, "add", "pear", update_id="1", timeout=SOON),
        client.update(cart, "add", "pear", update_id="2", timeout=SOON),
        client.update(cart, "unknown", 1, timeout=SOON),
        client.wait_for_completion(cart, timeout=BRIEF),
        client.purge(cart),
        client.rewind(cart),
        client.restart(cart, with_new_id=False),
        client.suspend(cart, "a pause"),
        client.resume(cart, "go on"),
        client.raise_event(cart, "checkout"),
        client.wait_for_completion(cart, timeout=SOON),
        client.raise_event(cart, "checkout"),
        client.update(cart, "add", "fig", timeout=SOON),
        client.terminate(cart),
        client.suspend(cart),
        client.restart(cart, with_new_id=False),
        client.terminate(cart, "enough"),
        ended(cart),
        client.wait_for_completion(cart, timeout=SOON),
        client.purge(cart),
        client.purge(cart),
        client.get_status(cart),
    ):
        await ask(request)
    await client.start_new("chain", 3, instance_id=chain)
    await ended(chain)
    copy = new_id()
    await ask(client.fork(chain, new_instance_id=copy))
    await ask(client.wait_for_completion(copy, timeout=SOON))
    await ask(client.fork(chain, new_instance_id=copy))
    await client.start_new("failing", instance_id=failing)
    await ask(client.wait_for_completion(failing, timeout=SOON))
    await ask(client.rewind(failing, "again"))
    await ask(client.wait_for_completion(failing, timeout=SOON))
    one, two = account(new_key()), account(new_key())
    for request in (
        client.read_entity_state(one),
        client.call_entity(one, "add", 5, timeout=SOON),
        client.call_entity(one, "fail_after", 5, timeout=SOON),
        client.call_entity(one, "unknown", 5, timeout=SOON),
        client.call_entity(one, "add", "five", timeout=SOON),
        client.signal_entity(one, "add", 2),
        client.signal_entity(two, "add", 3, due=datetime.now(UTC) + timedelta(days=1)),
        client.call_entity(one, "add", 1, timeout=SOON),
        client.break_lock(one),
        client.purge(two.instance_id),
    ):
        await ask(request)
    await client.start_new("holder", two.key, instance_id=held)
    await eventually(lambda: _is_locked(client, two))
    await ask(client.call_entity(two, "add", 1, timeout=BRIEF))
    broken = await client.break_lock(two)
    found.append(broken is not None and broken.instance_id == held)
    await ask(client.call_entity(two, "add", 1, timeout=SOON))
    await ask(client.terminate(held))
    await ended(held)
    await ask(client.purge(one.instance_id))
    await ask(client.read_entity_state(one))
    return found


async def _is_asked(client: Client, id_: str) -> bool:
    status = await client.get_status(id_)
    return status is not None and status.runtime_status is OrchestrationStatus.RUNNING


async def _is_locked(client: Client, entity: EntityId[Any]) -> bool:
    status = await client.get_entity(entity)
    return status is not None and status.lock is not None


def plain(found: list[object], ids: dict[str, str]) -> list[str]:
    """Write down what was found without what differs between two runs: names of instances, and instants."""
    texts: list[str] = []
    for each in found:
        text = re.sub(r"object at 0x\w+|\b[0-9a-f]{32}\b|\d{13}-n\d[.\w]*", "...", repr(each))
        for id_ in sorted(ids, key=len, reverse=True):
            text = text.replace(id_, ids[id_])
        texts.append(text)
    return texts


def test_every_request_is_answered_at_any_host_as_at_the_owner(url: str) -> None:
    async def scenario() -> None:
        async with fleet(make_any_app(), url + LONG, 3) as (a, b, _):

            async def ask(client: Client, prefix: str) -> list[str]:
                ids, keys, names = ids_of(a, prefix), keys_of(a, f"key-{prefix}"), dict[str, str]()

                def named(id_: str, kind: str) -> str:
                    names[id_] = f"<{kind} {len(names)}>"
                    return id_

                found = await ask_everything(client, lambda: named(next(ids), "id"), lambda: named(next(keys), "key"))
                return plain(found, names)

            at_owner = await ask(a.client, "owned-")
            elsewhere = await ask(b.client, "other-")
            assert elsewhere == at_owner

    asyncio.run(scenario())


def keys_of(run: Run, prefix: str) -> Iterator[str]:
    """Give keys of accounts that a host owns now."""
    return (
        key
        for key in (f"{prefix}{number}" for number in range(10_000))
        if partition_of(account(key).instance_id, PARTITIONS) in owned_by(run)
    )


def test_what_was_started_with_a_new_id_is_there_at_once_for_all(url: str) -> None:
    async def scenario() -> None:
        async with fleet(make_app(World()), url + LONG, 3) as runs:
            for number in range(30):
                handle = await runs[0].client.start_new("events", 1)
                assert await runs[number % 3].client.get_status(handle.instance_id) is not None
                await runs[1].client.raise_event(handle.instance_id, "e", number)
                got = await runs[2].client.wait_for_completion(handle.instance_id, timeout=SOON)
                assert got == [number]

    asyncio.run(scenario())


def test_lists_and_counts_and_clean_ups_are_of_the_whole_hub(url: str) -> None:
    async def scenario() -> None:
        async with fleet(make_any_app(), url + LONG, 3) as runs:
            started = [await runs[n % 3].client.start_new("chain", 1, instance_id=f"c{n}") for n in range(20)]
            for handle in started:
                await handle.wait_for_completion(timeout=SOON)
            for run in runs:
                assert {each.instance_id async for each in run.client.iterate_instances()} == {
                    f"c{n}" for n in range(20)
                }
                assert await run.client.count_instances() == {OrchestrationStatus.COMPLETED: 20}
            assert await runs[0].client.purge_instances(InstanceQuery(id_prefix="c")) == 20
            assert await runs[1].client.count_instances() == {}

    asyncio.run(scenario())


def test_locks_of_those_who_are_gone_are_released_once(url: str) -> None:
    """Each host did it to what all of them have, and counted that."""

    async def scenario() -> None:
        async with fleet(make_any_app(), url + LONG, 3) as runs:
            keys = [f"k{number}" for number in range(9)]
            for key in keys:
                await runs[0].client.start_new("holder", key, instance_id=f"h-{key}")
            for key in keys:
                await eventually(lambda key=key: _is_locked(runs[0].client, account(key)))
            for run in runs:  # so that nothing of it is in memory
                run.engine.note_failure(RuntimeError("planted"))
            await execute(url, "DELETE FROM timer")
            await execute(
                url,
                "DELETE FROM history WHERE execution_id IN (SELECT execution_id FROM instance WHERE name = 'holder')",
            )
            await execute(url, "DELETE FROM instance WHERE name = 'holder'")
            cleaned = await runs[1].client.clean_entities()
            assert cleaned.orphaned_locks_released == len(keys)
            for key in keys:
                assert await runs[2].client.call_entity(account(key), "add", 1, timeout=SOON) == 1

    asyncio.run(scenario())


# While partitions move


def test_waiters_at_any_host_survive_moves(url: str) -> None:
    async def scenario() -> None:
        app = make_app(World())
        async with joined(app, url + LONG) as a, joined(app, url + LONG) as b, AsyncExitStack() as stack:
            await shared_by(a, b)
            ids = [f"w{number}" for number in range(20)]
            for id_ in ids:
                await a.client.start_new("events", 1, instance_id=id_)
            waits = [asyncio.create_task(run.client.wait_for_completion(id_)) for id_ in ids for run in (a, b)]
            c = await stack.enter_async_context(joined(app, url + LONG))
            await shared_by(a, b, c)
            for id_ in ids[::2]:
                await c.client.raise_event(id_, "e", "x")
            await stack.aclose()
            await shared_by(a, b)
            for id_ in ids[1::2]:
                await a.client.raise_event(id_, "e", "x")
            async with asyncio.timeout(SOON.total_seconds()):
                assert await asyncio.gather(*waits) == [["x"]] * 40

    asyncio.run(scenario())


def test_what_a_host_does_for_another_one_while_it_stops_is_not_done_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gave back what it had begun, and the next one raised the event a second time."""

    async def scenario() -> None:
        app = make_app(World())
        async with joined(app, url + LONG) as a, joined(app, url + LONG) as b:
            await shared_by(a, b)
            id_ = next(ids_of(a))
            await a.client.start_new("events", 3, instance_id=id_)
            await until(lambda: a.engine.is_quiet)
            commit, asked, may_commit = a.store.commit, asyncio.Event(), asyncio.Event()

            async def wait_and_commit(*arguments: Any) -> None:
                asked.set()
                await may_commit.wait()
                await commit(*arguments)

            monkeypatch.setattr(a.store, "commit", wait_and_commit)
            raising = asyncio.create_task(b.client.raise_event(id_, "e", 1))
            await asked.wait()
            stopping = asyncio.create_task(a.engine.stop())
            await until(lambda: a.engine.membership.is_leaving)
            await asyncio.sleep(0)
            may_commit.set()
            await asyncio.gather(raising, stopping)
            await shared_by(b)
            await b.client.raise_event(id_, "e", 2)
            await b.client.raise_event(id_, "e", 3)
            assert await b.client.wait_for_completion(id_, timeout=SOON) == [1, 2, 3]

    asyncio.run(scenario())


def test_a_client_is_not_told_of_the_stop_of_another_host(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        app = make_app(World())
        async with joined(app, url + LONG) as a, joined(app, url + LONG) as b:
            await shared_by(a, b)
            id_ = next(ids_of(a))
            await a.client.start_new("events", 1, instance_id=id_)
            take_no_more = a.engine.membership.take_no_more
            may_leave, refused = asyncio.Event(), asyncio.Event()
            settled_in = a.engine.membership.settled_in

            async def wait_and_leave() -> None:
                await may_leave.wait()
                await take_no_more()

            async def note_and_settle_in() -> None:
                await settled_in()
                refused.set()

            monkeypatch.setattr(a.engine.membership, "take_no_more", wait_and_leave)
            monkeypatch.setattr(a.engine.membership, "settled_in", note_and_settle_in)
            stopping = asyncio.create_task(a.engine.stop())
            await until(lambda: not a.engine.is_ready)
            raising = asyncio.create_task(b.client.raise_event(id_, "e", 1))
            await refused.wait()
            may_leave.set()
            await asyncio.gather(stopping, raising)
            assert await b.client.wait_for_completion(id_, timeout=SOON) == [1]

    asyncio.run(scenario())


def test_what_one_sender_sends_comes_in_order_while_partitions_move(url: str) -> None:
    async def scenario() -> None:
        app = make_any_app()
        diaries = [EntityId[Any]("diary", f"d{number}") for number in range(PARTITIONS)]
        async with joined(app, url + LONG) as a:
            sent, is_over = 0, False

            async def send() -> None:
                nonlocal sent
                while not is_over:
                    await insist(lambda: asyncio.gather(*map(signal, diaries)))
                    sent += 1

            def signal(diary: EntityId[Any]) -> Awaitable[None]:
                return a.client.signal_entity(diary, "add", sent, key=f"{sent}")

            sending = asyncio.create_task(send())
            for _ in range(3):
                async with joined(app, url + LONG) as b:
                    await shared_by(a, b)
                    seen = sent
                    await until(lambda seen=seen: sent > seen + 5)
                await shared_by(a)
            is_over = True
            await sending
            for diary in diaries:
                await eventually(lambda diary=diary: _has_written(a.client, diary, sent))
                assert await a.client.read_entity_state(diary) == {"numbers": list(range(sent))}

    asyncio.run(scenario())


async def _has_written(client: Client, diary: EntityId[Any], count: int) -> bool:
    state = await client.read_entity_state(diary)
    return state is not None and len(state["numbers"]) >= count


@pytest.mark.parametrize("is_migrated", [False, True], ids=["", "on tables of the next version"])
def test_transfers_go_on_while_hosts_come_and_go(url: str, is_migrated: bool) -> None:
    """Hosts come and go during a deploy, too, in which the first of the next version adds columns to the tables."""

    async def scenario() -> None:
        app = make_app(World())
        async with joined(app, url + LONG) as a:
            if is_migrated:
                await execute(url, MORE_COLUMNS)
            keys = ["ann", "bob", "cyd", "dan", "eve"]
            balances, handles = Counter[str](), list[Any]()
            for round_ in range(3):
                async with joined(app, url + LONG) as b:
                    for number in range(10):
                        source, target = keys[number % 5], keys[(number + 1 + round_) % 5]
                        balances.update({source: -number, target: number})
                        client = (a, b)[number % 2].client
                        await client.start_new("transfer", [source, target, number], instance_id=f"t{round_}-{number}")
                        handles.append(f"t{round_}-{number}")
            for id_ in handles:
                await a.client.wait_for_completion(id_, timeout=SOON)
            for key in keys:
                state = await a.client.read_entity_state(account(key))
                assert state == {"balance": balances[key]}

    asyncio.run(scenario())


# What it costs


def test_without_hints_everything_is_found_by_looking(url: str) -> None:
    async def scenario() -> None:
        config = HostConfig(drain_s=0.2, poll_s=0.05, renew_s=0.05)
        async with fleet(make_app(World()), f"{url}&pooler=transaction", 3, config) as runs:
            for number, run in enumerate(runs):
                started = await run.client.start_new("parent", 4, instance_id=f"p{number}")
                waiting = await run.client.start_new("events", 1, instance_id=f"e{number}")
                await runs[number - 1].client.raise_event(waiting.instance_id, "e", number)
                assert await started.wait_for_completion(timeout=SOON) == [1, 2, 4, 8]
                assert await runs[number - 2].client.wait_for_completion(waiting.instance_id, timeout=SOON) == [number]
                transfer = await run.client.start_new("transfer", [f"a{number}", f"b{number}", 3])
                assert await transfer.wait_for_completion(timeout=SOON) == 3
            assert [await _left_on_connections(run) for run in runs] == [set()] * 3

    asyncio.run(scenario())


async def _left_on_connections(run: Run) -> set[str]:
    """Return what the connections of a host keep from one transaction to the next: behind a pooler, others get it."""
    keeps = """
        SELECT name FROM pg_settings WHERE source = 'session' AND name <> 'jit'  -- which is the driver's own affair
        UNION ALL SELECT name FROM pg_prepared_statements
        UNION ALL SELECT channel FROM pg_listening_channels() AS channel
        UNION ALL SELECT locktype FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'
    """
    store, found = cast(Any, run.store), set[str]()
    for pool in (store._connections, store.mail._connections):
        idle, pool._readers = pool._readers, []
        async with pool._writing:
            for connection in (pool._writer, *idle):
                found |= {row[0] for row in await connection.fetch(keeps)}
        pool._readers += idle
    return found


MANY = pytest.mark.parametrize("waits", [200, pytest.param(5_000, marks=pytest.mark.soak)])


@MANY
def test_many_who_wait_at_another_host_cost_few_transactions(
    url: str, monkeypatch: pytest.MonkeyPatch, waits: int
) -> None:
    async def scenario() -> None:
        async with fleet(make_app(World()), url + LONG, 2, HostConfig(drain_s=0.2, poll_s=3600)) as (a, b):
            ids = [id_ for id_, _ in zip(ids_of(a), range(waits), strict=False)]
            await asyncio.gather(*(a.client.start_new("events", 1, instance_id=id_) for id_ in ids))
            transactions = _count_transactions(b, monkeypatch)
            results = [asyncio.create_task(b.client.wait_for_completion(id_, timeout=SOON)) for id_ in ids]
            await until(lambda: len(a.engine.waiters.instance_ids()) == waits)
            assert transactions.total() < waits / 4
            await asyncio.gather(*(a.client.raise_event(id_, "e", 1) for id_ in ids))
            assert await asyncio.gather(*results) == [[1]] * waits
            assert transactions.total() < waits
            backends = "SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            assert int((await execute(url, backends)).removeprefix("SELECT ")) <= 2 * CONNECTIONS_MAX

    asyncio.run(scenario())


@MANY
def test_while_they_wait_they_cost_no_more_than_one(url: str, monkeypatch: pytest.MonkeyPatch, waits: int) -> None:
    async def scenario() -> None:
        async with fleet(make_app(World()), url + LONG, 2, HostConfig(drain_s=0.2, poll_s=0.01)) as (a, b):
            ids = [id_ for id_, _ in zip(ids_of(a), range(waits), strict=False)]
            await asyncio.gather(*(a.client.start_new("events", 1, instance_id=id_) for id_ in ids))
            results = [asyncio.create_task(b.client.wait_for_completion(id_, timeout=SOON)) for id_ in ids]
            await until(lambda: len(a.engine.waiters.instance_ids()) == waits)
            transactions, looks = _count_transactions(b, monkeypatch), Counter[str]()
            count_calls(b.store, "arrivals", looks, monkeypatch)
            await until(lambda: looks["arrivals"] >= 50)
            assert transactions.total() < 2 * 50
            for result in results:
                result.cancel()

    asyncio.run(scenario())


def test_who_hears_hints_looks_seldom_for_what_others_want(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of three that had nothing to do asked the server eleven times a second."""

    async def scenario() -> None:
        async with fleet(make_app(World()), url + LONG, 2, HostConfig(drain_s=0.2, poll_s=0.01)) as (a, _):
            mail = cast(Any, a.store).mail
            await until(lambda: mail.hears)
            queries = Counter[str]()
            for target, name in (
                *((a.store, each) for each in ("arrivals", "activities_visible")),
                *((mail, each) for each in ("take", "take_orphans", "borrow", "reclaim", "offers", "declared")),
            ):
                count_calls(target, name, queries, monkeypatch)
            await until(lambda: queries["arrivals"] >= 100)
            assert queries.total() - queries["arrivals"] < 60

    asyncio.run(scenario())


def _count_transactions(run: Run, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what a host asks of the server from now on."""
    counts = Counter[str]()
    store: Any = run.store
    for connections in (store._connections, store.mail._connections):
        for name in ("read", "write", "ask", "commit"):
            count_calls(connections, name, counts, monkeypatch)
    return counts


def count_calls(target: Any, name: str, counts: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    method = getattr(target, name)

    def call(*args: Any, **options: Any) -> Any:
        counts[name] += 1
        return method(*args, **options)

    monkeypatch.setattr(target, name, call)
