"""Clients agree: what one of them does near its host, each other one does from where it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from client_kit import APPROVAL, AT_ONCE, SOON, WAYS, Order, Receipt, Served, serving

from holdfast import (
    BulkProgress,
    EntityId,
    EntityQuery,
    EntitySignal,
    IdPolicy,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceNotRunningError,
    InstanceParkedError,
    InstanceQuery,
    InvalidInputError,
    Limits,
    NotRegisteredError,
    OrchestrationFailedError,
    OrchestrationStatus,
    OverloadedError,
    PayloadError,
    PayloadTooLargeError,
    QueryFailedError,
    RewindRefusedError,
    TaskFailedError,
    UpdateRejectedError,
    WaitTimeoutError,
)
from holdfast.client.client import Client, hub_of
from holdfast.codec.exported import decode_exported
from holdfast.errors import InstanceNotEndedError, InvalidInstanceIdError
from holdfast.model.history import EventRaised, ExecutionStarted

Scenario = Callable[[Any, Served], Awaitable[None]]


@pytest.fixture(params=WAYS)
def talk(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Run a scenario with a client of each kind."""

    def run(scenario: Scenario, **settings: Any) -> None:
        async def main() -> None:
            async with (
                asyncio.timeout(90),
                serving("memory://", **settings) as served,
                WAYS[request.param](served) as client,
            ):
                await scenario(client, served)

        asyncio.run(main())

    return run


Talk = Callable[..., None]


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SOON.total_seconds()):
        while not await holds():
            await asyncio.sleep(0.01)


def has_status(client: Any, instance_id: str, status: OrchestrationStatus) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        found = await client.get_status(instance_id)
        return found is not None and found.runtime_status is status

    return holds


async def raised(error: type[Exception], asked: Awaitable[Any]) -> Any:
    """Return the error that a request raises, of exactly this class."""
    with pytest.raises(error) as found:
        await asked
    assert type(found.value) is error
    return found.value


# Starts, statuses, results


def test_start_status_and_typed_result(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        buy = served.functions.buy
        run = await client.start_new(buy, Order("tea", 2), instance_id="order", version="1.0", tags={"shop": "1"})
        assert await run.wait_for_completion(timeout=SOON) == Receipt("4 x tea")
        assert await client.wait_for_completion("order") == {"text": "4 x tea"}
        assert await client.get_handle(buy, "order").wait_for_completion() == Receipt("4 x tea")
        assert await client.wait_for_result("order", Receipt, None) == Receipt("4 x tea")
        status = await run.get_status()
        assert status.state == (await served.host.client.get_status("order")).state
        assert (status.name, status.version, status.tags) == ("buy", "1.0", {"shop": "1"})
        assert status.custom_status == {"item": "tea"}
        assert status.runtime_status is OrchestrationStatus.COMPLETED
        assert (await client.wait_until_stopped("order")).output == {"text": "4 x tea"}
        assert await client.get_status("nobody") is None

    talk(scenario)


def test_a_new_id_is_made_if_none_is_given(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        first, second = [await client.start_new("buy", {"item": "tea"}) for _ in range(2)]
        assert first.instance_id != second.instance_id
        keyed = [await client.start_new("buy", {"item": "tea"}, request_key="same") for _ in range(2)]
        assert keyed[0].instance_id == keyed[1].instance_id

    talk(scenario)


def test_id_policies(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        await client.start_new("approve", instance_id="one")
        error = await raised(InstanceAlreadyExistsError, client.start_new("approve", instance_id="one"))
        assert (error.instance_id, error.status) in (("one", "Running"), ("one", "Pending"))
        await client.start_new("approve", instance_id="one", id_policy=IdPolicy(replace=(), otherwise="return"))
        before = (await client.get_status("one")).execution_id
        await client.start_new("approve", instance_id="one", id_policy=IdPolicy(replace=OrchestrationStatus))
        assert (await client.get_status("one")).execution_id != before

    talk(scenario)


def test_a_start_in_the_future_waits_and_one_with_a_timeout_fails(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        later = datetime.now(UTC) + timedelta(days=1)
        await client.start_new("approve", instance_id="later", start_at=later)
        assert (await client.get_status("later")).runtime_status is OrchestrationStatus.PENDING
        short = await client.start_new("approve", run_timeout=AT_ONCE)
        error = await raised(OrchestrationFailedError, short.wait_for_completion(timeout=SOON))
        assert (error.status, error.details.error_type) == ("Failed", "builtins.TimeoutError")

    talk(scenario)


def test_refused_starts(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        assert "nobody" in str(await raised(NotRegisteredError, client.start_new("nobody")))
        await raised(InvalidInstanceIdError, client.start_new("approve", instance_id="a/b"))
        await raised(PayloadError, client.start_new("buy", {"thing": "tea"}))
        await raised(InvalidInputError, client.start_new("approve", tags={"": "empty"}))
        with pytest.raises(TypeError, match="instance_id"):
            await client.start_new("approve", instance="x")

    talk(scenario)


def test_payloads_over_the_limit(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        await raised(PayloadTooLargeError, client.start_new("buy", {"item": "x" * 5_000}))
        await client.start_new("approve", instance_id="one")
        await raised(PayloadTooLargeError, client.raise_event("one", APPROVAL, Order("x" * 5_000)))

    talk(scenario, limits=Limits(payload_bytes_max=4_000))


# Waits


def test_waits_that_run_out(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        run = await client.start_new("approve", instance_id="one")
        text = str(WaitTimeoutError("Instance 'one' has not ended within 0:00:00.001000."))
        assert str(await raised(WaitTimeoutError, run.wait_for_completion(timeout=AT_ONCE))) == text
        assert str(await raised(WaitTimeoutError, client.wait_until_stopped("one", timeout=AT_ONCE))) == text
        await raised(InstanceNotFoundError, client.wait_until_stopped("nobody", timeout=AT_ONCE))
        await raised(InstanceNotFoundError, client.wait_for_completion("nobody"))

    talk(scenario)


def test_a_failure_says_why(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        served.switch.is_broken = True
        run = await client.start_new(served.functions.buy, Order("tea"), instance_id="order")
        error = await raised(OrchestrationFailedError, run.wait_for_completion(timeout=SOON))
        assert str(error) == "Orchestration 'order' ended as Failed: builtins.ValueError: it is broken"
        assert error.details.is_caused_by(ValueError)

    talk(scenario)


def test_a_parked_instance_says_why_and_goes_on(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        await client.start_new("changing", instance_id="one")

        async def waits() -> bool:
            return any(type(event).__name__ == "TaskCompleted" for event in await client.get_history("one"))

        await eventually(waits)
        await client.start_new("buy", {"item": "tea"}, instance_id="other")
        await client.wait_for_completion("other", timeout=SOON)  # so that the first one is forgotten, and replayed
        served.switch.is_changed = True
        await client.raise_event("one", "go")
        error = await raised(InstanceParkedError, client.wait_for_completion("one", timeout=SOON))
        near = await raised(InstanceParkedError, served.host.client.wait_for_completion("one"))
        assert (str(error), error.instance_id, error.details) == (str(near), "one", near.details)
        assert (await client.wait_until_stopped("one")).parked == near.details
        served.switch.is_changed = False
        await client.resume("one", "mended")
        assert await client.wait_for_completion("one", timeout=SOON) is None

    talk(scenario)


# Events and management


def test_events(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        run = await client.start_new(served.functions.approve, instance_id="one")
        await run.raise_event("unrelated", key="k")
        await client.raise_event("one", "unrelated", key="k")
        await run.raise_event(APPROVAL, Order("tea"))
        assert await run.wait_for_completion(timeout=SOON) == Order("tea")
        history = await client.get_history("one")
        assert [event.key for event in history if isinstance(event, EventRaised)] == ["k", "k", None]
        assert history == await served.host.client.get_history("one")
        error = await raised(InstanceNotRunningError, run.raise_event(APPROVAL, Order("tea")))
        assert str(error) == "Cannot raise an event for instance 'one': it is Completed."
        assert (error.instance_id, error.status) == ("one", "Completed")
        assert (await raised(InstanceNotFoundError, client.raise_event("nobody", "x"))).instance_id == "nobody"
        await raised(InvalidInputError, client.raise_event("one", ""))

    talk(scenario)


def test_too_many_events(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        await client.start_new("approve", instance_id="one", start_at=datetime.now(UTC) + timedelta(days=1))
        await client.raise_event("one", "x")
        await raised(OverloadedError, client.raise_event("one", "x"))

    talk(scenario, limits=Limits(inbox_messages_max=1))


def test_cancel_and_terminate(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        cancelled = await client.start_new("approve", instance_id="cancelled")
        await cancelled.cancel("no more tea")
        error = await raised(OrchestrationFailedError, cancelled.wait_for_completion(timeout=SOON))
        assert (error.status, error.details) == ("Canceled", None)
        await raised(InstanceNotRunningError, client.cancel("cancelled"))
        await client.start_new("parent", instance_id="top")
        await eventually(has_status(client, "child", OrchestrationStatus.RUNNING))
        assert (await client.get_status("child")).parent_instance_id == "top"
        await client.terminate("top", {"why": "enough"}, recursive=True)
        assert (await client.wait_until_stopped("top", timeout=SOON)).output == {"why": "enough"}
        child = await client.wait_until_stopped("child", timeout=SOON)
        assert child.runtime_status is OrchestrationStatus.TERMINATED

    talk(scenario)


def test_suspend_and_resume(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        run = await client.start_new("approve", instance_id="one")
        await eventually(has_status(client, "one", OrchestrationStatus.RUNNING))
        await run.suspend("a break", recursive=True)
        await eventually(has_status(client, "one", OrchestrationStatus.SUSPENDED))
        await run.raise_event("Approval", {"item": "tea"})
        await run.resume("it is over", recursive=True)
        assert await run.wait_for_completion(timeout=SOON) == {"item": "tea"}
        await raised(InstanceNotRunningError, client.suspend("one"))
        await raised(InstanceNotRunningError, client.resume("one"))
        await raised(InvalidInputError, client.terminate("@counter@x"))

    talk(scenario)


def test_rewind_restart_and_fork(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        served.switch.is_broken = True
        run = await client.start_new("buy", {"item": "tea"}, instance_id="one")
        await raised(OrchestrationFailedError, run.wait_for_completion(timeout=SOON))
        served.switch.is_broken = False
        await client.rewind("one", "it is mended")
        assert await run.wait_for_completion(timeout=SOON) == {"text": "2 x tea"}
        await raised(InstanceNotRunningError, client.rewind("one"))
        again = await client.restart("one")
        assert await again.wait_for_completion(timeout=SOON) == {"text": "2 x tea"}
        assert again.instance_id != "one"
        assert (await client.restart("one", with_new_id=False)).instance_id == "one"
        assert await client.wait_for_completion("one", timeout=SOON) == {"text": "2 x tea"}
        forked = await client.fork("one", new_instance_id="two", episode=1)
        assert await forked.wait_for_completion(timeout=SOON) == {"text": "2 x tea"}
        await raised(InstanceAlreadyExistsError, client.fork("one", new_instance_id="two"))
        await raised(InvalidInputError, client.fork("one", episode=99))
        for request in (client.rewind, client.restart, client.fork, client.purge, client.get_history):
            await raised(InstanceNotFoundError, request("nobody"))

    talk(scenario)


def test_a_fork_inside_a_critical_section_is_refused(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        await client.start_new("keep_lock", "a", instance_id="holder")
        counter = EntityId(served.functions.counter, "a")

        async def locked() -> bool:
            found = await client.get_entity(counter)
            return found is not None and found.lock is not None

        await eventually(locked)
        await client.raise_event("holder", "unrelated")

        async def arrived() -> bool:
            return any(isinstance(event, EventRaised) for event in await client.get_history("holder"))

        await eventually(arrived)
        assert (await raised(RewindRefusedError, client.fork("holder"))).instance_id == "holder"

    talk(scenario)


# Queries and updates


def test_queries_and_updates(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        run = await client.start_new("cart", instance_id="one")
        assert await run.update("add", "apple") == 1
        assert await client.update("one", "add", "fig", update_id="u", timeout=SOON) == 2
        assert await client.update("one", "add", "fig", update_id="u") == 2
        assert await run.query("items") == ["apple", "fig"]
        rejected = await raised(UpdateRejectedError, run.update("add", "fig"))
        assert str(rejected) == "Update 'add' of instance 'one' was rejected: fig is in the cart already"
        with pytest.raises(KeyError) as failed:
            await run.update("add", "bomb")
        assert isinstance(failed.value, TaskFailedError)
        await raised(QueryFailedError, client.query("one", "nothing"))
        late = await raised(WaitTimeoutError, run.update("add", "later", update_id="l", timeout=AT_ONCE))
        assert "'l' within 0:00:00.001000" in str(late)
        await run.raise_event("go")
        await run.raise_event("checkout")
        await run.wait_for_completion(timeout=SOON)
        assert (await raised(InstanceNotRunningError, client.query("one", "items"))).status == "Completed"
        await raised(InstanceNotRunningError, client.update("one", "add", "tea"))
        await raised(InstanceNotFoundError, client.update("nobody", "add", "tea"))

    talk(scenario)


# Entities


def test_signals_calls_and_states(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        cls = served.functions.counter
        counter = EntityId(cls, "a")
        await client.signal_entity(counter, cls.add, 1, key="first")
        await client.signal_entity(counter, "add", 1, key="first")
        await client.signal_many(EntitySignal(counter, cls.add, 10) for _ in range(2))
        await client.signal_entity(counter, cls.add, 5, due=timedelta(days=1))
        await client.signal_entity(counter, cls.add, 5, due=datetime.now(UTC) + timedelta(days=1))
        assert await client.call_entity(counter, cls.get) == 21
        assert await client.call_entity(counter, "add", 1, key="k", timeout=SOON) == 22
        assert await client.call_entity(counter, "add", 1, key="k") == 22
        assert (await client.read_entity_state(counter)).value == 22
        found = await client.get_entity(counter)
        assert (found.exists, found.scheduled_signals, found.state.value) == (True, 2, 22)
        assert found.found == (await served.host.client.get_entity(counter)).found
        assert await client.get_entity(EntityId(cls, "b")) is None
        with pytest.raises(ValueError, match="only counts up") as failed:
            await client.call_entity(counter, cls.add, -1)
        assert isinstance(failed.value, TaskFailedError)
        await raised(NotRegisteredError, client.signal_entity(EntityId("nobody", "a"), "add", 1))
        await raised(NotRegisteredError, client.call_entity(EntityId("nobody", "a"), "add", 1))
        await raised(PayloadError, client.call_entity(counter, "add", "one"))

    talk(scenario)


def test_lists_of_entities(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        cls = served.functions.counter
        ids = [EntityId(cls, key) for key in "abc"]
        await client.signal_many([EntitySignal(each, cls.add, 1) for each in ids])
        for each in ids:
            await client.call_entity(each, cls.get)
        page = await client.list_entities(EntityQuery(entity=cls), limit=2)
        assert [each.entity_id for each in page.entities] == ids[:2]
        rest = await client.list_entities(EntityQuery(entity=cls), continuation_token=page.continuation_token)
        assert [each.state.value for each in rest.entities] == [1]
        until = datetime.now(UTC) - timedelta(days=1)
        assert [each async for each in client.iterate_entities(EntityQuery(updated_until=until))] == []
        assert len([each async for each in client.iterate_entities()]) == 3
        await raised(InvalidInputError, client.list_entities(limit=0))

    talk(scenario)


def test_locks_and_cleaning(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        cls = served.functions.counter
        counter = EntityId(cls, "a")
        await client.start_new("keep_lock", "a", instance_id="holder")

        async def locked() -> bool:
            found = await client.get_entity(counter)
            return found is not None and found.lock is not None

        await eventually(locked)
        late = await raised(WaitTimeoutError, client.call_entity(counter, cls.get, timeout=AT_ONCE))
        assert str(late) == "Entity @counter@a has not answered within 0:00:00.001000. The operation may still run."
        assert (await client.break_lock(counter)).instance_id == "holder"

        async def free() -> bool:
            return (await client.get_entity(counter)).lock is None

        await eventually(free)
        assert await client.break_lock(counter) is None
        await client.call_entity(counter, "delete")
        removed = await client.clean_entities(idle_for=timedelta(0))
        assert (removed.empty_entities_removed, removed.orphaned_locks_released) == (1, 0)
        await raised(InvalidInputError, client.clean_entities(idle_for=timedelta(-1)))

    talk(scenario)


# Histories and many instances


def test_histories_and_exports(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        await client.start_new("buy", {"item": "tea"}, instance_id="one")
        await client.wait_for_completion("one", timeout=SOON)
        exported = decode_exported(await client.export_history("one"))
        assert exported == decode_exported(await served.host.client.export_history("one"))
        assert len(exported.episodes) == 2
        for hub in [hub_of(each) for each in (client, served.host.client) if isinstance(each, Client)]:
            part = await hub.export_history("one", first=1, limit=1)
            assert (part.execution_id, part.episodes) == (exported.execution_id, exported.episodes[1:])
            assert (await hub.export_history("one", first=2)).episodes == ()
        assert [each for each in await client.get_history("one") if isinstance(each, ExecutionStarted)]
        await raised(InvalidInstanceIdError, client.export_history("@counter@a"))

    talk(scenario)


def test_lists_counts_and_purges(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        buy = served.functions.buy
        for number in range(3):
            await client.start_new(buy, Order("tea"), instance_id=f"order-{number}", tags={"number": str(number)})
            await client.wait_for_completion(f"order-{number}", timeout=SOON)
        await client.start_new("approve", instance_id="open")
        await eventually(has_status(client, "open", OrchestrationStatus.RUNNING))
        page = await client.list_instances(InstanceQuery(name=buy), limit=2)
        assert [each.instance_id for each in page.instances] == ["order-0", "order-1"]
        page = await client.list_instances(InstanceQuery(name=buy), continuation_token=page.continuation_token)
        assert [each.tags for each in page.instances] == [{"number": "2"}]
        found = InstanceQuery(
            id_prefix="order",
            statuses=["Completed"],
            tags={"number": "1"},
            custom_status={"item": "tea"},
            created_until=datetime.now(UTC),
            parked=False,
        )
        assert [each.instance_id async for each in client.iterate_instances(found)] == ["order-1"]
        assert await client.count_instances() == {
            OrchestrationStatus.COMPLETED: 3,
            OrchestrationStatus.RUNNING: 1,
        }
        execution_id = (await client.get_status("order-0")).execution_id
        other = await raised(InstanceNotFoundError, client.purge("order-0", if_execution="another"))
        assert (other.instance_id, "the execution 'another'" in str(other)) == ("order-0", True)
        await client.restart("order-0", with_new_id=False)
        await client.wait_for_completion("order-0", timeout=SOON)
        await raised(InstanceNotFoundError, client.purge("order-0", if_execution=execution_id))
        execution_id = (await client.get_status("order-0")).execution_id
        await client.purge("order-0", if_execution=execution_id)
        await raised(InvalidInputError, client.purge("@counter@a", if_execution=execution_id))
        await raised(InvalidInputError, client.purge("order-1", if_execution=""))
        assert await client.get_status("order-0") is None
        error = await raised(InstanceNotEndedError, client.purge("open"))
        assert (error.instance_id, error.status) == ("open", "Running")
        steps: list[int] = []
        assert await client.purge_instances(InstanceQuery(), progress=steps.append) == 2
        assert steps[-1] == 2
        assert await client.count_instances(InstanceQuery(name="buy")) == {}
        await raised(InvalidInputError, client.list_instances(InstanceQuery(id_prefix="\n")))

    talk(scenario)


def test_bulk_jobs(talk: Talk) -> None:
    async def scenario(client: Any, served: Served) -> None:
        for number in range(3):
            await client.start_new("approve", instance_id=f"a{number}")
        job = await client.start_bulk("terminate", InstanceQuery(name="approve"), "enough")
        near = served.host.client.get_handle(served.functions.approve, job.instance_id)
        progress = await job.wait_for_completion(timeout=SOON)
        assert type(progress) is BulkProgress
        assert (await near.get_status()).output == msgspec.to_builtins(progress)
        assert (await client.wait_until_stopped("a0", timeout=SOON)).output == "enough"
        await raised(InvalidInputError, client.start_bulk("explode", InstanceQuery()))

    talk(scenario)
