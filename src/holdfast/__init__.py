"""Holdfast: Durable Functions for Python, without a cloud."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.app import App
    from holdfast.client.client import Client
    from holdfast.client.connection import connect
    from holdfast.client.entity_status import EntityPage, EntityQuery, EntitySignal, EntityStatus
    from holdfast.client.handle import OrchestrationHandle
    from holdfast.client.instances import InstancePage, InstanceQuery
    from holdfast.client.status import InstanceStatus
    from holdfast.client.sync import SyncClient
    from holdfast.client.sync_handle import SyncOrchestrationHandle
    from holdfast.durable_http.policy import HttpCallPolicy
    from holdfast.engine.activity_context import ActivityContext, activity_context
    from holdfast.engine.config import HostConfig
    from holdfast.errors import (
        CancelledError,
        CommitFailedError,
        CompensationFailedError,
        ConfigurationError,
        DurableHttpError,
        ForbiddenAddressError,
        HoldfastError,
        HostStoppedError,
        HostUnreachableError,
        InstanceAlreadyExistsError,
        InstanceNotEndedError,
        InstanceNotFoundError,
        InstanceNotRunningError,
        InstanceParkedError,
        InvalidInputError,
        LockingRulesError,
        LockLostError,
        NonDeterminismError,
        NotRegisteredError,
        OrchestrationFailedError,
        OrchestratorMisuseError,
        OverloadedError,
        PayloadError,
        PayloadTooLargeError,
        QueryFailedError,
        RewindRefusedError,
        StorageError,
        TaskFailedError,
        UpdateRejectedError,
        VersionMismatchError,
        WaitTimeoutError,
    )
    from holdfast.host import Host
    from holdfast.model.access import AccessKey
    from holdfast.model.bulk import BulkProgress
    from holdfast.model.entities import Entity, EntityFunction
    from holdfast.model.failure import FailureDetails
    from holdfast.model.http_call import DurableHttpResponse
    from holdfast.model.ids import EntityId
    from holdfast.model.limits import Limits
    from holdfast.model.refs import Activity, ExternalEvent, Orchestrator
    from holdfast.model.requests import IdPolicy
    from holdfast.model.retry import RetryContext, RetryPolicy
    from holdfast.model.status import EntitiesRemoved, LockState, OrchestrationStatus
    from holdfast.outbox.outbox import Outbox, SyncOutbox
    from holdfast.replay.context import OrchestrationContext
    from holdfast.replay.entity_context import EntityContext, entity_context
    from holdfast.replay.open_tasks import TimerTask
    from holdfast.replay.races import race, select
    from holdfast.replay.saga import Saga
    from holdfast.replay.task_group import TaskGroup
    from holdfast.replay.tasks import DurableTask, when_all, when_any

__version__ = "0.1.0"

__all__ = [
    "AccessKey",
    "Activity",
    "ActivityContext",
    "App",
    "BulkProgress",
    "CancelledError",
    "Client",
    "CommitFailedError",
    "CompensationFailedError",
    "ConfigurationError",
    "DurableHttpError",
    "DurableHttpResponse",
    "DurableTask",
    "EntitiesRemoved",
    "Entity",
    "EntityContext",
    "EntityFunction",
    "EntityId",
    "EntityPage",
    "EntityQuery",
    "EntitySignal",
    "EntityStatus",
    "ExternalEvent",
    "FailureDetails",
    "ForbiddenAddressError",
    "HoldfastError",
    "Host",
    "HostConfig",
    "HostStoppedError",
    "HostUnreachableError",
    "HttpCallPolicy",
    "IdPolicy",
    "InstanceAlreadyExistsError",
    "InstanceNotEndedError",
    "InstanceNotFoundError",
    "InstanceNotRunningError",
    "InstancePage",
    "InstanceParkedError",
    "InstanceQuery",
    "InstanceStatus",
    "InvalidInputError",
    "Limits",
    "LockLostError",
    "LockState",
    "LockingRulesError",
    "NonDeterminismError",
    "NotRegisteredError",
    "OrchestrationContext",
    "OrchestrationFailedError",
    "OrchestrationHandle",
    "OrchestrationStatus",
    "Orchestrator",
    "OrchestratorMisuseError",
    "Outbox",
    "OverloadedError",
    "PayloadError",
    "PayloadTooLargeError",
    "QueryFailedError",
    "RetryContext",
    "RetryPolicy",
    "RewindRefusedError",
    "Saga",
    "StorageError",
    "SyncClient",
    "SyncOrchestrationHandle",
    "SyncOutbox",
    "TaskFailedError",
    "TaskGroup",
    "TimerTask",
    "UpdateRejectedError",
    "VersionMismatchError",
    "WaitTimeoutError",
    "activity_context",
    "connect",
    "entity_context",
    "race",
    "select",
    "when_all",
    "when_any",
]

_MODULES = {
    "app": "App",
    "client.client": "Client",
    "client.connection": "connect",
    "client.entity_status": "EntityPage EntityQuery EntitySignal EntityStatus",
    "client.handle": "OrchestrationHandle",
    "client.instances": "InstancePage InstanceQuery",
    "client.status": "InstanceStatus",
    "client.sync": "SyncClient",
    "client.sync_handle": "SyncOrchestrationHandle",
    "durable_http.policy": "HttpCallPolicy",
    "engine.activity_context": "ActivityContext activity_context",
    "engine.config": "HostConfig",
    "errors": "CancelledError CommitFailedError CompensationFailedError ConfigurationError DurableHttpError "
    "ForbiddenAddressError HoldfastError HostStoppedError HostUnreachableError InstanceAlreadyExistsError "
    "InstanceNotEndedError InstanceNotFoundError InstanceNotRunningError InstanceParkedError "
    "InvalidInputError LockingRulesError LockLostError NonDeterminismError NotRegisteredError "
    "OrchestrationFailedError OrchestratorMisuseError OverloadedError PayloadError PayloadTooLargeError "
    "QueryFailedError RewindRefusedError StorageError TaskFailedError UpdateRejectedError "
    "VersionMismatchError WaitTimeoutError",
    "host": "Host",
    "model.access": "AccessKey",
    "model.bulk": "BulkProgress",
    "model.entities": "Entity EntityFunction",
    "model.failure": "FailureDetails",
    "model.http_call": "DurableHttpResponse",
    "model.ids": "EntityId",
    "model.limits": "Limits",
    "model.refs": "Activity ExternalEvent Orchestrator",
    "model.requests": "IdPolicy",
    "model.retry": "RetryContext RetryPolicy",
    "model.status": "EntitiesRemoved LockState OrchestrationStatus",
    "outbox.outbox": "Outbox SyncOutbox",
    "replay.context": "OrchestrationContext",
    "replay.entity_context": "EntityContext entity_context",
    "replay.open_tasks": "TimerTask",
    "replay.races": "race select",
    "replay.saga": "Saga",
    "replay.task_group": "TaskGroup",
    "replay.tasks": "DurableTask when_all when_any",
}
"""Where each name comes from, as above."""


def __getattr__(name: str) -> object:
    """Import what is asked for, and no more: a client needs no engine, and an app no host until it has one."""
    for module, names in _MODULES.items():
        if name in names.split():
            value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
