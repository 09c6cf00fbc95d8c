"""A client that asks again when an answer is lost, as a program does that gives everything a key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import msgspec

from holdfast.errors import HostStoppedError, InstanceNotRunningError, StorageError
from holdfast.model.history import EventRaised, MessageEvent, OperationAnswer
from holdfast.model.requests import OperationRequest, StartRequest
from holdfast.testing.faults import Trouble
from holdfast.testing.hosts import SimulatedHost
from holdfast.testing.ledger import Ledger
from holdfast.testing.loop import SimulatedLoop
from holdfast.testing.network import SimulatedTaskHub


class PatientTaskHub(SimulatedTaskHub):
    """Gives what has no key one of its own, so that a test need not deal with answers that are lost.

    What cannot be repeated even so, a rewind for example, still raises when its answer is lost.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        hosts: Callable[[], Sequence[SimulatedHost]],
        trouble: Trouble,
        ledger: Ledger,
        new_key: Callable[[], str],
    ) -> None:
        super().__init__(loop, hosts, trouble, ledger)
        self._new_key = new_key
        self._said = ledger.ever_said

    async def start_orchestration(self, request: StartRequest) -> None:
        if request.request_key is None and not request.is_restart:
            request = msgspec.structs.replace(request, request_key=self._new_key(), is_new_id=False)
        await super().start_orchestration(request)

    async def send(self, instance_id: str, event: MessageEvent) -> None:
        if isinstance(event, EventRaised):
            await self._raise_event(instance_id, event)
            return
        was_lost = False
        while True:
            try:
                await super().send(instance_id, event)
            except (StorageError, HostStoppedError):
                was_lost = True
            except InstanceNotRunningError:
                if was_lost:
                    return  # the first request had its effect
                raise
            else:
                return

    async def _raise_event(self, instance_id: str, event: EventRaised) -> None:
        key = event.key or self._new_key()
        try:
            await super().send(instance_id, msgspec.structs.replace(event, key=key))
        except InstanceNotRunningError:
            if not self._said(f'"key":"{key}"'):
                raise  # else it came in, and the instance has ended by the time it was repeated

    async def signal_entities(self, requests: Sequence[OperationRequest]) -> None:
        await super().signal_entities([self._with_key(request) for request in requests])

    async def call_entity(self, request: OperationRequest, timeout: timedelta | None) -> OperationAnswer:
        return await super().call_entity(self._with_key(request), timeout)

    def _with_key(self, request: OperationRequest) -> OperationRequest:
        return request if request.key else msgspec.structs.replace(request, key=self._new_key())
