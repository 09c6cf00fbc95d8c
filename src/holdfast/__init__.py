"""Holdfast: Durable Functions for Python, without a cloud."""

from holdfast.app import App
from holdfast.client.client import Client, OrchestrationHandle
from holdfast.client.status import InstanceStatus
from holdfast.engine.activity_context import ActivityContext, activity_context
from holdfast.engine.config import HostConfig
from holdfast.errors import (
    CancelledError,
    CompensationFailedError,
    ConfigurationError,
    HoldfastError,
    HostStoppedError,
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceNotRunningError,
    InstanceParkedError,
    InvalidInputError,
    NotRegisteredError,
    OrchestrationFailedError,
    OverloadedError,
    PayloadError,
    StorageError,
    TaskFailedError,
    WaitTimeoutError,
)
from holdfast.host import Host
from holdfast.model.failure import FailureDetails
from holdfast.model.ids import EntityId
from holdfast.model.limits import Limits
from holdfast.model.refs import Activity, Entity, ExternalEvent, Orchestrator
from holdfast.model.retry import RetryContext, RetryPolicy
from holdfast.model.status import OrchestrationStatus
from holdfast.replay.context import OrchestrationContext
from holdfast.replay.races import race, select
from holdfast.replay.saga import Saga
from holdfast.replay.task_group import TaskGroup
from holdfast.replay.tasks import DurableTask, TimerTask, when_all, when_any

__version__ = "0.1.0"

__all__ = [
    "Activity",
    "ActivityContext",
    "App",
    "CancelledError",
    "Client",
    "CompensationFailedError",
    "ConfigurationError",
    "DurableTask",
    "Entity",
    "EntityId",
    "ExternalEvent",
    "FailureDetails",
    "HoldfastError",
    "Host",
    "HostConfig",
    "HostStoppedError",
    "InstanceAlreadyExistsError",
    "InstanceNotFoundError",
    "InstanceNotRunningError",
    "InstanceParkedError",
    "InstanceStatus",
    "InvalidInputError",
    "Limits",
    "NotRegisteredError",
    "OrchestrationContext",
    "OrchestrationFailedError",
    "OrchestrationHandle",
    "OrchestrationStatus",
    "Orchestrator",
    "OverloadedError",
    "PayloadError",
    "RetryContext",
    "RetryPolicy",
    "Saga",
    "StorageError",
    "TaskFailedError",
    "TaskGroup",
    "TimerTask",
    "WaitTimeoutError",
    "activity_context",
    "race",
    "select",
    "when_all",
    "when_any",
]
