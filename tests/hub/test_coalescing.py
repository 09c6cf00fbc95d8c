"""A group of transitions leaves the same store behind as its transitions one by one, wherever it is cut."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from holdfast.codec.history import decode_events
from holdfast.engine.coalesce import Entry, coalesce
from holdfast.errors import RewindRefusedError
from holdfast.hub.entities import PendingBatch
from holdfast.hub.episodes import PendingEpisode
from holdfast.hub.hub import Hub
from holdfast.hub.instance import Instance
from holdfast.hub.requests import Admission
from holdfast.hub.transition import Transition
from holdfast.model.actions import (
    CancelTask,
    CancelTimer,
    Carried,
    CompleteOrchestration,
    CreateSubOrchestration,
    CreateTimer,
    EntityAction,
    OrchestratorAction,
    ScheduleTask,
    SendEntityMessage,
    SendEvent,
)
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    CancelRequested,
    EntityOperationCalled,
    EntityOperationSignaled,
    EventRaised,
    ExecutionResumed,
    ExecutionSuspended,
    ExecutionTerminated,
    HistoryEvent,
    SubOrchestrationInstanceFailed,
    TaskCompleted,
    TaskFailed,
    TimerFired,
    WorkRemembered,
)
from holdfast.model.ids import is_entity
from holdfast.model.limits import Limits
from holdfast.model.messages import Message
from holdfast.model.requests import IdPolicy, StartRequest
from holdfast.model.retry import RetryPolicy
from holdfast.model.status import OrchestrationStatus
from holdfast.model.task_policy import PLAIN, TaskPolicy
from holdfast.model.work_items import (
    ActivityWorkItem,
    EntityBatch,
    Episode,
    Failed,
    OperationOutcome,
    OperationSucceeded,
    Succeeded,
)
from holdfast.storage.memory import MemoryData, MemoryStore
from holdfast.testing.fold import ExecutionFold

NOW = datetime(2026, 11, 22, tzinfo=UTC)
RETRY = TaskPolicy(retry=RetryPolicy(max_attempts=3, first_retry_interval=timedelta(0)).rule())
LATER = timedelta(hours=1)
NOW_US = int((NOW + LATER).timestamp() * 1_000_000)


class Walk:
    """A hub that is led at random: every transition it makes is kept, in order."""

    def __init__(self, seed: int, *, with_rows: bool = True) -> None:
        self.dice = random.Random(seed)
        self.with_rows = with_rows
        self.hub = Hub(0, "n", 1, Limits(episode_messages_max=2, entity_keys_max=3))
        self.instances: dict[str, Instance] = {}
        self.entries: list[Entry] = []
        self.histories: dict[str, list[tuple[HistoryEvent, ...]]] = {}
        self.identities: set[str] = set()
        self.next_id = 0

    def keep(self, transition: Transition | None) -> None:
        if transition is None:
            return
        self.entries.append(Entry(transition, 1, with_row=self.with_rows))
        if transition.instance is not None:
            episodes = self.histories.setdefault(transition.instance.execution_id, [])
            episodes.extend(transition.history_copied)
            episodes.extend([transition.history] if transition.history else [])
        for message in transition.sent:
            self.deliver(message)

    def deliver(self, message: Message) -> None:
        if isinstance(message.event, TaskCompleted | TaskFailed | TimerFired | WorkRemembered):
            assert message.execution_id is not None, "what an execution asked for must not reach another"
        known = self.instances.get(message.instance_id)
        instance, transition = self.hub.deliver(known, message, NOW)
        if instance is not None:
            self.instances[message.instance_id] = instance
        self.keep(transition)

    def actions(self, instance: Instance, failed: bool) -> tuple[OrchestratorAction, ...]:
        """Ask for anything.

        Args:
            failed: whether something that was asked for has failed, which more often than not is the end.
        """
        dice, actions = self.dice, list[OrchestratorAction]()
        for _ in range(dice.randrange(4)):
            self.next_id += 1
            kind = dice.randrange(8)
            if kind == 0:
                actions.append(ScheduleTask(self.next_id, "a", "1", RETRY if dice.random() < 0.3 else PLAIN))
            elif kind == 1:
                actions.append(CreateTimer(self.next_id, NOW))
            elif kind == 2 and any(sequence > 0 for sequence in instance.timers):
                actions.append(CancelTimer(dice.choice([each for each in sorted(instance.timers) if each > 0])))
            elif kind == 5 and (work := sorted([*instance.activities, *instance.children])):
                actions.append(CancelTask(dice.choice(work)))
            elif kind in (3, 6):
                child, detached = f"i{dice.randrange(4, 8)}", dice.random() < 0.2
                if kind == 6:
                    child = f"{instance.execution_id}:{self.next_id}"
                start_at = NOW + LATER if dice.random() < 0.2 else None
                actions.append(
                    CreateSubOrchestration(self.next_id, "o", child, None, detached=detached, start_at=start_at)
                )
            elif kind == 7:
                actions.append(SendEntityMessage(self.call_of_entity(instance)))
            else:
                actions.append(SendEvent(self.next_id, f"i{dice.randrange(4)}", "e", "null"))
        end = dice.random()
        if failed and end < 0.6:
            actions.append(CompleteOrchestration(OrchestrationStatus.FAILED, failure=FailureDetails("x", "y")))
        elif end < 0.1:
            status = dice.choice(
                [OrchestrationStatus.COMPLETED, OrchestrationStatus.CANCELED, *[OrchestrationStatus.FAILED] * 3]
            )
            actions.append(CompleteOrchestration(status, failure=FailureDetails("x", "y")))
        elif end < 0.2:
            events = (EventRaised(timestamp=NOW, name="e"),) * dice.randrange(3)
            work = [each for each in sorted([*instance.activities, *instance.children]) if dice.random() < 0.5]
            carried = tuple(Carried(f"t{number}", number) for number in work)
            actions.append(
                CompleteOrchestration(
                    OrchestrationStatus.CONTINUED_AS_NEW, "2", carryover_events=events, carried=carried
                )
            )
        return tuple(actions)

    def call_of_entity(self, caller: Instance) -> EntityOperationCalled:
        return EntityOperationCalled(
            timestamp=NOW,
            event_id=self.next_id,
            request_id=f"{caller.execution_id}:{self.next_id}",
            target_instance_id=f"@e@{self.dice.randrange(4)}",
            operation="o",
            parent_instance_id=caller.instance_id,
            parent_execution_id=caller.execution_id,
        )

    def signal_of_entity(self, target: str | None = None) -> EntityOperationSignaled:
        """One of few keys, so that there are repetitions; some are to be delivered later."""
        dice = self.dice
        self.next_id += 1
        return EntityOperationSignaled(
            timestamp=NOW,
            request_id=f"r{self.next_id}",
            target_instance_id=target or f"@e@{dice.randrange(4)}",
            operation="o",
            due_at=NOW + LATER if dice.random() < 0.3 else None,
            key=f"k{dice.randrange(8)}" if dice.random() < 0.5 else None,
        )

    def batch(self, pending: PendingBatch) -> EntityBatch:
        """Let some operations of a batch run, at least one."""
        dice, outcomes = self.dice, list[OperationOutcome]()
        operations = pending.work_item.operations
        for _ in operations[: dice.randint(1, len(operations))]:
            actions = list[EntityAction]()
            if dice.random() < 0.2:
                self.next_id += 1
                child = f"i{dice.randrange(4, 8)}"
                actions.append(CreateSubOrchestration(self.next_id, "o", child, None, detached=True))
            if dice.random() < 0.2:
                actions.append(SendEntityMessage(self.signal_of_entity()))
            failed = dice.random() < 0.2
            outcomes.append(Failed(FailureDetails("x", "y")) if failed else OperationSucceeded("1", tuple(actions)))
        state = dice.choice([None, None, "1", "2"])
        return EntityBatch(tuple(outcomes), state, None if state is None else dice.choice("12"))

    def poke_entity(self) -> None:
        """Let one thing happen to one entity."""
        dice = self.dice
        name = f"@e@{dice.randrange(4)}"
        instance = self.instances.get(name)
        choice = dice.randrange(10)
        if instance is not None and choice < 2 and instance.timers:
            timer = instance.timers[dice.choice(sorted(instance.timers))]
            assert timer.event is not None, "an entity has no other timers"
            self.deliver(Message(name, timer.event, timer.execution_id, timer=timer.key))
        elif instance is not None and choice < 5:
            self.keep(self.hub.remove_entity(instance, NOW))
        elif instance is not None and choice == 5:
            self.keep(self.hub.post(instance, name, ExecutionResumed(timestamp=NOW), NOW))
        elif choice == 6:
            request = f"r{self.next_id}" if dice.random() < 0.5 else f"k{dice.randrange(8)}"
            key = request if request.startswith("k") else None
            called = EntityOperationCalled(
                timestamp=NOW, request_id=request, target_instance_id=name, operation="o", key=key
            )
            self.keep(self.hub.post(instance, name, called, NOW))
        else:
            events = [self.signal_of_entity() for _ in range(dice.randint(1, 3))]
            self.keep(self.hub.signal(self.instances, events, NOW))

    def go_back(self, instance: Instance) -> None:
        """Let a sub-orchestration rewind that its parent has asked to."""
        message = instance.controls.pop(0)
        held = list(instance.held)
        instance.held.clear()
        instance.is_working = False
        self.keep(self.hub.rewind_child(instance, message, self.histories[instance.execution_id], NOW))
        for each in held:
            self.deliver(each)

    def run(self, instance: Instance) -> None:
        if instance.is_terminal and instance.is_working:
            self.go_back(instance)
            return
        transition = self.hub.step(instance, NOW)
        if transition is None and not self.hub.has_work(instance):
            return
        match transition or self.hub.next_work(instance, NOW):
            case Transition() as transition:
                self.keep(transition)
            case PendingEpisode() as pending:
                if self.dice.random() < 0.05:
                    self.keep(self.hub.park(instance, pending, FailureDetails("x", "parked"), NOW))
                else:
                    events = pending.work_item.new_events
                    failed = any(isinstance(each, TaskFailed | SubOrchestrationInstanceFailed) for each in events)
                    episode = Episode(self.actions(instance, failed))
                    self.keep(self.hub.complete_episode(instance, pending, episode, NOW))
            case PendingBatch() as pending:
                identity = pending.work_item.identity
                assert identity not in self.identities, "what the batch sends has the ids of something else"
                self.identities.add(identity)
                if self.dice.random() < 0.05:
                    self.keep(self.hub.park(instance, pending, FailureDetails("x", "parked"), NOW))
                else:
                    self.keep(self.hub.complete_batch(instance, pending, self.batch(pending), NOW))
            case None:
                pass

    def fork(self, source: Instance) -> None:
        with suppress(RewindRefusedError):
            self.next_id += 1
            history, name = self.histories[source.execution_id], f"f{self.next_id}"
            self.instances[name], transition = self.hub.fork(source.instance_id, name, history, None, NOW)
            self.keep(transition)

    def poke(self) -> None:
        """Let one thing happen to one instance."""
        dice = self.dice
        known = [name for name, instance in self.instances.items() if not instance.is_entity]
        name = f"i{dice.randrange(8)}" if dice.random() < 0.8 or not known else dice.choice(known)
        instance = self.instances.get(name)
        if instance is not None and instance.is_terminal and instance.is_working:
            return
        if instance is not None and instance.status is OrchestrationStatus.FAILED and dice.random() < 0.5:
            with suppress(RewindRefusedError):  # it had expired before it ran
                self.keep(self.hub.rewind(instance, self.histories[instance.execution_id], None, NOW))
                return
        if instance is not None and instance.episodes and dice.random() < 0.02:
            self.fork(instance)
            return
        if instance is None or instance.is_terminal or (dice.random() < 0.03 and not instance.is_working):
            request = StartRequest(
                name="o",
                instance_id=name,
                input="0",
                start_at=NOW + LATER if dice.random() < 0.2 else None,
                run_timeout=LATER if dice.random() < 0.2 else None,
                id_policy=IdPolicy(replace=OrchestrationStatus),
            )
            if self.hub.admit(instance, request) is Admission.REPLACE:
                assert instance is not None
                self.keep(self.hub.make_way(instance, NOW))
            started, transition = self.hub.start(instance, request, NOW)
            self.instances[name] = started
            self.keep(transition)
            return
        choice = dice.randrange(6)
        if choice == 0 and instance.activities:
            activity = dice.choice([instance.activities[each] for each in sorted(instance.activities)])
            item = ActivityWorkItem(name, activity.execution_id, activity.sequence, "a", "1", activity.attempt)
            outcome = Succeeded("1") if dice.random() < 0.5 else Failed(FailureDetails("x", "y"))
            self.keep(self.hub.finish_activity(instance, item, outcome, NOW)[1])
        elif choice == 1 and instance.timers:
            timer = instance.timers[dice.choice(sorted(instance.timers))]
            fired = TimerFired(timestamp=NOW, timer_id=timer.sequence, fire_at=NOW)
            self.deliver(Message(name, fired, timer.execution_id, timer=timer.key))
        else:
            events: list[Any] = [EventRaised(timestamp=NOW, name="e", input="1")] * 3
            events += [ExecutionSuspended(timestamp=NOW), ExecutionResumed(timestamp=NOW)] * 2
            events += [
                ExecutionSuspended(timestamp=NOW, recursive=True),
                ExecutionResumed(timestamp=NOW, recursive=True),
            ]
            events += [
                ExecutionTerminated(timestamp=NOW, recursive=dice.random() < 0.5),
                CancelRequested(timestamp=NOW),
            ]
            self.keep(self.hub.post(instance, name, dice.choice(events), NOW))


def steps(walk: Walk) -> Iterator[None]:
    """Lead a hub; it stands still at each yield."""
    for _ in range(120):
        walk.poke()
        if walk.dice.random() < 0.6:
            walk.poke_entity()
        for instance in list(walk.instances.values()):
            if walk.dice.random() < 0.5:
                walk.run(instance)
                yield
    while waiting := [each for each in walk.instances.values() if each.is_terminal and each.is_working]:
        walk.go_back(waiting[0])
    yield


def walk(seed: int) -> list[Entry]:
    walk = Walk(seed)
    deque(steps(walk), maxlen=0)
    return walk.entries


async def store_as_it_goes(seed: int, every: int) -> MemoryData:
    """Store all that there is, now and then: rows are made of the instances as they are just then."""
    data, walk, done, dice = MemoryData(), Walk(seed, with_rows=False), 0, random.Random(seed)
    store = MemoryStore(data)
    ownership = await store.acquire(0)
    for _ in steps(walk):
        if len(walk.entries) > done and dice.randrange(every) == 0:
            await store.commit(ownership.fence, coalesce(done, walk.entries[done:], 1))
            done = len(walk.entries)
    if len(walk.entries) > done:
        await store.commit(ownership.fence, coalesce(done, walk.entries[done:], 1))
    await store.close()
    return data


async def store_in_groups(transitions: list[Entry], dice: random.Random, largest: int) -> MemoryData:
    data = MemoryData()
    store = MemoryStore(data)
    ownership = await store.acquire(0)
    done = 0
    while done < len(transitions):
        group = transitions[done : done + dice.randint(1, largest)]
        await store.commit(ownership.fence, coalesce(done, group, 1))
        done += len(group)
    await store.close()
    return data


@pytest.mark.parametrize("seed", range(30))
def test_groups_do_what_their_transitions_do(seed: int) -> None:
    """The memory store checks versions and exact counts on the way, so a wrong group is refused."""
    transitions = walk(seed)
    assert len(transitions) > 150
    dice = random.Random(seed)
    one_by_one = asyncio.run(store_in_groups(transitions, dice, 1))
    groups = [store_in_groups(transitions, dice, largest) for largest in (3, 20, 1_000)]
    for grouped in map(asyncio.run, [*groups, *(store_as_it_goes(seed, every) for every in (1, 5, 50))]):
        for table in ("instances", "history", "messages", "activities", "timers", "children", "operation_keys"):
            left, right = getattr(one_by_one, table), getattr(grouped, table)
            assert left == right or {k: v for k, v in left.items() if v} == {k: v for k, v in right.items() if v}, table


def test_whatever_an_execution_waits_for_is_on_its_way() -> None:
    """What was asked for, and has no answer, has a row of its own, or its answer is in the inbox."""
    waiting = sum(count_what_is_on_its_way(seed) for seed in range(30))
    assert waiting > 100, "the walks have become too short to test anything"


def count_what_is_on_its_way(seed: int) -> int:
    data, waiting = asyncio.run(store_in_groups(walk(seed), random.Random(seed), 10)), 0
    for row in data.instances.values():
        if OrchestrationStatus(row.status).is_terminal or is_entity(row.instance_id):
            continue
        fold = ExecutionFold()
        for _, text in sorted(data.history.get(row.execution_id, {}).items()):
            assert fold.add(decode_events(text), NOW_US) is None
        inbox = [message.event for message in data.messages.values() if message.instance_id == row.instance_id]
        for asked, table in (("TaskScheduled", data.activities), ("SubOrchestrationInstanceCreated", data.children)):
            for number in fold.open(asked):
                is_answered = any(f'"task_scheduled_id":{number}' in event for event in inbox)
                assert is_answered or (row.execution_id, number) in table, (row.instance_id, asked, number)
                waiting += 1
    return waiting


@pytest.mark.parametrize("seed", range(30))
def test_nothing_is_left_of_what_is_over(seed: int) -> None:
    """Of an instance that has ended only its row and history are left; no row is of an execution that is over.

    Only entities that are stored remember keys, and no more than they may.
    """
    data = asyncio.run(store_in_groups(walk(seed), random.Random(seed), 10))
    current = {row.execution_id: row for row in data.instances.values()}
    for row in (*data.activities.values(), *data.timers.values(), *data.children.values()):
        owner = current.get(row.execution_id)
        assert owner is not None, "a row of an execution that was replaced"
        assert not OrchestrationStatus(owner.status).is_terminal
    for message in data.messages.values():
        owner_row = data.instances.get(message.instance_id)
        if owner_row is None and is_entity(message.instance_id):
            continue  # it comes into being with its first operation
        assert owner_row is not None
        assert not OrchestrationStatus(owner_row.status).is_terminal
        assert message.execution_id in (None, owner_row.execution_id)
    assert set(data.history) <= current.keys() | {key for key, value in data.history.items() if not value}
    remembered = Counter(instance_id for instance_id, _ in data.operation_keys)
    assert remembered.keys() <= data.instances.keys()
    assert max(remembered.values(), default=0) <= 3 + len(data.timers)
