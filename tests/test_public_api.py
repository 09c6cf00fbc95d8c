"""What `import holdfast` offers, and what it costs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

import holdfast
from holdfast import errors

PUBLIC = {
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
}

HEAVY = {"starlette", "uvicorn", "typer", "httpx", "httpcore", "anyio", "pydantic"}


def test_the_public_names_are_these_and_sorted() -> None:
    """A name that is added or taken away is a decision; it is made here too."""
    assert list(holdfast.__all__) == sorted(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_is_documented(name: str) -> None:
    # Not inspect.getdoc(), which would find the docstring of a base class.
    docstring = getattr(holdfast, name).__doc__
    assert docstring
    assert inspect.cleandoc(docstring).splitlines()[0].endswith((".", ":"))


def test_every_public_error_is_a_holdfast_error() -> None:
    errors = {name for name in PUBLIC if name.endswith("Error")}
    others = {name for name in errors if not issubclass(getattr(holdfast, name), holdfast.HoldfastError)}
    assert others == {"CancelledError"}  # no Exception at all, so that nobody swallows a cancellation by accident


def test_the_tree_of_errors_in_the_docstring_is_the_one_in_the_code() -> None:
    above: list[str] = []
    drawn: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ((?:│   |    )*)(├── |└── )?(\w+)", line)
        if found is None:
            continue
        depth = len(found[1]) // 4 + bool(found[2])
        del above[depth:]
        if above:
            drawn[found[3]] = above[-1]
        above.append(found[3])
    declared = {
        name: cls.__mro__[1].__name__
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and cls.__module__ == errors.__name__ and cls is not errors.HoldfastError
    }
    assert drawn == declared


def test_the_import_brings_in_nothing_heavy() -> None:
    """A program that does not serve HTTP must not pay for it when it starts; pydantic is not even a dependency."""
    listing = "import sys, holdfast; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True, timeout=60)
    imported = set(done.stdout.split())
    assert "holdfast" in imported
    assert imported & HEAVY == set()
