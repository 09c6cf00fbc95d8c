"""Whatever is sent in whatever order, and whatever fails: entities are serial, and nothing is lost or done twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from engine_kit import SOON, FailingStore, Run, eventually, insist
from entity_kit import Outside, entries, ledger, make_entities, on
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import (
    App,
    Entity,
    EntityId,
    EntitySignal,
    HostConfig,
    Limits,
    OrchestrationContext,
    entity_context,
)
from holdfast.storage.memory import MemoryData, MemoryStore

FEW = settings(max_examples=20, deadline=None, derandomize=True)
MODES = ["before", "unknown, not applied", "unknown, applied"]

Operation = tuple[str, int, str]
"""Its kind, a number, and who sends it."""


def apply(total: int, kind: str, number: int) -> int:
    match kind:
        case "add" | "slow_add":
            return total + number
        case "times" | "slow_times":
            return total * number % 1_000_003
        case _:
            return total


def folding() -> App:
    app = App()

    @app.entity
    @dataclass
    class Fold(Entity):
        """Writes down what it does; an operation that another one got in between would leave another total."""

        total: int = 1
        log: list[tuple[str, int, str]] = field(default_factory=list)

        def add(self, what: tuple[int, str]) -> None:
            self.log.append(("add", *what))
            self.total = apply(self.total, "add", what[0])

        def times(self, what: tuple[int, str]) -> None:
            self.log.append(("times", *what))
            self.total = apply(self.total, "times", what[0])

        def fail(self, what: tuple[int, str]) -> None:
            self.times(what)
            self.log.clear()
            raise ValueError("it does not count")

        async def slow_add(self, what: tuple[int, str]) -> None:
            await self._slow("slow_add", what)

        async def slow_times(self, what: tuple[int, str]) -> None:
            await self._slow("slow_times", what)

        async def _slow(self, kind: str, what: tuple[int, str]) -> None:
            before = self.total
            for _ in range(what[0] % 5):
                await asyncio.sleep(0)
            self.total = apply(before, kind, what[0])
            self.log.append((kind, *what))

        async def slow_fail(self, what: tuple[int, str]) -> None:
            await self._slow("slow_times", what)
            raise ValueError("it does not count")

    @app.orchestrator
    async def sends(ctx: OrchestrationContext, operations: list[Operation]) -> None:
        for kind, number, sender in operations:
            ctx.signal_entity(EntityId("fold", "a"), kind, (number, sender))

    _ = (Fold, sends)
    return app


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["add", "times", "fail", "slow_add", "slow_times", "slow_fail"]),
        st.integers(1, 1_000),
        st.sampled_from(["client", "many", "orchestrator"]),
    ),
    max_size=25,
)


@FEW
@given(operations=OPERATIONS, batch=st.integers(1, 8))
def test_the_state_is_the_fold_of_the_operations_in_some_order_of_their_senders(
    operations: list[Operation], batch: int
) -> None:
    by_sender: dict[str, list[Operation]] = {"client": [], "many": [], "orchestrator": []}
    for operation in operations:
        by_sender[operation[2]].append(operation)

    async def scenario(run: Run) -> None:
        async def client() -> None:
            for kind, number, sender in by_sender["client"]:
                await run.client.signal_entity(EntityId("fold", "a"), kind, (number, sender))

        async def many() -> None:
            fold = EntityId[Any]("fold", "a")
            await run.client.signal_many([EntitySignal(fold, kind, (n, who)) for kind, n, who in by_sender["many"]])

        async def orchestrator() -> None:
            await run.client.start_new("sends", by_sender["orchestrator"])

        await asyncio.gather(client(), many(), orchestrator())
        count = sum("fail" not in kind for kind, _, _ in operations)

        async def done() -> bool:
            state: Any = await run.client.read_entity_state(EntityId("fold", "a"))
            return (0 if state is None else len(state["log"])) == count and run.engine.node.is_quiet

        await eventually(done)
        state: Any = await run.client.read_entity_state(EntityId("fold", "a"))
        log = [] if state is None else [tuple(each) for each in state["log"]]
        total = 1
        for kind, number, _ in log:
            total = apply(total, kind, number)
        assert total == (1 if state is None else state["total"])
        for sender, sent in by_sender.items():
            assert [each for each in log if each[2] == sender] == [each for each in sent if "fail" not in each[0]]

    config = HostConfig(drain_s=0.2, limits=Limits(episode_messages_max=batch))
    on(MemoryStore(), folding(), scenario, config)


@FEW
@given(
    bursts=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    opens_after=st.integers(0, 6),
    failing_commits=st.dictionaries(st.integers(4, 60), st.sampled_from(MODES), max_size=3),
)
def test_a_new_execution_gets_each_event_once_and_no_late_answers(
    bursts: list[int], opens_after: int, failing_commits: dict[int, str]
) -> None:
    """An execution asks for what is answered only once it has been followed by others, which have the same numbers."""
    outside, rounds = Outside(), 1 + sum(bursts)
    app = make_entities(outside)

    @app.orchestrator
    async def loop(ctx: OrchestrationContext, so_far: list[Any]) -> list[Any]:
        number = len(so_far)
        late = ctx.call_entity(ledger("slow"), "wait", f"late {number}")
        ctx.signal_entity(ledger("signals"), "note", number)
        event = await ctx.wait_for_external_event("e")
        answer = await ctx.call_entity(ledger("calls"), "note", number)
        assert not late.is_completed or late.result == number + 1
        if number + 1 == rounds:
            return [*so_far, [event, answer]]
        ctx.continue_as_new([*so_far, [event, answer]])
        return []

    failing = FailingStore(MemoryStore())

    async def scenario(run: Run) -> None:
        sent = 0
        failing.fail_at = dict(failing_commits)
        await insist(lambda: run.client.start_new("loop", [], instance_id="loop"))
        for burst, count in enumerate([*bursts, 1]):
            if burst == opens_after:
                outside.gate.set()
            for _ in range(count):
                event = sent
                await insist(lambda event=event: run.client.raise_event("loop", "e", event, key=f"{event}"))
                sent += 1
            for _ in range(count):
                await asyncio.sleep(0)
        result = await run.client.wait_for_completion("loop", timeout=SOON)
        assert result == [[number, number + 1] for number in range(rounds)]
        outside.gate.set()

        async def done() -> bool:
            return len(await entries(run, "slow")) == len(await entries(run, "signals")) == rounds

        await eventually(done)
        assert await entries(run, "slow") == [f"late {number}" for number in range(rounds)]
        assert await entries(run, "signals") == await entries(run, "calls") == list(range(rounds))

    on(failing, app, scenario, HostConfig(drain_s=0.2))


AMOUNTS = st.lists(
    st.tuples(
        st.sampled_from(["signal", "call", "send", "fail"]), st.integers(0, 3), st.integers(0, 3), st.integers(1, 100)
    ),
    min_size=1,
    max_size=20,
)


@FEW
@given(
    amounts=AMOUNTS,
    failing_commits=st.dictionaries(st.integers(1, 60), st.sampled_from(MODES), max_size=12),
    group=st.sampled_from([1, 3, 1_000]),
    cache=st.sampled_from([1, 1_000_000]),
)
def test_the_sum_is_what_was_acknowledged_whatever_commits_fail(
    amounts: list[tuple[str, int, int, int]], failing_commits: dict[int, str], group: int, cache: int
) -> None:
    app, data = App(), MemoryData()

    @app.entity
    @dataclass
    class Purse(Entity):
        sum: int = 0

        def add(self, amount: int) -> int:
            self.sum += amount
            return amount

        def send(self, to: tuple[str, int]) -> int:
            self.sum -= to[1]
            entity_context().signal_entity(EntityId(Purse, to[0]), Purse.add, to[1])
            return -to[1]

        def fail(self, amount: int) -> int:
            self.sum += amount
            raise ValueError("it does not count")

    failing = FailingStore(MemoryStore(data))

    async def ask(run: Run, number: int) -> None:
        kind, source, target, amount = amounts[number]
        purse, key = EntityId(Purse, f"{source}"), f"key {number}"
        if kind == "send":
            to = (f"{target}", amount)
            answer = await insist(lambda: run.client.call_entity(purse, Purse.send, to, key=key, timeout=SOON))
            assert answer == -amount
        elif kind == "call":
            answer = await insist(lambda: run.client.call_entity(purse, Purse.add, amount, key=key, timeout=SOON))
            assert answer == amount
        else:
            operation = "add" if kind == "signal" else "fail"
            await insist(lambda: run.client.signal_entity(purse, operation, amount, key=key))

    async def scenario(run: Run) -> None:
        failing.fail_at = dict(failing_commits)
        await asyncio.gather(*(ask(run, number) for number in range(len(amounts))))
        expected = Counter[str]()
        for kind, source, target, amount in amounts:
            expected[f"{source}"] += {"send": -amount, "fail": 0}.get(kind, amount)
            expected[f"{target}"] += amount if kind == "send" else 0

        async def sums() -> Counter[str]:
            found = [each async for each in run.client.iterate_entities()]
            return Counter({each.entity_id.key: each.state["sum"] for each in found})

        async def settled() -> bool:
            return run.engine.is_ready and not data.messages and run.engine.node.is_quiet

        await eventually(settled)
        assert await sums() == expected

    on(failing, app, scenario, HostConfig(group_transitions_max=group, cache_bytes_max=cache, drain_s=0.2))
