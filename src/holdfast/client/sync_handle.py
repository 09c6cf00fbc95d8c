"""`OrchestrationHandle` for code without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from holdfast.client.bridge import Bridge
from holdfast.client.handle import OrchestrationHandle
from holdfast.client.status import InstanceStatus
from holdfast.model.refs import ExternalEvent

O_co = TypeVar("O_co", covariant=True)
T = TypeVar("T")


class SyncOrchestrationHandle(Generic[O_co]):
    """One orchestration, with the type of its result; its methods are those of `OrchestrationHandle`, and block."""

    def __init__(self, bridge: Bridge, instance_id: str, output_type: Any) -> None:
        self._bridge = bridge
        self._output_type = output_type
        self.instance_id = instance_id

    def wait_for_completion(self, *, timeout: timedelta | None = None) -> O_co:
        """See `OrchestrationHandle.wait_for_completion`."""
        result: O_co = self._run(lambda handle: handle.wait_for_completion(timeout=timeout))
        return result

    def get_status(self) -> InstanceStatus | None:
        return self._run(lambda handle: handle.get_status())

    @overload
    def raise_event(self, event: ExternalEvent[None], *, key: str | None = None) -> None: ...
    @overload
    def raise_event(self, event: ExternalEvent[T], data: T, *, key: str | None = None) -> None: ...
    @overload
    def raise_event(self, event: str, data: Any = None, *, key: str | None = None) -> None: ...
    def raise_event(self, event: ExternalEvent[Any] | str, data: Any = None, *, key: str | None = None) -> None:
        self._run(lambda handle: handle.raise_event(event, data, key=key))

    def cancel(self, reason: str | None = None) -> None:
        self._run(lambda handle: handle.cancel(reason))

    def terminate(self, reason: str | None = None, *, recursive: bool = False) -> None:
        self._run(lambda handle: handle.terminate(reason, recursive=recursive))

    def suspend(self, reason: str | None = None, *, recursive: bool = False) -> None:
        self._run(lambda handle: handle.suspend(reason, recursive=recursive))

    def resume(self, reason: str | None = None, *, recursive: bool = False) -> None:
        self._run(lambda handle: handle.resume(reason, recursive=recursive))

    def query(self, name: str, input: Any = None) -> Any:
        return self._run(lambda handle: handle.query(name, input))

    def update(
        self, name: str, input: Any = None, *, update_id: str | None = None, timeout: timedelta | None = None
    ) -> Any:
        return self._run(lambda handle: handle.update(name, input, update_id=update_id, timeout=timeout))

    def _run(self, use: Callable[[OrchestrationHandle[O_co]], Coroutine[Any, Any, T]]) -> T:
        return self._bridge.run(
            lambda client: use(OrchestrationHandle[O_co](client, self.instance_id, self._output_type))
        )

    def __repr__(self) -> str:
        return f"<SyncOrchestrationHandle {self.instance_id!r}>"
