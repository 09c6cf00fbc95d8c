"""The part of the client that lets orchestrations live again: rewind, restart, fork."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from holdfast.client.port import TaskHub
from holdfast.errors import (
    InstanceAlreadyExistsError,
    InstanceNotFoundError,
    InstanceNotRunningError,
    InvalidInputError,
)
from holdfast.model.converter import DataConverter
from holdfast.model.ids import NewId, validate_instance_id
from holdfast.model.requests import StartRequest

if TYPE_CHECKING:
    from holdfast.client.client import OrchestrationHandle


class Lifecycle:
    """Mixed into `Client`."""

    _hub: TaskHub
    _converter: DataConverter
    _new_id: NewId

    async def rewind(self, instance_id: str, reason: str | None = None) -> None:
        """Let an orchestration that has failed go on from just before what made it fail.

        What failed runs again: activities, entity operations, and sub-orchestrations, which are rewound in their turn.
        What succeeded does not. If its own code raised, the last step runs again, with the code of today.

        Raises:
            InstanceNotFoundError: if there is no such instance.
            InstanceNotRunningError: if it has not failed.
            RewindRefusedError: if it failed in a critical section, or beside a call of an entity.
        """
        await self._hub.rewind(instance_id, None if reason is None else self._converter.encode(reason))

    async def restart(self, instance_id: str, *, with_new_id: bool = True) -> OrchestrationHandle[Any]:
        """Start an orchestration again from its beginning, with the name, input, version and tags that it has.

        After `continue_as_new` its input is that of the latest execution. Its `run_timeout` and its parent are not
        taken over.

        Args:
            with_new_id: let the old instance be; otherwise it must have ended, and is replaced.

        Raises:
            InstanceNotFoundError: if there is no such instance.
            InstanceNotRunningError: if it is to be replaced, but has not ended.
            NotRegisteredError: if the app has no such orchestrator any more.
        """
        state = await self._hub.get_state(validate_instance_id(instance_id))
        if state is None:
            raise InstanceNotFoundError(instance_id)
        if not with_new_id and not state.runtime_status.is_terminal:
            raise InstanceNotRunningError(instance_id, state.runtime_status.value, "restart")
        request = StartRequest(
            name=state.name,
            instance_id=self._new_id() if with_new_id else instance_id,
            input=state.input,
            version=state.version,
            tags=state.tags,
            is_new_id=with_new_id,
            is_restart=not with_new_id,
        )
        try:
            await self._hub.start_orchestration(request)
        except InstanceAlreadyExistsError as error:
            raise InstanceNotRunningError(instance_id, error.status, "restart") from error
        return self._handle(request.instance_id)

    async def fork(
        self, instance_id: str, *, new_instance_id: str | None = None, episode: int | None = None
    ) -> OrchestrationHandle[Any]:
        """Begin a new orchestration with the beginning of the history of another one, which goes on unharmed.

        What had been asked for by then, and was not answered, is asked for anew: activities, timers, operations of
        entities, sub-orchestrations. What the original was sent after that is not taken over.

        Args:
            new_instance_id: an id that no instance has; None for a new one.
            episode: how many episodes to take over, that is, `OrchestratorStarted` events of its history; None for all
                but the one that ended it.

        Raises:
            InstanceNotFoundError: if there is no such instance.
            InstanceAlreadyExistsError: if an instance has the new id.
            InvalidInputError: if there are not so many episodes.
            RewindRefusedError: if it was in a critical section there.
        """
        if episode is not None and (isinstance(episode, bool) or not isinstance(episode, int)):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
            raise InvalidInputError(f"episode={episode!r} must be a number of episodes.")
        new_id = self._new_id() if new_instance_id is None else validate_instance_id(new_instance_id)
        await self._hub.fork(instance_id, new_id, episode)
        return self._handle(new_id)

    @abstractmethod
    def _handle(self, instance_id: str, output_type: Any = Any) -> OrchestrationHandle[Any]: ...
