"""Locks of entities under every order of delivery: the hub does what a queue of twenty lines does, and nothing sticks.

The hub is driven without an engine. Each pair of sender and receiver has a channel, which keeps its order; which of
the channels delivers next, who works next, and what goes wrong meanwhile, is drawn.
"""

from __future__ import annotations

from collections import defaultdict, deque
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from lock_kit import ENTITIES, HOUR, NOW, Codes, Queue

from holdfast.hub.entities import PendingBatch
from holdfast.hub.episodes import PendingEpisode
from holdfast.hub.hub import Hub
from holdfast.hub.instance import DurableTimer, Instance
from holdfast.hub.transition import Transition
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    CancelRequested,
    EntityLockGranted,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationSignaled,
    EntityUnlockSent,
    EventRaised,
    ExecutionResumed,
    ExecutionSuspended,
    ExecutionTerminated,
    TimerFired,
)
from holdfast.model.ids import is_entity
from holdfast.model.limits import Limits
from holdfast.model.messages import Message
from holdfast.model.requests import StartRequest
from holdfast.model.work_items import EntityBatch, Episode, OperationSucceeded

ORCHESTRATIONS = ("x", "y", "z")
PARKED = FailureDetails("SomeError", "it is parked")

Held = tuple[str, str]
"""A section, and an entity that it has locked."""


class World:
    def __init__(self, dice: Random) -> None:
        self.dice = dice
        self.hub = Hub(0, "n", 1, Limits(episode_messages_max=2))
        self.instances: dict[str, Instance] = {}
        self.channels: dict[tuple[str, str], deque[Message]] = defaultdict(deque)
        self.queues = {entity: Queue() for entity in ENTITIES}
        self.codes = Codes(dice, self.queues)
        self.working: dict[str, PendingEpisode | PendingBatch] = {}
        self.timers: dict[tuple[str, int], DurableTimer] = {}
        self.timers_ever: set[tuple[str, int]] = set()
        self.sent: set[int] = set()
        self.consumed: set[int] = set()
        self.given_back: dict[Held, int] = {}
        """With the number of the unlock by the orchestration: what its section asks for after that must not run."""
        self.broken: set[Held] = set()

    # What the engine does

    def keep(self, transition: Transition | None, sender: str | None = None) -> None:
        if transition is None:
            return
        for message_id in transition.consumed:
            assert message_id in self.sent
            assert message_id not in self.consumed
            self.consumed.add(message_id)
        if is_entity(transition.instance_id) and transition.consumed:
            expected: list[int | None] = []
            while len(expected) < len(transition.consumed):
                expected += [each.message_id for each in self.queues[transition.instance_id].take()]
            assert transition.consumed == expected
        for timer in transition.timers_created:
            assert timer.key not in self.timers_ever, "no group of transitions may remove and insert the same row"
            self.timers_ever.add(timer.key)
            self.timers[timer.key] = timer
        for key in transition.timers_removed:
            del self.timers[key]
        for message in transition.sent:
            assert message.message_id is not None
            self.sent.add(message.message_id)
            self.channels[sender or transition.instance_id, message.instance_id].append(message)
            event = message.event
            if isinstance(event, EntityUnlockSent) and transition.instance_id in ORCHESTRATIONS:
                self.given_back.setdefault((event.critical_section_id, message.instance_id), message.message_id)
        to_itself = self.channels[transition.instance_id, transition.instance_id]
        while to_itself:
            self.arrive(to_itself.popleft())

    def arrive(self, message: Message) -> None:
        target = message.instance_id
        if target in self.queues:
            self.queues[target].waiting.append(message)
        known = self.instances.get(target)
        if isinstance(message.event, EntityLockGranted):
            self.check_grant(known, message.event)
        instance, transition = self.hub.deliver(known, message, NOW)
        if instance is not None:
            self.instances[target] = instance
        self.keep(transition)

    def work(self, instance: Instance) -> None:
        """Take the next step of an instance, or begin what needs its code, or end that."""
        name = instance.instance_id
        pending = self.working.pop(name, None)
        match pending:
            case PendingEpisode():
                if self.dice.random() < 0.05 and not self.codes.is_ending:
                    self.keep(self.hub.park(instance, pending, PARKED, NOW))
                else:
                    episode = Episode(self.codes.run(instance, [each.event for each in pending.messages]))
                    self.keep(self.hub.complete_episode(instance, pending, episode, NOW))
            case PendingBatch():
                done = pending.messages[: self.dice.randint(1, len(pending.messages))]
                for message in done:
                    self.check_operation(instance, message)
                batch = EntityBatch(tuple(OperationSucceeded(None) for _ in done), "1")
                self.keep(self.hub.complete_batch(instance, pending, batch, NOW))
            case None:
                transition = self.hub.step(instance, NOW)
                self.keep(transition)
                if transition is None and self.hub.has_work(instance):
                    self.working[name] = self.hub.next_work(instance, NOW)

    def post(self, target: str, event: Any) -> None:
        self.keep(self.hub.post(self.instances.get(target), target, event, NOW), sender="client")

    # What happens

    def disturb(self) -> None:
        dice, name = self.dice, self.dice.choice(ORCHESTRATIONS)
        instance, target = self.instances.get(name), dice.choice(ENTITIES)
        if instance is None or (instance.is_terminal and dice.random() < 0.7):
            self.start(name, instance)
            return
        match dice.randrange(10):
            case 0 if not instance.is_terminal and not instance.is_working:
                self.keep(self.hub.make_way(instance, NOW))
                self.start(name, instance)
            case 1 if not instance.is_terminal and not instance.is_working:
                self.keep(self.hub.park(instance, None, PARKED, NOW))
            case 2 if self.timers:
                timer = self.timers[dice.choice(sorted(self.timers))]
                fired = TimerFired(timestamp=NOW, timer_id=timer.sequence, fire_at=timer.due_at)
                self.arrive(Message(timer.instance_id, fired, timer.execution_id, timer=timer.key))
            case 3 if (entity := self.instances.get(target)) is not None and entity.lock is not None:
                section = entity.lock.section_id
                self.broken.add((section, target))
                unlock = EntityUnlockSent(timestamp=NOW, critical_section_id=section, target_instance_id=target)
                self.post(target, unlock)
            case 4:
                signal = EntityOperationSignaled(
                    timestamp=NOW, request_id=f"client:{self.hub.lsn}", target_instance_id=target, operation="o"
                )
                self.post(target, signal)
            case 5:
                self.post(name, dice.choice((ExecutionTerminated, CancelRequested))(timestamp=NOW))
            case 6:
                self.post(name, ExecutionSuspended(timestamp=NOW))
            case _:
                self.post(name, ExecutionResumed(timestamp=NOW))

    def start(self, name: str, instance: Instance | None) -> None:
        timeout = HOUR if self.dice.random() < 0.3 else None
        request = StartRequest(name="o", instance_id=name, run_timeout=timeout)
        self.instances[name], transition = self.hub.start(instance, request, NOW)
        self.keep(transition)

    def step(self) -> None:
        choice = self.dice.random()
        waiting = sorted(key for key, channel in self.channels.items() if channel)
        if choice < 0.45 and waiting:
            self.arrive(self.channels[self.dice.choice(waiting)].popleft())
        elif choice < 0.8 and self.instances:
            self.work(self.instances[self.dice.choice(sorted(self.instances))])
        elif choice < 0.9:
            self.post(self.dice.choice(ORCHESTRATIONS), EventRaised(timestamp=NOW, name="e"))
        else:
            self.disturb()

    def drain(self) -> None:
        """Let everything arrive, and everybody work, until nothing is left to do."""
        before = -1
        while before != self.hub.lsn or self.working:
            before = self.hub.lsn
            for channel in list(self.channels.values()):
                while channel:
                    self.arrive(channel.popleft())
            for instance in list(self.instances.values()):
                self.work(instance)
            self.check()

    # What must hold

    def check_grant(self, instance: Instance | None, event: EntityLockGranted) -> None:
        """Whoever is told that it has the locks has them, unless an operator broke one meanwhile."""
        section = None if instance is None else instance.section
        if section is not None and section.section_id == event.critical_section_id:
            for target in event.lock_set:
                assert self.queues[target].holder == section.section_id or (section.section_id, target) in self.broken

    def check_operation(self, entity: Instance, message: Message) -> None:
        event = message.event
        section = event.critical_section_id if isinstance(event, EntityOperationCalled) else None
        assert section == (None if entity.lock is None else entity.lock.section_id)
        unlock = None if section is None else self.given_back.get((section, entity.instance_id))
        assert message.message_id is not None
        assert unlock is None or message.message_id < unlock

    def check(self) -> None:
        wants: dict[str, set[str]] = defaultdict(set)
        for name, queue in self.queues.items():
            entity = self.instances.get(name)
            lock = None if entity is None else entity.lock
            assert (None if lock is None else lock.section_id) == queue.holder
            ahead = [] if queue.holder is None else [queue.holder]
            for message in queue.waiting:
                if isinstance(message.event, EntityLockRequested):
                    wants[message.event.critical_section_id].update(ahead)
                    ahead.append(message.event.critical_section_id)
            if lock is not None:
                assert self.will_be_released(name, lock.section_id)
        assert not _has_cycle(wants)
        for name in ORCHESTRATIONS:
            instance = self.instances.get(name)
            section = None if instance is None else instance.section
            if instance is None or section is None:
                continue
            assert not instance.is_terminal
            assert instance.parked is None or section.is_lost or not section.is_granted
            assert any(each > 0 for each in instance.timers) == (
                section.is_granted and not section.is_lost and section.lease is not None
            )
            for target in section.lock_set if section.is_granted and not section.is_lost else ():
                assert self.queues[target].holder == section.section_id or (section.section_id, target) in self.broken

    def will_be_released(self, entity: str, section: str) -> bool:
        """Whether somebody alive holds this lock or waits for the rest of its locks, or an unlock is on its way."""
        for instance in self.instances.values():
            held = instance.section
            if held is not None and held.section_id == section and not held.is_lost and entity in held.lock_set:
                return True
        on_its_way = [each for (_, to), channel in self.channels.items() for each in channel]
        on_its_way += [each for queue in self.queues.values() for each in queue.waiting]
        for each in on_its_way:
            event = each.event
            if isinstance(event, EntityUnlockSent) and each.instance_id == entity:
                if event.critical_section_id == section:
                    return True
            elif isinstance(event, EntityLockRequested | EntityLockGranted) and event.critical_section_id == section:
                return True
        return False


def _has_cycle(edges: dict[str, set[str]]) -> bool:
    left = {name: set(targets) for name, targets in edges.items()}
    while free := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in free:
            del left[name]
    return bool(left)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 300))
def test_no_order_of_events_leaves_an_entity_locked(seed: int, steps: int) -> None:
    world = World(Random(seed))
    for name in ORCHESTRATIONS:
        world.start(name, None)
    for _ in range(steps):
        world.step()
        world.check()
    world.codes.is_ending = True
    for name in ORCHESTRATIONS:
        world.post(name, ExecutionResumed(timestamp=NOW))
        world.post(name, EventRaised(timestamp=NOW, name="e"))
    world.drain()
    for name in ENTITIES:
        entity = world.instances.get(name)
        assert entity is None or (entity.lock is None and not entity.inbox and not entity.held)
    for name, code in world.codes.by_instance.items():
        instance = world.instances[name]
        assert instance.is_terminal or (instance.section, code.section, code.calling) == (None, None, {})
    assert world.sent == world.consumed


def test_what_changes_a_lock_in_a_row_is_one_transition_of_limited_length() -> None:
    hub, entity = Hub(0, "n", 1, Limits(episode_messages_max=3)), Instance("@e@a", "x", "e", NOW)
    for number in range(1, 4):
        section = f"x/{number}"
        request = EntityLockRequested(
            timestamp=NOW,
            event_id=number,
            critical_section_id=section,
            lock_set=("@e@a",),
            parent_instance_id="x",
            parent_execution_id="x",
        )
        unlock = EntityUnlockSent(timestamp=NOW, critical_section_id=section, target_instance_id="@e@a")
        entity.inbox += [
            Message("@e@a", event, message_id=2 * number + at) for at, event in enumerate((request, unlock))
        ]
    steps = [hub.step(entity, NOW), hub.step(entity, NOW), hub.step(entity, NOW)]
    assert [step and step.consumed for step in steps] == [[2, 3, 4], [5, 6, 7], None]
    granted = [message.event.critical_section_id for step in steps if step for message in step.sent]
    assert granted == ["x/1", "x/2", "x/3"]
