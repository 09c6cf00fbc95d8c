"""What the model of the locks is made of: the queue that is the reference, and code that uses locks in every way."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from holdfast.hub.instance import Instance
from holdfast.model.actions import CompleteOrchestration, OrchestratorAction, SendEntityMessage
from holdfast.model.failure import FailureDetails
from holdfast.model.history import (
    CancelRequested,
    EntityLockGranted,
    EntityLockRequested,
    EntityOperationCalled,
    EntityOperationCompleted,
    EntityOperationFailed,
    EntityOperationSignaled,
    EntityUnlockSent,
)
from holdfast.model.messages import Message
from holdfast.model.status import OrchestrationStatus

NOW = datetime(2026, 11, 22, tzinfo=UTC)
HOUR = timedelta(hours=1)
ENTITIES = ("@e@a", "@e@b", "@e@c")


class Queue:
    """The reference: what waits at an entity in the order in which it came, and the section that has the lock."""

    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self.holder: str | None = None
        self.ran: set[str] = set()
        self.refused: set[str] = set()

    def _is_next(self, event: Any) -> bool:
        if isinstance(event, EntityUnlockSent):
            return True
        is_inside = isinstance(event, EntityOperationCalled) and event.critical_section_id is not None
        return is_inside or self.holder is None

    def take(self) -> list[Message]:
        """Take the first that may go on, and what it withdraws; everything else waits in line."""
        first = next(each for each in self.waiting if self._is_next(each.event))
        taken = [first]
        match first.event:
            case EntityLockRequested() as event:
                self.holder = event.critical_section_id
            case EntityUnlockSent(critical_section_id=section) if section == self.holder:
                self.holder = None
            case EntityUnlockSent(critical_section_id=section):
                taken += [each for each in self.waiting if _asks_for(each, section)]
            case EntityOperationCalled() as event if event.critical_section_id != self.holder:
                self.refused.add(event.request_id)
            case EntityOperationCalled() | EntityOperationSignaled() as event:
                self.ran.add(event.request_id)
            case _:
                raise AssertionError(f"{first} is not for an entity")
        for each in taken:
            self.waiting.remove(each)
        return taken


def _asks_for(message: Message, section: str) -> bool:
    event = message.event
    return isinstance(event, EntityLockRequested) and event.critical_section_id == section


@dataclass
class Code:
    """What the code of one execution knows: the section it is in, and what it has called."""

    execution_id: str
    section: EntityLockRequested | None = None
    is_held: bool = False
    calling: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    is_cancelled: bool = False


class Codes:
    """What the code of each orchestration does, drawn; it calls, signals and locks as the locking rules allow."""

    def __init__(self, dice: Random, queues: dict[str, Queue]) -> None:
        self.dice = dice
        self.queues = queues
        self.by_instance: dict[str, Code] = {}
        self.is_ending = False
        """From then on it asks for nothing, and only leaves the sections that it is in, once it is in them."""

    def run(self, instance: Instance, events: list[Any]) -> tuple[OrchestratorAction, ...]:
        code = self.by_instance.get(instance.instance_id)
        if code is None or code.execution_id != instance.execution_id:
            code = self.by_instance[instance.instance_id] = Code(instance.execution_id)
        for event in events:
            match event:
                case EntityLockGranted(critical_section_id=section) if (
                    code.section is not None and code.section.critical_section_id == section
                ):
                    code.is_held = True
                case EntityOperationCompleted(request_id=request_id):
                    assert request_id in self.queues[code.calling.pop(request_id)].ran
                case EntityOperationFailed(request_id=request_id):
                    assert request_id in self.queues[code.calling.pop(request_id)].refused
                case CancelRequested():
                    code.is_cancelled = True
                case _:
                    pass
        if self.is_ending:
            return self.release(code) if code.is_held else ()
        return self.go_on(instance, code)

    def go_on(self, instance: Instance, code: Code) -> tuple[OrchestratorAction, ...]:
        """Do anything that the locking rules allow, perhaps several things, perhaps end."""
        dice, actions = self.dice, list[OrchestratorAction]()
        for _ in range(dice.randint(0, 3)):
            choice, target = dice.random(), dice.choice(ENTITIES)
            if code.section is None:
                actions.append(self.lock(instance, code) if choice < 0.6 else self.use(instance, code, target))
            elif choice < (0.25 if code.is_held else 0.1):
                actions += self.release(code)  # before it is held: its timeout is over
            elif target not in code.section.lock_set:
                actions.append(self.signal(code, target))
            elif code.is_held and target not in code.calling.values():
                actions.append(self.call(instance, code, target))
        end = 0.0 if code.is_cancelled else dice.random()
        if end < 0.12:
            if dice.random() < 0.5:
                actions += self.release(code)
            again, failed = OrchestrationStatus.CONTINUED_AS_NEW, OrchestrationStatus.FAILED
            status = dice.choice((OrchestrationStatus.COMPLETED, failed, again, again))
            if code.is_cancelled:
                status = OrchestrationStatus.CANCELED
            actions.append(
                CompleteOrchestration(
                    status, "1", failure=FailureDetails("SomeError", "it failed") if status is failed else None
                )
            )
        return tuple(actions)

    def number(self, code: Code) -> int:
        code.asked += 1
        return code.asked

    def lock(self, instance: Instance, code: Code) -> SendEntityMessage:
        number, code.is_held = self.number(code), False
        code.section = EntityLockRequested(
            timestamp=NOW,
            event_id=number,
            critical_section_id=f"{code.execution_id}/{number}",
            lock_set=tuple(sorted(self.dice.sample(ENTITIES, self.dice.randint(1, len(ENTITIES))))),
            parent_instance_id=instance.instance_id,
            parent_execution_id=code.execution_id,
            lease=HOUR if self.dice.random() < 0.5 else None,
        )
        return SendEntityMessage(code.section)

    def release(self, code: Code) -> tuple[SendEntityMessage, ...]:
        section, code.section, code.is_held = code.section, None, False
        if section is None:
            return ()
        name = section.critical_section_id
        return tuple(
            SendEntityMessage(EntityUnlockSent(timestamp=NOW, critical_section_id=name, target_instance_id=target))
            for target in section.lock_set
        )

    def use(self, instance: Instance, code: Code, target: str) -> SendEntityMessage:
        return self.signal(code, target) if self.dice.random() < 0.5 else self.call(instance, code, target)

    def signal(self, code: Code, target: str) -> SendEntityMessage:
        request_id = f"{code.execution_id}:{self.number(code)}"
        return SendEntityMessage(
            EntityOperationSignaled(timestamp=NOW, request_id=request_id, target_instance_id=target, operation="o")
        )

    def call(self, instance: Instance, code: Code, target: str) -> SendEntityMessage:
        request_id = f"{code.execution_id}:{self.number(code)}"
        code.calling[request_id] = target
        return SendEntityMessage(
            EntityOperationCalled(
                timestamp=NOW,
                request_id=request_id,
                target_instance_id=target,
                operation="o",
                parent_instance_id=instance.instance_id,
                parent_execution_id=code.execution_id,
                critical_section_id=None if code.section is None else code.section.critical_section_id,
            )
        )
