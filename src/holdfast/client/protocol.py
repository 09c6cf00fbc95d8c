"""The port `TaskHub` over HTTP: which methods there are, what each takes and what it returns.

`POST {HUB_PATH}/{method}` with the arguments by name as a JSON object; 200 with the result as JSON, or the status of
an error with `{"error": ...}`. Durations are ISO 8601 (`PT2.5S`), instants RFC 3339. A method that waits does so for
`timeout`, at most `WAIT_S_MAX`; 202 means "not yet", and that one may ask again. Client and host read one table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType, NoneType
from typing import Any, Final, Generic, TypeVar

import msgspec

from holdfast.client.arguments import (
    Arguments,
    BreakLock,
    CallEntity,
    CleanEntities,
    CountInstances,
    ExportHistory,
    Fork,
    GetEntity,
    ListEntities,
    ListInstances,
    OfInstance,
    Purge,
    PurgeInstances,
    Query,
    Rewind,
    Send,
    SignalEntities,
    StartOrchestration,
    Update,
    Waiting,
    WaitUntilStopped,
)
from holdfast.client.port import TaskHub
from holdfast.client.wire_errors import WireError
from holdfast.model.exported import ExportedHistory
from holdfast.model.history import HistoryEvent, OperationAnswer, UpdateCompleted
from holdfast.model.limits import Limits
from holdfast.model.status import (
    EntitiesRemoved,
    EntityState,
    InstancesPurged,
    LockState,
    OrchestrationState,
    OrchestrationStatus,
)

HUB_PATH: Final = "/runtime/webhooks/durabletask/hub"
WAIT_S_MAX: Final = 25.0
"""How long one request may wait: less than what proxies take for a dead connection."""

A = TypeVar("A", bound=Arguments)
R = TypeVar("R")


class Refusal(msgspec.Struct, frozen=True):
    """The body of an answer that is an error of the hub."""

    error: WireError


class Method(Generic[A, R]):
    """One method of the port.

    Args:
        call: calls it on a hub, with arguments that were checked.
    """

    def __init__(
        self, name: str, arguments: type[A], result: Any, call: Callable[[TaskHub, A, Limits], Awaitable[R]]
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.call = call
        self.waits = issubclass(arguments, Waiting)
        self._decoder: msgspec.json.Decoder[R] = msgspec.json.Decoder(result)
        self._arguments_decoder = msgspec.json.Decoder(arguments)

    def decode_arguments(self, body: bytes) -> A:
        """Raises msgspec.MsgspecError, ValueError or RecursionError for what does not fit."""
        return self._arguments_decoder.decode(body or b"{}")

    def decode_result(self, body: bytes) -> R:
        """Raises as `decode_arguments` does."""
        return self._decoder.decode(body)


START: Final[Method[StartOrchestration, None]] = Method(
    "start_orchestration",
    StartOrchestration,
    NoneType,
    lambda hub, a, limits: hub.start_orchestration(a.request.checked(limits)),
)
SEND: Final[Method[Send, None]] = Method(
    "send", Send, NoneType, lambda hub, a, limits: hub.send(a.instance_id, a.checked(limits).event)
)
QUERY: Final[Method[Query, str]] = Method(
    "query", Query, str, lambda hub, a, limits: hub.query(a.instance_id, a.checked(limits).name, a.input)
)
UPDATE: Final[Method[Update, UpdateCompleted]] = Method(
    "update",
    Update,
    UpdateCompleted,
    lambda hub, a, limits: hub.update(a.instance_id, a.checked(limits).request, a.timeout),
)
REWIND: Final[Method[Rewind, None]] = Method(
    "rewind", Rewind, NoneType, lambda hub, a, limits: hub.rewind(a.instance_id, a.checked(limits).reason)
)
FORK: Final[Method[Fork, None]] = Method(
    "fork", Fork, NoneType, lambda hub, a, _: hub.fork(a.instance_id, a.new_instance_id, a.episodes)
)
SIGNAL_ENTITIES: Final[Method[SignalEntities, None]] = Method(
    "signal_entities", SignalEntities, NoneType, lambda hub, a, limits: hub.signal_entities(a.checked(limits))
)
CALL_ENTITY: Final[Method[CallEntity, OperationAnswer]] = Method(
    "call_entity",
    CallEntity,
    OperationAnswer,
    lambda hub, a, limits: hub.call_entity(a.checked(limits), a.timeout),
)
GET_ENTITY: Final[Method[GetEntity, EntityState | None]] = Method(
    "get_entity", GetEntity, EntityState | None, lambda hub, a, _: hub.get_entity(a.checked().instance_id)
)
LIST_ENTITIES: Final[Method[ListEntities, Sequence[EntityState]]] = Method(
    "list_entities",
    ListEntities,
    list[EntityState],
    lambda hub, a, _: hub.list_entities(a.checked().wanted, a.after, a.limit),
)
BREAK_LOCK: Final[Method[BreakLock, LockState | None]] = Method(
    "break_lock", BreakLock, LockState | None, lambda hub, a, _: hub.break_lock(a.checked().instance_id)
)
CLEAN_ENTITIES: Final[Method[CleanEntities, EntitiesRemoved]] = Method(
    "clean_entities",
    CleanEntities,
    EntitiesRemoved,
    lambda hub, a, _: hub.clean_entities(
        a.checked().idle_for, remove_empty=a.remove_empty, release_orphaned=a.release_orphaned
    ),
)
GET_STATE: Final[Method[OfInstance, OrchestrationState | None]] = Method(
    "get_state", OfInstance, OrchestrationState | None, lambda hub, a, _: hub.get_state(a.instance_id)
)
GET_HISTORY: Final[Method[OfInstance, Sequence[HistoryEvent]]] = Method(
    "get_history", OfInstance, list[HistoryEvent], lambda hub, a, _: hub.get_history(a.instance_id)
)
EXPORT_HISTORY: Final[Method[ExportHistory, ExportedHistory]] = Method(
    "export_history",
    ExportHistory,
    ExportedHistory,
    lambda hub, a, _: hub.export_history(a.checked().instance_id, first=a.first, limit=a.limit),
)
WAIT_UNTIL_STOPPED: Final[Method[WaitUntilStopped, OrchestrationState]] = Method(
    "wait_until_stopped",
    WaitUntilStopped,
    OrchestrationState,
    lambda hub, a, _: hub.wait_until_stopped(a.instance_id, a.timeout),
)
LIST_INSTANCES: Final[Method[ListInstances, Sequence[OrchestrationState]]] = Method(
    "list_instances",
    ListInstances,
    list[OrchestrationState],
    lambda hub, a, limits: hub.list_instances(a.checked(limits).wanted, a.after, a.limit),
)
COUNT_INSTANCES: Final[Method[CountInstances, dict[OrchestrationStatus, int]]] = Method(
    "count_instances",
    CountInstances,
    dict[OrchestrationStatus, int],
    lambda hub, a, limits: hub.count_instances(a.checked_filter(limits)),
)
PURGE: Final[Method[Purge, None]] = Method(
    "purge", Purge, NoneType, lambda hub, a, _: hub.purge(a.checked().instance_id, a.if_execution)
)
PURGE_INSTANCES: Final[Method[PurgeInstances, InstancesPurged]] = Method(
    "purge_instances",
    PurgeInstances,
    InstancesPurged,
    lambda hub, a, limits: hub.purge_instances(a.checked(limits).wanted, a.after, a.limit),
)

METHODS: Final[Mapping[str, Method[Any, Any]]] = MappingProxyType(
    {
        method.name: method
        for method in (
            START,
            SEND,
            QUERY,
            UPDATE,
            REWIND,
            FORK,
            SIGNAL_ENTITIES,
            CALL_ENTITY,
            GET_ENTITY,
            LIST_ENTITIES,
            BREAK_LOCK,
            CLEAN_ENTITIES,
            GET_STATE,
            GET_HISTORY,
            EXPORT_HISTORY,
            WAIT_UNTIL_STOPPED,
            LIST_INSTANCES,
            COUNT_INSTANCES,
            PURGE,
            PURGE_INSTANCES,
        )
    }
)
"""By name."""


def bounded_wait(timeout: timedelta | None) -> timedelta:
    """Return how long one request waits of what its caller would wait."""
    most = timedelta(seconds=WAIT_S_MAX)
    return most if timeout is None else min(max(timeout, timedelta(0)), most)
