"""What `import holdfast` offers, and what it costs."""

from __future__ import annotations

import ast
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

SERVER = {"starlette", "uvicorn", "anyio", "holdfast.http", "holdfast.cli"}
OUTGOING = {"httpx", "httpcore"}
ENGINE = {"holdfast.engine.engine", "holdfast.hub", "holdfast.storage", "sqlite3", "asyncpg", "multiprocessing"}
CODE = {"holdfast.app", "holdfast.registry", "holdfast.replay"}
SLOW = {"asyncio", "ssl", "email", "logging", "typer", "rich", "pydantic"}
"""What takes longer to import than a client, or is not even a dependency."""

NOT_IMPORTED = {
    "import holdfast": SERVER | OUTGOING | ENGINE | CODE | SLOW | {"msgspec", "holdfast.model", "holdfast.client"},
    "from holdfast import App, Entity, HostConfig, OrchestrationContext, when_all": SERVER | OUTGOING | ENGINE | SLOW,
    "from holdfast import Client, SyncClient, connect": SERVER | OUTGOING | ENGINE | CODE | SLOW,
    "from holdfast import *": SERVER | OUTGOING | {"asyncpg", "typer", "rich", "pydantic"},
    "import holdfast.testing.plugin": SERVER | OUTGOING | ENGINE | CODE | {"holdfast.model", "holdfast.client"},
    "import holdfast.cli.main": SERVER - {"holdfast.cli"} | OUTGOING | {"asyncpg", "holdfast.engine.engine"},
}


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


@pytest.mark.parametrize("program", NOT_IMPORTED)
def test_an_import_brings_in_no_more_than_it_needs(program: str) -> None:
    """Nobody pays at the start for what is used later, or never: by the modules, since times say little in a test."""
    listing = f"{program}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True, timeout=60)
    imported = set(done.stdout.split())
    assert "holdfast" in imported
    assert imported & NOT_IMPORTED[program] == set()


def test_each_public_name_comes_from_where_a_type_checker_finds_it() -> None:
    """The names are in the module twice: as imports for type checkers and editors, and as the table of what is lazy."""
    tree = ast.parse(inspect.getsource(holdfast))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 0]
    seen = {(node.module, name.name) for node in imports for name in node.names if "holdfast" in str(node.module)}
    table = holdfast._MODULES  # pyright: ignore[reportPrivateUsage]
    assert seen == {(f"holdfast.{module}", name) for module, names in table.items() for name in names.split()}
    assert {name for _, name in seen} == PUBLIC


def test_a_name_that_is_not_there_is_an_attribute_error_and_the_others_are_listed() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Orchestration'"):
        _ = holdfast.Orchestration  # pyright: ignore
    assert set(dir(holdfast)) > PUBLIC | {"__version__"}
