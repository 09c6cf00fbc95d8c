"""The part of the synchronous client that is about many orchestrations."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from holdfast.client.bridge import Bridge, iterate
from holdfast.client.instances import InstancePage, InstanceQuery
from holdfast.client.status import InstanceStatus
from holdfast.client.sync_handle import SyncOrchestrationHandle
from holdfast.model.bulk import BulkAction, BulkProgress
from holdfast.model.status import OrchestrationStatus


class SyncInstances:
    """Mixed into `SyncClient`."""

    _bridge: Bridge

    def list_instances(
        self, query: InstanceQuery | None = None, *, limit: int = 100, continuation_token: str | None = None
    ) -> InstancePage:
        """See `Client.list_instances`."""
        return self._bridge.run(
            lambda client: client.list_instances(query, limit=limit, continuation_token=continuation_token)
        )

    def iterate_instances(self, query: InstanceQuery | None = None) -> Iterator[InstanceStatus]:
        """See `Client.iterate_instances`."""
        return iterate(self._bridge, lambda client: client.iterate_instances(query))

    def count_instances(self, query: InstanceQuery | None = None) -> dict[OrchestrationStatus, int]:
        """See `Client.count_instances`."""
        return self._bridge.run(lambda client: client.count_instances(query))

    def purge(self, instance_id: str, *, if_execution: str | None = None) -> None:
        """See `Client.purge`."""
        self._bridge.run(lambda client: client.purge(instance_id, if_execution=if_execution))

    def purge_instances(self, query: InstanceQuery, *, progress: Callable[[int], None] | None = None) -> int:
        """See `Client.purge_instances`; `progress` is called in the thread of the client."""
        return self._bridge.run(lambda client: client.purge_instances(query, progress=progress))

    def start_bulk(
        self, action: BulkAction, query: InstanceQuery, reason: str | None = None
    ) -> SyncOrchestrationHandle[BulkProgress]:
        """See `Client.start_bulk`."""
        job = self._bridge.run(lambda client: client.start_bulk(action, query, reason))
        return SyncOrchestrationHandle(self._bridge, job.instance_id, BulkProgress)
