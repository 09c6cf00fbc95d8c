"""The part of a hub that a node owns: the instances of some partitions, or of all."""

from __future__ import annotations

from collections.abc import Mapping

from holdfast.errors import InstanceElsewhereError
from holdfast.model.ids import partition_of
from holdfast.storage.port import Ownership


class OwnPartitions:
    """What one ownership says, asked for each message: a node that owns all need not look."""

    def __init__(self, ownership: Ownership) -> None:
        self.count = ownership.partition_count
        self.some: Mapping[int, int] | None = ownership.fence.epochs
        """The partitions that are owned, with their epochs; None for all."""
        if len(self.some) == self.count:
            self.some = None

    def have(self, instance_id: str) -> bool:
        """Whether an instance is in one of them."""
        return self.some is None or partition_of(instance_id, self.count) in self.some

    def check(self, instance_id: str) -> None:
        """Raise InstanceElsewhereError if an instance is in none of them."""
        if not self.have(instance_id):
            raise InstanceElsewhereError(instance_id)
