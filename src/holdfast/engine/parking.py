"""Setting instances aside for an operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.engine.residents import Resident
from holdfast.hub.entities import PendingBatch
from holdfast.hub.episodes import PendingEpisode
from holdfast.hub.instance import Instance
from holdfast.model.failure import FailureDetails

if TYPE_CHECKING:
    from holdfast.engine.node import Node


class Parking:
    """Of one node. What is at work just then is parked once it has ended its step."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._guilty: dict[str, FailureDetails] = {}

    def is_guilty(self, instance: Instance) -> bool:
        """Whether an instance that has ended its step is to be parked."""
        return bool(self._guilty) and instance.instance_id in self._guilty

    def take_guilty(self, instance: Instance) -> FailureDetails | None:
        """Return why an instance that has ended its step is to be parked, if it is."""
        return self._guilty.pop(instance.instance_id, None)

    def park_by_id(self, instance_id: str, details: FailureDetails) -> None:
        """Set an instance aside, once it is in memory."""
        self._node.when_present(instance_id, lambda resident: self.park(resident.instance, details))

    def park(self, instance: Instance, details: FailureDetails) -> None:
        """Set an instance aside, unless it has ended, or is parked already."""
        resident = self._node.residents.get(instance.instance_id)
        if resident is None or instance.is_terminal or instance.parked is not None:
            return
        if instance.is_working:
            self._guilty[instance.instance_id] = details  # its history is being read; it is parked after that
        else:
            self.set_aside(resident, None, details)

    def set_aside(
        self, resident: Resident, pending: PendingEpisode | PendingBatch | None, details: FailureDetails
    ) -> None:
        """Park an instance, with the work that it had begun."""
        node, instance = self._node, resident.instance
        if resident.execution is not None and pending is not None:
            resident.execution.unload()  # what it has just done does not count
            resident.execution = None
        node.steps.finish(resident, node.hub.park(instance, pending, details, node.clock.now()))
