"""The client for code without an event loop: scripts, Flask, Django."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack, overload

from holdfast.client.bridge import Bridge
from holdfast.client.client import Client
from holdfast.client.connection import ConnectOptions, check_connection, connect
from holdfast.client.handle import OrchestrationHandle
from holdfast.client.status import InstanceStatus
from holdfast.client.sync_entities import SyncEntityOperations
from holdfast.client.sync_handle import SyncOrchestrationHandle
from holdfast.client.sync_instances import SyncInstances
from holdfast.model.history import HistoryEvent
from holdfast.model.ids import validate_instance_id
from holdfast.model.options import StartOptions
from holdfast.model.refs import NO_INPUT, ExternalEvent, Orchestrator

if TYPE_CHECKING:
    import asyncio

I = TypeVar("I")  # noqa: E741 - input and output, as everywhere in the typed API
O = TypeVar("O")  # noqa: E741
O_co = TypeVar("O_co", covariant=True)
T = TypeVar("T")


class Entered(Protocol):
    """What a host is when it is entered."""

    @property
    def client(self) -> Client: ...


class SyncClient(SyncEntityOperations, SyncInstances):
    """The methods of `Client`, blocking, from any thread: made by `SyncClient.connect`, `.hosting` or a running host.

    It is a context manager; `close` does the same. Interrupted, a method gives up waiting, and the request may have
    been done.
    """

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    @staticmethod
    def connect(url: str, **options: Unpack[ConnectOptions]) -> SyncClient:
        """Return a client of a host elsewhere; see `holdfast.connect` for the options and the errors.

        It connects with the first request, so it may be made before a server forks its workers.
        """
        from holdfast.client.threads import ThreadBridge

        check_connection(url, options)
        return SyncClient(ThreadBridge(lambda: connect(url, **options)))

    @staticmethod
    def hosting(host: AbstractAsyncContextManager[Entered]) -> SyncClient:
        """Run a host in a thread of this process until the client is closed, and return its client.

        It begins at once: what keeps the host from starting is raised here.
        """
        from holdfast.client.threads import ThreadBridge

        @asynccontextmanager
        async def entered() -> AsyncGenerator[Client]:
            async with host as running:
                yield running.client

        bridge = ThreadBridge(entered)
        bridge.open()
        return SyncClient(bridge)

    @staticmethod
    def on_loop(client: Client, loop: asyncio.AbstractEventLoop) -> SyncClient:
        """Return a client for the other threads of a program whose event loop has an async one."""
        from holdfast.client.threads import LoopBridge

        return SyncClient(LoopBridge(client, loop))

    def close(self) -> None:
        """Close the connections, or stop the host that it runs. May be called twice."""
        self._bridge.close()

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @overload
    def start_new(
        self, orchestrator: Orchestrator[None, O], /, **options: Unpack[StartOptions]
    ) -> SyncOrchestrationHandle[O]: ...
    @overload
    def start_new(
        self, orchestrator: Orchestrator[I, O], input: I, /, **options: Unpack[StartOptions]
    ) -> SyncOrchestrationHandle[O]: ...
    @overload
    def start_new(
        self, orchestrator: str, input: Any = ..., /, **options: Unpack[StartOptions]
    ) -> SyncOrchestrationHandle[Any]: ...
    def start_new(
        self, orchestrator: Orchestrator[Any, Any] | str, input: Any = NO_INPUT, /, **options: Unpack[StartOptions]
    ) -> SyncOrchestrationHandle[Any]:
        """See `Client.start_new`."""
        started = self._bridge.run(lambda client: client.start_new(orchestrator, input, **options))
        output_type: Any = Any if isinstance(orchestrator, str) else orchestrator.output_type
        return SyncOrchestrationHandle(self._bridge, started.instance_id, output_type)

    def get_handle(self, orchestrator: Orchestrator[Any, O], instance_id: str) -> SyncOrchestrationHandle[O]:
        """See `Client.get_handle`."""
        return SyncOrchestrationHandle(self._bridge, validate_instance_id(instance_id), orchestrator.output_type)

    def get_status(self, instance_id: str) -> InstanceStatus | None:
        """See `Client.get_status`."""
        return self._bridge.run(lambda client: client.get_status(instance_id))

    def get_history(self, instance_id: str) -> Sequence[HistoryEvent]:
        """See `Client.get_history`."""
        return self._bridge.run(lambda client: client.get_history(instance_id))

    def export_history(self, instance_id: str) -> str:
        """See `Client.export_history`."""
        return self._bridge.run(lambda client: client.export_history(instance_id))

    def wait_for_completion(self, instance_id: str, *, timeout: timedelta | None = None) -> Any:
        """See `Client.wait_for_completion`."""
        return self._bridge.run(lambda client: client.wait_for_completion(instance_id, timeout=timeout))

    def wait_until_stopped(self, instance_id: str, *, timeout: timedelta | None = None) -> InstanceStatus:
        """See `Client.wait_until_stopped`."""
        return self._bridge.run(lambda client: client.wait_until_stopped(instance_id, timeout=timeout))

    def wait_for_result(self, instance_id: str, output_type: Any, timeout: timedelta | None) -> Any:
        return self._bridge.run(lambda client: client.wait_for_result(instance_id, output_type, timeout))

    @overload
    def raise_event(self, instance_id: str, event: ExternalEvent[None], *, key: str | None = None) -> None: ...
    @overload
    def raise_event(self, instance_id: str, event: ExternalEvent[T], data: T, *, key: str | None = None) -> None: ...
    @overload
    def raise_event(self, instance_id: str, event: str, data: Any = None, *, key: str | None = None) -> None: ...
    def raise_event(
        self, instance_id: str, event: ExternalEvent[Any] | str, data: Any = None, *, key: str | None = None
    ) -> None:
        """See `Client.raise_event`."""
        self._bridge.run(lambda client: client.raise_event(instance_id, event, data, key=key))

    def cancel(self, instance_id: str, reason: str | None = None) -> None:
        """See `Client.cancel`."""
        self._bridge.run(lambda client: client.cancel(instance_id, reason))

    def terminate(self, instance_id: str, reason: str | None = None, *, recursive: bool = False) -> None:
        """See `Client.terminate`."""
        self._bridge.run(lambda client: client.terminate(instance_id, reason, recursive=recursive))

    def suspend(self, instance_id: str, reason: str | None = None, *, recursive: bool = False) -> None:
        """See `Client.suspend`."""
        self._bridge.run(lambda client: client.suspend(instance_id, reason, recursive=recursive))

    def resume(self, instance_id: str, reason: str | None = None, *, recursive: bool = False) -> None:
        """See `Client.resume`."""
        self._bridge.run(lambda client: client.resume(instance_id, reason, recursive=recursive))

    def query(self, instance_id: str, name: str, input: Any = None) -> Any:
        """See `Client.query`."""
        return self._bridge.run(lambda client: client.query(instance_id, name, input))

    def update(
        self,
        instance_id: str,
        name: str,
        input: Any = None,
        *,
        update_id: str | None = None,
        timeout: timedelta | None = None,
    ) -> Any:
        """See `Client.update`."""
        return self._bridge.run(
            lambda client: client.update(instance_id, name, input, update_id=update_id, timeout=timeout)
        )

    def rewind(self, instance_id: str, reason: str | None = None) -> None:
        """See `Client.rewind`."""
        self._bridge.run(lambda client: client.rewind(instance_id, reason))

    def restart(self, instance_id: str, *, with_new_id: bool = True) -> SyncOrchestrationHandle[Any]:
        """See `Client.restart`."""
        return self._handle(self._bridge.run(lambda client: client.restart(instance_id, with_new_id=with_new_id)))

    def fork(
        self, instance_id: str, *, new_instance_id: str | None = None, episode: int | None = None
    ) -> SyncOrchestrationHandle[Any]:
        """See `Client.fork`."""
        return self._handle(
            self._bridge.run(lambda client: client.fork(instance_id, new_instance_id=new_instance_id, episode=episode))
        )

    def _handle(self, handle: OrchestrationHandle[Any]) -> SyncOrchestrationHandle[Any]:
        return SyncOrchestrationHandle(self._bridge, handle.instance_id, Any)
