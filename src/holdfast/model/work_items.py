"""Work items: what the hub asks user code to do, and what comes back. A worker may be in this process or in another."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final, TypeAlias

import msgspec

from holdfast.model.actions import EntityAction, OrchestratorAction
from holdfast.model.failure import FailureDetails
from holdfast.model.history import EntityOperationCalled, EntityOperationSignaled, HistoryEvent


class OrchestrationWorkItem(msgspec.Struct, frozen=True, gc=False):
    """One episode: the new events of one execution, to be run after its past ones.

    `new_events` begins with `OrchestratorStarted`. The past is fetched by the worker when it holds no live
    coroutine that has seen exactly `past_episodes` episodes.
    """

    instance_id: str
    execution_id: str
    name: str
    past_episodes: int
    new_events: tuple[HistoryEvent, ...]
    version: str | None = None


class Episode(msgspec.Struct, frozen=True, gc=False):
    """What one episode of an orchestrator asked for. `custom_status` is None when it set none.

    `events_buffered` counts the external events that nobody waits for yet; `events_awaited` are the names that the code
    waits for, each once, not more than `EVENTS_AWAITED_MAX`.
    """

    actions: tuple[OrchestratorAction, ...]
    custom_status: str | None = None
    events_buffered: int = 0
    events_awaited: tuple[str, ...] = ()


class Blocked(msgspec.Struct, frozen=True, gc=False):
    """The episode could not be run, for a reason that an operator or a deploy can mend; nothing of it counts."""

    details: FailureDetails


class VersionRejected(msgspec.Struct, frozen=True, gc=False):
    """The episode is for code of another version: it waits, untouched, until a host has that."""


EpisodeResult: TypeAlias = Episode | Blocked | VersionRejected


COMMITTED_ATTEMPT: Final = 0
"""The number of whichever attempt has committed, in the report of a transactional activity: it counts in any case."""


class ActivityWorkItem(msgspec.Struct, frozen=True, gc=False):
    """One attempt of one activity. `attempt` starts at 1; `deliveries` counts starts that may have killed a process."""

    instance_id: str
    execution_id: str
    sequence: int
    name: str
    input: str | None
    attempt: int = 1
    deliveries: int = 0
    timeout: timedelta | None = None
    start_by: datetime | None = None
    heartbeat_timeout: timedelta | None = None
    tags: dict[str, str] = {}
    progress: str | None = None
    """What an earlier attempt reported last, as JSON."""
    version: str | None = None
    call_id: str | None = None
    """What names the call to the outside world, if that is not its execution and sequence number."""
    queue: str | None = None


class Succeeded(msgspec.Struct, frozen=True, gc=False):
    """`result` is JSON; None for a function that has no result to speak of never occurs: that is JSON null."""

    result: str | None


class Failed(msgspec.Struct, frozen=True, gc=False):
    """`progress` is what the attempt reported last, as JSON, if it did."""

    details: FailureDetails
    progress: str | None = None


Outcome: TypeAlias = Succeeded | Failed

EntityOperation: TypeAlias = EntityOperationCalled | EntityOperationSignaled


class OperationSucceeded(msgspec.Struct, frozen=True, gc=False):
    """`result` is JSON; `actions` are what the operation sends, in order."""

    result: str | None
    actions: tuple[EntityAction, ...] = ()


OperationOutcome: TypeAlias = OperationSucceeded | Failed


class EntityWorkItem(msgspec.Struct, frozen=True, gc=False):
    """A batch of operations for one entity, in order. `state` is JSON; None means that the entity does not exist.

    `identity` differs for each batch of each entity: ids of what the batch starts are made of it.
    """

    instance_id: str
    name: str
    key: str
    state: str | None
    state_version: str | None
    operations: tuple[EntityOperation, ...]
    now: datetime
    identity: str


class EntityBatch(msgspec.Struct, frozen=True, gc=False):
    """An outcome for each of the first operations, at least for one, and the state after the last of these.

    The other operations have not been run: the batch had become too large.
    """

    outcomes: tuple[OperationOutcome, ...]
    state: str | None
    state_version: str | None = None
