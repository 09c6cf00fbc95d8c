"""Rewinds and forks: they need a history, which is read while everything else goes on.

A request reads the history of an instance that has ended, and then looks again: if the instance is not the one that it
was, it begins anew. A sub-orchestration that is asked by a message holds back what comes in until its history is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from holdfast.engine.changes import change_instance
from holdfast.engine.exports import decode_episode, read_history
from holdfast.engine.residents import Resident
from holdfast.errors import (
    CorruptRecordError,
    HoldfastError,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceNotRunningError,
    OverloadedError,
)
from holdfast.hub.instance import Instance
from holdfast.hub.lifecycle import Trigger
from holdfast.hub.rewind import History
from holdfast.model.failure import failure_from_exception
from holdfast.model.messages import Message
from holdfast.model.status import OrchestrationStatus

if TYPE_CHECKING:
    from holdfast.engine.node import Node
    from holdfast.storage.port import Store


class _ChangedError(HoldfastError):
    """The instance is not any more as it was when its history was read."""


class ChildRewinds:
    """The sub-orchestrations of one node that were asked to rewind, by a message of their parent."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def begin(self, resident: Resident) -> bool:
        """Read the history of an instance that was asked to rewind; return whether it was."""
        instance = resident.instance
        if not (instance.is_terminal and instance.is_working and instance.controls):
            return False
        message = instance.controls.pop(0)
        self._node.with_history(instance, lambda rows: self._arrived(resident, message, rows))
        return True

    def _arrived(self, resident: Resident, message: Message, rows: list[str]) -> None:
        node, instance = self._node, resident.instance
        instance.is_working = False
        held = list(instance.held)
        instance.held.clear()
        try:
            transition = node.hub.rewind_child(instance, message, _decode(instance.instance_id, rows), node.clock.now())
        except CorruptRecordError as error:
            transition = node.hub.refuse_parent(message, failure_from_exception(error), node.clock.now())
            transition.touch(instance)
        node.steps.finish(resident, transition)
        for each in held:
            node.deliver(resident, each)


async def rewind(admitting: Callable[[], Node], store: Store, instance_id: str, reason: str | None) -> None:
    """Let an instance that has failed go on from just before what made it fail."""
    while True:
        execution_id, revision = await _look(admitting(), instance_id)
        history = _decode(instance_id, await store.load_history(instance_id, execution_id))
        node = admitting()

        def go_back(
            resident: Resident | None,
            seen: tuple[str, int] = (execution_id, revision),
            history: History = history,
            node: Node = node,
        ) -> int:
            instance = _failed(resident, instance_id)
            if (instance.execution_id, instance.revision) != seen:
                raise _ChangedError
            transition = node.hub.rewind(instance, history, reason, node.clock.now())
            node.append(transition)
            return transition.lsn

        try:
            await change_instance(node, instance_id, go_back)
        except _ChangedError:
            continue
        return


async def _look(node: Node, instance_id: str) -> tuple[str, int]:
    """Return which execution an instance that has failed has, and how often it was changed, once that is durable."""
    seen: list[tuple[str, int]] = []

    def look(resident: Resident | None) -> int:
        instance = _failed(resident, instance_id)
        seen.append((instance.execution_id, instance.revision))
        return instance.lsn

    await change_instance(node, instance_id, look)
    return seen[0]


def _failed(resident: Resident | None, instance_id: str) -> Instance:
    if resident is None:
        raise InstanceNotFoundError(instance_id)
    instance = resident.instance
    if instance.status is not OrchestrationStatus.FAILED:
        raise InstanceNotRunningError(instance_id, instance.status.value, Trigger.REWIND.value)
    if instance.is_working:
        raise OverloadedError(f"Instance {instance_id!r} is just being rewound by its parent; look again soon.")
    return instance


async def fork(
    admitting: Callable[[], Node], store: Store, source_id: str, instance_id: str, episodes: int | None
) -> None:
    """Begin an instance that goes on from where another one was after some of its episodes."""
    history = (await read_history(store, source_id)).episodes
    node = admitting()

    def begin(resident: Resident | None) -> int:
        if resident is not None:
            raise InstanceAlreadyExistsError(instance_id, resident.instance.status.value)
        instance, transition = node.hub.fork(source_id, instance_id, history, episodes, node.clock.now())
        node.residents.add(instance)
        node.append(transition)
        return transition.lsn

    await change_instance(node, instance_id, begin)


def _decode(instance_id: str, rows: list[str]) -> History:
    return [decode_episode(instance_id, episode, text) for episode, text in enumerate(rows)]
