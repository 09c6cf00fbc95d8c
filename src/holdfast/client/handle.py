"""A handle for one orchestration: the client's methods without the instance id, and with the type of the result."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from holdfast.client.status import InstanceStatus
from holdfast.model.refs import ExternalEvent

if TYPE_CHECKING:
    from holdfast.client.client import Client

O_co = TypeVar("O_co", covariant=True)
T = TypeVar("T")


class OrchestrationHandle(Generic[O_co]):
    """One orchestration, with the type of its result."""

    def __init__(self, client: Client, instance_id: str, output_type: Any) -> None:
        self._client = client
        self._output_type = output_type
        self.instance_id = instance_id

    async def wait_for_completion(self, *, timeout: timedelta | None = None) -> O_co:
        """Wait until it ends and return its result.

        Raises:
            OrchestrationFailedError: if it failed, or was terminated or cancelled.
            InstanceParkedError: if it waits for an operator.
            WaitTimeoutError: if it has not ended in time; it goes on all the same.
        """
        result: O_co = await self._client.wait_for_result(self.instance_id, self._output_type, timeout)
        return result

    async def get_status(self) -> InstanceStatus | None:
        return await self._client.get_status(self.instance_id)

    @overload
    async def raise_event(self, event: ExternalEvent[None], *, key: str | None = None) -> None: ...
    @overload
    async def raise_event(self, event: ExternalEvent[T], data: T, *, key: str | None = None) -> None: ...
    @overload
    async def raise_event(self, event: str, data: Any = None, *, key: str | None = None) -> None: ...
    async def raise_event(self, event: ExternalEvent[Any] | str, data: Any = None, *, key: str | None = None) -> None:
        await self._client.raise_event(self.instance_id, event, data, key=key)

    async def cancel(self, reason: str | None = None) -> None:
        await self._client.cancel(self.instance_id, reason)

    async def terminate(self, reason: str | None = None, *, recursive: bool = False) -> None:
        await self._client.terminate(self.instance_id, reason, recursive=recursive)

    async def suspend(self, reason: str | None = None, *, recursive: bool = False) -> None:
        await self._client.suspend(self.instance_id, reason, recursive=recursive)

    async def resume(self, reason: str | None = None, *, recursive: bool = False) -> None:
        await self._client.resume(self.instance_id, reason, recursive=recursive)

    async def query(self, name: str, input: Any = None) -> Any:
        return await self._client.query(self.instance_id, name, input)

    async def update(
        self, name: str, input: Any = None, *, update_id: str | None = None, timeout: timedelta | None = None
    ) -> Any:
        return await self._client.update(self.instance_id, name, input, update_id=update_id, timeout=timeout)

    def __repr__(self) -> str:
        return f"<OrchestrationHandle {self.instance_id!r}>"
