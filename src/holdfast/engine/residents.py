"""The instances in memory, and which of them leave it when there are too many."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from holdfast.hub.instance import Instance
from holdfast.replay.entity import LiveState
from holdfast.replay.orchestration import Execution

_INSTANCE_BYTES = 2_048
_KEY_BYTES = 400
_VALUE_FACTOR = 3  # decoded Python values take about three times the room of their JSON


class Resident:
    """An instance in memory, with its live execution, or its state as an object, if it has one."""

    __slots__ = ("execution", "instance", "is_present", "is_runnable", "size_bytes", "state")

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.execution: Execution | None = None
        self.state: LiveState | None = None
        self.size_bytes = 0
        self.is_present = True
        """Whether it is in memory still; who has kept a reference may have one of before."""
        self.is_runnable = False
        """Whether it has a place in the queue of those that take a step."""

    def measure(self) -> int:
        """Return an estimate of the memory that this takes."""
        instance = self.instance
        size = _INSTANCE_BYTES
        for text in (instance.input, instance.output, instance.custom_status, instance.state):
            if text is not None:
                size += len(text)
        if self.execution is not None:
            size += self.execution.size_bytes
        if instance.is_entity:
            size += len(instance.operation_keys) * _KEY_BYTES + instance.operation_keys_bytes
            size += _VALUE_FACTOR * len(self.state.text) if self.state else 0
        return size

    def is_idle(self, durable_lsn: int) -> bool:
        """Whether the store knows all of it, and nothing is going on."""
        instance = self.instance
        return (
            instance.lsn <= durable_lsn
            and not instance.is_working
            and not instance.inbox
            and not instance.held
            and not instance.controls
            and (self.execution is None or self.execution.can_unload())
        )


class Residents:
    """A cache, least recently used first out, bounded by estimated bytes.

    What is not durable, or is busy, or cannot be unloaded without running user code, stays; so the bound is what the
    cache shrinks to, not a promise that it is never above.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._by_id: OrderedDict[str, Resident] = OrderedDict()
        self._noted: list[set[str]] = []
        self.size_bytes = 0

    def get(self, instance_id: str) -> Resident | None:
        return self._by_id.get(instance_id)

    def __contains__(self, instance_id: str) -> bool:
        return instance_id in self._by_id

    def __iter__(self) -> Iterator[Resident]:
        return iter(self._by_id.values())

    def add(self, instance: Instance) -> Resident:
        resident = Resident(instance)
        self._by_id[instance.instance_id] = resident
        self.touch(resident)
        self._note(instance.instance_id)
        return resident

    @contextmanager
    def noting(self) -> Generator[set[str], None, None]:
        """Collect the ids of instances that come or go meanwhile; what is neither there nor noted was not changed."""
        noted: set[str] = set()
        self._noted.append(noted)
        try:
            yield noted
        finally:
            self._noted = [each for each in self._noted if each is not noted]

    def _note(self, instance_id: str) -> None:
        if self._noted:
            for noted in self._noted:
                noted.add(instance_id)

    def touch(self, resident: Resident) -> None:
        """Note that an instance was used, and may have grown."""
        size = resident.measure()
        self.size_bytes += size - resident.size_bytes
        resident.size_bytes = size
        self._by_id.move_to_end(resident.instance.instance_id)

    def shrink(self, durable_lsn: int, looks_max: int = 64) -> None:
        """Unload what has not been used for longest, until the bound holds or `looks_max` candidates were looked at."""
        for _ in range(looks_max):
            if self.size_bytes <= self._bytes_max or not self._by_id:
                return
            resident = next(iter(self._by_id.values()))
            if resident.is_idle(durable_lsn):
                self.remove(resident)
            else:
                self._by_id.move_to_end(resident.instance.instance_id)

    def remove(self, resident: Resident) -> None:
        del self._by_id[resident.instance.instance_id]
        resident.is_present = False
        self._note(resident.instance.instance_id)
        self.size_bytes -= resident.size_bytes
        if resident.execution is not None:
            resident.execution.unload()
            resident.execution = None

    def clear(self) -> None:
        for resident in list(self._by_id.values()):
            self.remove(resident)
