"""The worker in this process: runs episodes and entity batches with the app's functions, and keeps what is live."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from holdfast.engine.config import HostConfig
from holdfast.engine.exports import code_for, decode_episode
from holdfast.errors import (
    CorruptRecordError,
    NonDeterminismError,
    NotRegisteredError,
    PayloadError,
    VersionMismatchError,
)
from holdfast.hub.instance import Instance
from holdfast.model.actions import CompleteOrchestration
from holdfast.model.converter import DataConverter
from holdfast.model.failure import FailureDetails, failure_from_exception
from holdfast.model.refs import FunctionReference, decode_input
from holdfast.model.status import OrchestrationStatus
from holdfast.model.work_items import (
    Blocked,
    EntityBatch,
    EntityWorkItem,
    Episode,
    EpisodeResult,
    Failed,
    OrchestrationWorkItem,
    VersionRejected,
)
from holdfast.registry.registry import Registry
from holdfast.replay.context import OrchestrationContext
from holdfast.replay.entity import BatchRun, LiveState
from holdfast.replay.orchestration import Execution

logger = logging.getLogger("holdfast.engine")


class Worker:
    """Runs user code of orchestrators, synchronously: such code never waits. Makes entity batches ready to run.

    An execution that is live goes on where it stands; otherwise it is replayed from its history first.
    """

    def __init__(
        self,
        registry: Registry,
        converter: DataConverter,
        config: HostConfig,
        may_be_known_elsewhere: Callable[[str, str], bool],
    ) -> None:
        """Run nothing yet.

        Args:
            may_be_known_elsewhere: whether another host may have an orchestrator that this one lacks, given its name
                and the id of an instance of it, which waits then.
        """
        self._registry = registry
        self._converter = converter
        self._limits = config.limits
        self._config = config
        self._may_be_known_elsewhere = may_be_known_elsewhere
        self._warned_of: set[tuple[str, str | None]] = set()

    def check_input(self, function: FunctionReference, input: str | None) -> None:
        """Raise PayloadError if an input does not fit the type that a function declares for it."""
        if not function.has_input:
            if input not in (None, "null"):
                raise PayloadError(f"{function!r} takes no input; it got {input[:80]}.")
        elif input is not None or function.input_required:
            decode_input(self._converter, function, input)

    def run_episode(
        self, work_item: OrchestrationWorkItem, live: Execution | None, history: Sequence[str] | None
    ) -> tuple[EpisodeResult, Execution | None]:
        """Run one episode; return its result, and the execution as it lives on.

        Args:
            live: the execution after exactly `past_episodes` episodes, if it is in memory.
            history: otherwise the rows of those episodes; empty for a new execution.
        """
        try:
            if live is None:
                live = self._begin(work_item, history or ())
            return live.run(work_item.new_events), live
        except NotRegisteredError as error:
            if self._may_be_known_elsewhere(work_item.name, work_item.instance_id):
                return VersionRejected(), None
            return _unknown(work_item, error), None
        except VersionMismatchError as error:
            return self._mismatch(work_item, error), None
        except (NonDeterminismError, CorruptRecordError) as error:
            return Blocked(failure_from_exception(error)), None

    def revive(self, instance: Instance, history: Sequence[str]) -> Execution:
        """Return the live execution of an instance, replayed from its history.

        Raises:
            NonDeterminismError, CorruptRecordError, NotRegisteredError, VersionMismatchError.
        """
        item = OrchestrationWorkItem(
            instance.instance_id, instance.execution_id, instance.name, instance.episodes, (), instance.version
        )
        return self._begin(item, history)

    def _begin(self, work_item: OrchestrationWorkItem, history: Sequence[str]) -> Execution:
        """Return an execution that has replayed its past episodes."""
        orchestrator = code_for(self._registry, self._config, work_item.instance_id, work_item.name, work_item.version)
        execution = Execution(
            orchestrator,
            work_item.instance_id,
            work_item.execution_id,
            self._converter,
            self._limits,
            OrchestrationContext,
        )
        try:
            _replay(execution, work_item.past_episodes, history)
        except Exception:
            execution.unload()
            raise
        return execution

    def _mismatch(self, work_item: OrchestrationWorkItem, error: VersionMismatchError) -> Episode | VersionRejected:
        if self._config.version_failure == "reject":
            if (work_item.name, work_item.version) not in self._warned_of:
                self._warned_of.add((work_item.name, work_item.version))
                logger.warning("%s It waits, like all others of this version.", error)
            return VersionRejected()
        return _failed(failure_from_exception(error, non_retriable=True))

    def begin_batch(self, work_item: EntityWorkItem, live: LiveState | None) -> BatchRun | EntityBatch | Blocked:
        """Return a batch of entity operations, ready to run.

        For an unknown entity it fails; with a state that this app cannot read, the entity waits for the code that can.
        """
        try:
            entity = self._registry.entity(work_item.name)
        except NotRegisteredError as error:
            details = failure_from_exception(error)
            if work_item.state is not None:
                return Blocked(details)
            return EntityBatch(tuple(Failed(details) for _ in work_item.operations), None)
        try:
            return BatchRun(work_item, entity, self._converter, self._limits, live)
        except Exception as error:  # also of the user's upgrade_state
            return Blocked(failure_from_exception(error))

    def may_wait(self, work_item: EntityWorkItem) -> bool:
        """Whether a batch has an operation that is `async def`."""
        entity = self._registry.entity(work_item.name)
        return any(entity.is_async(each.operation) for each in work_item.operations)


def _replay(execution: Execution, past_episodes: int, history: Sequence[str]) -> None:
    if len(history) != past_episodes:
        raise CorruptRecordError(
            f"The history of instance {execution.instance_id!r} has {len(history)} episodes stored, "
            f"but {past_episodes} are recorded for it."
        )
    for episode, text in enumerate(history):
        execution.replay([decode_episode(execution.instance_id, episode, text)])


def _unknown(work_item: OrchestrationWorkItem, error: NotRegisteredError) -> Episode | Blocked:
    """A new instance of an unknown orchestrator fails; one with a past waits for the code to come back."""
    details = failure_from_exception(error)
    return Blocked(details) if work_item.past_episodes else _failed(details)


def _failed(details: FailureDetails) -> Episode:
    return Episode((CompleteOrchestration(OrchestrationStatus.FAILED, failure=details),))
